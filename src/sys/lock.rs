//! Locks on open files (`flock(2)`), which end when the last copy of the descriptor is closed. That is when its
//! process ends at the latest, and after an `execve` not before the next program has closed it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// The pause between two attempts to take a lock.
const PAUSE: Duration = Duration::from_millis(5);

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

/// The same, as soon as no other holder has it. Tells whether that was within this time.
///
/// # Errors
/// That of `flock(2)`.
pub fn lock_within(file: impl AsFd, lock: Lock, time: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + time;
    while !try_lock(&file, lock)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}
