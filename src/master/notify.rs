//! The notification socket of a worker (`sd_notify(3)`): what systemd's services say to systemd.

use super::door::secret;
use super::event::{Event, Events, FromWorker};
use crate::core::ids::WorkerId;
use crate::sys::credentials;
use crate::wire::packet::{self, PACKET_MAX};
use nix::unistd::Pid;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;

/// A new socket in the abstract namespace, under a name that nobody can guess; returns the value of
/// `NOTIFY_SOCKET` beside it.
///
/// # Errors
/// When no descriptor is free.
pub fn open() -> io::Result<(String, OwnedFd)> {
    let name = format!("maitred-{}-{}", std::process::id(), secret()?);
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
    socket.set_nonblocking(true)?;
    socket.set_passcred(true)?;
    Ok((format!("@{name}"), socket.into()))
}

/// Passes on what the worker says there. Addresses are asked for elsewhere.
pub async fn serve(socket: Rc<AsyncFd<OwnedFd>>, group: Pid, worker: WorkerId, events: Events) {
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        let mut buffer = [0; PACKET_MAX];
        let (length, sender) = match credentials::receive(socket.get_ref().as_fd(), &mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                continue;
            }
            Err(_) => return,
        };
        // Its name is no secret: whoever looks into /proc/net/unix can send here.
        if !sender.is_some_and(|sender| credentials::is_trusted(&sender, group)) {
            continue;
        }
        let event = match packet::read(buffer.get(..length).unwrap_or_default()) {
            Ok(mut packet) => {
                packet.says.retain(packet::FromWorker::is_notification);
                Event::Packet(FromWorker { worker, packet, fds: Vec::new(), sender, door: None })
            }
            Err(what) => Event::Malformed { worker, what },
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}
