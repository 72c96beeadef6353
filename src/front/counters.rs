//! What is counted for the connections of one slot.

use std::cell::Cell;

/// What happened to the connections of one slot, over all workers that were in it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Given to a worker, repeated hand-offs included.
    pub handed: Cell<u64>,
    /// Returned by a worker that did not want them.
    pub returned: Cell<u64>,
    /// Taken back before the worker took them.
    pub rescued: Cell<u64>,
    /// Lost in a worker that had no free descriptor (`MSG_CTRUNC`).
    pub truncated: Cell<u64>,
}

impl Counters {
    /// Counters that go on from `[handed, returned, rescued, truncated]`.
    #[must_use]
    pub fn of([handed, returned, rescued, truncated]: &[u64; 4]) -> Counters {
        Counters {
            handed: Cell::new(*handed),
            returned: Cell::new(*returned),
            rescued: Cell::new(*rescued),
            truncated: Cell::new(*truncated),
        }
    }
}

/// Adds one.
pub fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
