//! From runs to results: medians with their range, ratios, and what chance would have given.

use super::command::Ran;
use super::load::tally::{Endings, merge};
use super::observe::Open;
use super::plan::Plan;
use super::record::{CountedBy, Front, Latency, Run};
use super::sources::Steadiness;
use crate::core::spread::{Spread, chance};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Points of the latency curve, evenly spaced on the scale of "one in N is slower", up to one in a hundred thousand.
const CURVE_POINTS: usize = 60;
/// The last point of the curve.
const CURVE_LAST: f64 = 1e5;

/// A median with the minimum and the maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Median {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Median {
    /// Computed from these values; none for no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Median> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        let median = f64::midpoint(lower, upper);
        Some(Median { median, min, max })
    }

    /// The range, as a part of the median.
    #[must_use]
    pub fn range(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.max - self.min) / self.median }
    }
}

/// The results of one subject over all its runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The subject.
    pub subject: String,
    /// Runs that count.
    pub runs: usize,
    /// Answered connections per second.
    pub connections_per_s: Median,
    /// Answered requests per second.
    pub requests_per_s: Median,
    /// Connections per second relative to those of the first subject in the same round.
    pub ratio: Option<Median>,
    /// Medians of the runs' percentiles, in microseconds.
    pub latency_us: Latency,
    /// Percentile and microseconds, over all runs together.
    pub curve: Vec<(f64, u64)>,
    /// Endings of all runs together.
    pub endings: Endings,
    /// An example of the error of a connection that was not answered.
    pub example: Option<String>,
    /// The results of the commands of `--disturb` in all runs together.
    #[serde(default)]
    pub commands: Ran,
    /// What the front counted in all runs together, if it is one of ours.
    #[serde(default)]
    pub front: Option<Front>,
    /// Connections of each slot in the run whose spread is the median one.
    pub per_worker: Vec<u64>,
    /// The source of these counts.
    pub counted_by: CountedBy,
    /// How even that run was.
    pub spread: Option<Spread>,
    /// What chance gives for as many workers and connections.
    pub by_chance: Option<Spread>,
    /// Jain's index over the runs.
    pub jain: Option<Median>,
    /// The largest difference between two workers' connections in any run.
    pub widest: Option<u64>,
    /// How even the open connections were, in the run whose evenness is the median one.
    pub open: Option<Open>,
    /// The same from the kernel, if the clients' count is better.
    #[serde(default)]
    pub open_by_kernel: Option<Open>,
    /// How consistently addresses stayed with their slots, with `--sources`.
    #[serde(default)]
    pub sources: Option<Steadiness>,
    /// Processor microseconds of the front per connection.
    pub front_cpu_us: Option<Median>,
    /// The same of the workers.
    pub workers_cpu_us: Option<Median>,
    /// Context switches of the front per connection.
    pub front_switches: Option<Median>,
    /// The same of the workers.
    pub workers_switches: Option<Median>,
    /// Most resident bytes of the front in any run.
    pub front_rss_bytes: Option<u64>,
    /// Most resident bytes of the workers together in any run.
    pub workers_rss_bytes: Option<u64>,
    /// Processor microseconds of the clients per connection.
    pub client_cpu_us: Median,
    /// Allocations of the clients per connection.
    pub client_allocations: Median,
    /// The fraction of the time in which a client's thread ran or wanted to run.
    pub client_busy: Median,
}

/// Summarizes each subject that has a valid run, in the order of the plan.
#[must_use]
pub fn summarise(plan: &Plan, runs: &[Run]) -> Vec<Summary> {
    let valid: Vec<&Run> = runs.iter().filter(|run| run.invalid.is_empty()).collect();
    let of = |name: &str| valid.iter().copied().filter(|run| run.subject == name).collect::<Vec<_>>();
    let names: Vec<String> = plan.subjects.iter().map(super::plan::Subject::name).collect();
    let first = names.iter().map(|name| of(name)).find(|runs| !runs.is_empty()).unwrap_or_default();
    names.iter().filter_map(|name| summary(&of(name), &first, plan.load.seed)).collect()
}

