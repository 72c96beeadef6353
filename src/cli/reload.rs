//! `maitred reload` and `maitred restart`: replace the running workers.

use super::tell::{Whom, tell};
use crate::control::client::Patience;
use crate::control::{Request, Until};
use crate::core::fleet::Manner;
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    whom: Whom,

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
    whom: Whom,

    /// Wait until the new workers serve, and fail if they do not
    #[arg(long)]
    wait: bool,
}

/// Starts new workers before the old ones leave.
pub fn main(args: &ReloadArgs) -> ExitCode {
    let manner = if args.fleet { Manner::Fleet } else { Manner::Rolling };
    ask(&args.whom, manner, args.wait)
}

/// Lets the old workers leave first.
pub fn restart(args: &RestartArgs) -> ExitCode {
    ask(&args.whom, Manner::Restart, args.wait)
}

fn ask(whom: &Whom, manner: Manner, wait: bool) -> ExitCode {
    let (until, patience) = if wait { (Until::Done, Patience::Endless) } else { (Until::Accepted, Patience::Short) };
    tell(whom, &Request::Reload { manner, until }, patience)
}
