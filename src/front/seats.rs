//! Who may get a connection of one listener: the workers that accept there, by slot, and whose turn
//! it is. Also the queues of those that may get nothing more.

use super::guest::Guest;
use super::handoff::{Handoff, NotTaken, Suspended};
use super::load::Load;
use super::opens::{Countable, Opens};
use crate::clock;
use crate::config::Config;
use crate::config::choice::{self, Weights};
use crate::core::ids::{Slot, WorkerId};
use crate::core::moment::Moment;
use crate::core::policy::{Memory, Policy, RoundRobin, View};
use crate::core::slow_start::{SHARE_MAX, share};
use crate::core::source::{Prefix, Source};
use crate::sys::dispose::dispose;
use crate::sys::fd::Sent;
use crate::sys::room::RoomWatch;
use crate::wire::packet::RequestId;
use crate::wire::peer;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// How often the shares of fresh workers are reckoned anew.
const RECKON_EVERY: Duration = Duration::from_millis(20);

/// What became of a connection that was offered to the seats.
#[derive(Debug)]
pub enum Offered {
    /// A worker has it.
    Handed,
    /// Every worker is full, or there is none.
    NoRoom,
    /// The user has too many descriptors in flight.
    TooManyInFlight,
    /// The kernel refused in a way that has no name.
    Failed(io::Error),
}

/// How a connection comes to be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comes {
    /// A worker is chosen among those that have fewer open than they may.
    In,
    /// The worker of a slot would not have it, or nobody would. It was let in already, and others may wait
    /// behind it that count as open at the very worker that sent them back, so a limit does not hold it up.
    Back(Option<Slot>),
}

/// The sockets of one slot: more than one when its worker listens several times on one address.
#[derive(Debug)]
struct Seat {
    handoffs: Vec<Rc<Handoff>>,
    turn: RoundRobin,
    /// What its worker has open.
    load: Rc<Load>,
    /// Its share now, in [`SHARE_MAX`]ths of a weight of 1.
    share: u32,
}

impl Seat {
    fn has_room(&self) -> bool {
        self.handoffs.iter().any(|h| h.has_room())
    }
}

/// How a worker is chosen.
#[derive(Debug)]
pub struct Choice {
    /// What each slot's share is.
    weights: Weights,
    /// How much of a client's address the policy goes by, if it does.
    prefix: Option<Prefix>,
    /// How much of it is one source for limits, if there are any.
    source_prefix: Option<Prefix>,
    /// Connections that one worker may have open.
    most_open: u32,
    /// How long a fresh worker's share grows.
    growth: Option<Duration>,
    opens: Rc<Opens>,
    /// Whether open connections can be counted.
    pub countable: Countable,
}

impl Choice {
    /// As the configuration says, for connections that can be counted so far.
    #[must_use]
    pub fn new(config: &Config, opens: Rc<Opens>, countable: Countable) -> Choice {
        let admission = &config.admission;
        let limited = opens.sources.borrow().are_limited();
        Choice {
            weights: config.weights.clone(),
            prefix: match config.policy {
                choice::Policy::SourceHash(prefix) => Some(prefix),
                _ => None,
            },
            source_prefix: limited.then_some(admission.source_prefix),
            most_open: admission.max_open_per_worker.unwrap_or(u32::MAX),
            // A client must meet its slot again after a re-fork.
            growth: admission.slow_start.filter(|_| !matches!(config.policy, choice::Policy::SourceHash(_))),
            opens,
            countable,
        }
    }

    /// Where a client comes from, as far as a prefix says that it matters.
    fn source(peer: &[u8], prefix: Option<Prefix>) -> Option<Source> {
        prefix.and_then(|prefix| Some(Source::of(peer::decode(peer)?.ip(), prefix)))
    }

    /// The source that the limits go by.
    #[must_use]
    pub fn limited_source(&self, peer: &[u8]) -> Option<Source> {
        Choice::source(peer, self.source_prefix)
    }
}

/// The slots as the policy sees them.
struct Shown<'a> {
    seats: &'a [Seat],
    except: Option<Slot>,
    most_open: u32,
    equal: bool,
}

