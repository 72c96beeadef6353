//! `maitred list`: the running maitreds of this user, a name a line.

use super::complain;
use crate::control::client;
use std::io::Write;
use std::process::ExitCode;

/// Prints the names.
pub fn main() -> ExitCode {
    match client::running() {
        Ok(names) => {
            let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
            // A reader that has seen enough closes the pipe; that is no failure.
            let _ = std::io::stdout().write_all(lines.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}
