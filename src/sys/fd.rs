//! Passing descriptors over `SOCK_SEQPACKET` pairs (`unix(7)`, `SCM_RIGHTS`).
//!
//! One packet carries one connection. The hot path ([`send_connection`]) builds its control message
//! on the stack. Everything is received
//! through [`receive()`].

mod receive;

pub use receive::{FDS_MAX, Received, receive, receive_blocking, receive_words};

use sendfd::SendWithFd;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

/// What became of a connection that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It waits at the worker now.
    Sent,
    /// The socket's buffer is full.
    Full,
    /// Too many descriptors are in flight for this user (`ETOOMANYREFS`, `unix(7)`), or the kernel
    /// has no memory for one more.
    TooManyInFlight,
    /// The worker's side does not receive any more.
    Closed,
}

/// Control messages with room for credentials and [`FDS_MAX`] descriptors, aligned as `cmsghdr` requires.
#[repr(C, align(8))]
struct Control([u8; 64]);

const HEADER: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(2 * HEADER + 16 + FDS_MAX * size_of::<RawFd>() <= size_of::<Control>());

/// Two connected `SOCK_SEQPACKET` sockets, both close-on-exec.
///
/// # Errors
/// That of `socketpair(2)`, usually that no descriptor is free.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one connection with its peer's address as the payload. Never blocks, never allocates.
///
/// # Errors
/// Only errors that have no name in [`Sent`].
#[inline]
pub fn send_connection(socket: BorrowedFd<'_>, connection: BorrowedFd<'_>, peer: &[u8]) -> io::Result<Sent> {
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec { iov_base: peer.as_ptr().cast_mut().cast(), iov_len: peer.len() };
    let length = HEADER + size_of::<RawFd>();
    // SAFETY: a zeroed msghdr is valid; the pointers set below outlive the call. `control` is
    // aligned for, and larger than, a cmsghdr with one descriptor.
    let sent = unsafe {
        let header = control.0.as_mut_ptr().cast::<libc::cmsghdr>();
        (*header).cmsg_len = length as _;
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(connection.as_raw_fd());
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>().min(length.next_multiple_of(8)) as _;
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent >= 0 {
        return Ok(Sent::Sent);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => Ok(Sent::Full),
        _ if may_pass_later(&error) => Ok(Sent::TooManyInFlight),
        // EPERM: the worker accepts no descriptors any more (SO_PASSRIGHTS).
        Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN | libc::EPERM) => Ok(Sent::Closed),
        _ => Err(error),
    }
}

/// Whether a packet that could not be sent can succeed in a moment: too many descriptors are in flight for this user
/// (`unix(7)`), or the kernel has no memory just now.
#[must_use]
pub fn may_pass_later(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM))
}

/// Sends a packet of the control channel, with descriptors or without. Never blocks.
///
/// # Errors
/// `WouldBlock` when the other side does not read; `BrokenPipe` when it is gone.
pub fn send_packet(socket: BorrowedFd<'_>, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights };
    // The socket may be the worker's, which can make it block at any moment.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[io::IoSlice::new(text.as_bytes())], rights, flags, None)?;
    Ok(())
}

/// Sends a connection back on a worker's own hand-off socket; waits if the socket blocks.
///
/// # Errors
/// `WouldBlock` if it does not; `BrokenPipe` when the master is gone.
pub fn send_back(socket: BorrowedFd<'_>, connection: BorrowedFd<'_>) -> io::Result<()> {
    // sendfd knows the socket types of std; a SEQPACKET socket sends like a datagram socket.
    let socket = UnixDatagram::from(socket.try_clone_to_owned()?);
    socket.send_with_fd(b"\0\0", &[connection.as_raw_fd()])?;
    Ok(())
}

/// Bytes of the sending side that the receiver has not taken (`SIOCOUTQ`, which `unix(7)` sockets
/// answer with the memory of the waiting packets).
///
/// # Errors
/// That of the ioctl; a socket always answers.
#[inline]
pub fn unsent_bytes(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the ioctl writes one int.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes.max(0) as u32) }
}

