//! Learns that processes ended, and removes them (`pidfd_open(2)`, `waitid(2)`).

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Removes the ended process behind a pidfd and tells how it ended; `None` while it runs.
///
/// # Errors
/// That of `waitid(2)`; `ECHILD` when it is no child of this process.
pub fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let status = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)?;
    Ok(end_of(status))
}

/// Tells how the process behind a pidfd ended and leaves it there, so that no other process can get its number;
/// `None` while it runs.
///
/// # Errors
/// As for [`reap`].
pub fn how_it_ended(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    Ok(end_of(waitid(Id::PIDFd(pidfd.as_fd()), look)?))
}

/// Sends a signal to the process behind a pidfd. One that is gone is no error.
///
/// # Errors
/// `EPERM` when it changed its user.
pub fn signal_process(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: plain numbers and a null pointer, which means that the signal names its sender.
    let sent = unsafe {
        let none = std::ptr::null::<libc::siginfo_t>();
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, none, 0)
    };
    match Errno::result(sent) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits for the end of any process, which need not be a child.
///
/// # Errors
/// That of `poll(2)`.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            polled => return polled.map(drop).map_err(io::Error::from),
        }
    }
}

/// Waits for the end of a process, at most for this time; tells whether it has ended.
#[must_use]
pub fn wait_for(pidfd: BorrowedFd<'_>, time: std::time::Duration) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let until = std::time::Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            polled => return polled.is_ok_and(|ready| ready > 0),
        }
    }
}

fn end_of(status: WaitStatus) -> Option<ExitStatus> {
    match status {
        // As `wait(2)` encodes it: the code is above the signal's number.
        WaitStatus::Exited(_, code) => Some(ExitStatus::from_raw((code & 0xff) << 8)),
        WaitStatus::Signaled(_, signal, _) => Some(ExitStatus::from_raw(signal as i32)),
        _ => None,
    }
}

/// Removes ended children that this process did not start: descendants of workers whose own parent ended, and
/// everything orphaned when this is process 1. Stops before a child that it started, whose pidfd reports its end.
/// Returns how many were removed.
pub fn reap_strangers(is_ours: impl Fn(Pid) -> bool) -> usize {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let mut removed = 0;
    while let Ok(status) = waitid(Id::All, look) {
        let Some(pid) = status.pid().filter(|pid| !is_ours(*pid)) else { break };
        if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            break;
        }
        removed += 1;
    }
    removed
}

/// Sends a signal to a whole process group. A group that is gone is no error.
///
/// # Errors
/// `EPERM` when the group changed its user.
pub fn signal_group(leader: Pid, signal: Signal) -> io::Result<()> {
    match killpg(leader, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
