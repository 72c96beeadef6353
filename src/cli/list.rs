//! `maitred list`: the running maitreds of this user, one name per line.

use super::say;
use crate::control::client;
use crate::core::visible::line;
use std::process::ExitCode;

/// Prints the names.
pub fn main() -> ExitCode {
    match client::running() {
        Ok(names) => {
            let names = names.into_iter().map(|name| format!("{}\n", line(&name)));
            say::lines(&names.collect::<String>(), ExitCode::SUCCESS)
        }
        Err(error) => {
            say::complain(&error);
            ExitCode::FAILURE
        }
    }
}
