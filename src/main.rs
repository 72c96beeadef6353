//! Parse, start, run, say what went wrong, exit with the code that says it to scripts.

use maitred::sys::process::allocations::Counting;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    maitred::cli::main()
}