impl View for Shown<'_> {
    #[inline]
    fn slots(&self) -> usize {
        self.seats.len()
    }

    #[inline]
    fn may(&self, slot: usize) -> bool {
        let Some(seat) = self.seats.get(slot) else { return false };
        self.except.is_none_or(|except| except.index() != slot) && seat.load.get() < self.most_open && seat.has_room()
    }

    #[inline]
    fn load(&self, slot: usize) -> u32 {
        self.seats.get(slot).map_or(0, |seat| seat.load.get())
    }

    #[inline]
    fn weight(&self, slot: usize) -> u32 {
        self.seats.get(slot).map_or(0, |seat| seat.share)
    }

    #[inline]
    fn weights_are_equal(&self) -> bool {
        self.equal
    }
}

/// All slots of one listener.
#[derive(Debug)]
pub struct Seats {
    seats: RefCell<Vec<Seat>>,
    /// Which of the hand-off sockets are full.
    pub room: Rc<RoomWatch>,
    /// Whether it was seen a moment ago, for the connection that comes next, which of them are full no more.
    caught_up: Cell<bool>,
    policy: RefCell<Policy>,
    /// How a worker is chosen.
    pub choice: Choice,
    /// Who got the last connection.
    served_last: Cell<Option<WorkerId>>,
    /// Whether all shares are the same.
    equal: Cell<bool>,
    /// Until when shares grow, and when they were reckoned last.
    growing_until: Cell<Option<Moment>>,
    reckoned: Cell<Moment>,
    /// Sockets of ended or draining workers in which connections may wait.
    orphans: RefCell<Vec<Rc<Handoff>>>,
}

/// Seats as they are passed on to the next program of this process: hand-off sockets by their place in a
/// table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    seats: Vec<(Vec<usize>, RoundRobin)>,
    turn: Memory,
    orphans: Vec<usize>,
}

