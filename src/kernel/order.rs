//! From the slots' shares to the list of places that a program uses. Has no side effects.

use super::program::PLACES;
use crate::core::chance::mix;
use crate::core::policy::{RoundRobin, View, highest};
use crate::core::source::Source;

/// A slot that is eligible, and what it should get in proportion to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Share {
    /// The slot.
    pub slot: u32,
    /// Its weight, at least 1.
    pub weight: u32,
}

/// The shares as a policy sees them, by their place in the list.
struct Shares<'a> {
    shares: &'a [Share],
    equal: bool,
}

impl Shares<'_> {
    fn new(shares: &[Share]) -> Shares<'_> {
        let equal = shares.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        Shares { shares, equal }
    }
}

impl View for Shares<'_> {
    fn slots(&self) -> usize {
        self.shares.len()
    }

    fn may(&self, _: usize) -> bool {
        true
    }

    fn load(&self, _: usize) -> u32 {
        0
    }

    fn weight(&self, index: usize) -> u32 {
        self.shares[index].weight
    }

    fn weights_are_equal(&self) -> bool {
        self.equal
    }
}

/// One round of turns: each slot as often as its weight says, spread out as [`RoundRobin`] does it. There are at most
/// [`PLACES`] turns; weights that need more are scaled down, none to nothing. Slots beyond the room are left out.
#[must_use]
pub fn turns(shares: &[Share]) -> Vec<u32> {
    let shares = reduced(&shares[..shares.len().min(PLACES)]);
    let view = Shares::new(&shares);
    let round: u32 = shares.iter().map(|share| share.weight).sum();
    let mut turn = RoundRobin::default();
    let next = |_| {
        let index = turn.choose(&view)?;
        turn.served(index);
        Some(shares[index].slot)
    };
    (0..round).filter_map(next).collect()
}

/// The same proportions in the smallest numbers, with a sum of at most [`PLACES`].
fn reduced(shares: &[Share]) -> Vec<Share> {
    let shares = smallest(shares);
    let sum: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    if sum <= PLACES as u64 {
        return shares;
    }
    // Each has at least one. All get their part of the places beyond those, so that rounding cannot exceed the room.
    let room = (PLACES - shares.len()) as u64;
    let scaled = |share: &Share| Share { weight: (u64::from(share.weight) * room / sum).max(1) as u32, ..*share };
    smallest(&shares.iter().map(scaled).collect::<Vec<_>>())
}

