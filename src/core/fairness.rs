//! How evenly items are spread.

use serde::{Deserialize, Serialize};

/// Figures of evenness over the workers' counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fairness {
    /// Jain's index `(Σx)² / (N·Σx²)`, from 1/N (one worker has all) to 1 (all have the same).
    /// Jain, Chiu, Hawe: DEC-TR-301, 1984, <https://arxiv.org/abs/cs/9809099>.
    pub jain: f64,
    /// The largest count over the mean: the load of the busiest worker.
    pub max_over_mean: f64,
    /// The smallest count.
    pub min: u64,
    /// The largest count.
    pub max: u64,
}

impl Fairness {
    /// The figures for these counts. If nothing was spread at all, that counts as even.
    ///
    /// ```
    /// use maitred::core::fairness::Fairness;
    /// assert_eq!(Fairness::of(&[5, 5, 5, 5]).jain, 1.0);
    /// assert_eq!(Fairness::of(&[20, 0, 0, 0]).jain, 0.25);
    /// ```
    #[must_use]
    pub fn of(counts: &[u64]) -> Fairness {
        let sum: f64 = counts.iter().map(|&x| x as f64).sum();
        let squares: f64 = counts.iter().map(|&x| (x as f64).powi(2)).sum();
        let n = counts.len() as f64;
        let (min, max) = (counts.iter().copied().min().unwrap_or(0), counts.iter().copied().max().unwrap_or(0));
        if sum == 0.0 {
            return Fairness { jain: 1.0, max_over_mean: 1.0, min, max };
        }
        Fairness { jain: sum * sum / (n * squares), max_over_mean: max as f64 * n / sum, min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nodes_documented_skew_has_the_index_that_its_users_compute() {
        // 70 % of the connections on 2 of 8 workers, the rest even.
        let jain = Fairness::of(&[35, 35, 5, 5, 5, 5, 5, 5]).jain;
        assert!((jain - 0.48).abs() < 0.01, "{jain}");
    }

    #[test]
    fn what_the_busiest_bears_is_its_count_over_the_mean() {
        let fairness = Fairness::of(&[30, 10, 10, 10]);
        assert_eq!((fairness.max_over_mean, fairness.min, fairness.max), (2.0, 10, 30));
    }

    #[test]
    fn no_counts_and_no_connections_are_even() {
        assert_eq!(Fairness::of(&[]).jain, 1.0);
        assert_eq!(Fairness::of(&[0, 0]).max_over_mean, 1.0);
    }

    proptest! {
        #[test]
        fn the_index_lies_between_one_nth_and_one(counts in prop::collection::vec(0u64..1_000_000, 1..64)) {
            let fairness = Fairness::of(&counts);
            prop_assert!(fairness.jain <= 1.0 + 1e-9);
            prop_assert!(fairness.jain >= 1.0 / counts.len() as f64 - 1e-9);
        }
    }
}
