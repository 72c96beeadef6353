//! Which worker is next. One file per policy; each is a pure function over what it is shown, and remembers
//! at most whose turn it is.
//!
//! A policy never chooses a slot that may get nothing; what it chooses among the others, each file says.
//! Weights count for all of them: a slot with weight 3 should get three times what one with weight 1 gets.

mod least_connections;
mod less_loaded_half;
mod random_two;
mod round_robin;
mod source_hash;

pub use least_connections::LeastConnections;
pub use less_loaded_half::less_loaded_half;
pub use random_two::random_two;
pub use round_robin::RoundRobin;
pub use source_hash::{highest, source_hash};

use super::chance::Chance;
use super::source::Source;
use serde::{Deserialize, Serialize};

/// What a policy is shown of the slots `0..slots()`.
pub trait View {
    /// How many slots there are, served or not.
    fn slots(&self) -> usize;
    /// Whether a slot may get a connection now. Asked as seldom as possible: it may cost a system call.
    fn may(&self, slot: usize) -> bool;
    /// Connections that the slot's worker has open, waiting ones included.
    fn load(&self, slot: usize) -> u32;
    /// The slot's weight, at least 1.
    fn weight(&self, slot: usize) -> u32;
    /// Whether all weights are the same, which makes choosing cheaper.
    fn weights_are_equal(&self) -> bool;
}

/// A policy with what it remembers.
#[derive(Clone, Debug)]
pub enum Policy {
    /// Each in turn, as often as its weight says.
    RoundRobin(RoundRobin),
    /// The one with the fewest open connections for its weight.
    LeastConnections(LeastConnections),
    /// The less loaded of two that are drawn.
    RandomTwo(Chance),
    /// The same for a client's address each time. Clients that have none take turns.
    SourceHash(RoundRobin),
}

impl Policy {
    /// The slot that gets a connection from `source`; none when no slot may get one.
    #[inline]
    pub fn choose(&mut self, view: &impl View, source: Option<Source>) -> Option<usize> {
        match (self, source) {
            (Policy::RoundRobin(turn), _) | (Policy::SourceHash(turn), None) => turn.choose(view),
            (Policy::LeastConnections(least), _) => least.choose(view),
            (Policy::RandomTwo(chance), _) => random_two(view, chance),
            (Policy::SourceHash(_), Some(source)) => source_hash(view, source),
        }
    }

    /// Says that the slot which was chosen got the connection; whose turn it is moves only then.
    #[inline]
    pub fn served(&mut self, slot: usize, source: Option<Source>) {
        match (self, source) {
            (Policy::RoundRobin(turn), _) | (Policy::SourceHash(turn), None) => turn.served(slot),
            (Policy::LeastConnections(least), _) => least.served(slot),
            (Policy::RandomTwo(_), _) | (Policy::SourceHash(_), Some(_)) => {}
        }
    }

    /// What it remembers, for another program that goes on.
    #[must_use]
    pub fn memory(&self) -> Memory {
        match self {
            Policy::RoundRobin(turn) | Policy::SourceHash(turn) => Memory { turn: turn.clone() },
            Policy::LeastConnections(least) => Memory { turn: RoundRobin::at(least.start()) },
            Policy::RandomTwo(_) => Memory::default(),
        }
    }

    /// Goes on from there.
    pub fn remember(&mut self, memory: Memory) {
        match self {
            Policy::RoundRobin(turn) | Policy::SourceHash(turn) => *turn = memory.turn,
            Policy::LeastConnections(least) => least.served(memory.turn.before()),
            Policy::RandomTwo(_) => {}
        }
    }
}

/// What a policy remembers, as it is passed on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory {
    turn: RoundRobin,
}

#[cfg(test)]
pub(crate) mod shown {
    //! Slots for tests.

    use super::View;

    #[derive(Clone, Debug)]
    pub struct Shown {
        pub may: Vec<bool>,
        pub load: Vec<u32>,
        pub weight: Vec<u32>,
    }

    impl Shown {
        pub fn all(slots: usize) -> Shown {
            Shown { may: vec![true; slots], load: vec![0; slots], weight: vec![1; slots] }
        }

        pub fn weighing(weight: &[u32]) -> Shown {
            Shown { weight: weight.to_vec(), ..Shown::all(weight.len()) }
        }
    }

    impl View for Shown {
        fn slots(&self) -> usize {
            self.may.len()
        }

        fn may(&self, slot: usize) -> bool {
            self.may[slot]
        }

        fn load(&self, slot: usize) -> u32 {
            self.load[slot]
        }

        fn weight(&self, slot: usize) -> u32 {
            self.weight[slot]
        }

        fn weights_are_equal(&self) -> bool {
            self.weight.windows(2).all(|pair| pair[0] == pair[1])
        }
    }
}
