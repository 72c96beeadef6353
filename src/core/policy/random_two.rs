//! The less loaded of two randomly drawn slots ("the power of two choices", Mitzenmacher 2001): nearly as even as
//! comparing all slots, and several masters in front of the same machine do not all send to the same slot.

use super::View;
use crate::core::chance::Chance;

/// Draws that may hit an ineligible slot before the eligible ones are counted.
const TRIES: u32 = 8;

/// Draws two different eligible slots, each by its weight, and returns the one with fewer open connections for its
/// weight; the first if they are equal.
#[inline]
pub fn random_two(view: &impl View, chance: &mut Chance) -> Option<usize> {
    let first = draw(view, chance, None)?;
    let Some(second) = draw(view, chance, Some(first)) else { return Some(first) };
    let part = |slot: usize, other: usize| (u64::from(view.load(slot)) + 1) * u64::from(view.weight(other));
    Some(if part(second, first) < part(first, second) { second } else { first })
}

/// Draws one eligible slot other than `except`.
#[inline]
fn draw(view: &impl View, chance: &mut Chance, except: Option<usize>) -> Option<usize> {
    let fits = |slot: usize| Some(slot) != except && view.may(slot);
    for _ in 0..TRIES {
        let slot = if view.weights_are_equal() {
            chance.below(u32::try_from(view.slots()).ok().filter(|slots| *slots > 0)?) as usize
        } else {
            weighted(view, chance, |_| true)?
        };
        if fits(slot) {
            return Some(slot);
        }
    }
    weighted(view, chance, fits)
}

/// Draws one of the matching slots by weight, looking at all of them.
fn weighted(view: &impl View, chance: &mut Chance, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let weight = |slot: usize| if fits(slot) { view.weight(slot) } else { 0 };
    let total: u32 = (0..view.slots()).map(weight).sum();
    let mut left = (total > 0).then(|| chance.below(total))?;
    (0..view.slots()).find(|&slot| {
        let weight = weight(slot);
        let found = left < weight;
        left = left.saturating_sub(weight);
        found
    })
}

#[cfg(test)]
mod tests {
    use super::super::shown::Shown;
    use super::*;
    use proptest::prelude::*;

    fn serve(shown: &Shown, seed: u64, times: usize) -> Vec<u32> {
        let (mut chance, mut counts) = (Chance::new(seed), vec![0; shown.may.len()]);
        (0..times).for_each(|_| counts[random_two(shown, &mut chance).unwrap()] += 1);
        counts
    }

    #[test]
    fn weights_are_honoured_among_equals() {
        // By weight, the first slot is drawn half of the time, and it counts more in a comparison.
        let shown = Shown { load: vec![3, 1, 1, 1], ..Shown::weighing(&[2, 1, 1, 1]) };
        let counts = serve(&shown, 1, 20_000);
        // It is drawn first in 2/5, or second after another, and (3 + 1) / 2 = (1 + 1) / 1 is equal: 2/5.
        assert!((7_500..8_500).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn the_most_loaded_of_all_is_never_chosen_and_the_others_are() {
        let shown = Shown { load: vec![0, 1, 2, 9], ..Shown::all(4) };
        let counts = serve(&shown, 3, 1_000);
        assert!(counts[3] == 0 && counts[0] > counts[1] && counts[1] > counts[2] && counts[2] > 0, "{counts:?}");
    }

    #[test]
    fn the_greatest_load_grows_far_slower_than_by_one_draw() {
        let most = |two: bool| {
            let (mut shown, mut chance) = (Shown::all(64), Chance::new(11));
            for _ in 0..64 * 64 {
                let slot = if two { random_two(&shown, &mut chance).unwrap() } else { chance.below(64) as usize };
                shown.load[slot] += 1;
            }
            shown.load.iter().max().unwrap() - 64
        };
        assert!(most(true) <= 4 && most(false) >= 12, "{} and {}", most(true), most(false));
    }

    proptest! {
        #[test]
        fn one_that_may_is_found_whenever_there_is_one(
            may in prop::collection::vec(any::<bool>(), 0..40),
            heavy in 1u32..4,
            seed: u64,
        ) {
            let mut shown = Shown { may: may.clone(), ..Shown::all(may.len()) };
            shown.weight.iter_mut().take(1).for_each(|weight| *weight = heavy);
            match random_two(&shown, &mut Chance::new(seed)) {
                None => prop_assert!(!may.contains(&true)),
                Some(slot) => prop_assert!(may[slot]),
            }
        }

        #[test]
        fn nobody_who_may_starves(slots in 1usize..20, seed: u64) {
            // Loads follow the choices, as with connections that stay.
            let (mut shown, mut chance) = (Shown::all(slots), Chance::new(seed));
            for _ in 0..slots * 60 {
                let slot = random_two(&shown, &mut chance).unwrap();
                shown.load[slot] += 1;
            }
            prop_assert!(shown.load.iter().all(|load| *load >= 40), "{:?}", shown.load);
        }
    }
}
