//! Which process is at the other end of a socket (`SO_PEERCRED`, `SCM_CREDENTIALS`, `unix(7)`): the kernel says so,
//! not the sender.

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};
use nix::unistd::{Pid, geteuid, getpgid};
use procfs::process::Process;
use std::io;
use std::os::fd::BorrowedFd;

/// Most parents that are looked up; wrappers are not nested this deep.
const PARENTS_MAX: usize = 64;

/// The process that connected to a socket. Nothing needs to be received for that.
///
/// # Errors
/// That of `getsockopt(2)`.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<UnixCredentials> {
    Ok(getsockopt(&socket, sockopt::PeerCredentials)?)
}

/// Whether a process may speak for a worker. It may if it has this process's user (`systemd-notify` may have ended
/// before its message is read) or is root. It also may if it is a worker or was started by one, even if it has
/// another user by now: it is in a worker's process group, or this process is among its parents. Every descendant of
/// this process comes from a worker. That includes one whose parent has ended, since it is then a child of this
/// process (`PR_SET_CHILD_SUBREAPER`).
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
