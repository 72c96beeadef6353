//! `maitred upgrade`: the binary that is on disk now in the place of the one that runs.

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

/// Asks for it; the answer comes from the new binary.
pub fn main(args: &UpgradeArgs) -> ExitCode {
    tell(&args.whom, &Request::Upgrade, Patience::Endless)
}
