//! One address that the master holds for the workers.

pub mod passing;

use super::common::Common;
use super::failures::Failures;
use super::handoff::Handoff;
use super::incoming::TakenBack;
use super::room::WatchedRoom;
use super::worker_set::WorkerSet;
use crate::clock;
use crate::core::ids::{Slot, WorkerId};
use crate::core::moment::Moment;
use crate::kernel::Steering;
use crate::kernel::group::Group;
use crate::sys::dispose::{self, Foreign};
use crate::sys::rights::Asker;
use crate::sys::socket::listen::{self, Sharing};
use crate::sys::socket::socket_file::SocketFile;
use crate::wire::address::Address;
use crate::wire::packet::RequestId;
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Why a listener exists, which also decides when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// `--bind` or a service manager asked for it; it lives as long as the master.
    Operator,
    /// A worker asked for it.
    Worker,
}

/// Which address a worker must ask for to be served here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The address as asked for; port 0 stays 0.
    pub asked: Address,
    /// A worker's nth listening socket on port 0 of this address shares the nth listener.
    pub index: usize,
}

/// Which other process may hold the listening socket. A holder can do anything with it: shut it down, let it block,
/// accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldBy {
    /// No other process: the master made it and, in hand-off mode, does not give it away.
    Master,
    /// The worker that the socket belonged to.
    #[default]
    Worker,
    /// The process that passed it to the master.
    Manager,
}

/// The state of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It accepts connections.
    Open,
    /// It takes what waits in the kernel's queue, then closes.
    Closing,
    /// It closed before the master stops, because its socket could not be used any more. A worker that asks for the
    /// address gets another listener.
    GivenUp,
}

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// The address and index that it serves.
    pub key: Key,
    /// The address where it actually listens.
    pub address: Address,
    /// Why it exists.
    pub origin: Origin,
    /// The workers that take part.
    pub workers: WorkerSet,
    /// Wakes the accept loop for anything other than a new connection.
    pub changed: Notify,
    /// Connections accepted.
    pub accepted: Cell<u64>,
    /// The backlog that `listen` was last called with.
    pub backlog: Cell<u32>,
    /// Its state.
    pub phase: Cell<Phase>,
    /// What it shares with the other listeners.
    pub common: Rc<Common>,
    /// Reports that a worker takes a connection; present as long as it happens that all workers are full.
    pub saturated: RefCell<Option<Rc<AsyncFd<WatchedRoom>>>>,
    /// A connection that was taken from the kernel and for which no worker had room. There is at most one: the next is
    /// taken only when this one is gone.
    pub held: RefCell<Option<TakenBack>>,
    /// When the connection that is timed was accepted.
    pub timed: Cell<Option<Moment>>,
    /// When the held connection will have waited for as long as it may.
    pub held_until: Cell<Option<Moment>>,
    /// Since when there has been at least one worker without a break.
    pub served_since: Cell<Option<Moment>>,
    /// The worker and request whose socket became this listener. If that worker gives it up before it ever listened, it
    /// was a client's socket after all, and nothing can listen there.
    pub adopted_from: Cell<Option<(WorkerId, RequestId)>>,
    /// Whether the last worker that listened here closed its socket and lived on. The death of a worker does not count:
    /// the next worker comes back here, and clients wait meanwhile.
    pub given_up: Cell<bool>,
    /// The last worker that gave it up.
    pub given_up_by: Cell<Option<WorkerId>>,
    /// Since when no worker has it, although every slot has a worker that serves.
    pub unheld_since: Cell<Option<Moment>>,
    /// Until when connections that wait keep it anyway.
    pub kept_until: Cell<Option<Moment>>,
    /// Whether a worker opened it only after it had served for a while.
    pub opened_late: Cell<bool>,
    /// Whether descriptors or memory ran out and no connection was accepted since.
    pub exhausted: Cell<bool>,
    /// Which other process holds its socket.
    pub held_by: Cell<HeldBy>,
    /// How often its socket failed recently.
    pub failures: Cell<Failures>,
    /// The sockets of the slots, in kernel mode; [`Listener::socket`] is the first of them.
    pub group: Option<Group>,
    socket: RefCell<Option<Rc<Socket>>>,
    /// Whether the options of a worker's socket were copied.
    styled: Cell<bool>,
    path: RefCell<Option<SocketFile>>,
}

