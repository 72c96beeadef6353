//! The result in words: for each pair of subjects, which one is faster, and how evenly each spreads; or that the runs
//! scatter too much to say.
//!
//! Rounds are interleaved, so two subjects of one measurement are compared round by round (a paired t-test of the
//! ratios); two measurements, which share no rounds, by their runs (Welch's t-test). A difference is stated when chance
//! alone would give one so large in at most one of twenty measurements.

use super::record::Run;
use super::summary::Summary;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A difference counts when chance gives one so large with at most this probability.
const CHANCE: f64 = 0.05;
/// Fewer rounds say nothing about scatter.
const ROUNDS_MIN: usize = 3;
/// How even: more or less than chance when chance is that or more with at most this probability.
const EVEN_BY_CHANCE: f64 = 0.01;

/// A ratio with its scatter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The ratio of the means, or the mean of the rounds' ratios.
    pub ratio: f64,
    /// Its standard deviation from round to round.
    pub scatter: f64,
    /// Whether it differs from 1 beyond the scatter.
    pub differs: bool,
}

/// What one says beside another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// Connections per second.
    pub rate: Option<Ratio>,
    /// Latency at the 99th percentile.
    pub p99: Option<Ratio>,
}

impl Compared {
    /// Whether it is slower beyond the scatter.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        let slower = self.rate.is_some_and(|rate| rate.differs && rate.ratio < 1.0);
        slower || self.p99.is_some_and(|p99| p99.differs && p99.ratio > 1.0)
    }

    /// In words, as in `1.04 ± 0.02 times the rate of shared, p99 8 % lower`.
    #[must_use]
    pub fn words(&self, other: &str) -> String {
        let (Some(rate), Some(p99)) = (self.rate, self.p99) else {
            return format!("too few rounds to compare it with {other}");
        };
        let p99_words = || {
            let percent = 100.0 * (p99.ratio - 1.0);
            format!("p99 {:.0} % {}", percent.abs(), if percent < 0.0 { "lower" } else { "higher" })
        };
        let times = format!("{:.2} ± {:.2} times the rate of {other}", rate.ratio, rate.scatter);
        match (rate.differs, p99.differs) {
            (true, true) => format!("{times}, {}", p99_words()),
            (true, false) => format!("{times}, p99 alike"),
            (false, true) => format!("the rate of {other} within the scatter, {}", p99_words()),
            (false, false) => format!("no difference to {other} beyond the scatter"),
        }
    }
}

/// A line for each subject's evenness, and one for each pair.
#[must_use]
pub fn verdicts(summaries: &[Summary], runs: &[Run]) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, summary) in summaries.iter().enumerate() {
        let others = summaries.iter().take(index);
        let compared = others.map(|other| paired(&summary.subject, &other.subject, runs).words(&other.subject));
        let even = evenness(summary).map(str::to_owned);
        let parts: Vec<String> = even.into_iter().chain(compared).collect();
        if !parts.is_empty() {
            lines.push(format!("{}: {}", summary.subject, parts.join("; ")));
        }
    }
    lines
}

/// How evenly it spreads connections.
fn evenness(summary: &Summary) -> Option<&'static str> {
    let spread = summary.spread.as_ref()?;
    Some(match summary.widest {
        Some(0 | 1) => "exact turns",
        _ if spread.as_even < EVEN_BY_CHANCE => "more even than chance",
        _ if spread.as_uneven < EVEN_BY_CHANCE => "less even than chance",
        _ => "as even as chance",
    })
}

/// One subject beside another one of the same measurement, round by round.
#[must_use]
pub fn paired(subject: &str, other: &str, runs: &[Run]) -> Compared {
    let ratios = |of: fn(&Run) -> f64| -> Vec<f64> {
        let valid = |name: &str, round: Option<u32>| {
            runs.iter().find(move |run| {
                run.subject == name && run.invalid.is_empty() && round.is_none_or(|round| run.round == round)
            })
        };
        let own = runs.iter().filter(|run| run.subject == subject && run.invalid.is_empty());
        let with = own.filter_map(|run| Some((of(run), of(valid(other, Some(run.round))?))));
        with.filter(|(own, other)| *own > 0.0 && *other > 0.0).map(|(own, other)| own / other).collect()
    };
    Compared { rate: ratio(&ratios(rate)), p99: ratio(&ratios(p99)) }
}

/// A subject in two measurements.
#[must_use]
pub fn apart(after: &[&Run], before: &[&Run]) -> Compared {
    let figures = |runs: &[&Run], of: fn(&Run) -> f64| -> Vec<f64> {
        runs.iter().filter(|run| run.invalid.is_empty()).map(|run| of(run)).collect()
    };
    let compare = |of| welch(&figures(after, of), &figures(before, of));
    Compared { rate: compare(rate), p99: compare(p99) }
}

