//! How evenly connections were spread, compared with pure chance: the figures that the lab reports.
//!
//! With `x_i` the count of worker `i`, `n = Σ x_i`, `N` workers and the mean `m = n/N`:
//!
//! | figure | formula | source |
//! |---|---|---|
//! | Jain index | `n² / (N · Σ x_i²)` = `1 / (1 + CV²)` | Jain, Chiu, Hawe: DEC-TR-301, 1984, <https://arxiv.org/abs/cs/9809099> |
//! | coefficient of variation | `sd / m`, with the population's `sd` | the same |
//! | max/mean | `max x_i / m` | how much the busiest worker has beyond its share |
//! | top-2 share | the two largest counts over `n` | the form of the claim in Node's documentation of `cluster` |
//! | chi-square | `Σ (x_i − m)² / m`, with `N − 1` degrees of freedom | Pearson 1900; both tails, as NIST SP 800-22 and Knuth (TAOCP 2, 3.3.1) read it |
//!
//! The right tail says how often chance is at least as *uneven* as this, the left tail how often it is at least as
//! *even*: exact round-robin has a left tail of 0, and that is the claim to prove.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, StandardNormal, Uniform};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF};

/// How many times [`chance`] is tried; the error of the figures is then below a tenth of their spread.
const TRIALS: usize = 400;
/// From this mean per worker on, the counts of chance are drawn from the normal limit of the multinomial distribution,
/// `m + √m · (z_i − z̄)`, instead of one connection at a time.
const NORMAL_FROM: f64 = 30.0;

/// Figures of evenness over the workers' counts. The module documentation says how each is computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Jain's index, from 1/N to 1.
    pub jain: f64,
    /// The largest count over the mean.
    pub max_over_mean: f64,
    /// The smallest count.
    pub min: f64,
    /// The largest count.
    pub max: f64,
    /// Standard deviation over the mean.
    pub cv: f64,
    /// The share of all connections that the two busiest workers have, from 0 to 1.
    pub top2_share: f64,
    /// Pearson's statistic against the uniform distribution.
    pub chi_square: f64,
    /// Probability that chance is at least as even as this.
    pub as_even: f64,
    /// Probability that chance is at least as uneven as this.
    pub as_uneven: f64,
}

impl Spread {
    /// The figures for these counts; none without a connection or without a worker.
    ///
    /// ```
    /// use maitred::core::spread::Spread;
    /// let node_documentation = Spread::of(&[35, 35, 5, 5, 5, 5, 5, 5]).unwrap();
    /// assert_eq!(node_documentation.top2_share, 0.7);
    /// assert!(Spread::of(&[0, 0]).is_none());
    /// ```
    #[must_use]
    pub fn of(counts: &[u64]) -> Option<Spread> {
        let counts: Vec<f64> = counts.iter().map(|&x| x as f64).collect();
        Spread::of_real(&counts)
    }

    fn of_real(counts: &[f64]) -> Option<Spread> {
        let workers = counts.len() as f64;
        let sum: f64 = counts.iter().sum();
        if sum <= 0.0 {
            return None;
        }
        let mean = sum / workers;
        let squares: f64 = counts.iter().map(|x| (x - mean).powi(2)).sum();
        let mut sorted = counts.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        let cv = (squares / workers).sqrt() / mean;
        let chi_square = squares / mean;
        // With a single worker, that worker has everything in any case.
        let tails = ChiSquared::new(workers - 1.0).ok().map(|law| (law.cdf(chi_square), law.sf(chi_square)));
        let (as_even, as_uneven) = tails.unwrap_or((1.0, 1.0));
        Some(Spread {
            jain: 1.0 / (1.0 + cv * cv),
            max_over_mean: max / mean,
            min,
            max,
            cv,
            top2_share: sorted.iter().rev().take(2).sum::<f64>() / sum,
            chi_square,
            as_even,
            as_uneven,
        })
    }
}

/// The average result of chance when it throws `connections` at `workers`, each equally likely: the mean of each
/// figure over a few hundred trials, the same for the same seed.
#[must_use]
pub fn chance(workers: usize, connections: u64, seed: u64) -> Option<Spread> {
    if workers == 0 || connections == 0 {
        return None;
    }
    let mut random = SmallRng::seed_from_u64(seed);
    let mut counts = vec![0.0; workers];
    let trials: Vec<Spread> = (0..TRIALS)
        .filter_map(|_| {
            throw(&mut counts, connections, &mut random);
            Spread::of_real(&counts)
        })
        .collect();
    let mean = |of: fn(&Spread) -> f64| trials.iter().map(of).sum::<f64>() / trials.len() as f64;
    Some(Spread {
        jain: mean(|s| s.jain),
        max_over_mean: mean(|s| s.max_over_mean),
        min: mean(|s| s.min),
        max: mean(|s| s.max),
        cv: mean(|s| s.cv),
        top2_share: mean(|s| s.top2_share),
        chi_square: mean(|s| s.chi_square),
        as_even: mean(|s| s.as_even),
        as_uneven: mean(|s| s.as_uneven),
    })
}

