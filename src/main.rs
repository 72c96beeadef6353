//! Parse, start, run, say what went wrong, exit with the code that says it to scripts.

use std::process::ExitCode;

fn main() -> ExitCode {
    maitred::cli::main()
}