fn rate(run: &Run) -> f64 {
    run.connections_per_s
}

fn p99(run: &Run) -> f64 {
    run.latency_us.p99 as f64
}

/// Whether the mean of ratios differs from 1 (Student's t-test).
fn ratio(ratios: &[f64]) -> Option<Ratio> {
    let (mean, variance) = mean_and_variance(ratios)?;
    let error = (variance / ratios.len() as f64).sqrt();
    let differs = by_chance((mean - 1.0).abs(), error, ratios.len() as f64 - 1.0) < CHANCE;
    Some(Ratio { ratio: mean, scatter: variance.sqrt(), differs })
}

/// Whether two means differ that were measured apart (Welch's t-test, with Welch and Satterthwaite's degrees of
/// freedom).
fn welch(after: &[f64], before: &[f64]) -> Option<Ratio> {
    let ((mean, variance), (before_mean, before_variance)) = (mean_and_variance(after)?, mean_and_variance(before)?);
    let (a, b) = (variance / after.len() as f64, before_variance / before.len() as f64);
    let (n_a, n_b) = (after.len() as f64 - 1.0, before.len() as f64 - 1.0);
    let freedom = (a + b).powi(2) / (a * a / n_a + b * b / n_b);
    let differs = by_chance((mean - before_mean).abs(), (a + b).sqrt(), freedom) < CHANCE;
    if before_mean <= 0.0 {
        return None;
    }
    Some(Ratio { ratio: mean / before_mean, scatter: (variance + before_variance).sqrt() / before_mean, differs })
}

/// How probable so large a difference is by chance alone.
fn by_chance(difference: f64, error: f64, freedom: f64) -> f64 {
    if error == 0.0 {
        return if difference == 0.0 { 1.0 } else { 0.0 };
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(1.0, |students| 2.0 * students.sf(difference / error))
}

/// The mean, and the variance of one value; none for fewer values than [`ROUNDS_MIN`].
fn mean_and_variance(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() >= ROUNDS_MIN).then(|| (mean, squares / (n - 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(rates: &[f64], p99: &[f64]) -> Compared {
        Compared { rate: ratio(rates), p99: ratio(p99) }
    }

    #[test]
    fn a_difference_is_stated_only_beyond_the_scatter() {
        let faster = [1.04, 1.05, 1.03, 1.04, 1.06];
        let scattered = [0.90, 1.15, 1.02, 0.95, 1.10];
        let lower = [0.92, 0.91, 0.93, 0.92, 0.94];
        assert_eq!(compared(&faster, &lower).words("shared"), "1.04 ± 0.01 times the rate of shared, p99 8 % lower");
        assert_eq!(compared(&faster, &scattered).words("x"), "1.04 ± 0.01 times the rate of x, p99 alike");
        assert_eq!(compared(&scattered, &faster).words("x"), "the rate of x within the scatter, p99 4 % higher");
        assert_eq!(compared(&scattered, &scattered).words("x"), "no difference to x beyond the scatter");
        assert_eq!(compared(&faster[..2], &lower).words("x"), "too few rounds to compare it with x");
        assert!(compared(&scattered, &faster).is_worse() && !compared(&faster, &lower).is_worse());
        assert!(compared(&lower, &scattered).is_worse() && !compared(&scattered, &scattered).is_worse());
    }

    #[test]
    fn students_t_is_that_of_the_tables() {
        // t(0.975, 4) = 2.776: five ratios whose mean is that many standard errors from 1 are just at the border.
        let at = |t: f64| by_chance(t, 1.0, 4.0);
        assert!(at(2.77) > CHANCE && at(2.78) < CHANCE);
        assert_eq!(ratio(&[1.0; 5]).unwrap(), Ratio { ratio: 1.0, scatter: 0.0, differs: false });
        assert!(ratio(&[2.0; 3]).unwrap().differs);
    }

    #[test]
    fn measurements_apart_are_compared_by_their_means() {
        let found = welch(&[110.0, 112.0, 108.0], &[100.0, 101.0, 99.0]).unwrap();
        assert!(found.differs && (found.ratio - 1.1).abs() < 1e-9);
        assert!(!welch(&[110.0, 90.0, 108.0], &[100.0, 101.0, 99.0]).unwrap().differs);
        assert_eq!(welch(&[1.0], &[1.0, 2.0, 3.0]), None);
    }
}
