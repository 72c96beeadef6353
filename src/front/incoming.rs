//! A connection on its way to a worker.

use crate::wire::peer::PEER_MAX;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A connection that is offered to the workers.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The connection.
    pub connection: BorrowedFd<'a>,
    /// Its peer's address, as the kernel wrote it.
    pub peer: &'a [u8],
}

/// A connection that was taken back, with its payload.
#[derive(Debug)]
pub struct TakenBack {
    /// The connection.
    pub connection: OwnedFd,
    pub(super) peer: [u8; PEER_MAX],
    pub(super) peer_len: usize,
}

impl TakenBack {
    /// A connection that waits in the master. A peer's address longer than `PEER_MAX` is cut.
    #[must_use]
    pub fn new(connection: OwnedFd, address: &[u8]) -> TakenBack {
        let mut peer = [0; PEER_MAX];
        let peer_len = address.len().min(PEER_MAX);
        peer.iter_mut().zip(address).for_each(|(to, from)| *to = *from);
        TakenBack { connection, peer, peer_len }
    }

    /// The connection with its address.
    #[must_use]
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { connection: self.connection.as_fd(), peer: self.peer() }
    }

    /// The peer's address, as the packet carried it.
    #[must_use]
    pub fn peer(&self) -> &[u8] {
        self.peer.get(..self.peer_len).unwrap_or_default()
    }
}

/// Why no connection came out of a hand-off socket.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// No connection waits.
    #[error("none waits")]
    Nothing,
    /// No connection waits, and the worker shut its end down.
    #[error("none waits, and none can come any more")]
    Ended,
    /// A connection was taken out and could not be kept.
    #[error("no descriptor was free for it; raise the limit with ulimit -n")]
    Lost,
    /// The system reported another error, such as a lack of memory, and nothing was taken out.
    #[error(transparent)]
    Failed(io::Error),
}

impl NotTaken {
    /// The reason that goes with an error of the system call.
    #[must_use]
    pub fn of(error: io::Error) -> NotTaken {
        match error.kind() {
            io::ErrorKind::WouldBlock => NotTaken::Nothing,
            _ => NotTaken::Failed(error),
        }
    }
}
