//! Writes to standard output and error, which other processes also hold, and which perhaps no process reads.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// This much can be written to a pipe without waiting once it can be written to at all: `PIPE_BUF` (`pipe(7)`).
const PIECE: usize = 4096;

/// Writes everything, and waits as long as it takes, even if another process that holds the descriptor made it
/// non-blocking.
///
/// # Errors
/// The system's error, such as `BrokenPipe` or `StorageFull`.
pub fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait_for_room(to, None)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Writes everything until the deadline, in pieces that a pipe takes at once. Another process that fills the pipe in
/// the moment between the check and the write can still make this wait, so it is for code that has no thread to
/// spare.
///
/// # Errors
/// `TimedOut`, or the system's error.
pub fn write_by(to: BorrowedFd<'_>, bytes: &[u8], deadline: Instant) -> io::Result<()> {
    for piece in bytes.chunks(PIECE) {
        wait_for_room(to, Some(deadline))?;
        write_all(to, piece)?;
    }
    Ok(())
}

/// Whether anybody still reads from a pipe, socket or terminal, after at most this long.
#[must_use]
pub fn is_read(to: BorrowedFd<'_>, at_most: Duration) -> bool {
    let mut watched = [PollFd::new(to, PollFlags::empty())];
    let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
    // Only errors and hang-ups are reported.
    !matches!(poll(&mut watched, timeout), Ok(reported) if reported > 0)
}

fn wait_for_room(to: BorrowedFd<'_>, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            // The write reports an error of the descriptor.
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
