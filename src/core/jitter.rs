//! Jitter without a random source: a number that depends on the worker, so that many workers do not do the same thing
//! at the same moment.

use super::chance::{GOLDEN, mix};
use super::ids::WorkerId;

/// The fraction of a limit at which this worker reaches it: from 0.9 to 1.
///
/// `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014) of the worker's id.
///
/// ```
/// use maitred::core::{ids::WorkerId, jitter::share};
/// assert!((1..1000).all(|id| (0.9..=1.0).contains(&share(WorkerId(id), 7))));
/// assert_ne!(share(WorkerId(1), 7), share(WorkerId(2), 7));
/// ```
#[must_use]
pub fn share(worker: WorkerId, seed: u64) -> f64 {
    let z = mix(worker.0.wrapping_add(seed).wrapping_mul(GOLDEN));
    1.0 - 0.1 * (z >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_last_tenth_is_drawn() {
        let shares: Vec<f64> = (0..1000).map(|id| share(WorkerId(id), 7)).collect();
        assert!(shares.iter().all(|share| (0.9..=1.0).contains(share)));
        // About a hundred in each hundredth.
        for hundredth in 0..10 {
            let from = 0.9 + f64::from(hundredth) / 100.0;
            let some = shares.iter().filter(|share| (from..from + 0.01).contains(*share)).count();
            assert!((60..140).contains(&some), "{some} from {from}");
        }
    }

    #[test]
    fn it_depends_on_the_seed_too() {
        assert_ne!(share(WorkerId(1), 7), share(WorkerId(1), 8));
    }
}
