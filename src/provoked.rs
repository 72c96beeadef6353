//! Log lines that a worker can provoke as often as it likes. The first of each kind say what is wrong. Of the others
//! only some are logged, with how many were left out, so that a flood fills neither a disk nor a screen.

use crate::core::ids::WorkerId;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use tracing::info;

/// Lines of one kind and worker that are all logged; of the further ones, only the 32nd, the 64th and so on are.
pub const TOLD_MAX: u64 = 20;

/// What such a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// `STATUS`.
    Says,
    /// `STOPPING`.
    Stopping,
    /// `REPLACE`.
    Replace,
    /// A packet that makes no sense.
    Malformed,
    /// The worker had no free descriptor for a connection.
    Truncated,
    /// An address that it cannot have.
    Refused,
    /// The worker cannot be answered.
    Unanswered,
    /// It opened an address after it was ready.
    OpenedLate,
    /// It no longer listens, and so no worker does.
    GivenUp,
    /// It listens somewhere.
    Listens,
    /// It cannot take part where it listens.
    NoPart,
    /// What it returned is not a connection.
    NoConnection,
    /// A connection could not be delivered to it.
    Undelivered,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Count {
    seen: u64,
    left_out: u64,
}

/// A line that is to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How many there were so far, including this one.
    pub seen: u64,
    /// How many were left out since the last one, if any.
    pub left_out: Option<u64>,
}

impl Told {
    /// For a line that no living worker provoked.
    pub const UNPROVOKED: Told = Told { seen: 1, left_out: None };
}

/// All such lines so far.
#[derive(Debug, Default)]
pub struct Provoked {
    counts: RefCell<BTreeMap<(WorkerId, Kind), Count>>,
    left_out: Cell<u64>,
}

/// The same, as it is passed on to the next program of this process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Passed {
    counts: Vec<(WorkerId, Kind, Count)>,
    left_out: u64,
}

impl Provoked {
    /// A worker provoked a line; returns `None` if it is left out.
    #[must_use]
    pub fn tell(&self, worker: WorkerId, kind: Kind) -> Option<Told> {
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry((worker, kind)).or_default();
        count.seen += 1;
        if count.seen > TOLD_MAX && !count.seen.is_power_of_two() {
            count.left_out += 1;
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        let left_out = std::mem::take(&mut count.left_out);
        Some(Told { seen: count.seen, left_out: (left_out > 0).then_some(left_out) })
    }

    /// Forgets a worker that ended, and logs what was left out to the end.
    pub fn forget(&self, worker: WorkerId) {
        self.counts.borrow_mut().retain(|&(whose, kind), count| {
            if whose == worker && count.left_out > 0 {
                info!(worker = worker.0, ?kind, left_out = count.left_out, "more such lines of a worker were left out");
            }
            whose != worker
        });
    }

    /// Lines that were left out, for all workers.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.get()
    }

    /// Passes it on.
    pub fn pass(&self) -> Passed {
        let counts = self.counts.borrow();
        let counts = counts.iter().map(|(&(worker, kind), &count)| (worker, kind, count)).collect();
        Passed { counts, left_out: self.left_out() }
    }

    /// Takes over what was passed on.
    pub fn take(&self, passed: Passed) {
        let counts = passed.counts.into_iter().map(|(worker, kind, count)| ((worker, kind), count));
        self.counts.borrow_mut().extend(counts);
        self.left_out.set(passed.left_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_few_lines_that_account_for_all() {
        let (provoked, worker) = (Provoked::default(), WorkerId(1));
        let told: Vec<Told> = (0..4096).filter_map(|_| provoked.tell(worker, Kind::Says)).collect();
        assert_eq!(told.len(), 28);
        let accounted: u64 = told.iter().map(|told| 1 + told.left_out.unwrap_or(0)).sum();
        assert_eq!((accounted, provoked.left_out()), (4096, 4096 - 28));
        // Other kinds and other workers are counted apart.
        assert!(provoked.tell(worker, Kind::Malformed).is_some());
        assert!(provoked.tell(WorkerId(2), Kind::Says).is_some());
    }

    #[test]
    fn what_was_counted_goes_on_in_the_next_program() {
        let (before, after) = (Provoked::default(), Provoked::default());
        let told = (0..25).filter_map(|_| before.tell(WorkerId(7), Kind::Refused)).count() as u64;
        let text = serde_json::to_string(&before.pass()).unwrap();
        after.take(serde_json::from_str(&text).unwrap());
        assert_eq!((told, after.left_out()), (TOLD_MAX, 5));
        assert_eq!(after.tell(WorkerId(7), Kind::Refused), None);
    }
}