/// One trial: the counts when workers are chosen at random.
fn throw(counts: &mut [f64], connections: u64, random: &mut SmallRng) {
    let mean = connections as f64 / counts.len() as f64;
    if mean < NORMAL_FROM {
        counts.fill(0.0);
        let Ok(die) = Uniform::new(0, counts.len()) else { return };
        for _ in 0..connections {
            counts[die.sample(random)] += 1.0;
        }
        return;
    }
    for x in counts.iter_mut() {
        *x = StandardNormal.sample(random);
    }
    let drift = counts.iter().sum::<f64>() / counts.len() as f64;
    for x in counts.iter_mut() {
        *x = (mean + mean.sqrt() * (*x - drift)).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fairness::Fairness;
    use proptest::prelude::*;

    fn near(a: f64, b: f64, within: f64) {
        assert!((a - b).abs() <= within, "{a} is not within {within} of {b}");
    }

    #[test]
    fn an_exact_spread_is_more_even_than_chance() {
        let spread = Spread::of(&[15_000; 4]).unwrap();
        assert_eq!((spread.jain, spread.cv, spread.chi_square), (1.0, 0.0, 0.0));
        assert!(spread.as_even < 1e-9);
        assert!(spread.as_uneven > 1.0 - 1e-9);
    }

    #[test]
    fn a_known_table_has_its_known_probability() {
        // A die thrown 60 times: 5 8 9 8 10 20 has X² = 13.4 and a right tail of 0.0199 at 5 degrees
        // of freedom, the example in Wikipedia's article on Pearson's test.
        let spread = Spread::of(&[5, 8, 9, 8, 10, 20]).unwrap();
        near(spread.chi_square, 13.4, 1e-9);
        near(spread.as_uneven, 0.0199, 1e-4);
        near(spread.as_even + spread.as_uneven, 1.0, 1e-9);
    }

    #[test]
    fn the_busiest_is_compared_with_the_mean() {
        let spread = Spread::of(&[2, 4, 6]).unwrap();
        assert_eq!((spread.max_over_mean, spread.min, spread.max), (1.5, 2.0, 6.0));
        near(spread.top2_share, 10.0 / 12.0, 1e-9);
    }

    #[test]
    fn a_throw_gives_each_connection_to_one_worker() {
        let mut random = SmallRng::seed_from_u64(3);
        // Below the limit one after the other is thrown, from there on the counts are drawn.
        for (connections, whole) in [(100, true), (119, true), (120, false), (4_000, false)] {
            let mut counts = [0.0; 4];
            throw(&mut counts, connections, &mut random);
            near(counts.iter().sum(), connections as f64, 1e-6);
            assert_eq!(counts.iter().all(|count| count.fract() == 0.0), whole, "{connections}: {counts:?}");
            let spread = Spread::of_real(&counts).unwrap();
            assert!(spread.max > spread.min && spread.cv < 0.5, "{counts:?}");
        }
    }

    #[test]
    fn one_worker_has_all_and_that_is_no_surprise() {
        let spread = Spread::of(&[7]).unwrap();
        assert_eq!((spread.jain, spread.top2_share, spread.as_uneven), (1.0, 1.0, 1.0));
    }

    #[test]
    fn chance_agrees_with_the_closed_forms() {
        // E[X²] = N − 1; E[J] is about 1 / (1 + (N−1)/n); CV about √((N−1)/n).
        for (workers, n) in [(4, 20), (8, 100), (8, 60_000), (64, 100_000)] {
            let spread = chance(workers, n, 1).unwrap();
            let freedom = workers as f64 - 1.0;
            near(spread.chi_square / freedom, 1.0, 0.15);
            near(spread.jain, 1.0 / (1.0 + freedom / n as f64), 0.03);
            near(spread.cv / (freedom / n as f64).sqrt(), 1.0, 0.15);
            near(spread.as_even, 0.5, 0.1);
        }
        assert_eq!(chance(4, 0, 1), None);
    }

    proptest! {
        #[test]
        fn the_figures_keep_their_bounds_and_jain_is_that_of_the_status(
            counts in prop::collection::vec(0u64..1_000_000, 1..64)
        ) {
            prop_assume!(counts.iter().sum::<u64>() > 0);
            let spread = Spread::of(&counts).unwrap();
            let status = Fairness::of(&counts);
            prop_assert!((spread.jain - status.jain).abs() < 1e-9);
            prop_assert_eq!((spread.min as u64, spread.max as u64), (status.min, status.max));
            prop_assert!(spread.top2_share <= 1.0 + 1e-9);
            prop_assert!((0.0..=1.0).contains(&spread.as_even) && (0.0..=1.0).contains(&spread.as_uneven));
        }
    }
}
