//! The same slot for a client's address each time: the winner of a lottery that depends only on the address and the
//! slot's number ("rendezvous" or "highest random weight" hashing, Thaler and Ravishankar 1998). When a slot becomes
//! ineligible, each of its clients goes to the slot that came second, and no other client moves; an additional slot
//! takes its share from all others. No table is needed.

use super::View;
use crate::core::chance::GOLDEN;
use crate::core::source::Source;

/// The eligible slot that wins.
#[inline]
pub fn source_hash(view: &impl View, source: Source) -> Option<usize> {
    highest(view, source.key())
}

/// The eligible slot that wins the lottery of `key`.
///
/// Given a draw `u` in (0, 1], the least `-ln(u) / weight` wins: the least of exponentially distributed numbers
/// belongs to a slot with a probability in proportion to its rate ("weighted rendezvous hashing", Schindelhauer and
/// Schomaker 2005).
#[inline]
#[must_use]
pub fn highest(view: &impl View, key: u64) -> Option<usize> {
    if view.weights_are_equal() {
        // First without a branch: usually the overall winner is eligible.
        let all = (0..view.slots()).map(|slot| (lottery(key, slot), slot));
        let (_, first) = all.reduce(|best, other| if other.0 < best.0 { other } else { best })?;
        if view.may(first) {
            return Some(first);
        }
        return least(view, |slot, best: Option<u64>| {
            let draw = lottery(key, slot);
            best.is_none_or(|best| draw < best).then_some(draw)
        });
    }
    least(view, |slot, best: Option<f64>| {
        // 1 - u is at most -ln(u), and rules out most slots at once.
        let rest = (lottery(key, slot) >> 11) as i64 as f64 * (1.0 / (1u64 << 53) as f64);
        let weight = f64::from(view.weight(slot));
        if best.is_some_and(|best| rest >= best * weight) {
            return None;
        }
        let score = -(-rest).ln_1p() / weight;
        best.is_none_or(|best| score < best).then_some(score)
    })
}

/// The eligible slot with the least score; `beats` returns a score only if it is less than the best so far.
#[inline]
fn least<S: Copy>(view: &impl View, beats: impl Fn(usize, Option<S>) -> Option<S>) -> Option<usize> {
    let mut best: Option<(usize, S)> = None;
    for slot in 0..view.slots() {
        if let Some(score) = beats(slot, best.map(|(_, score)| score))
            && view.may(slot)
        {
            best = Some((slot, score));
        }
    }
    best.map(|(slot, _)| slot)
}

/// A slot's draw for a key, which is already well mixed: the two halves of a product, one over the other (the "mum" of
/// Wang Yi's wyhash). This takes one multiplication where [`mix`](crate::core::chance::mix) takes two.
#[inline]
fn lottery(key: u64, slot: usize) -> u64 {
    let product = u128::from(key ^ (slot as u64 + 1).wrapping_mul(GOLDEN)) * u128::from(MULTIPLIER);
    (product >> 64) as u64 ^ product as u64
}

/// An odd number with as many ones as zeros; one of wyhash's constants.
const MULTIPLIER: u64 = 0xa076_1d64_78bd_642f;

#[cfg(test)]
mod tests {
    use super::super::shown::Shown;
    use super::*;
    use crate::core::chance::mix;
    use proptest::prelude::*;

    const CLIENTS: u64 = 20_000;

    fn places(shown: &Shown, seed: u64) -> Vec<usize> {
        (0..CLIENTS).map(|client| highest(shown, mix(client ^ seed)).unwrap()).collect()
    }

    fn shares(places: &[usize], slots: usize) -> Vec<f64> {
        let mut counts = vec![0; slots];
        places.iter().for_each(|place| counts[*place] += 1);
        counts.into_iter().map(|count| f64::from(count) / CLIENTS as f64).collect()
    }

    #[test]
    fn each_slot_gets_its_share_by_weight() {
        let shares = shares(&places(&Shown::weighing(&[3, 1, 1, 1]), 5), 4);
        assert!((shares[0] - 0.5).abs() < 0.02, "{shares:?}");
        assert!(shares[1..].iter().all(|share| (share - 1.0 / 6.0).abs() < 0.02), "{shares:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn one_slot_more_takes_its_share_and_moves_nobody_else(slots in 1usize..33, seed: u64) {
            let (before, after) = (places(&Shown::all(slots), seed), places(&Shown::all(slots + 1), seed));
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
            let (moved, to_others): (Vec<_>, Vec<_>) = moved.partition(|(_, after)| **after == slots);
            prop_assert!(to_others.is_empty());
            let share = moved.len() as f64 / CLIENTS as f64;
            prop_assert!((share - 1.0 / (slots as f64 + 1.0)).abs() < 0.02, "{}", share);
        }

        #[test]
        fn only_clients_of_a_slot_that_may_not_move(
            weights in prop::collection::vec(1u32..4, 2..33),
            gone: prop::sample::Index,
            seed: u64,
        ) {
            let all = Shown::weighing(&weights);
            let gone = gone.index(weights.len());
            let mut without = all.clone();
            without.may[gone] = false;
            for (before, after) in places(&all, seed).into_iter().zip(places(&without, seed)) {
                prop_assert!(after != gone && (before == after || before == gone));
            }
        }

        #[test]
        fn nobody_starves_and_nobody_gets_far_too_much(slots in 1usize..65, seed: u64) {
            let shares = shares(&places(&Shown::all(slots), seed), slots);
            let fair = 1.0 / slots as f64;
            // Six standard deviations of a fair draw.
            let room = 6.0 * (fair / CLIENTS as f64).sqrt();
            prop_assert!(shares.iter().all(|share| (share - fair).abs() < room), "{:?}", shares);
        }
    }
}
