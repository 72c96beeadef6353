//! Supervision that goes on in the next program of this process.

use super::{Door, Known, Supervised};
use crate::core::ids::WorkerId;
use crate::front::handoff::Handoff;
use crate::front::listener::House;
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::seccomp::{Call, Notifier};
use crate::wire::address::Address;
use crate::wire::packet::RequestId;
use serde::{Deserialize, Serialize};
use std::io;
use std::rc::Rc;

/// What is known of a socket, as it is passed on.
#[derive(Debug, Serialize, Deserialize)]
enum PassedKnown {
    Bound(Address),
    Prepared { request: RequestId, socket: Option<Number> },
    Listening { request: RequestId },
}

/// A door, as it is passed on: under these inodes.
#[derive(Debug, Serialize, Deserialize)]
struct PassedDoor {
    inodes: Vec<u64>,
    handoff: usize,
    name: Vec<u8>,
    family: u16,
    waiting: Vec<Call>,
}

/// The supervision as it is passed on to the next program of this process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    notifier: Number,
    known: Vec<(u64, PassedKnown)>,
    bound: Vec<u64>,
    doors: Vec<PassedDoor>,
    next_request: RequestId,
}

impl Supervised {
    /// Passes it on; calls that wait go on waiting. `place` says which hand-off socket is where in the table.
    pub fn pass(&self, passing: &Passing, place: &mut dyn FnMut(&Rc<Handoff>) -> usize) -> Passed {
        let known = |(inode, known): (&u64, &Known)| {
            let known = match known {
                Known::Bound(address) => PassedKnown::Bound(address.clone()),
                Known::Prepared { request, socket } => {
                    PassedKnown::Prepared { request: *request, socket: socket.as_ref().map(|fd| passing.pass(fd)) }
                }
                Known::Listening { request } => PassedKnown::Listening { request: *request },
            };
            (*inode, known)
        };
        let mut doors: Vec<(Rc<Door>, Vec<u64>)> = Vec::new();
        for (inode, door) in self.doors.borrow().iter() {
            match doors.iter_mut().find(|(other, _)| Rc::ptr_eq(other, door)) {
                Some((_, inodes)) => inodes.push(*inode),
                None => doors.push((Rc::clone(door), vec![*inode])),
            }
        }
        let door = |(door, inodes): (Rc<Door>, Vec<u64>)| PassedDoor {
            inodes,
            handoff: place(&door.handoff),
            name: door.name.clone(),
            family: door.family,
            waiting: door.waiting.borrow().iter().copied().collect(),
        };
        Passed {
            notifier: passing.pass(self.notifier()),
            known: self.known.borrow().iter().map(known).collect(),
            bound: self.bound.borrow().iter().copied().collect(),
            doors: doors.into_iter().map(door).collect(),
            next_request: *self.next_request.borrow(),
        }
    }

    /// Takes over a supervision that was passed on.
    ///
    /// # Errors
    /// When a descriptor is missing, or the reactor cannot watch it.
    pub fn take_over(
        worker: WorkerId,
        passed: Passed,
        taking: &Taking,
        house: Rc<House>,
        handoffs: &[Rc<Handoff>],
    ) -> io::Result<Rc<Supervised>> {
        let supervised = Supervised::new(worker, Notifier::new(taking.take(passed.notifier)?), house)?;
        for (inode, known) in passed.known {
            let known = match known {
                PassedKnown::Bound(address) => Known::Bound(address),
                PassedKnown::Prepared { request, socket } => {
                    Known::Prepared { request, socket: socket.map(|fd| taking.take(fd)).transpose()? }
                }
                PassedKnown::Listening { request } => Known::Listening { request },
            };
            supervised.known.borrow_mut().insert(inode, known);
        }
        supervised.bound.borrow_mut().extend(passed.bound);
        *supervised.next_request.borrow_mut() = passed.next_request;
        for passed in passed.doors {
            let missing = || io::Error::other("a hand-off socket is missing");
            let handoff = handoffs.get(passed.handoff).cloned().ok_or_else(missing)?;
            let door = Rc::new(Door::new(handoff, passed.name, passed.family));
            for inode in passed.inodes {
                supervised.open(inode, Rc::clone(&door));
            }
            for call in passed.waiting {
                supervised.wait(call, Rc::clone(&door));
            }
        }
        Ok(supervised)
    }
}
