//! A hand-off socket that goes on in the next program of this process.

use super::{Depth, Handoff, Whose};
use crate::core::ids::{Slot, WorkerId};
use crate::core::moment::Moment;
use crate::front::counters::Counters;
use crate::opens::Load;
use crate::sys::dispose::Foreign;
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::watch;
use crate::wire::packet::RequestId;
use serde::{Deserialize, Serialize};
use std::io;
use std::rc::Rc;

/// A hand-off socket as it is passed on to the next program of this process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    worker: WorkerId,
    slot: Slot,
    request: RequestId,
    send: Number,
    receive: Number,
    depth: u32,
    sent: u64,
    own: Vec<u64>,
    own_sent: u64,
    taken_back: u64,
    suspended: bool,
    #[serde(default)]
    serves_since: Moment,
}

impl Passed {
    fn whose(&self) -> Whose {
        Whose { worker: self.worker, slot: self.slot, request: self.request }
    }

    /// The worker it belongs to.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The slot of that worker.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }
}

impl Handoff {
    /// Passes it on.
    pub fn pass(&self, passing: &Passing) -> Passed {
        Passed {
            worker: self.worker,
            slot: self.slot,
            request: self.request,
            send: passing.pass(self.sender()),
            receive: passing.pass(&self.receive),
            depth: self.depth.get().connections,
            sent: self.sent.get(),
            own: self.own.borrow().iter().copied().collect(),
            own_sent: self.own_sent.get(),
            taken_back: self.taken_back.get(),
            suspended: self.suspended.get(),
            serves_since: self.serves_since.get(),
        }
    }

    /// Takes over a hand-off socket that was passed on.
    ///
    /// # Errors
    /// When a descriptor is missing, or the reactor cannot watch it.
    pub fn take_over(
        passed: &Passed,
        taking: &Taking,
        counters: Rc<Counters>,
        load: Rc<Load>,
        packet_cost: u32,
    ) -> io::Result<Handoff> {
        let send = watch::readable(Foreign::from(taking.take(passed.send)?))?;
        let receive = Foreign::from(taking.take(passed.receive)?);
        let depth = Depth { connections: passed.depth, packet_cost };
        let handoff = Handoff::of_pair(passed.whose(), counters, load, depth, (send, receive));
        handoff.sent.set(passed.sent);
        handoff.own.borrow_mut().extend(&passed.own);
        handoff.own_sent.set(passed.own_sent);
        handoff.taken_back.set(passed.taken_back);
        handoff.suspended.set(passed.suspended);
        handoff.serves_since.set(passed.serves_since);
        Ok(handoff)
    }
}