/// The same proportions without a common divisor.
fn smallest(shares: &[Share]) -> Vec<Share> {
    let divisor = shares.iter().fold(0, |divisor, share| greatest_common_divisor(divisor, share.weight)).max(1);
    shares.iter().map(|share| Share { weight: share.weight / divisor, ..*share }).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The slot of each of [`PLACES`] buckets of clients; empty when there is no slot. When a slot leaves or comes, only
/// its share of the buckets moves.
#[must_use]
pub fn table(shares: &[Share]) -> Vec<u32> {
    // The winner depends on a slot's number alone, so that number is its place in what the policy sees.
    let slots = shares.iter().map(|share| share.slot as usize + 1).max().unwrap_or(0);
    let mut weights = vec![0; slots];
    shares.iter().for_each(|share| weights[share.slot as usize] = share.weight);
    let view = Eligible { weights, equal: Shares::new(shares).equal };
    (0..PLACES as u64).filter_map(|bucket| highest(&view, mix(bucket))).map(|slot| slot as u32).collect()
}

/// All slots, with a weight of 0 for those that are not eligible.
struct Eligible {
    weights: Vec<u32>,
    equal: bool,
}

impl View for Eligible {
    fn slots(&self) -> usize {
        self.weights.len()
    }

    fn may(&self, slot: usize) -> bool {
        self.weights[slot] > 0
    }

    fn load(&self, _: usize) -> u32 {
        0
    }

    fn weight(&self, slot: usize) -> u32 {
        self.weights[slot].max(1)
    }

    fn weights_are_equal(&self) -> bool {
        self.equal
    }
}

/// The bucket of a client.
#[must_use]
pub fn place(source: Source) -> usize {
    source.key() as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::program::ROOM;
    use proptest::prelude::*;

    fn shares(weights: &[u32]) -> Vec<Share> {
        weights.iter().zip(0..).map(|(&weight, slot)| Share { slot, weight }).collect()
    }

    fn counts(list: &[u32], slots: usize) -> Vec<u32> {
        let mut counts = vec![0; slots];
        list.iter().for_each(|slot| counts[*slot as usize] += 1);
        counts
    }

    #[test]
    fn turns_are_as_weights_say_in_the_smallest_numbers_and_spread_out() {
        let named =
            |shares: &[(u32, u32)]| shares.iter().map(|&(slot, weight)| Share { slot, weight }).collect::<Vec<_>>();
        assert_eq!(turns(&named(&[(4, 7), (2, 7), (9, 7)])), [4, 2, 9]);
        assert_eq!(turns(&named(&[(0, 768), (1, 256), (5, 256)])), [0, 1, 0, 5, 0]);
        assert!(turns(&[]).is_empty());
    }

    #[test]
    fn too_many_turns_are_scaled_down() {
        let most = turns(&shares(&vec![256 * 256; ROOM]));
        assert_eq!(counts(&most, ROOM), vec![1; ROOM]);
        let mut weights = vec![1; ROOM];
        (weights[0], weights[1]) = (65536, 32768);
        let list = turns(&shares(&weights));
        let counts = counts(&list, ROOM);
        assert!(list.len() <= PLACES && counts.iter().all(|count| *count >= 1));
        assert!(counts[0].abs_diff(counts[1] * 2) <= 1 && counts[0] > 4000, "{:?}", &counts[..3]);
    }

    #[test]
    fn buckets_are_shared_by_weight() {
        let counts = counts(&table(&shares(&[3, 1, 1, 1])), 4);
        let fair = PLACES as u32 / 6;
        // Four standard deviations of a fair draw of a sixth are 135.
        assert!(counts[0].abs_diff(3 * fair) < 180 && counts[1..].iter().all(|c| c.abs_diff(fair) < 135), "{counts:?}");
        assert!(table(&[]).is_empty());
    }

    #[test]
    fn a_ninth_slot_takes_a_ninth_of_the_buckets_and_nothing_else_moves() {
        let (eight, nine) = (table(&shares(&[1; 8])), table(&shares(&[1; 9])));
        let moved: Vec<(u32, u32)> = eight.into_iter().zip(nine).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| *after == 8));
        assert!((moved.len() as f64 / PLACES as f64 - 1.0 / 9.0).abs() < 0.02, "{}", moved.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_round_gives_each_slot_its_weight(weights in prop::collection::vec(1u32..=256, 1..32)) {
            let list = turns(&shares(&weights));
            let counts = counts(&list, weights.len());
            let times = |index: usize| u64::from(counts[index]) * u64::from(weights[0]);
            prop_assert!((0..weights.len()).all(|i| times(i) == u64::from(weights[i]) * u64::from(counts[0])));
        }

        #[test]
        fn whatever_the_weights_a_round_has_room(weights in prop::collection::vec(1u32..=65536, 1..64)) {
            let list = turns(&shares(&weights));
            prop_assert!(list.len() <= PLACES);
            prop_assert!(counts(&list, weights.len()).iter().all(|count| *count >= 1));
        }

        #[test]
        fn only_buckets_of_a_slot_that_leaves_move(
            weights in prop::collection::vec(1u32..4, 2..20),
            gone: prop::sample::Index,
        ) {
            let all = shares(&weights);
            let gone = gone.get(&all).slot;
            let without: Vec<Share> = all.iter().copied().filter(|share| share.slot != gone).collect();
            for (before, after) in table(&all).into_iter().zip(table(&without)) {
                prop_assert!(after != gone && (before == after || before == gone));
            }
        }
    }
}