/// What one waiting connection adds to [`unsent_bytes`]: it differs between kernels, so it is
/// measured, with the longest payload.
///
/// # Errors
/// When no socket pair can be made.
pub fn packet_cost() -> io::Result<u32> {
    let (send, _receive) = pair()?;
    let (passed, _other) = pair()?;
    send_connection(send.as_fd(), passed.as_fd(), &[0; 28])?;
    Ok(unsent_bytes(send.as_fd())?.max(1))
}

/// Sets the send buffer; the kernel doubles the number for its own bookkeeping and limits it to `net.core.wmem_max`,
/// except for privileged processes.
///
/// # Errors
/// That of `setsockopt(2)`.
pub fn set_send_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    if setsockopt(&socket, sockopt::SndBufForce, &bytes).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &bytes)?;
    }
    Ok(())
}

/// The send buffer, with what the kernel added.
///
/// # Errors
/// That of `getsockopt(2)`.
pub fn send_buffer(socket: BorrowedFd<'_>) -> io::Result<usize> {
    use nix::sys::socket::{getsockopt, sockopt};
    Ok(getsockopt(&socket, sockopt::SndBuf)?)
}

/// A copy of a descriptor at `lowest` or above, close-on-exec; at any number when the limit of descriptors leaves no
/// room there.
///
/// # Errors
/// When no descriptor is free.
pub fn duplicate_above(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, fcntl};
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest)).or_else(|_| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3)))?;
    // SAFETY: fcntl just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Lets a pipe hold this many bytes (`F_SETPIPE_SZ`, fcntl(2)).
///
/// # Errors
/// `EPERM` when that is more than this user may have.
pub fn enlarge_pipe(pipe: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(i32::try_from(bytes).unwrap_or(i32::MAX)))?;
    Ok(())
}

/// Makes an open file non-blocking, for every process that has it.
///
/// # Errors
/// That of `ioctl(2)`.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // One call where fcntl(2) takes two.
    // SAFETY: the kernel reads one int.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const on) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Inode number of an open file.
///
/// # Errors
/// That of `fstat(2)`.
pub fn inode(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(fd)?.st_ino)
}

/// Takes over a descriptor that this process inherited under a number that its environment names.
///
/// # Errors
/// When the number is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: borrowed only for the call; an unused number gives EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    close_on_exec(fd)?;
    // SAFETY: it is open, and the environment's contract makes this process its owner. The callers
    // take each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Passes only the standard descriptors and these to the next program, and no other that happens to be open.
///
/// # Errors
/// When one of these is not open, or that of `close_range(2)`.
pub fn pass_only(these: &[RawFd]) -> io::Result<()> {
    // SAFETY: only sets the close-on-exec flag of descriptors (`CLOSE_RANGE_CLOEXEC`, Linux 5.11); no memory is involved.
    let set = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    nix::errno::Errno::result(set)?;
    for &number in these {
        // SAFETY: borrowed only for the call; an unused number gives EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    }
    Ok(())
}

/// Keeps a descriptor from being passed to the next program.
///
/// # Errors
/// When it is not open.
pub fn close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Whether the other side is gone. A packet without bytes looks like the end of file; this tells them apart.
///
/// This does not use nix. Its `revents` tells nothing at all as soon as a bit is set that it has no name for, such as
/// `POLLRDHUP`: a side that only said that it sends nothing more would never be seen to be gone.
#[must_use]
pub fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let gone = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
    let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: the kernel reads and writes one pollfd. It does not wait, so nothing interrupts it.
    let seen = unsafe { libc::poll(&raw mut polled, 1, 0) };
    seen < 0 || polled.revents & gone != 0
}

/// Sends a packet of the control channel, with a descriptor if one is given; waits while the other side is busy.
///
/// # Errors
/// `BrokenPipe` when the other side is gone.
pub fn send_packet_blocking(socket: BorrowedFd<'_>, text: &str, with: Option<BorrowedFd<'_>>) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let numbers: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let messages = if numbers.is_empty() { &[] } else { &rights[..] };
    let iov = [io::IoSlice::new(text.as_bytes())];
    sendmsg::<()>(socket.as_raw_fd(), &iov, messages, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}
