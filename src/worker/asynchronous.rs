//! A listener for tokio.

use super::blocking::BACKLOG;
use super::session::{self, Seat};
use crate::sys::watch;
use crate::wire::packet::Via;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};

/// A listener for tokio. It asks the master once, when it is made, and blocks for that moment.
#[derive(Debug)]
pub struct AsyncListener(Source);

#[derive(Debug)]
enum Source {
    /// Started without maitred, or in shared mode; then the seat's drop says CLOSE.
    Kernel {
        listener: TcpListener,
        _seat: Option<Seat>,
    },
    Master(AsyncFd<OwnedFd>, Seat),
}

impl AsyncListener {
    /// Serves this address together with all other workers; alone when maitred did not start us.
    ///
    /// # Errors
    /// Those of `bind(2)`.
    pub async fn bind(address: SocketAddr) -> io::Result<AsyncListener> {
        Ok(AsyncListener(match session::ask(address)? {
            None => Source::Kernel { listener: TcpListener::bind(address).await?, _seat: None },
            Some(seat) if seat.via == Via::Shared => {
                let listener = std::net::TcpListener::from(seat.socket.try_clone()?);
                listener.set_nonblocking(true)?;
                socket2::SockRef::from(&listener).listen(BACKLOG)?;
                seat.accepting(BACKLOG as u32)?;
                Source::Kernel { listener: TcpListener::from_std(listener)?, _seat: Some(seat) }
            }
            Some(seat) => {
                let socket = seat.socket.try_clone()?;
                socket2::SockRef::from(&socket).set_nonblocking(true)?;
                let socket = watch::readable(socket)?;
                seat.accepting(BACKLOG as u32)?;
                Source::Master(socket, seat)
            }
        }))
    }

    /// Takes the next connection. Cancel safe: a connection is either returned or still waiting.
    ///
    /// # Errors
    /// As for [`TcpListener::accept`]; `BrokenPipe` when the master is gone.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Source::Kernel { listener, .. } => listener.accept().await,
            Source::Master(socket, _) => loop {
                let mut ready = socket.readable().await?;
                if let Ok(received) = ready.try_io(|socket| session::receive(socket.get_ref().as_fd())) {
                    let (stream, peer) = received?;
                    stream.set_nonblocking(true)?;
                    return Ok((TcpStream::from_std(stream)?, peer));
                }
            },
        }
    }

    /// The address, with its real port.
    ///
    /// # Errors
    /// As for [`TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Source::Kernel { listener, .. } => listener.local_addr(),
            Source::Master(_, seat) => Ok(seat.address),
        }
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
                // Descriptors ran out, say: trying again at once would spin.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        AsyncListener::local_addr(self)
    }
}
