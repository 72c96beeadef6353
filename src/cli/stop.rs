//! `maitred stop`: does the same as `TERM`.

use super::tell::{self, Whom};
use crate::control::Request;
use crate::control::client::{self, ClientError, Patience};
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    whom: Whom,

    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
}

/// Sends the request to stop.
pub fn main(args: &StopArgs) -> ExitCode {
    let stopped = client::find(args.whom.name.as_deref(), args.whom.control.as_deref()).and_then(|(name, path)| {
        let said = match tell::ask_there(&name, &path, &Request::Stop, Patience::Short) {
            // It ended before it could answer.
            Err(ClientError::Io { .. }) => "stopping".to_owned(),
            said => said?,
        };
        match args.wait {
            true => client::wait_for_end(&name, &path).map(|()| format!("{name} has ended")),
            false => Ok(said),
        }
    });
    tell::report(stopped)
}
