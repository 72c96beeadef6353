//! Random numbers from a seed, for code that needs many draws and does not need unpredictable ones.

use serde::{Deserialize, Serialize};

/// `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014): every state gives a different number.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Chance(u64);

impl Chance {
    /// A series of draws; the same for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The next number; each of the 2^64 values is equally likely.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `end`, which is not 0; its bias is below one in 2^32.
    #[inline]
    pub fn below(&mut self, end: u32) -> u32 {
        // The upper half of a product instead of a remainder (Lemire, 2019), which costs a division.
        (((self.draw() >> 32) * u64::from(end)) >> 32) as u32
    }
}

/// 2^64 divided by the golden ratio.
pub const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Spreads the bits of a number over all of it.
#[inline]
#[must_use]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_the_published_one() {
        // What other implementations of SplitMix64 give for this seed (Rosetta Code, "Pseudo-random
        // numbers/Splitmix64").
        let mut chance = Chance::new(1_234_567);
        let drawn = [0; 3].map(|_: u64| chance.draw());
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_number_below_is_the_draws_share_of_the_whole() {
        let (mut one, mut other) = (Chance::new(3), Chance::new(3));
        for end in [1, 2, 10, 1_000_000] {
            let share = other.draw() as f64 / 2f64.powi(64);
            assert_eq!(one.below(end), (share * f64::from(end)) as u32);
        }
    }

    #[test]
    fn all_numbers_below_are_drawn_about_alike() {
        let mut chance = Chance::new(7);
        let mut counts = [0; 10];
        (0..10_000).for_each(|_| counts[chance.below(10) as usize] += 1);
        // Six standard deviations of a fair draw.
        assert!(counts.iter().all(|count| (820..1180).contains(count)), "{counts:?}");
    }
}
