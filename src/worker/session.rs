//! What both kinds of listener do with the master: ask for the address and receive connections.

use crate::sys::fd;
use crate::wire::address::Address;
use crate::wire::environment::{CHANNEL, CHANNEL_INODE};
use crate::wire::packet::{self, PACKET_MAX, RequestId, ToWorker, Via};
use crate::wire::peer::{PEER_MAX, decode};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The channel of this process, and the next request's id. One for all listeners: its answers come
/// in the order of the requests, so they are made one at a time.
#[derive(Debug)]
struct Channel {
    socket: OwnedFd,
    next_id: RequestId,
}

/// The place for the connections of one address.
#[derive(Debug)]
pub struct Seat {
    /// The hand-off socket, or the shared listening socket.
    pub socket: OwnedFd,
    /// Which of the two.
    pub via: Via,
    /// The address, with its real port.
    pub address: SocketAddr,
    id: RequestId,
}

fn channel() -> Option<&'static Mutex<Channel>> {
    static THE: OnceLock<Option<Mutex<Channel>>> = OnceLock::new();
    THE.get_or_init(open).as_ref()
}

/// Takes the channel that the environment names, if that number still is the channel.
fn open() -> Option<Mutex<Channel>> {
    let variable = |name| std::env::var(name).ok();
    let number: i32 = variable(CHANNEL)?.parse().ok()?;
    let inode: u64 = variable(CHANNEL_INODE)?.parse().ok()?;
    let socket = fd::inherited(number).ok()?;
    if fd::inode(socket.as_fd()).ok()? != inode {
        // Somebody else's descriptor: leave it open.
        std::mem::forget(socket);
        return None;
    }
    Some(Mutex::new(Channel { socket, next_id: 1 }))
}

/// Asks the master for an address; `None` when there is no master.
///
/// # Errors
/// The error of `bind(2)` in the master, or that the master is gone.
pub fn ask(address: SocketAddr) -> io::Result<Option<Seat>> {
    let Some(channel) = channel() else { return Ok(None) };
    let mut channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
    let id = channel.next_id;
    channel.next_id += 1;
    fd::send_packet_blocking(channel.socket.as_fd(), &packet::write_listen(&Address::Tcp(address), id))?;
    loop {
        let mut buffer = [0; PACKET_MAX];
        let received = fd::receive_blocking(channel.socket.as_fd(), &mut buffer)?;
        if received.len == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "maitred is gone"));
        }
        let answer = packet::read_answer(buffer.get(..received.len).unwrap_or_default());
        let answer = answer.map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))?;
        match answer {
            Some(ToWorker::Error { errno, id: for_id }) if for_id == id => {
                return Err(io::Error::from_raw_os_error(errno));
            }
            Some(ToWorker::Listening { address, id: for_id, via, .. }) if for_id == id => {
                let socket = received.into_first().ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
                let Address::Tcp(address) = address else {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "maitred answered with another kind of address",
                    ));
                };
                return Ok(Some(Seat { socket, via, address, id }));
            }
            Some(ToWorker::Ping(n)) => fd::send_packet_blocking(channel.socket.as_fd(), &format!("PONG={n}\n"))?,
            // Meant for nobody any more, or for a later version.
            Some(
                ToWorker::Stop
                | ToWorker::Pong(_)
                | ToWorker::Error { .. }
                | ToWorker::Listening { .. }
                | ToWorker::Private { .. }
                | ToWorker::Accepted { .. }
                | ToWorker::Follows { .. },
            )
            | None => {}
        }
    }
}

impl Seat {
    /// Says that connections are welcome.
    ///
    /// # Errors
    /// When the master is gone.
    pub fn accepting(&self, backlog: u32) -> io::Result<()> {
        self.say("ACCEPTING", Some(backlog))
    }

    fn say(&self, key: &str, backlog: Option<u32>) -> io::Result<()> {
        let Some(channel) = channel() else { return Ok(()) };
        let channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
        let text = packet::write_note(key, &Address::Tcp(self.address), self.id, backlog);
        fd::send_packet_blocking(channel.socket.as_fd(), &text)
    }

    /// Sends a connection back: another worker shall have it.
    ///
    /// # Errors
    /// When the master is gone.
    pub fn give_back(&self, stream: &TcpStream) -> io::Result<()> {
        fd::send_back(self.socket.as_fd(), stream.as_fd())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A master that is gone needs no goodbye.
        let _ = self.say("CLOSE", None);
    }
}

/// Receives one connection from a hand-off socket.
///
/// # Errors
/// `WouldBlock` when there is none and the socket does not block; `BrokenPipe` when the master is
/// gone; `EMFILE` when this process had no descriptor free and the connection was lost.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(TcpStream, SocketAddr)> {
    let mut peer = [0; PEER_MAX];
    let received = fd::receive_blocking(socket, &mut peer)?;
    let (len, fds_lost) = (received.len, received.fds_lost);
    match received.into_first() {
        Some(connection) => {
            let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
            Ok((TcpStream::from(connection), decode(peer.get(..len).unwrap_or_default()).unwrap_or(unknown)))
        }
        None if fds_lost => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "maitred is gone")),
    }
}
