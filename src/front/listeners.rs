//! All addresses that the master holds, and which of them serves a worker's request.

use super::closing::{Afterwards, close_when_empty};
use super::common::Common;
use super::listener::{HeldBy, Key, Listener, Origin, Phase};
use super::{accept, mend};
use crate::clock;
use crate::config::Mode;
use crate::core::ids::{Slot, WorkerId};
use crate::core::moment::Moment;
use crate::kernel::{Kind, Steering, Wanted};
use crate::sys::dispose::{self, Foreign};
use crate::sys::socket::listen::{self, Sharing};
use crate::sys::socket::stored::Stored;
use crate::wire::address::Address;
use crate::wire::packet::{Listen, Ownership};
use nix::errno::Errno;
use socket2::Socket;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;
use tracing::{error, warn};

/// Addresses that may be held at once; a worker that asks for one more gets `EMFILE`.
pub const LISTENERS_MAX: usize = 1024;

/// Sockets of given-up addresses whose close is followed; with more, the oldest ones are not.
const CLOSED_MAX: usize = 64;
/// How long the close of such a socket may hold up a request for the same port.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// All listeners.
#[derive(Debug)]
pub struct Listeners {
    mode: Mode,
    common: Rc<Common>,
    all: Vec<Entry>,
    /// Whether the log already says that steering is not exact.
    complained: Cell<bool>,
    /// The ports that were given up lately, the newest last.
    closed: RefCell<VecDeque<Closed>>,
    /// Sockets that an earlier master had here.
    pub stored: Stored,
    changes: u64,
}

/// A port whose socket may still be open in another thread, or in a task that is about to end.
#[derive(Debug)]
struct Closed {
    port: u16,
    since: Moment,
    socket: Weak<Socket>,
}

impl Closed {
    fn may_be_open(&self) -> bool {
        clock::now().since(self.since) < CLOSED_WITHIN && (self.socket.strong_count() > 0 || dispose::is_busy())
    }
}

#[derive(Debug)]
struct Entry {
    listener: Rc<Listener>,
    /// The task that accepts.
    serving: Option<JoinHandle<()>>,
    /// The task that checks whether it still listens, where the workers accept.
    watching: Option<JoinHandle<()>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.watching.iter().for_each(JoinHandle::abort);
    }
}

/// A listener for a worker, and whether the worker's own socket became it.
#[derive(Debug)]
pub struct Found {
    /// The listener.
    pub listener: Rc<Listener>,
    /// Whether the socket is the master's or was the worker's.
    pub ownership: Ownership,
    /// The worker's socket, when it did not become the listener.
    pub own: Option<Foreign>,
}

impl Listeners {
    /// No listeners yet.
    #[must_use]
    pub fn new(mode: Mode, common: Rc<Common>) -> Listeners {
        Listeners {
            mode,
            common,
            all: Vec::new(),
            complained: Cell::new(false),
            closed: RefCell::default(),
            stored: Stored::default(),
            changes: 0,
        }
    }

    /// What all listeners share.
    #[must_use]
    pub fn common(&self) -> &Rc<Common> {
        &self.common
    }

