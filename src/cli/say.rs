//! Messages to the user: the only place of the command line that writes to standard output and error.
//!
//! Requested output goes to standard output, and a reader that closes it early (`maitred list | head -1`) is not an
//! error. Messages go to standard error, and none of them may delay the end of the program: if they are not read, they
//! are dropped.

use crate::core::visible;
use crate::sys::outlet;
use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a message may wait for a reader of standard error.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Enough to write one message.
const STACK: usize = 64 * 1024;

/// Writes lines to standard output; the exit code is `code`, or that of a failure if they cannot be written.
#[must_use]
pub fn lines(text: &str, code: ExitCode) -> ExitCode {
    written(write(&visible::lines(text)), code)
}

/// Writes lines to standard output, for a command that goes on while they are read.
///
/// # Errors
/// That of `write(2)`, such as `BrokenPipe`.
pub fn shown(text: &str) -> io::Result<()> {
    write(&visible::lines(text))
}

/// The same for JSON.
///
/// # Errors
/// That of `write(2)`, such as `BrokenPipe`.
pub fn shown_json(text: &str) -> io::Result<()> {
    write(&visible::json(text))
}

/// Writes JSON to standard output; the exit code is `code`, or that of a failure if it cannot be written.
#[must_use]
pub fn json(text: &str, code: ExitCode) -> ExitCode {
    written(write(&visible::json(text)), code)
}

/// The same for output that was already written.
#[must_use]
pub fn written(result: io::Result<()>, code: ExitCode) -> ExitCode {
    match result {
        Ok(()) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(error) => {
            complain(&format_args!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    outlet::write_all(io::stdout().lock().as_fd(), text.as_bytes())
}

/// Reports what went wrong in one line, like every Unix tool.
pub fn complain(error: &dyn Display) {
    message(&format!("maitred: {error}"));
}

/// Writes a message to standard error, unless it is not read there for [`PATIENCE`].
pub fn message(text: &str) {
    let text = format!("{}\n", visible::lines(text.trim_end()));
    let (done, is_done) = mpsc::sync_channel::<()>(1);
    let bytes = text.clone().into_bytes();
    let write = move || {
        // A failure here cannot be reported anywhere.
        let _ = outlet::write_all(io::stderr().lock().as_fd(), &bytes);
        drop(done);
    };
    // A thread can be left behind wherever it waits: in a pipe, a stopped terminal or a lock.
    match std::thread::Builder::new().name("message".into()).stack_size(STACK).spawn(write) {
        Ok(_) => drop(is_done.recv_timeout(PATIENCE)),
        Err(_) => drop(outlet::write_by(io::stderr().as_fd(), text.as_bytes(), Instant::now() + PATIENCE)),
    }
}
