//! The sending side of one worker's hand-off socket.
//!
//! The kernel's socket queue is the table of connections in flight. The master keeps its own
//! duplicate of the *receiving* end, so the queue outlives the worker, and what the worker never
//! took can be taken back ([`Handoff::take_back`]).

pub mod passing;

use super::counters::{Counters, count};
use super::incoming::{NotTaken, TakenBack};
use crate::core::ids::{Slot, WorkerId};
use crate::core::moment::Moment;
use crate::opens::Load;
use crate::sys::dispose::Foreign;
use crate::sys::fd::{self, Sent};
use crate::sys::secret::secret;
use crate::sys::socket::listen;
use crate::sys::socket::room::Watched;
use crate::sys::watch;
use crate::wire::environment;
use crate::wire::packet::RequestId;
use crate::wire::peer::PEER_MAX;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// The master's own connections that are remembered for one hand-off socket; more than are under way.
const OWN_MAX: usize = 16;

/// How full a worker may get.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Connections that may wait untaken.
    pub connections: u32,
    /// What one of them adds to [`fd::unsent_bytes`].
    pub packet_cost: u32,
}

/// Whether a hand-off socket gets nothing for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspended {
    /// It gets nothing.
    Yes,
    /// It gets connections as usual.
    No,
}

/// The owner of a hand-off socket.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    /// The worker.
    pub worker: WorkerId,
    /// The slot of that worker.
    pub slot: Slot,
    /// The worker's identifier for it.
    pub request: RequestId,
}

/// One hand-off socket. What the worker put into it and the master did not read ends with it, so another thread closes
/// it.
#[derive(Debug)]
pub struct Handoff {
    /// The worker it belongs to.
    pub worker: WorkerId,
    /// The slot of that worker.
    pub slot: Slot,
    /// The worker's identifier for it.
    pub request: RequestId,
    /// Counters of the slot.
    pub counters: Rc<Counters>,
    /// Open connections of the worker.
    pub load: Rc<Load>,
    /// Since when it gets connections; slow start uses this.
    pub serves_since: Cell<Moment>,
    send: AsyncFd<Foreign>,
    receive: Foreign,
    depth: Cell<Depth>,
    /// Connections that may be sent before the master asks the kernel again how many wait. The queue only shrinks in
    /// between, so the limit holds, and only one send in `depth` needs that call.
    room: Cell<u32>,
    /// Whether it was full when the master last looked.
    watched: RefCell<Option<Rc<Watched>>>,
    /// Whether the kernel reports each connection that the worker takes. It does so while at most a quarter of the
    /// buffer is used (`unix_writable` in net/unix/af_unix.c).
    reports_all: Cell<bool>,
    /// Connections sent so far, the master's own included.
    sent: Cell<u64>,
    /// Cookies of the master's own connections, the newest first.
    own: RefCell<VecDeque<u64>>,
    /// How many of the master's own connections were sent.
    own_sent: Cell<u64>,
    /// Connections taken back so far.
    taken_back: Cell<u64>,
    /// Whether it gets nothing for now.
    suspended: Cell<bool>,
    /// Whether the log already says that nothing can be taken back, and that is still so.
    pub failing: Cell<bool>,
    /// Woken once, when the worker can return nothing more.
    finished: Notify,
}

