//! What all kinds of listener do with the master: ask for an address and receive connections.

use super::channel;
use crate::sys::fd;
use crate::wire::address::Address;
use crate::wire::packet::{self, RequestId, ToWorker, Via};
use crate::wire::peer::{PEER_MAX, decode};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The usual backlog of servers (`SOMAXCONN` before Linux 5.4 was 128; the kernel cuts it).
pub const BACKLOG: i32 = 1024;

/// One address that the master serves for this worker; ends with a `CLOSE`.
#[derive(Debug)]
pub struct Session {
    /// The hand-off socket, or the shared listening socket.
    pub socket: OwnedFd,
    /// Which of the two.
    pub via: Via,
    /// The address, with its real port.
    pub address: Address,
    id: RequestId,
}

impl Session {
    /// Asks the master for an address; `None` when there is no master.
    ///
    /// # Errors
    /// The error of `bind(2)` in the master, or that the master is gone.
    pub fn open(address: &Address) -> io::Result<Option<Session>> {
        let id = channel::next_id();
        let Some((answer, socket)) = channel::ask(&packet::write_listen(address, id))? else { return Ok(None) };
        match answer {
            ToWorker::Error { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
            ToWorker::Listening { address, via, .. } => {
                // The answer came without its descriptor: none was free.
                let socket = socket.ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
                Ok(Some(Session { socket, via, address, id }))
            }
            other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("maitred answered {other:?}"))),
        }
    }

    /// Says that this worker takes connections, and waits until the master knows.
    ///
    /// # Errors
    /// The error of `listen(2)` in the master, or that the master is gone.
    pub fn accepting(&self) -> io::Result<()> {
        let request = packet::write_note("ACCEPTING", &self.address, self.id, Some(BACKLOG as u32));
        match channel::ask(&request)? {
            Some((ToWorker::Error { errno, .. }, _)) => Err(io::Error::from_raw_os_error(errno)),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns a connection, so that another worker gets it.
    ///
    /// # Errors
    /// When the master is gone.
    pub fn give_back(&self, connection: BorrowedFd<'_>) -> io::Result<()> {
        fd::send_back(self.socket.as_fd(), connection)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A master that is gone does not need to know.
        let _ = channel::say(&packet::write_note("CLOSE", &self.address, self.id, None));
    }
}

/// Receives one connection from a hand-off socket, with its peer's address if that is an IP address.
///
/// # Errors
/// `WouldBlock` when there is none and the socket does not block; `BrokenPipe` when the master is
/// gone; `EMFILE` when this process had no descriptor free and the connection was lost.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut peer = [0; PEER_MAX];
    let received = fd::receive_blocking(socket, &mut peer)?;
    let (len, fds_lost) = (received.len, received.fds_lost);
    match received.into_first() {
        Some(connection) => Ok((connection, decode(peer.get(..len).unwrap_or_default()))),
        None if fds_lost => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "maitred is gone")),
    }
}

/// Stands for a peer that has no IP address.
pub fn unknown_peer() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

/// The address of a Unix socket, relative to the working directory of this process.
///
/// # Errors
/// When the working directory is gone.
pub fn unix_address(path: &std::path::Path) -> io::Result<Address> {
    Ok(Address::Unix(std::path::absolute(path)?))
}

/// Says that there is no master to return a connection to.
pub fn no_master() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "no master stands behind this listener")
}
