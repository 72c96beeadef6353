//! A listener for threads.

use super::session::{self, Seat};
use crate::wire::packet::Via;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

/// A listener whose `accept` blocks. It may be shared by threads.
#[derive(Debug)]
pub struct Listener(Source);

#[derive(Debug)]
enum Source {
    /// Started without maitred, or in shared mode; then the seat's drop says CLOSE.
    Kernel {
        listener: TcpListener,
        _seat: Option<Seat>,
    },
    Master(Seat),
}

impl Listener {
    /// Serves this address together with all other workers; alone when maitred did not start us.
    ///
    /// # Errors
    /// Those of `bind(2)`.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        Ok(Listener(match session::ask(address)? {
            None => Source::Kernel { listener: TcpListener::bind(address)?, _seat: None },
            Some(seat) if seat.via == Via::Shared => {
                let listener = TcpListener::from(seat.socket.try_clone()?);
                socket2::SockRef::from(&listener).listen(BACKLOG)?;
                seat.accepting(BACKLOG as u32)?;
                Source::Kernel { listener, _seat: Some(seat) }
            }
            Some(seat) => {
                seat.accepting(BACKLOG as u32)?;
                Source::Master(seat)
            }
        }))
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// As for [`TcpListener::accept`]; `BrokenPipe` when the master is gone.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Source::Kernel { listener, .. } => listener.accept(),
            Source::Master(seat) => session::receive(seat.socket.as_fd()),
        }
    }

    /// Sends a connection back to the master, which gives it to another worker.
    ///
    /// # Errors
    /// `Unsupported` when no master stands behind this listener.
    pub fn give_back(&self, stream: TcpStream) -> io::Result<()> {
        match &self.0 {
            Source::Kernel { .. } => Err(io::ErrorKind::Unsupported.into()),
            Source::Master(seat) => seat.give_back(&stream),
        }
    }

    /// The address, with its real port.
    ///
    /// # Errors
    /// As for [`TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Source::Kernel { listener, .. } => listener.local_addr(),
            Source::Master(seat) => Ok(seat.address),
        }
    }
}

/// The usual backlog of servers (`SOMAXCONN` before Linux 5.4 was 128; the kernel cuts it).
pub(super) const BACKLOG: i32 = 1024;
