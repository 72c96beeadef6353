//! Who may get a connection of one listener: the workers that accept there, by slot, and whose turn
//! it is. Also the queues of those that may get nothing more.

use super::handoff::{Handoff, Suspended};
use crate::core::ids::{Slot, WorkerId};
use crate::core::policy::RoundRobin;
use crate::sys::fd::Sent;
use crate::wire::packet::RequestId;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

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

/// The sockets of one slot: more than one when its worker listens several times on one address.
#[derive(Debug, Default)]
struct Seat {
    handoffs: Vec<Rc<Handoff>>,
    turn: RoundRobin,
}

impl Seat {
    fn has_room(&self) -> bool {
        self.handoffs.iter().any(|h| h.has_room())
    }
}

/// All slots of one listener.
#[derive(Debug, Default)]
pub struct Seats {
    seats: RefCell<Vec<Seat>>,
    turn: RefCell<RoundRobin>,
    /// Sockets of ended or draining workers in which connections may wait.
    orphans: RefCell<Vec<Rc<Handoff>>>,
}

/// Seats as they are passed on to the next program of this process: hand-off sockets by their place in a
/// table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    seats: Vec<(Vec<usize>, RoundRobin)>,
    turn: RoundRobin,
    orphans: Vec<usize>,
}

impl Seats {
    /// Passes them on; `place` says which hand-off socket is where in the table.
    pub fn pass(&self, place: &mut dyn FnMut(&Rc<Handoff>) -> usize) -> Passed {
        let seats = self.seats.borrow();
        Passed {
            seats: seats.iter().map(|s| (s.handoffs.iter().map(&mut *place).collect(), s.turn.clone())).collect(),
            turn: self.turn.borrow().clone(),
            orphans: self.orphans.borrow().iter().map(place).collect(),
        }
    }

    /// Takes over seats that were passed on.
    ///
    /// # Errors
    /// When a place in the table is empty.
    pub fn take(passed: &Passed, handoffs: &[Rc<Handoff>]) -> io::Result<Seats> {
        let at = |place: &usize| {
            handoffs.get(*place).cloned().ok_or_else(|| io::Error::other("a hand-off socket is missing"))
        };
        let all = |places: &[usize]| places.iter().map(at).collect::<io::Result<Vec<_>>>();
        let seat = |(places, turn): &(Vec<usize>, RoundRobin)| Ok(Seat { handoffs: all(places)?, turn: turn.clone() });
        let seats = passed.seats.iter().map(seat).collect::<io::Result<Vec<_>>>()?;
        let orphans = RefCell::new(all(&passed.orphans)?);
        Ok(Seats { seats: RefCell::new(seats), turn: RefCell::new(passed.turn.clone()), orphans })
    }

    /// Lets a worker take part.
    pub fn add(&self, handoff: Rc<Handoff>) {
        let mut seats = self.seats.borrow_mut();
        let index = handoff.slot.index();
        if seats.len() <= index {
            seats.resize_with(index + 1, Seat::default);
        }
        seats[index].handoffs.push(handoff);
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
        }
    }

    /// Whether anybody may get a connection now.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.seats.borrow().iter().any(Seat::has_room)
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

    /// Hands a connection to the worker whose turn it is, passing over full ones and `except`.
    #[inline]
    pub fn offer(&self, connection: BorrowedFd<'_>, peer: &[u8], except: Option<Slot>) -> Offered {
        let mut seats = self.seats.borrow_mut();
        let mut turn = self.turn.borrow_mut();
        loop {
            let may = |slot: usize| except.is_none_or(|e| e.index() != slot) && seats[slot].has_room();
            let Some(slot) = turn.choose(seats.len(), may) else { return Offered::NoRoom };
            let seat = &mut seats[slot];
            let Some(index) = seat.turn.choose(seat.handoffs.len(), |i| seat.handoffs[i].has_room()) else {
                return Offered::NoRoom;
            };
            match seat.handoffs[index].send(connection, peer) {
                Ok(Sent::Sent) => {
                    turn.served(slot);
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
        self.all().map(|handoff| std::iter::from_fn(|| handoff.take_back().ok()).count() as u64).sum()
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
