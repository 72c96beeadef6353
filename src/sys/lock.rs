//! Locks on open files (`flock(2)`), which end when the last copy of the descriptor is closed. That is when its
//! process ends at the latest, and after an `execve` not before the next program has closed it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Which other holders the lock may have at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Others that also take it shared.
    Shared,
    /// None.
    Exclusive,
}

/// Takes the lock, or tells that another holder has it.
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
