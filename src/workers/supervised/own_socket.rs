//! A supervised worker's own sockets, seen from outside.

use crate::sys::dispose::Foreign;
use crate::sys::foreign;
use crate::sys::seccomp::Call;
use crate::sys::socket::listen;
use crate::wire::address::Address;
use socket2::Socket;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// The socket that a call is about.
pub enum OwnSocket {
    /// A copy of it.
    Copy(Foreign),
    /// There is no copy (`pidfd_getfd` is not allowed), but it is a stream.
    OutOfReach,
}

impl OwnSocket {
    /// `None` if it is not a stream socket.
    #[must_use]
    pub fn of(call: &Call) -> Option<OwnSocket> {
        match foreign::descriptor(call.thread, call.descriptor()).map(Foreign::from) {
            Ok(own) => listen::is_stream(own.as_fd()).then_some(OwnSocket::Copy(own)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                let protocol = foreign::protocol(call.thread, call.descriptor()).ok()?;
                ["TCP", "TCPv6", "UNIX-STREAM"].contains(&protocol.as_str()).then_some(OwnSocket::OutOfReach)
            }
            Err(_) => None,
        }
    }

    /// The copy, if there is one.
    #[must_use]
    pub fn copy(self) -> Option<Foreign> {
        match self {
            OwnSocket::Copy(own) => Some(own),
            OwnSocket::OutOfReach => None,
        }
    }
}

/// What a socket that is bound and unknown to us asks for: a port of the kernel's choice.
#[must_use]
pub fn ephemeral_address(own: &Foreign) -> Option<Address> {
    let socket = Socket::from(own.as_fd().try_clone_to_owned().ok()?);
    if listen::is_listening(&socket) {
        return None;
    }
    match listen::local_address(&socket).ok()? {
        Address::Tcp(address) if address.port() != 0 => Some(Address::Tcp(SocketAddr::new(address.ip(), 0))),
        _ => None,
    }
}
