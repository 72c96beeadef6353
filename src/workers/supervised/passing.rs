//! Supervision that goes on in the next program of this process.

use super::Supervised;
use super::socket::{HandoffSocket, Known};
use crate::core::ids::WorkerId;
use crate::front::common::Common;
use crate::front::handoff::Handoff;
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

/// A socket, as it is passed on: under these inodes.
#[derive(Debug, Serialize, Deserialize)]
struct PassedSocket {
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
    #[serde(rename = "doors")]
    sockets: Vec<PassedSocket>,
    next_request: RequestId,
}

impl Supervised {
    /// Passes it on; pending calls stay pending. `place` says which hand-off socket is where in the table.
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
        let mut sockets: Vec<(Rc<HandoffSocket>, Vec<u64>)> = Vec::new();
        for (inode, socket) in self.sockets.borrow().iter() {
            match sockets.iter_mut().find(|(other, _)| Rc::ptr_eq(other, socket)) {
                Some((_, inodes)) => inodes.push(*inode),
                None => sockets.push((Rc::clone(socket), vec![*inode])),
            }
        }
        let socket = |(socket, inodes): (Rc<HandoffSocket>, Vec<u64>)| PassedSocket {
            inodes,
            handoff: place(&socket.handoff),
            name: socket.name.clone(),
            family: socket.family,
            waiting: socket.waiting.borrow().iter().copied().collect(),
        };
        Passed {
            notifier: passing.pass(self.notifier()),
            known: self.known.borrow().iter().map(known).collect(),
            bound: self.bound.borrow().iter().copied().collect(),
            sockets: sockets.into_iter().map(socket).collect(),
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
        common: Rc<Common>,
        handoffs: &[Rc<Handoff>],
    ) -> io::Result<Rc<Supervised>> {
        let supervised = Supervised::new(worker, Notifier::new(taking.take(passed.notifier)?), common)?;
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
        for passed in passed.sockets {
            let missing = || io::Error::other("a hand-off socket is missing");
            let handoff = handoffs.get(passed.handoff).cloned().ok_or_else(missing)?;
            let socket = Rc::new(HandoffSocket::new(handoff, passed.name, passed.family));
            for inode in passed.inodes {
                supervised.open(inode, Rc::clone(&socket));
            }
            for call in passed.waiting {
                supervised.wait(call, Rc::clone(&socket));
            }
        }
        Ok(supervised)
    }
}
