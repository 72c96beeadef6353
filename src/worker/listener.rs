//! Listeners for threads.

use super::session::{self, BACKLOG, Session};
use crate::wire::address::Address;
use crate::wire::packet::Via;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Where connections come from.
#[derive(Debug)]
enum Source<L> {
    /// The kernel: started without maitred, or in shared mode, where the session says `CLOSE` at its end.
    Kernel {
        listener: L,
        _session: Option<Session>,
    },
    Master(Session),
}

impl<L: From<OwnedFd>> Source<L> {
    fn open(address: &Address, alone: impl FnOnce() -> io::Result<L>) -> io::Result<Source<L>> {
        Ok(match Session::open(address)? {
            None => Source::Kernel { listener: alone()?, _session: None },
            Some(session) if session.via == Via::Shared => {
                let socket = session.socket.try_clone()?;
                socket2::SockRef::from(&socket).listen(BACKLOG)?;
                session.accepting()?;
                Source::Kernel { listener: socket.into(), _session: Some(session) }
            }
            Some(session) => {
                session.accepting()?;
                Source::Master(session)
            }
        })
    }

    fn give_back(&self, connection: &impl AsFd) -> io::Result<()> {
        match self {
            Source::Kernel { .. } => Err(session::no_master()),
            Source::Master(session) => session.give_back(connection.as_fd()),
        }
    }
}

/// A listener whose `accept` blocks. Threads may share it.
#[derive(Debug)]
pub struct Listener(Source<TcpListener>);

impl Listener {
    /// Serves this address together with all other workers; alone when maitred did not start us.
    ///
    /// # Errors
    /// Those of `bind(2)`.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        Source::open(&Address::Tcp(address), || TcpListener::bind(address)).map(Listener)
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// As for [`TcpListener::accept`]; `BrokenPipe` when the master is gone.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Source::Kernel { listener, .. } => listener.accept(),
            Source::Master(session) => {
                let (connection, peer) = session::receive(session.socket.as_fd())?;
                Ok((connection.into(), peer.unwrap_or_else(session::unknown_peer)))
            }
        }
    }

    /// Sends a connection back to the master, which gives it to another worker.
    ///
    /// # Errors
    /// `Unsupported` when no master stands behind this listener.
    pub fn give_back(&self, stream: TcpStream) -> io::Result<()> {
        self.0.give_back(&stream)
    }

    /// The address, with its real port.
    ///
    /// # Errors
    /// As for [`TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Source::Kernel { listener, .. } => listener.local_addr(),
            Source::Master(Session { address: Address::Tcp(address), .. }) => Ok(*address),
            Source::Master(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The same on a Unix socket.
#[derive(Debug)]
pub struct UnixListener(Source<std::os::unix::net::UnixListener>);

impl UnixListener {
    /// Serves this path together with all other workers; alone when maitred did not start us.
    ///
    /// # Errors
    /// Those of `bind(2)`.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        let path = path.as_ref();
        let alone = || std::os::unix::net::UnixListener::bind(path);
        Source::open(&session::unix_address(path)?, alone).map(UnixListener)
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// As for [`Listener::accept`].
    pub fn accept(&self) -> io::Result<UnixStream> {
        match &self.0 {
            Source::Kernel { listener, .. } => Ok(listener.accept()?.0),
            Source::Master(session) => Ok(session::receive(session.socket.as_fd())?.0.into()),
        }
    }

    /// Sends a connection back to the master, which gives it to another worker.
    ///
    /// # Errors
    /// `Unsupported` when no master stands behind this listener.
    pub fn give_back(&self, stream: UnixStream) -> io::Result<()> {
        self.0.give_back(&stream)
    }
}
