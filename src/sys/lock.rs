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

/// Takes the whole file for this open file alone, which must be open for writing; tells that another one has it. Unlike
/// with `flock(2)`, who may only read the file cannot take it (`F_OFD_SETLK`, `fcntl(2)`).
///
/// # Errors
/// That of `fcntl(2)`.
pub fn try_own(file: impl AsFd) -> io::Result<bool> {
    let whole =
        libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 };
    match nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The same as [`try_lock`], as soon as no other holder has it. Tells whether that was within this time.
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