impl Listener {
    /// A listener on a bound socket.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn new(key: Key, socket: Socket, origin: Origin, common: Rc<Common>) -> io::Result<Listener> {
        let address = match &key.asked {
            // It may have been bound by a shorter name.
            Address::Unix(_) => key.asked.clone(),
            asked => listen::local_address(&socket).unwrap_or_else(|_| asked.clone()),
        };
        let workers = common.worker_set(&address, Some(&socket))?;
        Ok(Listener {
            path: RefCell::default(),
            address,
            key,
            origin,
            workers,
            changed: Notify::new(),
            accepted: Cell::new(0),
            backlog: Cell::new(0),
            phase: Cell::new(Phase::Open),
            common,
            saturated: RefCell::default(),
            held: RefCell::new(None),
            timed: Cell::new(None),
            held_until: Cell::new(None),
            served_since: Cell::new(None),
            adopted_from: Cell::new(None),
            given_up: Cell::new(false),
            given_up_by: Cell::new(None),
            unheld_since: Cell::new(None),
            kept_until: Cell::new(None),
            opened_late: Cell::new(false),
            exhausted: Cell::new(false),
            held_by: Cell::new(HeldBy::Master),
            failures: Cell::default(),
            group: None,
            socket: RefCell::new(Some(Rc::new(socket))),
            styled: Cell::new(false),
        })
    }

    /// Makes its socket the first of a group, the one that belongs to `slot`.
    pub fn begin_group(&mut self, slot: Slot, steering: Steering) {
        if let Some(socket) = self.socket() {
            self.group = Some(Group::new(slot, socket, steering, self.common.admission.defer));
        }
    }

    /// Gives up a slot's socket that was a client's after all, which cannot be known before it listens. Returns false
    /// when the group has no other socket.
    pub fn withdraw(&self, slot: Slot) -> bool {
        let other = self.group.as_ref().and_then(|group| group.withdraw(slot));
        let found = other.is_some();
        if found {
            *self.socket.borrow_mut() = other;
        }
        found
    }

    /// Whether it has no socket any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.socket.borrow().is_none()
    }

    /// Marks the socket file as the master's: kept while it runs, removed at its end.
    pub fn own_path(&mut self) {
        let Address::Unix(path) = &self.address else { return };
        self.path.replace(Some(SocketFile::own(path)));
    }

    /// The rights with which its socket file was made.
    #[must_use]
    pub fn made_by(&self) -> Asker {
        self.path.borrow().as_ref().map_or_else(Asker::default, |file| file.made_by().clone())
    }

    /// Puts the socket file back if it was removed.
    pub fn restore_path(&self) {
        if self.path.borrow().as_ref().is_some_and(SocketFile::restore) {
            tracing::warn!(address = %self.address, "a worker removed the socket file; put it back");
        }
    }

    /// The socket, until it is closed.
    #[must_use]
    pub fn socket(&self) -> Option<Rc<Socket>> {
        self.socket.borrow().clone()
    }

    /// All its sockets: one, or in kernel mode one for each slot.
    #[must_use]
    pub fn sockets(&self) -> Vec<Rc<Socket>> {
        match &self.group {
            Some(group) => group.sockets(),
            None => self.socket().into_iter().collect(),
        }
    }

    /// Calls `listen(2)`; a larger backlog than before enlarges the queue.
    ///
    /// # Errors
    /// The error of `listen(2)`.
    pub fn listen(&self, backlog: u32) -> io::Result<()> {
        if let Some(socket) = self.socket() {
            self.defer(&socket)?;
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
            self.backlog.set(backlog);
        }
        Ok(())
    }

    /// Replaces a socket that cannot be used any more with one of the master's own, which listens where the old one
    /// did.
    ///
    /// # Errors
    /// The error of `bind(2)` or `listen(2)`.
    pub fn replace_socket(&self, old: &Socket) -> io::Result<()> {
        let mut file = self.path.borrow_mut();
        let socket = match &mut *file {
            Some(file) => {
                let _ = old.shutdown(std::net::Shutdown::Both);
                let (socket, replaced) = file.replace(|path, mode| listen::bind_unix(path, Some(mode)))?;
                *file = replaced;
                socket
            }
            None => listen::bind_instead(old, &self.address, Sharing::Alone)?,
        };
        drop(file);
        self.defer(&socket)?;
        socket.listen(i32::try_from(self.backlog.get()).unwrap_or(i32::MAX))?;
        *self.socket.borrow_mut() = Some(Rc::new(socket));
        self.held_by.set(HeldBy::Master);
        self.adopted_from.set(None);
        Ok(())
    }

    /// Gives the listener the options that the first worker set on its own socket.
    pub fn style_after(&self, own: &Foreign) {
        if !self.styled.replace(true) {
            self.take_options(own);
        }
    }

    /// Its socket was a worker's own, and has that one's options.
    pub fn has_style(&self) {
        self.styled.set(true);
    }

    /// Gives the listener the options of a worker's own socket.
    pub fn take_options(&self, own: &Foreign) {
        if let Some(socket) = self.socket() {
            listen::copy_options(own.as_fd(), socket.as_fd());
            if let Err(error) = self.defer(&socket) {
                tracing::warn!(address = %self.address, %error, "silent connections are not deferred any more");
            }
        }
    }

    /// Keeps silent connections in the kernel, if the configuration asks for it.
    fn defer(&self, socket: &Socket) -> io::Result<()> {
        self.common.admission.defer.map_or(Ok(()), |time| listen::defer(socket, time))
    }

    /// Connections in the kernel's accept queue.
    #[must_use]
    pub fn queued(&self) -> u32 {
        if let Some(group) = &self.group {
            return u32::try_from(group.queued()).unwrap_or(u32::MAX);
        }
        self.socket().map_or(0, |socket| listen::queued(socket.as_fd()))
    }

    /// Whether a limit lets no connection in for now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let per_worker = self.common.admission.max_open_per_worker.is_some();
        self.has_no_place() || per_worker && self.workers.all_have_most_open()
    }

    /// Whether as many connections are open at all workers together as the limit allows, or the places that are left
    /// belong to listeners that have waited for longer.
    #[must_use]
    pub fn has_no_place(&self) -> bool {
        let common = &self.common;
        let most = common.admission.max_open;
        most.is_some_and(|most| common.opens.total() + common.admission_queue.before(self) >= most as usize)
    }

    /// Lets a worker take part.
    ///
    /// # Errors
    /// When the kernel cannot watch one more socket.
    pub fn admit(&self, handoff: &Rc<Handoff>) -> io::Result<()> {
        if self.workers.is_empty() {
            self.served_since.set(Some(clock::now()));
        }
        self.workers.add(Rc::clone(handoff))?;
        self.changed.notify_one();
        Ok(())
    }

    /// Leaves the socket to the workers that accept on it, and lets nothing new in. It is not shut down: `accept` would
    /// fail then, and a worker that takes its time to end would try again and again. One that a service manager passed
    /// stays as it is for the next start.
    pub fn leave(&self) {
        if let Some(socket) = self.socket.borrow_mut().take() {
            let is_ours = self.held_by.get() != HeldBy::Manager;
            if is_ours
                && matches!(self.address, Address::Tcp(_))
                && let Err(error) = listen::drop_everything(&socket)
            {
                tracing::debug!(address = %self.address, %error, "new connections are let in until the workers end");
            }
            dispose::let_go(socket);
        }
        if let Some(file) = &*self.path.borrow() {
            file.remove();
        }
    }

    /// Closes the socket. It is shut down first, unless a service manager passed it: a worker may have it, whose own it
    /// was (unless it never listened and is a client's by now), or a manager that keeps it, and clients are to be
    /// refused.
    pub fn close(&self) {
        if let Some(group) = &self.group {
            group.close();
        }
        if let Some(socket) = self.socket.borrow_mut().take()
            && (self.origin == Origin::Worker || self.held_by.get() == HeldBy::Master)
        {
            if self.backlog.get() > 0 {
                // The worker may have turned it into a connection since, and decides how long the close of that one
                // takes.
                dispose::no_linger(socket.as_fd());
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
            // The accept loop has another reference as long as it runs.
            dispose::let_go(socket);
        }
        if let Some(file) = &*self.path.borrow() {
            file.remove();
        }
    }
}
