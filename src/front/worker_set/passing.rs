//! The worker set of a listener, as it is passed on to the next program of this process.

use super::WorkerSet;
use crate::core::policy::{Memory, RoundRobin};
use crate::front::handoff::Handoff;
use serde::{Deserialize, Serialize};
use std::io;
use std::rc::Rc;

/// A worker set as it is passed on to the next program of this process. It names hand-off sockets by their place in a
/// table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    #[serde(rename = "seats")]
    members: Vec<(Vec<usize>, RoundRobin)>,
    turn: Memory,
    #[serde(rename = "orphans")]
    draining: Vec<usize>,
}

impl WorkerSet {
    /// Passes the set on; `place` gives the index of each hand-off socket in the table.
    pub fn pass(&self, place: &mut dyn FnMut(&Rc<Handoff>) -> usize) -> Passed {
        let members = self.members.borrow();
        Passed {
            members: members.iter().map(|s| (s.handoffs.iter().map(&mut *place).collect(), s.turn.clone())).collect(),
            turn: self.policy.borrow().memory(),
            draining: self.draining.borrow().iter().map(place).collect(),
        }
    }

    /// Takes over members that were passed on.
    ///
    /// # Errors
    /// When a place in the table is empty.
    pub fn take(self, passed: &Passed, handoffs: &[Rc<Handoff>]) -> io::Result<WorkerSet> {
        let at = |place: &usize| {
            handoffs.get(*place).cloned().ok_or_else(|| io::Error::other("a hand-off socket is missing"))
        };
        for (slot, (places, turn)) in passed.members.iter().enumerate() {
            for place in places {
                self.enter(at(place)?)?;
            }
            if let Some(member) = self.members.borrow_mut().get_mut(slot) {
                member.turn = turn.clone();
            }
        }
        self.policy.borrow_mut().remember(passed.turn.clone());
        self.draining.replace(passed.draining.iter().map(at).collect::<io::Result<Vec<_>>>()?);
        Ok(self)
    }
}
