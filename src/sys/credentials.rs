//! Who is at the other end (`SO_PEERCRED`, `SCM_CREDENTIALS`, `unix(7)`): the kernel says it, not the sender.

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};
use nix::unistd::{Pid, geteuid, getpgid};
use procfs::process::Process;
use std::io;
use std::os::fd::BorrowedFd;

/// Parents that are asked for at the most; no wrapper of a wrapper goes so deep.
const PARENTS_MAX: usize = 64;

/// Who connected to a socket. Nothing needs to be received for that.
///
/// # Errors
/// That of `getsockopt(2)`.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<UnixCredentials> {
    Ok(getsockopt(&socket, sockopt::PeerCredentials)?)
}

/// Whether a process may speak for a worker: one of our own user (`systemd-notify` may have ended before it is
/// heard), or root, or one that a worker became or started, which may have another user by now: of a worker's
/// process group, or with this process among its parents. Everybody below us comes from a worker, also one whose
/// parent has ended, since it is a child of ours then (`PR_SET_CHILD_SUBREAPER`).
#[must_use]
pub fn is_trusted(sender: &UnixCredentials, is_group: impl Fn(Pid) -> bool) -> bool {
    let pid = Pid::from_raw(sender.pid());
    let of_group = || getpgid(Some(pid)).is_ok_and(&is_group);
    sender.uid() == 0 || sender.uid() == geteuid().as_raw() || pid.as_raw() > 0 && (of_group() || descends(pid))
}

fn descends(pid: Pid) -> bool {
    let myself = std::process::id() as i32;
    let parent = |pid: i32| Process::new(pid).ok()?.stat().ok().map(|stat| stat.ppid).filter(|parent| *parent > 1);
    std::iter::successors(parent(pid.as_raw()), |pid| parent(*pid)).take(PARENTS_MAX).any(|pid| pid == myself)
}
