//! The notification socket of a worker (`sd_notify(3)`): what systemd's services say to systemd. The
//! [`super::receiver`] reads it.

use crate::sys::secret::secret;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::OwnedFd;

/// A new socket in the abstract namespace, under a name that cannot be guessed. Returns the value of `NOTIFY_SOCKET`
/// beside it. The name is no secret: any process that reads `/proc/net/unix` can send there. So no descriptors are
/// taken there. But they may be sent: `systemd-notify` sends one and waits for it to be closed
/// (`sd_notify_barrier(3)`), and would fail if the kernel refused it (`SO_PASSRIGHTS`, Linux 6.16).
///
/// # Errors
/// When no descriptor is free.
pub fn open() -> io::Result<(String, OwnedFd)> {
    let name = format!("maitred-{}-{}", std::process::id(), secret()?);
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_passcred(true)?;
    socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
    Ok((format!("@{name}"), socket.into()))
}
