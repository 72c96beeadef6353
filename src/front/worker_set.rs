//! The workers that may get a connection of one listener: those that accept there, by slot, and which of them is next.
//! Also the queues of those that may get nothing more.

pub mod passing;

use super::choice::Choice;
use super::handoff::{Handoff, Suspended};
use super::incoming::Incoming;
use super::incoming::NotTaken;
use crate::clock;
use crate::core::ids::{Slot, WorkerId};
use crate::core::moment::Moment;
use crate::core::policy::{Policy, RoundRobin, View};
use crate::core::slow_start::{SHARE_MAX, share};
use crate::opens::{Countable, Load};
use crate::sys::dispose::dispose;
use crate::sys::fd::Sent;
use crate::sys::socket::room::RoomWatch;
use crate::wire::packet::RequestId;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// How often the shares of fresh workers are recalculated.
const RECKON_EVERY: Duration = Duration::from_millis(20);

/// The result of offering a connection to the members.
#[derive(Debug)]
pub enum Offered {
    /// A worker has it.
    Handed,
    /// Every worker is full, or there is none.
    NoRoom,
    /// The user has too many descriptors in flight.
    TooManyInFlight,
    /// The kernel refused for another reason.
    Failed(io::Error),
}

/// Why a connection is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is new: a worker is chosen among those that have fewer connections open than they may.
    New,
    /// A worker returned it: the worker of this slot did not want it, or, with `None`, no worker did. It was let in
    /// already, and connections that wait behind it may still count as open at the worker that returned them, so a
    /// limit does not hold it up.
    Returned(Option<Slot>),
}

/// The sockets of one slot: more than one when its worker listens several times on one address.
#[derive(Debug)]
struct Member {
    handoffs: Vec<Rc<Handoff>>,
    turn: RoundRobin,
    /// Open connections of its worker.
    load: Rc<Load>,
    /// Its share now, in [`SHARE_MAX`]ths of a weight of 1.
    share: u32,
}

impl Member {
    fn has_room(&self) -> bool {
        self.handoffs.iter().any(|h| h.has_room())
    }
}

/// The slots as the policy sees them.
struct Shown<'a> {
    members: &'a [Member],
    except: Option<Slot>,
    most_open: u32,
    equal: bool,
}

impl View for Shown<'_> {
    #[inline]
    fn slots(&self) -> usize {
        self.members.len()
    }

    #[inline]
    fn may(&self, slot: usize) -> bool {
        let Some(member) = self.members.get(slot) else { return false };
        self.except.is_none_or(|except| except.index() != slot)
            && member.load.get() < self.most_open
            && member.has_room()
    }

    #[inline]
    fn load(&self, slot: usize) -> u32 {
        self.members.get(slot).map_or(0, |member| member.load.get())
    }

    #[inline]
    fn weight(&self, slot: usize) -> u32 {
        self.members.get(slot).map_or(0, |member| member.share)
    }

    #[inline]
    fn weights_are_equal(&self) -> bool {
        self.equal
    }
}

/// All slots of one listener.
#[derive(Debug)]
pub struct WorkerSet {
    members: RefCell<Vec<Member>>,
    /// Which of the hand-off sockets are full.
    pub room: Rc<RoomWatch>,
    /// Whether the set checked a moment ago which of them are no longer full; the next connection does not check again.
    caught_up: Cell<bool>,
    policy: RefCell<Policy>,
    /// How a worker is chosen.
    pub choice: Choice,
    /// The worker that got the last connection.
    served_last: Cell<Option<WorkerId>>,
    /// Whether all shares are the same.
    equal: Cell<bool>,
    /// Until when shares grow, and when they were last recalculated.
    growing_until: Cell<Option<Moment>>,
    reckoned: Cell<Moment>,
    /// Sockets of ended or draining workers in which connections may wait.
    draining: RefCell<Vec<Rc<Handoff>>>,
}