impl Handoff {
    /// A new pair of sockets; also returns the worker's end.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn new(whose: Whose, counters: Rc<Counters>, load: Rc<Load>, depth: Depth) -> io::Result<(Handoff, OwnedFd)> {
        let (send, workers_end) = fd::pair()?;
        // epoll reports a take only while at most a quarter of the buffer is used (`unix_writable` in
        // net/unix/af_unix.c), so the buffer holds four times the depth. The kernel doubles the given size.
        let bytes = depth.connections as usize * depth.packet_cost as usize * 2;
        fd::set_send_buffer(send.as_fd(), bytes)?;
        fd::set_nonblocking(send.as_fd())?;
        // A process that has the worker's end knows by this name what it is.
        listen::name_abstractly(send.as_fd(), &format!("{}{}", environment::HANDOFF_NAME, secret()?))?;
        let receive = Foreign::from(workers_end.try_clone()?);
        let send = watch::readable(Foreign::from(send))?;
        Ok((Handoff::of_pair(whose, counters, load, depth, (send, receive)), workers_end))
    }

    fn of_pair(
        Whose { worker, slot, request }: Whose,
        counters: Rc<Counters>,
        load: Rc<Load>,
        depth: Depth,
        (send, receive): (AsyncFd<Foreign>, Foreign),
    ) -> Handoff {
        let needed = u64::from(depth.connections) * u64::from(depth.packet_cost) * 4;
        let reports_all = fd::send_buffer(send.get_ref().as_fd()).is_ok_and(|bytes| bytes as u64 >= needed);
        Handoff {
            worker,
            slot,
            request,
            counters,
            load,
            serves_since: Cell::default(),
            send,
            receive,
            depth: Cell::new(depth),
            room: Cell::new(0),
            watched: RefCell::default(),
            reports_all: Cell::new(reports_all),
            sent: Cell::new(0),
            own: RefCell::default(),
            own_sent: Cell::new(0),
            taken_back: Cell::new(0),
            suspended: Cell::new(false),
            failing: Cell::new(false),
            finished: Notify::new(),
        }
    }

    /// Whether one more connection may be sent.
    #[inline]
    pub fn has_room(&self) -> bool {
        if self.suspended.get() {
            return false;
        }
        if self.room.get() > 0 {
            return true;
        }
        let watched = self.watched.borrow();
        if watched.as_ref().is_some_and(|watched| watched.is_full()) {
            return false;
        }
        watched.iter().for_each(|watched| watched.is_asked());
        let room = self.depth.get().connections.saturating_sub(self.queued());
        self.room.set(room);
        if room == 0 && self.reports_all.get() {
            watched.iter().for_each(|watched| watched.set_full(true));
        }
        room > 0
    }

    /// Counts one that was sent. With the last place the socket counts as full without a question to the kernel, if
    /// nothing was taken since the places were counted. What is taken later, or was taken but is not read yet, is
    /// reported, and then the master asks.
    #[inline]
    fn one_more_waits(&self) {
        let left = self.room.get().saturating_sub(1);
        self.room.set(left);
        if left == 0 && self.reports_all.get() {
            let watched = self.watched.borrow();
            watched.iter().filter(|watched| !watched.took()).for_each(|watched| watched.set_full(true));
        }
    }

    /// Remembers from now on that it is full, until something is taken.
    pub fn is_watched(&self, watched: Rc<Watched>) {
        self.watched.replace(Some(watched));
    }

    /// Connections that the worker has not taken yet.
    #[inline]
    #[expect(clippy::expect_used, reason = "the sender is the master's own, and no other process can close it")]
    pub fn queued(&self) -> u32 {
        let bytes = fd::unsent_bytes(self.sender()).expect("SIOCOUTQ works on every socket");
        // Rounded: while the kernel reports a take it still counts one byte (`sock_wfree` in net/core/sock.c).
        let cost = self.depth.get().packet_cost;
        bytes.saturating_add(cost / 2) / cost
    }

    /// Connections sent so far, taken or not.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Connections that the worker itself took so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.sent.get().saturating_sub(self.taken_back.get()).saturating_sub(u64::from(self.queued()))
    }

    /// Suspends it, or lets it get connections again.
    pub fn suspend(&self, suspended: Suspended) {
        self.suspended.set(suspended == Suspended::Yes);
    }

    /// Whether it gets nothing for now.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspended.get()
    }

    /// Sends one of the master's own connections, to check whether the worker works. It is not counted as handed.
    ///
    /// # Errors
    /// Only an error that has no name in [`Sent`].
    pub fn send_own(&self, connection: BorrowedFd<'_>, peer: &[u8]) -> io::Result<Sent> {
        let sent = fd::send_connection(self.sender(), connection, peer)?;
        if sent == Sent::Sent {
            self.one_more_waits();
            count(&self.sent);
            count(&self.own_sent);
            let mut own = self.own.borrow_mut();
            own.truncate(OWN_MAX - 1);
            if let Some(cookie) = listen::cookie(connection) {
                own.push_front(cookie);
            }
        }
        Ok(sent)
    }

    /// Clients' connections sent so far, taken or not.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.sent.get().saturating_sub(self.own_sent.get())
    }

    /// Whether a connection is one of the master's own. The cookie tells: a port may be a client's by now, but a cookie
    /// is never used twice.
    #[must_use]
    pub fn is_own(&self, connection: BorrowedFd<'_>) -> bool {
        let own = self.own.borrow();
        !own.is_empty() && listen::cookie(connection).is_some_and(|cookie| own.contains(&cookie))
    }

    /// Sends one connection.
    ///
    /// # Errors
    /// Only an error that has no name in [`Sent`].
    #[inline]
    pub fn send(&self, connection: BorrowedFd<'_>, peer: &[u8]) -> io::Result<Sent> {
        let sent = fd::send_connection(self.sender(), connection, peer)?;
        match sent {
            Sent::Sent => {
                self.one_more_waits();
                count(&self.counters.handed);
                count(&self.sent);
            }
            Sent::Full => {
                // The buffer holds less than the depth, so what it holds is the depth from now on.
                let depth = self.depth.get();
                self.depth.set(Depth { connections: self.queued().max(1).min(depth.connections), ..depth });
                self.room.set(0);
                self.reports_all.set(false);
            }
            Sent::TooManyInFlight | Sent::Closed => {}
        }
        Ok(sent)
    }

    /// Takes back one connection that the worker has not taken. Exactly one side receives each packet, so this is right
    /// while the worker lives, too. A connection that is lost counts as taken back, too.
    ///
    /// # Errors
    /// When there is none.
    pub fn take_back(&self) -> Result<TakenBack, NotTaken> {
        loop {
            let taken = self.take();
            if matches!(taken, Ok(_) | Err(NotTaken::Lost)) {
                count(&self.taken_back);
            }
            // No client waits for one of the master's own.
            if taken.as_ref().is_ok_and(|taken| self.is_own(taken.connection.as_fd())) {
                continue;
            }
            if matches!(taken, Ok(_) | Err(NotTaken::Lost)) {
                count(&self.counters.rescued);
            }
            return taken;
        }
    }

    /// Takes one connection on behalf of the worker.
    ///
    /// # Errors
    /// When there is none.
    pub fn take(&self) -> Result<TakenBack, NotTaken> {
        loop {
            let mut peer = [0; PEER_MAX];
            let received = fd::receive(self.receive.as_fd(), &mut peer).map_err(NotTaken::of)?;
            let (peer_len, fds_lost) = (received.len.min(PEER_MAX), received.fds_lost);
            if let Some(connection) = received.into_first() {
                return Ok(TakenBack { connection, peer, peer_len });
            }
            if fds_lost {
                return Err(NotTaken::Lost);
            }
            if peer_len == 0 {
                return Err(NotTaken::Ended);
            }
        }
    }

    /// Puts back what [`Handoff::take_back`] just returned, as if it had not been taken. Returns false when it is lost.
    #[must_use]
    pub fn untake(&self, taken: &TakenBack) -> bool {
        let waits = self.put_back(taken);
        if waits {
            self.taken_back.set(self.taken_back.get().saturating_sub(1));
            self.counters.rescued.set(self.counters.rescued.get().saturating_sub(1));
        }
        waits
    }

    /// Puts back what was just taken and could not be delivered; it waits behind the others. Returns false when it is
    /// lost.
    #[must_use]
    pub fn put_back(&self, taken: &TakenBack) -> bool {
        let sent = fd::send_connection(self.sender(), taken.connection.as_fd(), taken.peer());
        self.one_more_waits();
        let waits = matches!(sent, Ok(Sent::Sent));
        if !waits {
            tracing::warn!(
                slot = self.slot.0,
                worker = self.worker.0,
                ?sent,
                "a connection is lost: it can neither be delivered nor put back"
            );
        }
        waits
    }

    /// The receiving end, of which the worker has a copy.
    #[must_use]
    pub fn receiver(&self) -> BorrowedFd<'_> {
        self.receive.as_fd()
    }

    /// Says that the worker returns nothing more: it ended, or closed its socket.
    pub fn finish(&self) {
        self.finished.notify_one();
    }

    /// Waits for [`Handoff::finish`].
    pub async fn is_finished(&self) {
        self.finished.notified().await;
    }

    /// The sending end, to watch or to read returned connections from.
    #[must_use]
    pub fn watch(&self) -> &AsyncFd<Foreign> {
        &self.send
    }

    /// The sending end.
    #[must_use]
    pub fn sender(&self) -> BorrowedFd<'_> {
        self.send.get_ref().as_fd()
    }
}
