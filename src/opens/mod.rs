//! Which connections are open, and at which worker: by cookie (`SO_COOKIE`), from the hand-over to the real close,
//! which the kernel reports ([`crate::sys::socket::closes`]). This needs no descriptor and no help from a worker.
//!
//! Connections are counted only if something needs the numbers: policies that go by load, and limits of open
//! connections. Without them a connection costs nothing here. What is not TCP is not counted, since nothing reports its
//! close: connections over Unix sockets, and over several paths (MPTCP).

mod load;
mod noticing;
pub mod passing;

pub use load::Load;

use crate::aside::Aside;
use crate::clock;
use crate::config::{Config, Mode};
use crate::core::ids::WorkerId;
use crate::core::moment::{Moment, millis};
use crate::core::notice::{ASK_EVERY, Notice};
use crate::core::source::Source;
use crate::core::sources::{Limits, Sources};
use crate::sys::socket::closes::{Bell, Closes};
use crate::sys::socket::listen;
use crate::sys::socket::sock_diag::{Asking, Connection, Family};
use crate::sys::watch;
use crate::wire::address::Address;
use crate::wire::peer;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tracing::{debug, warn};

/// How often the master asks the kernel for all connections where the kernel does not report closes.
const LOOK_UNHEARD: Duration = Duration::from_millis(100);

/// One open connection.
#[derive(Debug)]
struct Open {
    worker: WorkerId,
    load: Rc<Load>,
    source: Option<Source>,
    /// The addresses to ask the kernel about it.
    ends: Option<(SocketAddr, SocketAddr)>,
}

/// Whether the connections of a listener can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Countable {
    /// All of them.
    All,
    /// Those that turn out to be plain TCP.
    Some,
    /// None.
    None,
}

/// All open connections.
#[derive(Debug)]
pub struct Opens {
    counting: bool,
    open: RefCell<HashMap<u64, Open>>,
    loads: RefCell<HashMap<WorkerId, Rc<Load>>>,
    /// What is known of the clients' addresses.
    pub sources: RefCell<Sources>,
    ports: RefCell<HashSet<u16>>,
    families: RefCell<HashSet<Family>>,
    hearing: RefCell<Option<Rc<Closes>>>,
    /// Events were lost, and the master has not asked for all connections since.
    missed: Cell<bool>,
    /// How often all connections were counted again because of that.
    pub recounts: Cell<u64>,
    resync: Notify,
    freed: Notify,
    waiting: Cell<u32>,
    attention: Notify,
    /// Where the kernel is asked; `None` where the master does not ask: a task that waits for a place must hear at
    /// once.
    asking: Option<Asking>,
    notice: Cell<Notice>,
    asked: Cell<Moment>,
    /// Closes since the master last weighed how to notice them.
    closes: Cell<u32>,
    /// Open connections that cannot be asked for.
    unaskable: Cell<usize>,
    /// Reads the kernel's tables.
    aside: Aside,
}

impl Opens {
    /// No connection is open yet. Counts if the configuration needs it.
    #[must_use]
    pub fn new(config: &Config, aside: Aside) -> Opens {
        let admission = &config.admission;
        let limits = Limits { open: admission.max_open_per_source, rate: admission.max_rate_per_source };
        // In other modes connections do not pass here.
        let counting = config.mode == Mode::Handoff && (config.policy.counts_open() || admission.counts_open());
        Opens {
            counting,
            open: RefCell::default(),
            loads: RefCell::default(),
            sources: RefCell::new(Sources::new(limits)),
            ports: RefCell::default(),
            families: RefCell::default(),
            hearing: RefCell::default(),
            missed: Cell::new(false),
            recounts: Cell::new(0),
            resync: Notify::new(),
            freed: Notify::new(),
            waiting: Cell::new(0),
            attention: Notify::new(),
            asking: if counting && !admission.counts_open() { Asking::new().ok() } else { None },
            notice: Cell::default(),
            asked: Cell::default(),
            closes: Cell::new(0),
            unaskable: Cell::new(0),
            aside,
        }
    }

