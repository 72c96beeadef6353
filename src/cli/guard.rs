//! `maitred guard-workers`: the guard of a master, which nobody starts by hand.

use super::USAGE;
use super::say::complain;
use crate::sys::guard;
use std::process::ExitCode;

/// Stands guard.
pub fn main() -> ExitCode {
    match guard::stand() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(USAGE)
        }
    }
}
