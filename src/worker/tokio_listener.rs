//! Listeners for tokio. Each asks the master once, when it is made, and blocks for that moment.

use super::session::{self, BACKLOG, Session};
use crate::sys::watch;
use crate::wire::address::Address;
use crate::wire::packet::Via;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Where connections come from.
#[derive(Debug)]
enum Source<L> {
    /// The kernel: started without maitred, or in shared mode, where the session says `CLOSE` at its end.
    Kernel {
        listener: L,
        _session: Option<Session>,
    },
    Master(AsyncFd<OwnedFd>, Session),
}

impl<L> Source<L> {
    fn of(session: Session, from: impl FnOnce(OwnedFd) -> io::Result<L>) -> io::Result<Source<L>> {
        let socket = session.socket.try_clone()?;
        socket2::SockRef::from(&socket).set_nonblocking(true)?;
        if session.via == Via::Shared {
            socket2::SockRef::from(&socket).listen(BACKLOG)?;
            session.accepting()?;
            return Ok(Source::Kernel { listener: from(socket)?, _session: Some(session) });
        }
        let socket = watch::readable(socket)?;
        session.accepting()?;
        Ok(Source::Master(socket, session))
    }

    fn give_back(&self, connection: &impl AsFd) -> io::Result<()> {
        match self {
            Source::Kernel { .. } => Err(session::no_master()),
            Source::Master(_, session) => session.give_back(connection.as_fd()),
        }
    }
}

/// Takes one connection from a hand-off socket; cancel safe.
async fn next(socket: &AsyncFd<OwnedFd>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(received) = ready.try_io(|socket| session::receive(socket.get_ref().as_fd())) {
            let (connection, peer) = received?;
            socket2::SockRef::from(&connection).set_nonblocking(true)?;
            return Ok((connection, peer));
        }
    }
}

/// A listener for tokio.
#[derive(Debug)]
pub struct AsyncListener(Source<TcpListener>);

impl AsyncListener {
    /// Serves this address together with all other workers; alone when maitred did not start us.
    ///
    /// # Errors
    /// Those of `bind(2)`.
    pub async fn bind(address: SocketAddr) -> io::Result<AsyncListener> {
        Ok(AsyncListener(match Session::open(&Address::Tcp(address))? {
            None => Source::Kernel { listener: TcpListener::bind(address).await?, _session: None },
            Some(session) => Source::of(session, |socket| TcpListener::from_std(socket.into()))?,
        }))
    }

    /// Takes the next connection. Cancel safe: a connection is either returned or still waiting.
    ///
    /// # Errors
    /// As for [`TcpListener::accept`]; `BrokenPipe` when the master is gone.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Source::Kernel { listener, .. } => listener.accept().await,
            Source::Master(socket, _) => {
                let (connection, peer) = next(socket).await?;
                Ok((TcpStream::from_std(connection.into())?, peer.unwrap_or_else(session::unknown_peer)))
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
            Source::Master(_, Session { address: Address::Tcp(address), .. }) => Ok(*address),
            Source::Master(..) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The same on a Unix socket.
#[derive(Debug)]
pub struct AsyncUnixListener(Source<tokio::net::UnixListener>);

impl AsyncUnixListener {
    /// Serves this path together with all other workers; alone when maitred did not start us.
    ///
    /// # Errors
    /// Those of `bind(2)`.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<AsyncUnixListener> {
        let path = path.as_ref();
        Ok(AsyncUnixListener(match Session::open(&session::unix_address(path)?)? {
            None => Source::Kernel { listener: tokio::net::UnixListener::bind(path)?, _session: None },
            Some(session) => Source::of(session, |socket| tokio::net::UnixListener::from_std(socket.into()))?,
        }))
    }

    /// Takes the next connection. Cancel safe.
    ///
    /// # Errors
    /// As for [`AsyncListener::accept`].
    pub async fn accept(&self) -> io::Result<UnixStream> {
        match &self.0 {
            Source::Kernel { listener, .. } => Ok(listener.accept().await?.0),
            Source::Master(socket, _) => UnixStream::from_std(next(socket).await?.0.into()),
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

#[cfg(feature = "axum")]
impl axum::serve::Listener for AsyncListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match AsyncListener::accept(self).await {
                Ok(accepted) => return accepted,
                // No worker outlives its master.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
                // Descriptors ran out, for example: trying again at once would spin.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        AsyncListener::local_addr(self)
    }
}
