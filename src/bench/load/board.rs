//! Open connections of each slot as the clients know them, for an observer thread.
//!
//! A client knows that its connection is open, and from the first answer on which worker has it, if the server reports
//! that. So this counts from the first answer to the end, for any subject, and one look takes less than a microsecond,
//! in which almost nothing changes. No client knows which worker has a connection before its first answer; if answers
//! take long compared with the lives of the connections, that part is missing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The counts, which the clients' threads update and another thread reads.
#[derive(Debug)]
pub struct Board {
    open: Vec<AtomicU32>,
    no_more: AtomicBool,
}

impl Board {
    /// A board of this many slots with nothing open; higher slots are not counted.
    #[must_use]
    pub fn new(slots: usize) -> Board {
        Board { open: (0..slots).map(|_| AtomicU32::new(0)).collect(), no_more: AtomicBool::new(false) }
    }

    /// A slot sent the first answer on a connection.
    pub fn enter(&self, slot: u16) {
        if let Some(open) = self.open.get(usize::from(slot)) {
            open.fetch_add(1, Relaxed);
        }
    }

    /// Such a connection has ended.
    pub fn leave(&self, slot: u16) {
        if let Some(open) = self.open.get(usize::from(slot)) {
            open.fetch_sub(1, Relaxed);
        }
    }

    /// Some client begins no more connections: from now on the differences are not the result of any choice.
    pub fn last_has_begun(&self) {
        self.no_more.store(true, Relaxed);
    }

    /// The open connections now, as long as clients begin connections.
    #[must_use]
    pub fn look(&self) -> Option<Vec<u64>> {
        let counts = self.open.iter().map(|open| u64::from(open.load(Relaxed))).collect();
        (!self.no_more.load(Relaxed)).then_some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_what_is_open_until_no_more_is_begun() {
        let board = Board::new(2);
        [0, 1, 1, 7].into_iter().for_each(|slot| board.enter(slot));
        [1, 7].into_iter().for_each(|slot| board.leave(slot));
        assert_eq!(board.look(), Some(vec![1, 1]));
        board.last_has_begun();
        assert_eq!(board.look(), None);
    }
}
