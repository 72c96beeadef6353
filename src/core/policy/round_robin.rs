//! The slots in turn: the next slot after the last one that was served, skipping ineligible ones. With weights, each
//! slot as often as its weight says, and spread out: 3,1,1 gives `0 1 0 2 0` and not `0 0 0 1 2`.

use super::View;
use serde::{Deserialize, Serialize};

/// The turn. It moves only when a connection was really given, so that an accept that found nothing costs no slot its
/// turn.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RoundRobin {
    next: usize,
    /// With weights: how much each slot is owed ("smooth weighted" round-robin of nginx: each slot adds its weight,
    /// the highest is served and pays the sum of all that was added).
    #[serde(default)]
    due: Vec<i64>,
    /// The weights of the slots that were eligible in the last choice, 0 for the others.
    #[serde(default)]
    added: Vec<u32>,
}

impl RoundRobin {
    /// Starts with the turn of `slot`.
    #[must_use]
    pub fn at(slot: usize) -> RoundRobin {
        RoundRobin { next: slot, ..RoundRobin::default() }
    }

    /// The slot before the turn.
    #[must_use]
    pub fn before(&self) -> usize {
        self.next.saturating_sub(1)
    }

    /// The eligible slot whose turn it is.
    ///
    /// While no slot is skipped, every sequence of choices as long as the sum of the weights gives each slot exactly
    /// its weight.
    #[inline]
    pub fn choose(&mut self, view: &impl View) -> Option<usize> {
        if view.weights_are_equal() { self.next_of(view.slots(), |slot| view.may(slot)) } else { self.weighted(view) }
    }

    /// The first of `slots` slots, counted from the turn, for which `may` holds.
    #[inline]
    pub fn next_of(&mut self, slots: usize, mut may: impl FnMut(usize) -> bool) -> Option<usize> {
        self.added.clear();
        let start = if self.next < slots { self.next } else { 0 };
        (start..slots).chain(0..start).find(|&slot| may(slot))
    }

    fn weighted(&mut self, view: &impl View) -> Option<usize> {
        let slots = view.slots();
        self.due.resize(slots, 0);
        self.added.clear();
        let mut best: Option<(usize, i64)> = None;
        for (slot, due) in self.due.iter().enumerate() {
            let added = if view.may(slot) { view.weight(slot) } else { 0 };
            self.added.push(added);
            let due = due + i64::from(added);
            // The first of the slots that are equally due.
            if added > 0 && best.is_none_or(|(_, best)| due > best) {
                best = Some((slot, due));
            }
        }
        best.map(|(slot, _)| slot)
    }

    /// Moves the turn past `slot`, which was chosen.
    #[inline]
    pub fn served(&mut self, slot: usize) {
        self.next = slot + 1;
        let mut paid = 0;
        for (due, added) in self.due.iter_mut().zip(&self.added) {
            *due += i64::from(*added);
            paid += i64::from(*added);
        }
        if let Some(due) = self.due.get_mut(slot) {
            *due -= paid;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown::Shown;
    use super::*;
    use proptest::prelude::*;

    fn serve(turn: &mut RoundRobin, shown: &Shown, times: usize) -> Vec<usize> {
        let one = |_| {
            let slot = turn.choose(shown).unwrap();
            turn.served(slot);
            slot
        };
        (0..times).map(one).collect()
    }

    #[test]
    fn a_heavy_slot_is_served_in_between_and_not_in_a_row() {
        let mut turn = RoundRobin::default();
        let served = serve(&mut turn, &Shown::weighing(&[3, 1, 1]), 10);
        assert_eq!(served, [0, 1, 0, 2, 0, 0, 1, 0, 2, 0]);
    }

    #[test]
    fn a_choice_that_came_to_nothing_costs_nobody_a_turn() {
        for shown in [Shown::all(3), Shown::weighing(&[3, 1, 2])] {
            let (mut turn, mut other) = (RoundRobin::default(), RoundRobin::default());
            for _ in 0..20 {
                turn.choose(&shown);
                assert_eq!(serve(&mut turn, &shown, 1), serve(&mut other, &shown, 1));
            }
        }
    }

    proptest! {
        #[test]
        fn while_nobody_is_passed_over_counts_differ_by_one_at_most(slots in 1usize..200, n in 0usize..2000) {
            let mut turn = RoundRobin::default();
            let mut counts = vec![0usize; slots];
            serve(&mut turn, &Shown::all(slots), n).into_iter().for_each(|slot| counts[slot] += 1);
            let (max, min) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
            prop_assert!(max - min <= 1);
        }

        #[test]
        fn weights_are_kept_exactly_in_every_round(weights in prop::collection::vec(1u32..50, 1..20), rounds in 1usize..5) {
            let round: u32 = weights.iter().sum();
            let mut turn = RoundRobin::default();
            let shown = Shown::weighing(&weights);
            let served = serve(&mut turn, &shown, round as usize * (rounds + 1));
            for window in served.windows(round as usize).step_by(7) {
                let mut counts = vec![0u32; weights.len()];
                window.iter().for_each(|&slot| counts[slot] += 1);
                // A window that begins in the middle of a round is off by at most one.
                let off = counts.iter().zip(&weights).all(|(count, weight)| count.abs_diff(*weight) <= 1);
                prop_assert!(off, "{:?} instead of {:?}", counts, weights);
            }
            let mut counts = vec![0u32; weights.len()];
            served.iter().for_each(|&slot| counts[slot] += 1);
            prop_assert!(counts.iter().zip(&weights).all(|(count, weight)| *count == weight * (rounds as u32 + 1)));
        }

        #[test]
        fn only_those_that_may_are_chosen_and_none_of_them_starves(
            may in prop::collection::vec(any::<bool>(), 1..64),
            heavy in 1u32..4,
            n in 1usize..500,
        ) {
            let mut turn = RoundRobin::default();
            let able = may.iter().filter(|m| **m).count();
            let weight: Vec<u32> = (0..may.len()).map(|slot| if slot % 3 == 0 { heavy } else { 1 }).collect();
            let round: u32 = weight.iter().zip(&may).filter(|(_, m)| **m).map(|(w, _)| *w).sum();
            let shown = Shown { may: may.clone(), weight, ..Shown::all(may.len()) };
            let mut since = vec![0usize; may.len()];
            for _ in 0..n {
                match turn.choose(&shown) {
                    None => prop_assert_eq!(able, 0),
                    Some(slot) => {
                        prop_assert!(may[slot]);
                        turn.served(slot);
                        since.iter_mut().for_each(|s| *s += 1);
                        since[slot] = 0;
                        let waiting = since.iter().zip(&may).filter(|(_, m)| **m).map(|(s, _)| *s).max();
                        prop_assert!(waiting.unwrap() <= round as usize);
                    }
                }
            }
        }

        #[test]
        fn slots_and_weights_may_come_and_go(sizes in prop::collection::vec((0usize..10, 1u32..4), 1..50)) {
            let mut turn = RoundRobin::default();
            for (slots, first) in sizes {
                let mut shown = Shown::all(slots);
                shown.weight.iter_mut().take(1).for_each(|weight| *weight = first);
                let chosen = turn.choose(&shown);
                prop_assert_eq!(chosen.is_some(), slots > 0);
                if let Some(slot) = chosen {
                    prop_assert!(slot < slots);
                    turn.served(slot);
                }
            }
        }
    }
}
