//! Which processes of a worker still have a listening socket.
//!
//! The master itself holds a copy of each hand-off socket, so the kernel does not tell it when the worker's processes
//! have closed theirs. A worker that asks for it (`HOLD=1`, as the shim does) therefore gets the end of a pipe beside
//! the socket. Each process that has the socket also has that end, even after `fork`, and closes both together, at the
//! latest when it dies: when the last end of the pipe is closed, so is the socket. Only over `exec` the socket stays
//! open without the pipe, until the next program asks for a pipe of its own; so `/proc` decides in the end.

use super::{Event, Events};
use crate::core::ids::WorkerId;
use crate::sys::{fd, watch};
use crate::wire::packet::RequestId;
use nix::errno::Errno;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// Pipes of one socket: one for the process that bound it, and one for each program that inherited it. For further
/// programs only `/proc` tells.
pub const PIPES_MAX: usize = 64;

/// The pipes of one socket.
#[derive(Debug, Default)]
pub struct Holders {
    pipes: RefCell<Vec<Pipe>>,
    /// Whether there ever was a pipe.
    watched: Cell<bool>,
    /// Whether a process was seen that has the socket and no pipe.
    pub unwatched: Cell<bool>,
    /// Looks in a row that found it nowhere while it might be on its way to another process.
    pub looks: Cell<u32>,
}

#[derive(Debug)]
struct Pipe {
    end: Rc<AsyncFd<OwnedFd>>,
    watching: JoinHandle<()>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Holders {
    /// Adds a pipe and returns the worker's end. When all are closed, [`Event::LetGo`] says so.
    ///
    /// # Errors
    /// `EMFILE` when there are [`PIPES_MAX`], or no descriptor is free.
    pub fn add(&self, worker: WorkerId, request: RequestId, events: &Events) -> io::Result<OwnedFd> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        self.watch(read, worker, request, events)?;
        Ok(write)
    }

    /// Watches our end of a pipe.
    ///
    /// # Errors
    /// As for [`Holders::add`].
    pub fn watch(&self, end: OwnedFd, worker: WorkerId, request: RequestId, events: &Events) -> io::Result<()> {
        let mut pipes = self.pipes.borrow_mut();
        pipes.retain(|pipe| !fd::is_hung_up(pipe.end.get_ref().as_fd()));
        if pipes.len() >= PIPES_MAX {
            return Err(Errno::EMFILE.into());
        }
        let end = Rc::new(watch::readable(end)?);
        let (watched, events) = (Rc::clone(&end), events.clone());
        let watching = tokio::task::spawn_local(async move {
            // Nothing is ever written: readable means closed.
            let _ = watched.readable().await;
            let _ = events.send(Event::LetGo { worker, request }).await;
        });
        pipes.push(Pipe { end, watching });
        self.watched.set(true);
        Ok(())
    }

    /// Whether there was at least one pipe and all are closed.
    #[must_use]
    pub fn are_gone(&self) -> bool {
        self.watched.get() && self.pipes.borrow().iter().all(|pipe| fd::is_hung_up(pipe.end.get_ref().as_fd()))
    }

    /// Our ends, to pass them on to the next program of this process.
    #[must_use]
    pub fn ends(&self) -> Vec<Rc<AsyncFd<OwnedFd>>> {
        self.pipes.borrow().iter().map(|pipe| Rc::clone(&pipe.end)).collect()
    }
}