fn summary(runs: &[&Run], first: &[&Run], seed: u64) -> Option<Summary> {
    let any = runs.first()?;
    let median = |of: &dyn Fn(&Run) -> f64| Median::of(runs.iter().map(|run| of(run)));
    let per_connection = |amount: f64, run: &Run| amount / run.endings.all().max(1) as f64;
    let cost = |of: &dyn Fn(&super::observe::Costs) -> f64| {
        Median::of(runs.iter().filter_map(|run| Some(per_connection(of(run.costs.as_ref()?), run))))
    };
    let mut latencies: Histogram<u64> = any.latencies.clone();
    let (mut endings, mut commands, mut front) = (any.endings, any.commands.clone(), any.front);
    for run in runs.iter().skip(1) {
        merge(&mut latencies, &run.latencies);
        endings.add(&run.endings);
        commands.add(&run.commands);
        if let (Some(front), Some(more)) = (&mut front, &run.front) {
            front.add(more);
        }
    }
    let typical = middle(runs, |run| run.spread.map(|spread| spread.jain));
    let openly = middle(runs, |run| run.open.as_ref().map(|open| open.jain));
    let spread = typical.and_then(|run| run.spread);
    let in_round = |round| first.iter().find(|run| run.round == round);
    let ratios = runs.iter().filter_map(|run| {
        let other = in_round(run.round)?.connections_per_s;
        (other > 0.0).then_some(run.connections_per_s / other)
    });
    let percentile = |of: fn(&Latency) -> u64| median(&|run| of(&run.latency_us) as f64).map_or(0, |m| m.median as u64);
    let widest = |run: &&Run| Some(run.per_worker.iter().max()? - run.per_worker.iter().min()?);
    let rss = |of: fn(&super::observe::Costs) -> u64| runs.iter().filter_map(|run| Some(of(run.costs.as_ref()?))).max();
    Some(Summary {
        subject: any.subject.clone(),
        runs: runs.len(),
        connections_per_s: median(&|run| run.connections_per_s)?,
        requests_per_s: median(&|run| run.requests_per_s)?,
        ratio: Median::of(ratios),
        latency_us: Latency {
            p50: percentile(|l| l.p50),
            p90: percentile(|l| l.p90),
            p99: percentile(|l| l.p99),
            p99_9: percentile(|l| l.p99_9),
            max: percentile(|l| l.max),
            mean: median(&|run| run.latency_us.mean)?.median,
        },
        curve: curve(&latencies),
        endings,
        commands,
        front,
        example: runs.iter().find_map(|run| run.example.clone()),
        per_worker: typical.map(|run| run.per_worker.clone()).unwrap_or_default(),
        counted_by: any.counted_by,
        spread,
        by_chance: typical.and_then(|run| chance(run.per_worker.len(), run.per_worker.iter().sum(), seed)),
        jain: Median::of(runs.iter().filter_map(|run| Some(run.spread?.jain))),
        widest: runs.iter().filter_map(widest).max(),
        open: openly.and_then(|run| run.open.clone()),
        open_by_kernel: openly.and_then(|run| run.open_by_kernel.clone()),
        sources: Steadiness::over(runs.iter().filter_map(|run| run.sources.as_ref())),
        front_cpu_us: cost(&|costs| costs.front.cpu_s * 1e6),
        workers_cpu_us: cost(&|costs| costs.workers.cpu_s * 1e6),
        front_switches: cost(&|costs| costs.front.switches as f64),
        workers_switches: cost(&|costs| costs.workers.switches as f64),
        front_rss_bytes: rss(|costs| costs.front.peak_rss_bytes),
        workers_rss_bytes: rss(|costs| costs.workers.peak_rss_bytes),
        client_cpu_us: median(&|run| per_connection(run.client.cpu_s * 1e6, run))?,
        client_allocations: median(&|run| per_connection(run.client.allocations as f64, run))?,
        client_busy: median(&|run| {
            (run.client.cpu_s + run.client.waiting_s) / (run.took_s * run.client.threads.max(1) as f64)
        })?,
    })
}

/// The run with the median figure.
fn middle<'a>(runs: &[&'a Run], of: impl Fn(&Run) -> Option<f64>) -> Option<&'a Run> {
    let mut with: Vec<(f64, &Run)> = runs.iter().filter_map(|run| Some((of(run)?, *run))).collect();
    with.sort_by(|a, b| a.0.total_cmp(&b.0));
    with.get(with.len().saturating_sub(1) / 2).map(|(_, run)| *run)
}

/// Percentiles that are evenly spaced on a logarithmic scale of the part above them.
fn curve(latencies: &Histogram<u64>) -> Vec<(f64, u64)> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let last = CURVE_LAST.min(latencies.len() as f64);
    let point = |i: usize| {
        let one_in = last.powf(i as f64 / CURVE_POINTS as f64);
        let quantile = 1.0 - 1.0 / one_in;
        (100.0 * quantile, latencies.value_at_quantile(quantile))
    };
    (0..=CURVE_POINTS).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        let median = |values: &[f64]| Median::of(values.iter().copied());
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(Median { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(median(&[4.0, 1.0]).map(|m| m.median), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[2.0, 4.0, 3.0]).map(|m| m.range()), Some(2.0 / 3.0));
    }
}