impl Seats {
    /// Nobody takes part yet.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn new(policy: Policy, choice: Choice) -> io::Result<Seats> {
        Ok(Seats {
            seats: RefCell::default(),
            room: Rc::new(RoomWatch::new()?),
            caught_up: Cell::new(false),
            policy: RefCell::new(policy),
            choice,
            served_last: Cell::new(None),
            equal: Cell::new(true),
            growing_until: Cell::new(None),
            reckoned: Cell::default(),
            orphans: RefCell::default(),
        })
    }

    /// Passes them on; `place` says which hand-off socket is where in the table.
    pub fn pass(&self, place: &mut dyn FnMut(&Rc<Handoff>) -> usize) -> Passed {
        let seats = self.seats.borrow();
        Passed {
            seats: seats.iter().map(|s| (s.handoffs.iter().map(&mut *place).collect(), s.turn.clone())).collect(),
            turn: self.policy.borrow().memory(),
            orphans: self.orphans.borrow().iter().map(place).collect(),
        }
    }

    /// Takes over seats that were passed on.
    ///
    /// # Errors
    /// When a place in the table is empty.
    pub fn take(self, passed: &Passed, handoffs: &[Rc<Handoff>]) -> io::Result<Seats> {
        let at = |place: &usize| {
            handoffs.get(*place).cloned().ok_or_else(|| io::Error::other("a hand-off socket is missing"))
        };
        for (slot, (places, turn)) in passed.seats.iter().enumerate() {
            for place in places {
                self.sit_down(at(place)?)?;
            }
            if let Some(seat) = self.seats.borrow_mut().get_mut(slot) {
                seat.turn = turn.clone();
            }
        }
        self.policy.borrow_mut().remember(passed.turn.clone());
        self.orphans.replace(passed.orphans.iter().map(at).collect::<io::Result<Vec<_>>>()?);
        Ok(self)
    }

    /// Lets a worker take part.
    ///
    /// # Errors
    /// When the kernel cannot watch one socket more.
    pub fn add(&self, handoff: Rc<Handoff>) -> io::Result<()> {
        handoff.serves_since.set(clock::now());
        self.sit_down(handoff)
    }

    fn sit_down(&self, handoff: Rc<Handoff>) -> io::Result<()> {
        handoff.is_watched(self.room.add(handoff.sender())?);
        let mut seats = self.seats.borrow_mut();
        let index = handoff.slot.index();
        while seats.len() <= index {
            let share = self.choice.weights.of(Slot(seats.len() as u32)) * SHARE_MAX;
            seats.push(Seat { handoffs: Vec::new(), turn: RoundRobin::default(), load: Rc::default(), share });
        }
        let serves_since = handoff.serves_since.get();
        if let Some(seat) = seats.get_mut(index) {
            seat.load = Rc::clone(&handoff.load);
            seat.handoffs.push(handoff);
        }
        drop(seats);
        self.grow(serves_since);
        Ok(())
    }

    /// Begins, or goes on, to let the share of a worker grow that has served since then.
    fn grow(&self, serves_since: Moment) {
        let until = self.choice.growth.map(|growth| serves_since + growth);
        self.growing_until.set(self.growing_until.get().max(until));
        self.reckon(clock::now());
    }

    /// Reckons what each slot's share is now.
    fn reckon(&self, now: Moment) {
        let mut seats = self.seats.borrow_mut();
        for (seat, slot) in seats.iter_mut().zip((0..).map(Slot)) {
            let since = seat.handoffs.iter().map(|handoff| handoff.serves_since.get()).min();
            let grown = match (self.choice.growth, since) {
                (Some(growth), Some(since)) => share(now.since(since), growth),
                _ => SHARE_MAX,
            };
            seat.share = self.choice.weights.of(slot) * grown;
        }
        self.equal.set(seats.iter().zip(seats.iter().skip(1)).all(|(one, next)| one.share == next.share));
        self.reckoned.set(now);
        if self.growing_until.get().is_some_and(|until| until <= now) {
            self.growing_until.set(None);
        }
    }

    /// Gives nothing more to the sockets of `worker` (all, or the one of `request`); what waits in
    /// them is an orphan from now on.
    pub fn retire(&self, worker: WorkerId, request: Option<RequestId>) {
        let leaves = |h: &Rc<Handoff>| h.worker == worker && request.is_none_or(|id| h.request == id);
        let mut orphans = self.orphans.borrow_mut();
        for seat in self.seats.borrow_mut().iter_mut() {
            for gone in seat.handoffs.extract_if(.., |h| leaves(h)) {
                // One that was suspended is among them already.
                if !orphans.iter().any(|orphan| Rc::ptr_eq(orphan, &gone)) {
                    orphans.push(gone);
                }
            }
        }
        drop(orphans);
        self.reckon(clock::now());
    }

    /// Gives nothing to a worker for now, and what it has not taken to others.
    pub fn suspend(&self, worker: WorkerId) {
        for handoff in self.seated().filter(|h| h.worker == worker) {
            handoff.suspend(Suspended::Yes);
            self.orphans.borrow_mut().push(handoff);
        }
    }

    /// Gives to the worker again.
    pub fn readmit(&self, worker: WorkerId) {
        for handoff in self.seated().filter(|h| h.worker == worker) {
            handoff.suspend(Suspended::No);
            self.orphans.borrow_mut().retain(|orphan| !Rc::ptr_eq(orphan, &handoff));
            handoff.serves_since.set(clock::now());
            self.grow(handoff.serves_since.get());
        }
    }

    /// Whether anybody may get a connection now.
    #[inline]
    pub fn has_room(&self) -> bool {
        let most = self.choice.most_open;
        let somebody = || self.seats.borrow().iter().any(|seat| seat.load.get() < most && seat.has_room());
        if somebody() {
            return true;
        }
        self.caught_up.set(true);
        self.room.catch_up() && somebody()
    }

    /// Whether each worker that could get connections has as many open as it may.
    #[must_use]
    pub fn all_have_most_open(&self) -> bool {
        let seats = self.seats.borrow();
        let mut serving = seats.iter().filter(|seat| seat.handoffs.iter().any(|h| !h.is_suspended())).peekable();
        serving.peek().is_some() && serving.all(|seat| seat.load.get() >= self.choice.most_open)
    }

    /// Whether anybody takes part, full or not, in another slot than `except`.
    pub fn anybody_but(&self, except: Slot) -> bool {
        let seats = self.seats.borrow();
        seats.iter().enumerate().any(|(slot, seat)| slot != except.index() && !seat.handoffs.is_empty())
    }

    /// Whether nobody takes part.
    pub fn is_empty(&self) -> bool {
        self.seats.borrow().iter().all(|seat| seat.handoffs.is_empty())
    }

    /// Hands a connection to the worker that the policy chooses, passing over full ones.
    #[inline]
    pub fn offer(&self, guest: Guest<'_>, comes: Comes) -> Offered {
        let (except, most_open) = match comes {
            Comes::In => (None, self.choice.most_open),
            Comes::Back(except) => (except, u32::MAX),
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
        let source = Choice::source(guest.peer, self.choice.prefix);
        let mut seats = self.seats.borrow_mut();
        let mut policy = self.policy.borrow_mut();
        loop {
            let equal = self.equal.get();
            let shown = Shown { seats: &seats, except, most_open, equal };
            let Some(slot) = policy.choose(&shown, source) else { return Offered::NoRoom };
            let Some(seat) = seats.get_mut(slot) else { return Offered::NoRoom };
            let has_room = |i| seat.handoffs.get(i).is_some_and(|handoff: &Rc<Handoff>| handoff.has_room());
            let Some(index) = seat.turn.next_of(seat.handoffs.len(), has_room) else { return Offered::NoRoom };
            let Some(handoff) = seat.handoffs.get(index) else { return Offered::NoRoom };
            match handoff.send(guest.connection, guest.peer) {
                Ok(Sent::Sent) => {
                    self.count(guest, handoff);
                    self.served_last.set(Some(handoff.worker));
                    policy.served(slot, source);
                    seat.turn.served(index);
                    return Offered::Handed;
                }
                Ok(Sent::Full) => {}
                Ok(Sent::TooManyInFlight) => return Offered::TooManyInFlight,
                // The worker shut its end down; its CLOSE is on the way.
                Ok(Sent::Closed) => {
                    let closed = seat.handoffs.remove(index);
                    self.orphans.borrow_mut().push(closed);
                }
                Err(error) => return Offered::Failed(error),
            }
        }
    }

    /// Who got the last connection that was offered.
    #[must_use]
    pub fn served_last(&self) -> Option<WorkerId> {
        self.served_last.get()
    }

    /// Counts a connection as open at its new worker.
    #[inline]
    fn count(&self, guest: Guest<'_>, handoff: &Handoff) {
        let choice = &self.choice;
        if choice.countable != Countable::None {
            let source = choice.limited_source(guest.peer);
            choice.opens.opened(guest, choice.countable, handoff.worker, &handoff.load, source);
        }
    }

    /// The sockets in which untaken connections of ended or draining workers may wait.
    pub fn orphans(&self) -> Vec<Rc<Handoff>> {
        self.orphans.borrow().clone()
    }

    /// Whether there are orphans.
    pub fn has_orphans(&self) -> bool {
        !self.orphans.borrow().is_empty()
    }

    /// Forgets those orphans in which nothing waits any more; tells whose they were.
    pub fn drop_empty_orphans(&self) -> Vec<WorkerId> {
        let (empty, waiting): (Vec<_>, Vec<_>) =
            self.orphans.take().into_iter().partition(|handoff| handoff.queued() == 0);
        self.orphans.replace(waiting);
        empty.iter().map(|handoff| handoff.worker).collect()
    }

    /// Untaken connections of one worker, orphaned or not.
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

    /// Whether `worker` still has a socket here, orphaned or not.
    pub fn knows(&self, worker: WorkerId) -> bool {
        self.all().any(|h| h.worker == worker)
    }

    /// The sockets of those that take part.
    pub fn seated(&self) -> impl Iterator<Item = Rc<Handoff>> {
        let seats = self.seats.borrow();
        seats.iter().flat_map(|seat| seat.handoffs.iter().cloned()).collect::<Vec<_>>().into_iter()
    }

    fn all(&self) -> impl Iterator<Item = Rc<Handoff>> {
        let seated: Vec<_> = self.seated().collect();
        let orphans = self.orphans.borrow();
        // One that is suspended is among both.
        let others = orphans.iter().filter(|orphan| !seated.iter().any(|h| Rc::ptr_eq(h, orphan)));
        let others: Vec<_> = others.cloned().collect();
        seated.into_iter().chain(others)
    }
}
