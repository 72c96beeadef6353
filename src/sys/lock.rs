//! Locks on open files (`flock(2)`), which end when the last copy of the descriptor is closed: with its
//! process at the latest, and not before the next program of the process has closed it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Who may have it beside us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Others that say the same.
    Shared,
    /// Nobody.
    Exclusive,
}

/// Takes the lock, or tells that somebody else has it.
///
/// # Errors
/// That of `flock(2)`.
pub fn try_lock(file: impl AsFd, lock: Lock) -> io::Result<bool> {
    let operation = match lock {
        Lock::Shared => libc::LOCK_SH,
        Lock::Exclusive => libc::LOCK_EX,
    };
    // SAFETY: no pointers.
    if unsafe { libc::flock(file.as_fd().as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        error => Err(error),
    }
}