    /// Begins to hear of closes, if anything is counted.
    pub fn begin(self: &Rc<Self>) {
        if !self.counting {
            return;
        }
        let listening = Closes::listen().and_then(|closes| closes.only(&self.ports.borrow()).map(|()| closes));
        let belled = listening.and_then(|closes| Ok((watch::readable(Bell::new(&closes)?)?, closes)));
        match belled {
            Ok((bell, closes)) => {
                let closes = Rc::new(closes);
                self.hearing.replace(Some(Rc::clone(&closes)));
                tokio::task::spawn_local(noticing::hear(Rc::clone(self), closes, bell));
            }
            Err(error) => {
                let every_ms = millis(LOOK_UNHEARD);
                warn!(%error, every_ms, "the kernel does not tell of closed connections here; looking for them instead");
            }
        }
        tokio::task::spawn_local(noticing::look_again(Rc::clone(self)));
        if self.asking.is_some() {
            tokio::task::spawn_local(noticing::weigh(Rc::clone(self)));
        }
    }

    /// Whether anything is counted.
    #[must_use]
    pub fn is_counting(&self) -> bool {
        self.counting
    }

    /// Connections come in on this address from now on.
    pub fn watch(&self, address: &Address) {
        let (true, Address::Tcp(address)) = (self.counting, address) else { return };
        self.families.borrow_mut().insert(if address.is_ipv4() { Family::V4 } else { Family::V6 });
        if self.ports.borrow_mut().insert(address.port())
            && let Some(closes) = &*self.hearing.borrow()
            && let Err(error) = closes.only(&self.ports.borrow())
        {
            warn!(%error, "cannot hear of closes at one address more; looking for them instead");
            self.become_deaf();
        }
    }

    /// Stops hearing: from now on the kernel is asked for all connections.
    fn become_deaf(&self) {
        self.hearing.replace(None);
        self.notice.set(Notice::Hear);
        self.resync.notify_one();
    }

    /// Whether connections of a listener at this address and socket can be counted.
    #[must_use]
    pub fn countable(&self, address: &Address, socket: BorrowedFd<'_>) -> Countable {
        if listen::is_bound_to_interface(socket) {
            // Its connections are bound to it, too, and stay so.
            self.unaskable.set(self.unaskable.get() + 1);
        }
        match address {
            _ if !self.counting => Countable::None,
            // The events of another network namespace do not show in this one.
            Address::Tcp(_) if !listen::is_of_this_network(socket) => Countable::None,
            Address::Tcp(_) if listen::is_steerable(socket) => Countable::All,
            Address::Tcp(_) => Countable::Some,
            Address::Unix(_) | Address::Abstract(_) => Countable::None,
        }
    }

    /// The load of a worker, for as long as it lives.
    pub fn load_of(&self, worker: WorkerId) -> Rc<Load> {
        Rc::clone(self.loads.borrow_mut().entry(worker).or_default())
    }

    /// How many connections a worker has open.
    #[must_use]
    pub fn open_at(&self, worker: WorkerId) -> u32 {
        self.loads.borrow().get(&worker).map_or(0, |load| load.get())
    }

    /// A worker has ended; its connections close by themselves.
    pub fn forget(&self, worker: WorkerId) {
        self.loads.borrow_mut().remove(&worker);
    }

    /// How many connections are open.
    #[must_use]
    pub fn total(&self) -> usize {
        self.open.borrow().len()
    }

    /// A connection was handed to a worker, perhaps after another worker had it. Call this while the master still has
    /// it: until then it cannot be closed.
    #[inline]
    pub fn opened(
        &self,
        connection: BorrowedFd<'_>,
        peer: &[u8],
        countable: Countable,
        worker: WorkerId,
        load: &Rc<Load>,
        source: Option<Source>,
    ) {
        let counts = match countable {
            Countable::None => false,
            Countable::All => true,
            Countable::Some => listen::is_steerable(connection),
        };
        let Some(cookie) = counts.then(|| listen::cookie(connection)).flatten() else { return };
        count_up(load);
        let mut open = self.open.borrow_mut();
        if let Some(known) = open.get_mut(&cookie) {
            count_down(&known.load);
            (known.worker, known.load) = (worker, Rc::clone(load));
            return;
        }
        let source = source.filter(|source| self.sources.borrow_mut().opened(*source));
        let ends = self.asking.as_ref().and_then(|_| Some((listen::askable(connection)?, peer::decode(peer)?)));
        if ends.is_none() {
            self.unaskable.set(self.unaskable.get() + 1);
        }
        open.insert(cookie, Open { worker, load: Rc::clone(load), source, ends });
    }