impl WorkerSet {
    /// A set in which no worker takes part yet.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn new(policy: Policy, choice: Choice) -> io::Result<WorkerSet> {
        Ok(WorkerSet {
            members: RefCell::default(),
            room: Rc::new(RoomWatch::new()?),
            caught_up: Cell::new(false),
            policy: RefCell::new(policy),
            choice,
            served_last: Cell::new(None),
            equal: Cell::new(true),
            growing_until: Cell::new(None),
            reckoned: Cell::default(),
            draining: RefCell::default(),
        })
    }

    /// Lets a worker take part.
    ///
    /// # Errors
    /// When the kernel cannot watch one more socket.
    pub fn add(&self, handoff: Rc<Handoff>) -> io::Result<()> {
        handoff.serves_since.set(clock::now());
        self.enter(handoff)
    }

    fn enter(&self, handoff: Rc<Handoff>) -> io::Result<()> {
        handoff.is_watched(self.room.add(handoff.sender())?);
        let mut members = self.members.borrow_mut();
        let index = handoff.slot.index();
        while members.len() <= index {
            let share = self.choice.weights.of(Slot(members.len() as u32)) * SHARE_MAX;
            members.push(Member { handoffs: Vec::new(), turn: RoundRobin::default(), load: Rc::default(), share });
        }
        let serves_since = handoff.serves_since.get();
        if let Some(member) = members.get_mut(index) {
            member.load = Rc::clone(&handoff.load);
            member.handoffs.push(handoff);
        }
        drop(members);
        self.grow(serves_since);
        Ok(())
    }

    /// Begins or continues to grow the share of a worker that has served since `serves_since`.
    fn grow(&self, serves_since: Moment) {
        let until = self.choice.growth.map(|growth| serves_since + growth);
        self.growing_until.set(self.growing_until.get().max(until));
        self.reckon(clock::now());
    }

    /// Recalculates the share that each slot has now.
    fn reckon(&self, now: Moment) {
        let mut members = self.members.borrow_mut();
        for (member, slot) in members.iter_mut().zip((0..).map(Slot)) {
            let since = member.handoffs.iter().map(|handoff| handoff.serves_since.get()).min();
            let grown = match (self.choice.growth, since) {
                (Some(growth), Some(since)) => share(now.since(since), growth),
                _ => SHARE_MAX,
            };
            member.share = self.choice.weights.of(slot) * grown;
        }
        self.equal.set(members.iter().zip(members.iter().skip(1)).all(|(one, next)| one.share == next.share));
        self.reckoned.set(now);
        if self.growing_until.get().is_some_and(|until| until <= now) {
            self.growing_until.set(None);
        }
    }

    /// Gives nothing more to the sockets of `worker` (all, or the one of `request`). They are draining from now on,
    /// with what waits in them.
    pub fn retire(&self, worker: WorkerId, request: Option<RequestId>) {
        let leaves = |h: &Rc<Handoff>| h.worker == worker && request.is_none_or(|id| h.request == id);
        let mut draining = self.draining.borrow_mut();
        for member in self.members.borrow_mut().iter_mut() {
            for gone in member.handoffs.extract_if(.., |h| leaves(h)) {
                // A suspended one is among them already.
                if !draining.iter().any(|draining| Rc::ptr_eq(draining, &gone)) {
                    draining.push(gone);
                }
            }
        }
        drop(draining);
        self.reckon(clock::now());
    }

    /// Gives nothing to a worker for now, and gives what it has not taken to others.
    pub fn suspend(&self, worker: WorkerId) {
        for handoff in self.serving().filter(|h| h.worker == worker) {
            handoff.suspend(Suspended::Yes);
            self.draining.borrow_mut().push(handoff);
        }
    }

    /// Gives connections to the worker again.
    pub fn readmit(&self, worker: WorkerId) {
        for handoff in self.serving().filter(|h| h.worker == worker) {
            handoff.suspend(Suspended::No);
            self.draining.borrow_mut().retain(|draining| !Rc::ptr_eq(draining, &handoff));
            handoff.serves_since.set(clock::now());
            self.grow(handoff.serves_since.get());
        }
    }

    /// Whether any worker may get a connection now.
    #[inline]
    pub fn has_room(&self) -> bool {
        let most = self.choice.most_open;
        let somebody = || self.members.borrow().iter().any(|member| member.load.get() < most && member.has_room());
        if somebody() {
            return true;
        }
        self.caught_up.set(true);
        self.room.catch_up() && somebody()
    }

    /// Whether each worker that could get connections has as many open as it may.
    #[must_use]
    pub fn all_have_most_open(&self) -> bool {
        let members = self.members.borrow();
        let mut serving = members.iter().filter(|member| member.handoffs.iter().any(|h| !h.is_suspended())).peekable();
        serving.peek().is_some() && serving.all(|member| member.load.get() >= self.choice.most_open)
    }

    /// Whether any worker takes part, full or not, in a slot other than `except`.
    pub fn anybody_but(&self, except: Slot) -> bool {
        let members = self.members.borrow();
        members.iter().enumerate().any(|(slot, member)| slot != except.index() && !member.handoffs.is_empty())
    }

    /// Whether no worker takes part.
    pub fn is_empty(&self) -> bool {
        self.members.borrow().iter().all(|member| member.handoffs.is_empty())
    }

    /// Hands a connection to the worker that the policy chooses, passing over full ones.
    #[inline]
    pub fn offer(&self, incoming: Incoming<'_>, arrival: Arrival) -> Offered {
        let (except, most_open) = match arrival {
            Arrival::New => (None, self.choice.most_open),
            Arrival::Returned(except) => (except, u32::MAX),
        };
        if self.growing_until.get().is_some() {
            let now = clock::now();
            if now.since(self.reckoned.get()) >= RECKON_EVERY {
                self.reckon(now);
            }
        }
        if !self.caught_up.replace(false) {
            self.room.catch_up();
        }
        let source = Choice::source(incoming.peer, self.choice.prefix);
        let mut members = self.members.borrow_mut();
        let mut policy = self.policy.borrow_mut();
        loop {
            let equal = self.equal.get();
            let shown = Shown { members: &members, except, most_open, equal };
            let Some(slot) = policy.choose(&shown, source) else { return Offered::NoRoom };
            let Some(member) = members.get_mut(slot) else { return Offered::NoRoom };
            let has_room = |i| member.handoffs.get(i).is_some_and(|handoff: &Rc<Handoff>| handoff.has_room());
            let Some(index) = member.turn.next_of(member.handoffs.len(), has_room) else { return Offered::NoRoom };
            let Some(handoff) = member.handoffs.get(index) else { return Offered::NoRoom };
            match handoff.send(incoming.connection, incoming.peer) {
                Ok(Sent::Sent) => {
                    self.count(incoming, handoff);
                    self.served_last.set(Some(handoff.worker));
                    policy.served(slot, source);
                    member.turn.served(index);
                    return Offered::Handed;
                }
                Ok(Sent::Full) => {}
                Ok(Sent::TooManyInFlight) => return Offered::TooManyInFlight,
                // The worker shut its end down; its CLOSE is on the way.
                Ok(Sent::Closed) => {
                    let closed = member.handoffs.remove(index);
                    self.draining.borrow_mut().push(closed);
                }
                Err(error) => return Offered::Failed(error),
            }
        }
    }

    /// The worker that got the last connection that was offered.
    #[must_use]
    pub fn served_last(&self) -> Option<WorkerId> {
        self.served_last.get()
    }

    /// Counts a connection as open at its new worker.
    #[inline]
    pub(super) fn count(&self, incoming: Incoming<'_>, handoff: &Handoff) {
        let choice = &self.choice;
        if choice.countable != Countable::None {
            let source = choice.limited_source(incoming.peer);
            choice.opens.opened(
                incoming.connection,
                incoming.peer,
                choice.countable,
                handoff.worker,
                &handoff.load,
                source,
            );
        }
    }

    /// The sockets in which untaken connections of ended or draining workers may wait.
    pub fn draining(&self) -> Vec<Rc<Handoff>> {
        self.draining.borrow().clone()
    }

    /// Whether there are draining sockets.
    pub fn is_draining(&self) -> bool {
        !self.draining.borrow().is_empty()
    }

    /// Forgets the draining sockets in which nothing waits any more; returns the workers that they belonged to.
    pub fn drop_drained(&self) -> Vec<WorkerId> {
        let (empty, waiting): (Vec<_>, Vec<_>) =
            self.draining.take().into_iter().partition(|handoff| handoff.queued() == 0);
        self.draining.replace(waiting);
        empty.iter().map(|handoff| handoff.worker).collect()
    }

    /// Untaken connections of one worker, draining or not.
    pub fn queued_of(&self, worker: WorkerId) -> u64 {
        self.all().filter(|h| h.worker == worker).map(|h| u64::from(h.queued())).sum()
    }

    /// Untaken connections that wait at one slot, also those of workers that ended there.
    pub fn queued_at(&self, slot: Slot) -> u64 {
        self.all().filter(|h| h.slot == slot).map(|h| u64::from(h.queued())).sum()
    }

    /// Takes all untaken connections out, which ends them; returns how many there were.
    pub fn take_all(&self) -> u64 {
        let take = |handoff: Rc<Handoff>| {
            let mut taken = 0;
            loop {
                match handoff.take_back() {
                    Ok(connection) => dispose(connection.connection),
                    Err(NotTaken::Lost) => {}
                    Err(NotTaken::Nothing | NotTaken::Ended | NotTaken::Failed(_)) => return taken,
                }
                taken += 1;
            }
        };
        self.all().map(take).sum::<u64>()
    }

    /// Whether `worker` still has a socket here, draining or not.
    pub fn knows(&self, worker: WorkerId) -> bool {
        self.all().any(|h| h.worker == worker)
    }

    /// The sockets of the workers that take part.
    pub fn serving(&self) -> impl Iterator<Item = Rc<Handoff>> {
        let members = self.members.borrow();
        members.iter().flat_map(|member| member.handoffs.iter().cloned()).collect::<Vec<_>>().into_iter()
    }

    fn all(&self) -> impl Iterator<Item = Rc<Handoff>> {
        let serving: Vec<_> = self.serving().collect();
        let draining = self.draining.borrow();
        // A suspended one is in both lists.
        let others = draining.iter().filter(|draining| !serving.iter().any(|h| Rc::ptr_eq(h, draining)));
        let others: Vec<_> = others.cloned().collect();
        serving.into_iter().chain(others)
    }
}
