//! The other way to the master, for processes whose wrapper closed the control channel: an abstract Unix socket. A
//! connection carries one packet with the worker's token in it, and takes the answer. The `super::receiver` hears the
//! clients.

use super::Events;
use super::receiver::{CLIENTS_MAX, Receiver};
use crate::core::ids::WorkerId;
use crate::sys::dispose::Foreign;
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::secret::secret;
use nix::unistd::Pid;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The abstract socket.
#[derive(Debug)]
pub struct Rendezvous {
    name: String,
    socket: Arc<OwnedFd>,
    receiver: Arc<Receiver>,
}

impl Rendezvous {
    /// Opens it under a name that no process can have taken before.
    ///
    /// # Errors
    /// When no socket is available.
    pub fn open() -> io::Result<Rendezvous> {
        let name = format!("maitred-{}-{}", std::process::id(), secret()?);
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
        socket.listen(CLIENTS_MAX as i32)?;
        socket.set_nonblocking(true)?;
        Ok(Rendezvous { name, socket: Arc::new(socket.into()), receiver: Receiver::new()? })
    }

    /// The socket's abstract name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hears a worker from now on, here by its token, and on its notification socket.
    ///
    /// # Errors
    /// When the kernel cannot watch one socket more.
    pub fn hear(&self, worker: WorkerId, token: &str, notify: &Arc<Foreign>, group: Pid) -> io::Result<()> {
        self.receiver.hear(worker, token, notify, group)
    }

    /// Stops hearing it.
    pub fn forget(&self, worker: WorkerId, token: &str) {
        self.receiver.forget(worker, token);
    }

    /// Whether a client is being heard that would be cut off now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.receiver.is_busy()
    }

    /// Accepts no client for now, if none is being heard.
    pub fn pause(&self) -> bool {
        self.receiver.pause()
    }

    /// Accepts clients again.
    pub fn go_on(&self) {
        self.receiver.go_on();
    }

    /// Passes it on to the next program of this process: its name and its socket.
    pub fn pass(&self, passing: &Passing) -> (String, Number) {
        (self.name.clone(), passing.pass(&*self.socket))
    }

    /// Takes over one that was passed on. The workers that may use it are added later.
    ///
    /// # Errors
    /// When the descriptor is missing.
    pub fn take((name, number): (String, Number), taking: &Taking) -> io::Result<Rendezvous> {
        Ok(Rendezvous { name, socket: Arc::new(taking.take(number)?), receiver: Receiver::new()? })
    }

    /// Hears clients from now on.
    ///
    /// # Errors
    /// When the thread that does it cannot be made.
    pub fn serve(&self, events: Events) -> io::Result<()> {
        self.receiver.start(Arc::clone(&self.socket), events)
    }
}