    /// A worker returned a connection: it is open at no worker until another one gets it.
    pub fn came_back(&self, connection: BorrowedFd<'_>, countable: Countable) {
        let cookie = (countable != Countable::None).then(|| listen::cookie(connection)).flatten();
        let Some(cookie) = cookie else { return };
        if let Some(open) = self.open.borrow_mut().get_mut(&cookie) {
            count_down(&open.load);
            open.load = Rc::default();
            count_up(&open.load);
        }
    }

    fn closed(&self, cookie: u64) -> bool {
        let Some(open) = self.open.borrow_mut().remove(&cookie) else { return false };
        count_down(&open.load);
        self.closes.set(self.closes.get().saturating_add(1));
        if open.ends.is_none() {
            self.unaskable.set(self.unaskable.get().saturating_sub(1));
        }
        if let Some(source) = open.source {
            self.sources.borrow_mut().closed(clock::now(), source);
        }
        true
    }

    /// Takes notice of what was closed up to now.
    #[inline]
    pub fn catch_up(&self) {
        if !self.counting {
            return;
        }
        if let Some(closes) = &*self.hearing.borrow() {
            self.hear_all(closes);
        }
        if self.notice.get() == Notice::Ask {
            let now = clock::now();
            if now.since(self.asked.get()) >= ASK_EVERY {
                self.ask(now);
            }
        }
    }

    /// Asks for every open connection, if asking is the present way.
    pub fn ask_now(&self) {
        self.catch_up();
        if self.notice.get() == Notice::Ask {
            self.ask(clock::now());
        }
    }

    fn ask(&self, now: Moment) {
        let Some(asking) = &self.asking else { return };
        self.asked.set(now);
        let about =
            |(cookie, open): (&u64, &Open)| open.ends.map(|(local, peer)| Connection { cookie: *cookie, local, peer });
        let all: Vec<Connection> = self.open.borrow().iter().filter_map(about).collect();
        let mut freed = false;
        if let Err(error) = asking.closed(&all, |cookie| freed |= self.closed(cookie)) {
            debug!(%error, "cannot ask for connections");
            self.notice_by(Notice::Hear);
        }
        if freed {
            self.freed.notify_waiters();
        }
    }

    /// Switches to another way of noticing.
    fn notice_by(&self, notice: Notice) {
        let hearing = self.hearing.borrow().clone();
        let Some(closes) = hearing.filter(|_| self.notice.get() != notice) else { return };
        debug!(?notice, open = self.total(), "closes are noticed in another way");
        let changed = match notice {
            Notice::Ask => closes.leave(),
            Notice::Hear => closes.join(),
        };
        match changed {
            Ok(()) => self.notice.set(notice),
            Err(error) if notice == Notice::Hear => {
                warn!(%error, "the kernel does not tell of closed connections any more; looking for them instead");
                self.become_deaf();
            }
            Err(error) => debug!(%error, "cannot stop hearing of closes"),
        }
        if notice == Notice::Hear {
            // For what was closed before hearing began.
            self.missed.set(true);
            self.resync.notify_one();
        }
    }

    /// Ends when a connection is closed after this call. The master hears of it at once while the [`Attention`] lasts.
    pub fn freed(&self) -> (Attention<'_>, Notified<'_>) {
        self.waiting.set(self.waiting.get() + 1);
        self.attention.notify_one();
        (Attention(self), self.freed.notified())
    }
}

fn count_up(load: &Load) {
    load.0.set(load.0.get() + 1);
}

fn count_down(load: &Load) {
    load.0.set(load.0.get().saturating_sub(1));
}

/// A task waits for a connection to be closed.
pub struct Attention<'a>(&'a Opens);

impl Drop for Attention<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}
