//! The less loaded half of the slots, for distribution by figures that are slightly out of date. The kernel takes
//! turns among these until the next look. It is never a single best slot, because all connections would go to that one
//! until then (Hermes, SIGCOMM 2025, which keeps a set for the same reason).

use super::View;

/// The fewest slots that are kept: with fewer, a stale look would crowd them.
const FEWEST: usize = 2;

/// The eligible slots with the least load for their weight, in the order of their numbers: half of them, rounded up,
/// at least two, and all that are equal to the least loaded. So while all are equal, all are kept. Others that are
/// equal to the last of the half are left out; otherwise one slot that has less than the rest would never catch up.
#[must_use]
pub fn less_loaded_half(view: &impl View) -> Vec<usize> {
    let mut slots: Vec<usize> = (0..view.slots()).filter(|slot| view.may(*slot)).collect();
    // Compares load / weight without dividing.
    let part = |slot: usize, other: usize| u64::from(view.load(slot)) * u64::from(view.weight(other));
    slots.sort_by(|a, b| part(*a, *b).cmp(&part(*b, *a)));
    let equal = slots.iter().take_while(|slot| part(**slot, slots[0]) == part(slots[0], **slot)).count();
    slots.truncate(slots.len().div_ceil(2).max(FEWEST).max(equal));
    slots.sort_unstable();
    slots
}

#[cfg(test)]
mod tests {
    use super::super::shown::Shown;
    use super::*;
    use proptest::prelude::*;

    fn check(load: &[u32], expected: &[usize]) {
        assert_eq!(less_loaded_half(&Shown { load: load.to_vec(), ..Shown::all(load.len()) }), expected, "{load:?}");
    }

    #[test]
    fn half_of_the_slots_is_kept_and_two_at_least() {
        check(&[], &[]);
        check(&[9], &[0]);
        check(&[9, 0], &[0, 1]);
        check(&[9, 0, 3], &[1, 2]);
        check(&[9, 0, 3, 4], &[1, 2]);
        check(&[9, 0, 3, 4, 1], &[1, 2, 4]);
    }

    #[test]
    fn those_that_have_least_are_treated_alike() {
        check(&[5, 5, 5, 5], &[0, 1, 2, 3]);
        check(&[0, 5, 0, 0], &[0, 2, 3]);
    }

    #[test]
    fn one_with_less_than_the_rest_catches_up() {
        check(&[5, 5, 0, 5, 5, 5], &[0, 1, 2]);
    }

    #[test]
    fn a_heavy_slot_may_have_more() {
        let shown = Shown { load: vec![6, 2, 3, 3], ..Shown::weighing(&[3, 1, 1, 1]) };
        assert_eq!(less_loaded_half(&shown), [0, 1]);
    }

    proptest! {
        #[test]
        fn nobody_kept_is_more_loaded_than_one_left_out(
            slots in prop::collection::vec((any::<bool>(), 0u32..50, 1u32..5), 0..80),
        ) {
            let (may, rest): (Vec<bool>, Vec<(u32, u32)>) = slots.into_iter().map(|(m, l, w)| (m, (l, w))).unzip();
            let (load, weight): (Vec<u32>, Vec<u32>) = rest.into_iter().unzip();
            let shown = Shown { may: may.clone(), load, weight };
            let kept = less_loaded_half(&shown);
            let part = |slot: usize| f64::from(shown.load[slot]) / f64::from(shown.weight[slot]);
            let able: Vec<usize> = (0..may.len()).filter(|slot| may[*slot]).collect();
            let (inside, outside): (Vec<usize>, Vec<usize>) = able.iter().partition(|slot| kept.contains(slot));
            prop_assert_eq!(&inside, &kept);
            prop_assert!(kept.len() >= able.len().min(able.len().div_ceil(2).max(2)));
            for out in outside {
                prop_assert!(kept.iter().all(|slot| part(*slot) <= part(out)), "{:?}", shown);
            }
        }

        #[test]
        fn long_connections_even_out_although_looks_are_rare(
            slots in 3usize..12,
            begin in prop::collection::vec(0u32..200, 12),
            rounds in 1u32..40,
        ) {
            let mut shown = Shown { load: begin[..slots].to_vec(), ..Shown::all(slots) };
            // A slot that is not kept falls back by a round at every second look.
            for _ in 0..2 * 200 / rounds + 2 * slots as u32 {
                less_loaded_half(&shown).into_iter().for_each(|slot| shown.load[slot] += rounds);
            }
            let (most, least) = (shown.load.iter().max().unwrap(), shown.load.iter().min().unwrap());
            // The connections between two looks go to half of the slots.
            prop_assert!(most - least <= 2 * rounds, "{:?}", shown.load);
        }
    }
}
