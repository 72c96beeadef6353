//! `maitred list`: the running maitreds of this user, a name a line.

use crate::control::client;
use std::process::ExitCode;

/// Prints the names.
pub fn main() -> ExitCode {
    for name in client::running() {
        println!("{name}");
    }
    ExitCode::SUCCESS
}
