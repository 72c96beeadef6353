//! The notification socket of a worker (`sd_notify(3)`): what systemd's services say to systemd. The
//! [`super::reception`] reads it.

use super::door::secret;
use crate::sys::fd::{self, Rights};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A new socket in the abstract namespace, under a name that nobody can guess; returns the value of
/// `NOTIFY_SOCKET` beside it. Its name is no secret: whoever looks into `/proc/net/unix` can send there. So no
/// descriptors are taken there, which no notification needs.
///
/// # Errors
/// When no descriptor is free.
pub fn open() -> io::Result<(String, OwnedFd)> {
    let name = format!("maitred-{}-{}", std::process::id(), secret()?);
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_passcred(true)?;
    // Before anybody can send. An older kernel lets them be sent, and drops them where they are received.
    let _ = fd::set_rights(socket.as_fd(), Rights::Refused);
    socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
    Ok((format!("@{name}"), socket.into()))
}
