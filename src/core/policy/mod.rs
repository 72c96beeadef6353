//! Chooses the next worker. One file per policy; each is a pure function of what it is shown, and remembers at most
//! whose turn it is.
//!
//! A policy never chooses an ineligible slot; each file says how it chooses among the others. Weights count for all
//! policies: a slot with weight 3 should get three times what one with weight 1 gets.

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

/// What a policy sees of the slots `0..slots()`.
pub trait View {
    /// How many slots there are, served or not.
    fn slots(&self) -> usize;
    /// Whether a slot may get a connection now. Called as seldom as possible: it may cost a system call.
    fn may(&self, slot: usize) -> bool;
    /// Connections that the slot's worker has open, waiting ones included.
    fn load(&self, slot: usize) -> u32;
    /// The slot's weight, at least 1.
    fn weight(&self, slot: usize) -> u32;
    /// Whether all weights are the same, which makes choosing cheaper.
    fn weights_are_equal(&self) -> bool;
}

/// A policy with its memory.
#[derive(Clone, Debug)]
pub enum Policy {
    /// The slots in turn, each as often as its weight says.
    RoundRobin(RoundRobin),
    /// The slot with the fewest open connections for its weight.
    LeastConnections(LeastConnections),
    /// The less loaded of two randomly drawn slots.
    RandomTwo(Chance),
    /// The same slot for a client's address each time. Clients without an address take turns.
    SourceHash(RoundRobin),
}

impl Policy {
    /// The slot that gets a connection from `source`; none when no slot is eligible.
    #[inline]
    pub fn choose(&mut self, view: &impl View, source: Option<Source>) -> Option<usize> {
        match (self, source) {
            (Policy::RoundRobin(turn), _) | (Policy::SourceHash(turn), None) => turn.choose(view),
            (Policy::LeastConnections(least), _) => least.choose(view),
            (Policy::RandomTwo(chance), _) => random_two(view, chance),
            (Policy::SourceHash(_), Some(source)) => source_hash(view, source),
        }
    }

    /// Confirms that the chosen slot got the connection; only then the turn moves.
    #[inline]
    pub fn served(&mut self, slot: usize, source: Option<Source>) {
        match (self, source) {
            (Policy::RoundRobin(turn), _) | (Policy::SourceHash(turn), None) => turn.served(slot),
            (Policy::LeastConnections(least), _) => least.served(slot),
            (Policy::RandomTwo(_), _) | (Policy::SourceHash(_), Some(_)) => {}
        }
    }

    /// The policy's memory, for another program that continues.
    #[must_use]
    pub fn memory(&self) -> Memory {
        match self {
            Policy::RoundRobin(turn) | Policy::SourceHash(turn) => Memory { turn: turn.clone() },
            Policy::LeastConnections(least) => Memory { turn: RoundRobin::at(least.start()) },
            Policy::RandomTwo(_) => Memory::default(),
        }
    }

    /// Restores this memory.
    pub fn remember(&mut self, memory: Memory) {
        match self {
            Policy::RoundRobin(turn) | Policy::SourceHash(turn) => *turn = memory.turn,
            Policy::LeastConnections(least) => least.served(memory.turn.before()),
            Policy::RandomTwo(_) => {}
        }
    }
}

/// A policy's memory, in the form that is passed on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory {
    turn: RoundRobin,
}

#[cfg(test)]
mod tests {
    use super::shown::Shown;
    use super::*;

    /// The slots that a policy chooses for `times` connections without a source.
    fn chosen(policy: &mut Policy, view: &Shown, times: usize) -> Vec<usize> {
        let one = |_| {
            let slot = policy.choose(view, None).unwrap();
            policy.served(slot, None);
            slot
        };
        (0..times).map(one).collect()
    }

    #[test]
    fn each_policy_chooses_in_its_own_way_and_goes_on_where_it_was() {
        let view = Shown::all(3);
        let turns = || Policy::RoundRobin(RoundRobin::default());
        let least = || Policy::LeastConnections(LeastConnections::default());
        let hash = || Policy::SourceHash(RoundRobin::default());
        for new in [turns as fn() -> Policy, least, hash] {
            let mut policy = new();
            assert_eq!(chosen(&mut policy, &view, 4), [0, 1, 2, 0]);
            let mut next = new();
            next.remember(policy.memory());
            assert_eq!(chosen(&mut next, &view, 2), [1, 2]);
        }
        let mut loaded = Shown::all(3);
        loaded.load = vec![5, 5, 1];
        assert_eq!(chosen(&mut least(), &loaded, 2), [2, 2]);
        assert_eq!(chosen(&mut turns(), &loaded, 2), [0, 1]);
    }

    #[test]
    fn a_client_with_an_address_takes_nobodys_turn() {
        let view = Shown::all(3);
        let source = |number: u8| Some(Source::of([192, 0, 2, number].into(), crate::core::source::Prefix::default()));
        let mut policy = Policy::SourceHash(RoundRobin::default());
        let first: Vec<_> = (0..20).map(|number| policy.choose(&view, source(number))).collect();
        for number in 0..20 {
            let slot = policy.choose(&view, source(number));
            assert_eq!(slot, first[usize::from(number)]);
            policy.served(slot.unwrap(), source(number));
        }
        assert!((0..3).all(|slot| first.contains(&Some(slot))), "{first:?}");
        assert_eq!(chosen(&mut policy, &view, 3), [0, 1, 2]);
    }

    #[test]
    fn the_less_loaded_of_two_that_are_drawn_is_chosen() {
        let mut view = Shown::all(2);
        view.load = vec![9, 0];
        let mut policy = Policy::RandomTwo(Chance::new(1));
        assert_eq!(chosen(&mut policy, &view, 5), [1; 5]);
        view.may = vec![false, false];
        assert_eq!(policy.choose(&view, None), None);
    }
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
