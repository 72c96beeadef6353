//! Receives packets with everything that may come with them: the only place that reads control messages.
//!
//! The kernel installs descriptors before this code sees what came, so every installed descriptor gets an owner here
//! at once. This also holds when the kernel says that the messages were cut (`MSG_CTRUNC`), when more descriptors
//! came than are wanted, and when other messages come before them. A worker shares sockets with the master and can
//! make the kernel add the sender's credentials (`SO_PASSCRED`), a descriptor of its process (`SO_PASSPIDFD`) or its
//! security label (`SO_PASSSEC`) to each packet (`unix(7)`; `scm_recv_unix` in net/core/scm.c).

use crate::sys::dispose::{Foreign, dispose};
use nix::sys::socket::UnixCredentials;
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors that one packet of a worker brings: its own socket and one for the answer.
pub const FDS_MAX: usize = 2;

/// Room for all messages of one packet. The kernel sends at most 253 descriptors at once (`SCM_MAX_FD` in
/// include/net/scm.h), one more for the process, and labels of at most a page; it is room on the stack that is never
/// cleared, so it costs nothing to have enough.
const CONTROL_ROOM: usize = 8192;
/// `SCM_PIDFD` (include/linux/socket.h).
const SCM_PIDFD: libc::c_int = 4;

/// Aligned as `cmsghdr` requires.
#[repr(C, align(8))]
struct Control(MaybeUninit<[u8; CONTROL_ROOM]>);

/// One packet as received.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes of payload; 0 is end of file.
    pub len: usize,
    /// The descriptors that came with it, close-on-exec. Further ones are disposed of.
    pub fds: [Option<Foreign>; FDS_MAX],
    /// Its sender, where the socket asks the kernel to name it (`SO_PASSCRED`).
    pub sender: Option<UnixCredentials>,
    /// The payload was longer than the buffer.
    pub cut: bool,
    /// Descriptors were lost, because none was free here or more came than [`FDS_MAX`].
    pub fds_lost: bool,
}

impl Received {
    /// The first descriptor, where it is known to be one of the master's: a connection that the master itself put
    /// into the socket, or its answer.
    #[must_use]
    pub fn into_first(self) -> Option<OwnedFd> {
        let [first, _] = self.fds;
        first.map(Foreign::into_owned)
    }
}

/// Receives one packet without blocking, whatever the mode of the socket: it may be shared with a worker, whose
/// choice of blocking or not must not be changed.
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    receive_with(socket, buffer, CONTROL_ROOM, libc::MSG_DONTWAIT)
}

/// Receives one packet and its sender, without blocking, and takes no descriptors: there is no room for them, so the
/// kernel drops those that come with it. It drops them in this thread, for as long as a last close can take.
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn receive_words(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // Credentials come before anything else (`scm_recv_unix`).
    // SAFETY: it only calculates.
    let room = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as libc::c_uint) as usize };
    receive_with(socket, buffer, room, libc::MSG_DONTWAIT)
}

/// Receives one packet; blocks when the socket does.
///
/// # Errors
/// `WouldBlock` when there is none and the socket does not block.
pub fn receive_blocking(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    receive_with(socket, buffer, CONTROL_ROOM, 0)
}

fn receive_with(socket: BorrowedFd<'_>, buffer: &mut [u8], room: usize, flags: libc::c_int) -> io::Result<Received> {
    let mut control = Control(MaybeUninit::uninit());
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a zeroed msghdr is valid; the buffers outlive the call.
    let (len, message) = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = room.min(CONTROL_ROOM) as _;
        (libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags | libc::MSG_CMSG_CLOEXEC), message)
    };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut received = Received {
        len: len as usize,
        cut: message.msg_flags & libc::MSG_TRUNC != 0,
        fds_lost: message.msg_flags & libc::MSG_CTRUNC != 0,
        ..Received::default()
    };
    let mut places = received.fds.iter_mut();
    // SAFETY: the kernel wrote `msg_controllen` bytes of well-formed control messages into `control`, and each
    // message's length says how much of its data is there; the descriptors in them are new and have no other owner.
    // CMSG_NXTHDR ends at `msg_controllen`.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let length = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            let data = libc::CMSG_DATA(header);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for index in 0..length / size_of::<RawFd>() {
                        let fd = OwnedFd::from_raw_fd(data.cast::<RawFd>().add(index).read_unaligned());
                        match places.next() {
                            Some(place) => *place = Some(Foreign::from(fd)),
                            None => {
                                received.fds_lost = true;
                                dispose(fd);
                            }
                        }
                    }
                }
                // A value that is no descriptor is the number of an error (`scm_pidfd_recv`).
                (libc::SOL_SOCKET, SCM_PIDFD) if length >= size_of::<RawFd>() => {
                    let number = data.cast::<RawFd>().read_unaligned();
                    if number >= 0 {
                        drop(OwnedFd::from_raw_fd(number));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= size_of::<libc::ucred>() => {
                    received.sender = Some(UnixCredentials::from(data.cast::<libc::ucred>().read_unaligned()));
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(received)
}
