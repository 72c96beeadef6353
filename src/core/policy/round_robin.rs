//! Each in turn: the next seat after the last one that was served, passing over those that may not.

use serde::{Deserialize, Serialize};

/// The turn. It moves only when a connection was really given, so that an accept that found
/// nothing costs nobody a turn.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RoundRobin {
    next: usize,
}

impl RoundRobin {
    /// The first of `seats` seats, counted from the turn, for which `may` holds.
    ///
    /// ```
    /// use maitred::core::policy::RoundRobin;
    /// let mut turn = RoundRobin::default();
    /// let mut served = Vec::new();
    /// for _ in 0..4 {
    ///     let seat = turn.choose(3, |seat| seat != 1).unwrap();
    ///     turn.served(seat);
    ///     served.push(seat);
    /// }
    /// assert_eq!(served, [0, 2, 0, 2]);
    /// ```
    #[inline]
    pub fn choose(&self, seats: usize, mut may: impl FnMut(usize) -> bool) -> Option<usize> {
        let start = if self.next < seats { self.next } else { 0 };
        (start..seats).chain(0..start).find(|&seat| may(seat))
    }

    /// Moves the turn past `seat`.
    #[inline]
    pub fn served(&mut self, seat: usize) {
        self.next = seat + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn while_nobody_is_passed_over_counts_differ_by_one_at_most(seats in 1usize..200, n in 0usize..2000) {
            let mut turn = RoundRobin::default();
            let mut counts = vec![0usize; seats];
            for _ in 0..n {
                let seat = turn.choose(seats, |_| true).unwrap();
                turn.served(seat);
                counts[seat] += 1;
            }
            let (max, min) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
            prop_assert!(max - min <= 1);
        }

        #[test]
        fn only_those_that_may_are_chosen_and_none_of_them_waits_longer_than_a_round(
            may in prop::collection::vec(any::<bool>(), 1..64),
            n in 1usize..500,
        ) {
            let mut turn = RoundRobin::default();
            let able = may.iter().filter(|m| **m).count();
            let mut since = vec![0usize; may.len()];
            for _ in 0..n {
                match turn.choose(may.len(), |s| may[s]) {
                    None => prop_assert_eq!(able, 0),
                    Some(seat) => {
                        prop_assert!(may[seat]);
                        turn.served(seat);
                        since.iter_mut().for_each(|s| *s += 1);
                        since[seat] = 0;
                        let waiting = since.iter().zip(&may).filter(|(_, m)| **m).map(|(s, _)| *s).max();
                        prop_assert!(waiting.unwrap() <= able);
                    }
                }
            }
        }

        #[test]
        fn seats_may_come_and_go(sizes in prop::collection::vec(0usize..10, 1..50)) {
            let mut turn = RoundRobin::default();
            for seats in sizes {
                let chosen = turn.choose(seats, |_| true);
                prop_assert_eq!(chosen.is_some(), seats > 0);
                if let Some(seat) = chosen {
                    prop_assert!(seat < seats);
                    turn.served(seat);
                }
            }
        }
    }
}