    /// Every listener.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Listener>> {
        self.all.iter().map(|entry| &entry.listener)
    }

    /// Adds one that the operator asked for, and accepts there at once: early clients wait.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn add_bound(&mut self, listener: Listener) -> Rc<Listener> {
        let listener = self.add(listener);
        self.serve(&listener);
        listener
    }

    /// The listener for a worker's request, made now if the address is new. `held` tells whether the worker already has
    /// a socket on a listener.
    ///
    /// # Errors
    /// The error that `bind` must return in the worker.
    pub fn find_or_bind(
        &mut self,
        request: &Listen,
        own: Option<Foreign>,
        slot: Slot,
        held: impl Fn(&Listener) -> bool,
    ) -> io::Result<Found> {
        let asked = &request.address;
        let existing = self.existing(asked, held);
        let index = match existing {
            Ok(listener) => {
                listener.restore_path();
                return Ok(Found { listener, ownership: Ownership::Master, own });
            }
            Err(index) => index,
        };
        if self.all.len() >= LISTENERS_MAX {
            return Err(Errno::EMFILE.into());
        }
        let sharing = self.sharing(asked);
        let mut styled_after = None;
        // Connections over several paths could not be counted; with a plain socket of the master's, clients use one
        // path.
        let plain = sharing != Sharing::Alone || matches!(asked, Address::Tcp(_)) && self.common.opens.is_counting();
        // The kernel lets only sockets of one user share a port (`inet_rcv_saddr_equal` and `sk_uid` in
        // net/ipv4/inet_connection_sock.c), and those of the other slots are the master's.
        let foreign = |own: &Foreign| sharing == Sharing::Group && !listen::is_of_this_user(own.as_fd());
        let adoptable = |own: &Foreign| (!plain || listen::is_steerable(own.as_fd())) && !foreign(own);
        let (socket, ownership) = match (self.stored.take(asked, sharing), own) {
            (Some(kept), own) => {
                styled_after = own;
                (kept, Ownership::Master)
            }
            (None, Some(own)) if adoptable(&own) => {
                (listen::adopt(&own, asked, request.umask, sharing)?, Ownership::Adopted)
            }
            (None, own) => {
                styled_after = own;
                let socket = match asked {
                    Address::Unix(path) => listen::bind_unix(path, request.umask.map(|mask| 0o777 & !mask))?,
                    Address::Tcp(_) | Address::Abstract(_) => listen::bind(asked, sharing)?,
                };
                (socket, Ownership::Master)
            }
        };
        let key = Key { asked: asked.clone(), index };
        let mut listener = Listener::new(key, socket, Origin::Worker, Rc::clone(&self.common))?;
        if ownership == Ownership::Adopted {
            listener.held_by.set(HeldBy::Worker);
            listener.has_style();
        }
        listener.own_path();
        if sharing == Sharing::Group {
            listener.begin_group(slot, self.steering());
        }
        let listener = self.add(listener);
        Ok(Found { listener, ownership, own: styled_after })
    }

    /// Whether the master accepts on it.
    #[must_use]
    pub fn is_served(&self, listener: &Rc<Listener>) -> bool {
        self.all.iter().any(|entry| Rc::ptr_eq(&entry.listener, listener) && entry.serving.is_some())
    }

    /// Adds a listener that was passed on.
    pub fn add_again(&mut self, listener: Listener) -> Rc<Listener> {
        self.add(listener)
    }

    fn add(&mut self, listener: Listener) -> Rc<Listener> {
        let listener = Rc::new(listener);
        self.all.push(Entry { listener: Rc::clone(&listener), serving: None, watching: None });
        self.changes += 1;
        listener
    }

    /// How often a listener came or went.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a worker that asks for this address would share a listener that exists.
    #[must_use]
    pub fn serves(&self, asked: &Address) -> bool {
        self.existing(asked, |_| false).is_ok()
    }

    /// Whether the operator bound a port of the kernel's choice where this request asks for one, and the worker does
    /// not have that listener already.
    #[must_use]
    pub fn has_port_zero(&self, asked: &Address, held: impl Fn(&Listener) -> bool) -> bool {
        let named = |l: &&Rc<Listener>| l.origin == Origin::Operator && l.key.asked.is_ephemeral();
        self.iter().filter(named).any(|l| l.key.asked.covers(asked) && !held(l))
    }

    /// Whether an address has a socket for each slot: in kernel mode, where the family has such groups.
    #[must_use]
    pub fn sharing(&self, address: &Address) -> Sharing {
        match (self.mode, address) {
            (Mode::Kernel, Address::Tcp(_)) => Sharing::Group,
            _ => Sharing::Alone,
        }
    }

    /// What steers among the sockets of one address. Logs it when that is not the best kind.
    #[must_use]
    pub fn steering(&self) -> Steering {
        let wanted = Wanted::from(self.common.policy());
        let steering = Steering::best(wanted);
        if let Some(reason) = steering.reason().filter(|_| !self.complained.replace(true)) {
            let policy = steering.kind().name();
            match wanted.kind() {
                // It was available when this master started.
                Kind::SourceHash => {
                    error!(policy, reason, "clients do not stay at their workers: each connection's worker is drawn");
                }
                wanted => warn!(
                    policy,
                    reason,
                    "no {} in the kernel: each connection's worker is drawn at random",
                    wanted.name()
                ),
            }
        }
        steering
    }

    /// A listener that serves the request, or the index that a new one would have.
    fn existing(&self, asked: &Address, held: impl Fn(&Listener) -> bool) -> Result<Rc<Listener>, usize> {
        let serves =
            |l: &&Rc<Listener>| l.key.asked == *asked || (l.origin == Origin::Operator && l.key.asked.covers(asked));
        let open = |l: &&Rc<Listener>| l.phase.get() == Phase::Open;
        let mut candidates = self.iter().filter(open).filter(serves).peekable();
        if asked.is_ephemeral() {
            // The worker's nth socket on port 0 is the nth listener, so two of them stay apart. A listener that really
            // listens goes before one that may turn out to be a client's socket.
            let free: Vec<_> = candidates.filter(|l| !held(l)).collect();
            let next = free.iter().find(|l| l.backlog.get() > 0).or(free.first()).map(|l| Rc::clone(l));
            let taken = self.iter().filter(|l| l.key.asked == *asked).count();
            return next.ok_or(taken);
        }
        candidates.peek().map(|l| Rc::clone(l)).or_else(|| self.on_real_port(asked)).ok_or(0)
    }

    /// A worker may ask for the real port of a listener that was bound to port 0 (`{port}`).
    fn on_real_port(&self, asked: &Address) -> Option<Rc<Listener>> {
        let same = |l: &&Rc<Listener>| l.address == *asked || (l.origin == Origin::Operator && l.address.covers(asked));
        self.iter().filter(|l| l.phase.get() != Phase::GivenUp).find(same).cloned()
    }

    /// Begins to accept, if the master accepts in this mode and has not begun yet.
    pub fn serve(&mut self, listener: &Rc<Listener>) {
        let entry = self.all.iter_mut().find(|entry| Rc::ptr_eq(&entry.listener, listener));
        let Some(entry) = entry.filter(|entry| entry.serving.is_none() && entry.watching.is_none()) else { return };
        match (self.mode, &listener.group) {
            (Mode::Handoff, _) => {
                entry.serving = Some(tokio::task::spawn_local(accept::serve(Rc::clone(listener))));
            }
            (Mode::Shared | Mode::Kernel, None) if listener.backlog.get() > 0 => {
                entry.watching = Some(tokio::task::spawn_local(mend::keep_listening(Rc::clone(listener))));
            }
            // The worker of a slot takes care of the slot's socket.
            (Mode::Shared | Mode::Kernel, _) => {}
        }
    }

    /// Gives nothing more to a worker on any listener.
    pub fn retire(&self, worker: WorkerId) {
        for listener in self.iter() {
            listener.workers.retire(worker, None);
            listener.restore_path();
            listener.changed.notify_one();
        }
    }

    /// Tells every listener to take what waits and close. Those that the master does not accept on are left to the
    /// workers, which take what waits: in kernel mode new clients are refused where that is possible, and else they
    /// wait until the last worker has closed its socket. Returns how many will report [`super::Event::ListenerClosed`].
    pub fn close_all(&self) -> usize {
        let mut closing = 0;
        for entry in &self.all {
            entry.listener.phase.set(Phase::Closing);
            entry.listener.changed.notify_one();
            match entry.serving {
                Some(_) if entry.listener.socket().is_some() => closing += 1,
                _ => match &entry.listener.group {
                    Some(group) => {
                        let after = if group.refuse() { Afterwards::Stay } else { Afterwards::ShutDown };
                        closing += 1;
                        tokio::task::spawn_local(close_when_empty(Rc::clone(&entry.listener), after));
                    }
                    None => {
                        entry.watching.iter().for_each(JoinHandle::abort);
                        entry.listener.leave();
                    }
                },
            }
        }
        closing
    }

    /// Forgets a listener on which no worker ever listened.
    pub fn discard(&mut self, listener: &Rc<Listener>) {
        self.all.retain(|entry| !Rc::ptr_eq(&entry.listener, listener));
        self.changes += 1;
        self.close(listener);
    }

    /// Closes the socket of a listener that was given up, and remembers its port until that is done.
    fn close(&self, listener: &Listener) {
        if let (Address::Tcp(address), Some(socket)) = (&listener.address, listener.socket()) {
            let mut closed = self.closed.borrow_mut();
            if closed.len() == CLOSED_MAX {
                closed.pop_front();
            }
            let (port, since, socket) = (address.port(), clock::now(), Rc::downgrade(&socket));
            closed.push_back(Closed { port, since, socket });
        }
        listener.close();
    }

    /// Whether this address has no listener, and a socket that was closed lately may still be in its way: the thread
    /// that closes it is not done. It is soon, or does not matter any more after a second.
    #[must_use]
    pub fn is_closing(&self, asked: &Address) -> bool {
        let Address::Tcp(asked) = asked else { return false };
        let mut closed = self.closed.borrow_mut();
        closed.retain(Closed::may_be_open);
        closed.iter().any(|closed| closed.port == asked.port()) && !self.serves(&Address::Tcp(*asked))
    }

    /// Closes the listeners that workers gave up and that are not the operator's; returns them.
    pub fn drop_unused(&mut self, in_use: impl Fn(&Listener) -> bool) -> Vec<Rc<Listener>> {
        let unused = |entry: &mut Entry| {
            let listener = &entry.listener;
            let waits = listener.workers.is_draining() || listener.held.borrow().is_some();
            // No worker listens there, so the kernel would refuse them, too; but a worker that crashed comes back at
            // once.
            let waits = waits && listener.kept_until.get().is_none_or(|until| clock::now() < until);
            listener.origin == Origin::Worker && listener.given_up.get() && !waits && !in_use(listener)
        };
        self.drop_those(unused)
    }

    /// Closes listeners that workers gave up and whose port is in the way of another address.
    pub fn make_way(&mut self, asked: &Address, in_use: impl Fn(&Listener) -> bool) -> Vec<Rc<Listener>> {
        let port = |address: &Address| if let Address::Tcp(address) = address { Some(address.port()) } else { None };
        let in_the_way = |entry: &mut Entry| {
            let listener = &entry.listener;
            let overlaps = port(asked).is_some_and(|asked| asked != 0 && port(&listener.address) == Some(asked));
            let given_up = listener.origin == Origin::Worker && listener.given_up.get() && !in_use(listener);
            overlaps && given_up && listener.key.asked != *asked
        };
        self.drop_those(in_the_way)
    }

    fn drop_those(&mut self, which: impl FnMut(&mut Entry) -> bool) -> Vec<Rc<Listener>> {
        let dropped: Vec<Entry> = self.all.extract_if(.., which).collect();
        self.changes += dropped.len() as u64;
        let dropped = dropped.iter().map(|entry| {
            entry.serving.iter().for_each(JoinHandle::abort);
            self.close(&entry.listener);
            Rc::clone(&entry.listener)
        });
        dropped.collect()
    }
}
