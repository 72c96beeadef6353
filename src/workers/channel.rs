//! The control channel of one worker, as the master reads and writes it.

use super::{Event, Events, FromWorker};
use crate::core::ids::WorkerId;
use crate::sys::dispose::{Foreign, keep_up};
use crate::sys::fd;
use crate::wire::packet::{self, Malformed, PACKET_MAX, ToWorker};
use nix::sys::socket::UnixCredentials;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;

/// Reads what the worker says until the worker closes the channel or this is cancelled. A closed
/// channel is no failure: wrappers close descriptors that they do not know.
pub async fn serve(channel: Rc<AsyncFd<Foreign>>, worker: WorkerId, events: Events) {
    loop {
        let Ok(mut ready) = channel.readable().await else { return };
        match read(channel.get_ref().as_fd()) {
            Ok(Some(said)) => {
                let event = match said {
                    Message::Packet { packet, fds, sender } => {
                        Event::Packet(FromWorker { worker, packet, fds, sender, rendezvous: None })
                    }
                    Message::Malformed(what) => Event::Malformed { worker, what },
                };
                if events.send(event).await.is_err() {
                    return;
                }
                keep_up().await;
            }
            Ok(None) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(_) => return,
        }
    }
}

/// One packet, understood or not.
#[derive(Debug)]
pub enum Message {
    /// Understood.
    Packet {
        /// What it says.
        packet: packet::Packet,
        /// What came with it.
        fds: Vec<Foreign>,
        /// The process that sent it, if the socket asks the kernel for that.
        sender: Option<UnixCredentials>,
    },
    /// Not understood.
    Malformed(Malformed),
}

/// Reads one packet; `None` is end of file.
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn read(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut buffer = [0; PACKET_MAX];
    let received = fd::receive(socket, &mut buffer)?;
    let sender = received.sender;
    let fds: Vec<_> = received.fds.into_iter().flatten().collect();
    if received.len == 0 && fds.is_empty() && fd::is_hung_up(socket) {
        return Ok(None);
    }
    if received.cut {
        return Ok(Some(Message::Malformed(Malformed::TooLong)));
    }
    Ok(Some(match packet::read(buffer.get(..received.len).unwrap_or_default()) {
        Ok(packet) => Message::Packet { packet, fds, sender },
        Err(what) => Message::Malformed(what),
    }))
}

/// Tells a worker something.
///
/// # Errors
/// `WouldBlock` when the worker does not read what it is told; the caller says so in the log.
pub fn tell(socket: BorrowedFd<'_>, message: &ToWorker, with: &[BorrowedFd<'_>]) -> io::Result<()> {
    fd::send_packet(socket, &packet::write(message), with)
}
