//! `maitred guard-workers`: the guard of a master; it is not meant to be started by hand.

use super::USAGE;
use super::say::complain;
use crate::sys::process::guard;
use std::process::ExitCode;

/// Runs the guard.
pub fn main() -> ExitCode {
    match guard::stand() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(USAGE)
        }
    }
}
