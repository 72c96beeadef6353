//! `maitred upgrade`: replaces the running binary with the one that is now on disk.

use super::tell::{Whom, tell};
use crate::control::Request;
use crate::control::client::Patience;
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    whom: Whom,
}

/// Sends the request; the answer comes from the new binary.
pub fn main(args: &UpgradeArgs) -> ExitCode {
    tell(&args.whom, &Request::Upgrade, Patience::Endless)
}
