//! Who sent a datagram (`SCM_CREDENTIALS`, `unix(7)`): the kernel says it, not the sender.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, getsockopt, recvmsg, sockopt};
use nix::unistd::{Pid, geteuid, getpgid};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Who connected to a socket. Nothing needs to be received for that.
///
/// # Errors
/// That of `getsockopt(2)`.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<UnixCredentials> {
    Ok(getsockopt(&socket, sockopt::PeerCredentials)?)
}

/// Receives one datagram and its sender. Descriptors that come with it are closed.
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<UnixCredentials>)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(UnixCredentials, [RawFd; 8]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut sender = None;
    for message in received.cmsgs().into_iter().flatten() {
        match message {
            ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials),
            // SAFETY: the kernel has just made these descriptors for us, and nobody else has them.
            ControlMessageOwned::ScmRights(fds) => {
                fds.into_iter().for_each(|fd| drop(unsafe { OwnedFd::from_raw_fd(fd) }))
            }
            _ => {}
        }
    }
    Ok((received.bytes, sender))
}

/// Whether a process may speak for the worker whose process group this is: one of the group, or of our own
/// user (`systemd-notify` may have ended before it is heard), or root.
#[must_use]
pub fn is_trusted(sender: &UnixCredentials, group: Pid) -> bool {
    let of_group = || getpgid(Some(Pid::from_raw(sender.pid()))).is_ok_and(|found| found == group);
    sender.uid() == 0 || sender.uid() == geteuid().as_raw() || of_group()
}
