//! `maitred reload` and `maitred restart`: replace the running workers.

use super::apps::start;
use super::tell::{self, Them};
use crate::control::client::{ClientError, Patience};
use crate::control::{Request, Until};
use crate::core::fleet::Manner;
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    them: Them,

    /// Wait until the new workers serve, and fail if they do not
    #[arg(long)]
    wait: bool,

    /// Start all new workers, then let them serve and drain the old ones, all at once
    #[arg(long)]
    fleet: bool,
}

#[derive(Debug, Args)]
pub struct RestartArgs {
    #[command(flatten)]
    them: Them,

    /// Wait until the new workers serve, and fail if they do not
    #[arg(long)]
    wait: bool,
}

/// Starts new workers before the old ones leave.
pub fn main(args: &ReloadArgs) -> ExitCode {
    let manner = if args.fleet { Manner::Fleet } else { Manner::Rolling };
    ask(&args.them, manner, args.wait)
}

/// Lets the old workers leave first.
pub fn restart(args: &RestartArgs) -> ExitCode {
    ask(&args.them, Manner::Restart, args.wait)
}

/// An app that is remembered and does not run is started, as PM2 does it.
fn ask(them: &Them, manner: Manner, wait: bool) -> ExitCode {
    let (until, patience) = if wait { (Until::Done, Patience::Endless) } else { (Until::Accepted, Patience::Short) };
    tell::each(them, |one| match tell::ask_there(&one.name, &one.path, &Request::Reload { manner, until }, patience) {
        Err(ClientError::NotRunning { .. }) if one.remembered => {
            start::start(&one.name).map_err(|failure| failure.said)
        }
        said => said.map_err(|error| error.to_string()),
    })
}
