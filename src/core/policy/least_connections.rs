//! The slot with the fewest open connections for its weight; equal slots take turns.

use super::View;

/// Where the search begins, so that equal slots take turns.
#[derive(Clone, Debug, Default)]
pub struct LeastConnections {
    start: usize,
}

impl LeastConnections {
    /// The eligible slot for which `(load + 1) / weight` is least: its load with one more connection, so that weights
    /// count among idle slots, too.
    #[inline]
    pub fn choose(&self, view: &impl View) -> Option<usize> {
        let slots = view.slots();
        let start = if self.start < slots { self.start } else { 0 };
        if view.weights_are_equal() {
            return least(view, start, |load, _, best: Option<u32>| {
                best.is_none_or(|best| load < best).then_some(load)
            });
        }
        least(view, start, |load, slot, best: Option<(u64, u64)>| {
            let (load, weight) = (u64::from(load) + 1, u64::from(view.weight(slot)));
            let less = best.is_none_or(|(best_load, best_weight)| load * best_weight < best_load * weight);
            less.then_some((load, weight))
        })
    }

    /// Where the next search begins.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Moves the start of the search behind `slot`, which was chosen.
    #[inline]
    pub fn served(&mut self, slot: usize) {
        self.start = slot + 1;
    }
}

/// The slot with the best score, searched from `start` on; `beats` gets a slot's load, its number and the best score
/// so far, and returns a score if it is better.
#[inline]
fn least<S: Copy>(view: &impl View, start: usize, beats: impl Fn(u32, usize, Option<S>) -> Option<S>) -> Option<usize> {
    let mut best: Option<(usize, S)> = None;
    // Two ranges instead of a chain of them, which costs a branch for each slot.
    for range in [start..view.slots(), 0..start] {
        for slot in range {
            // Eligibility is checked last, since that check may cost something.
            if let Some(score) = beats(view.load(slot), slot, best.map(|(_, score)| score))
                && view.may(slot)
            {
                best = Some((slot, score));
            }
        }
    }
    best.map(|(slot, _)| slot)
}

#[cfg(test)]
mod tests {
    use super::super::shown::Shown;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equals_take_turns() {
        let (mut policy, shown) = (LeastConnections::default(), Shown::all(3));
        let mut next = || {
            let slot = policy.choose(&shown).unwrap();
            policy.served(slot);
            slot
        };
        assert_eq!([next(), next(), next(), next()], [0, 1, 2, 0]);
    }

    proptest! {
        #[test]
        fn nobody_who_may_has_fewer_for_its_weight(
            slots in prop::collection::vec((any::<bool>(), 0u32..20, 1u32..5), 1..80),
            start in 0usize..100,
        ) {
            let (may, rest): (Vec<bool>, Vec<(u32, u32)>) = slots.into_iter().map(|(m, l, w)| (m, (l, w))).unzip();
            let (load, weight): (Vec<u32>, Vec<u32>) = rest.into_iter().unzip();
            let shown = Shown { may, load, weight };
            let mut policy = LeastConnections::default();
            policy.served(start);
            let part = |slot: usize| f64::from(shown.load[slot] + 1) / f64::from(shown.weight[slot]);
            match policy.choose(&shown) {
                None => prop_assert!(!shown.may.contains(&true)),
                Some(chosen) => {
                    prop_assert!(shown.may[chosen]);
                    let able = (0..shown.may.len()).filter(|slot| shown.may[*slot]);
                    prop_assert!(able.into_iter().all(|slot| part(slot) >= part(chosen) - 1e-9));
                }
            }
        }

        #[test]
        fn open_connections_are_as_the_weights_say_whatever_is_closed(
            weights in prop::collection::vec(1u32..5, 2..12),
            steps in prop::collection::vec(any::<prop::sample::Index>(), 1..400),
        ) {
            let mut shown = Shown::weighing(&weights);
            let (mut policy, mut open) = (LeastConnections::default(), Vec::new());
            // Four connections come for each that goes.
            for (step, index) in steps.iter().enumerate() {
                if step % 5 == 4 {
                    let slot: usize = open.swap_remove(index.index(open.len()));
                    shown.load[slot] -= 1;
                } else {
                    let slot = policy.choose(&shown).unwrap();
                    policy.served(slot);
                    shown.load[slot] += 1;
                    open.push(slot);
                    // The chosen slot has no more for its weight than any other would have with one more.
                    let part = |slot: usize, more| f64::from(shown.load[slot] + more) / f64::from(weights[slot]);
                    prop_assert!((0..weights.len()).all(|other| part(slot, 0) <= part(other, 1) + 1e-9));
                }
            }
        }
    }
}
