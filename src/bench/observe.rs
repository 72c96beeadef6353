//! Observes a subject's processes while the clients are at work: what they cost, and how many connections each worker
//! has open.
//!
//! Open connections are counted in two ways. The kernel lists which descriptors each process has ([`census`]). This
//! works for any server, but the processes are read one after the other, in a millisecond or more altogether, so
//! connections that open and close meanwhile blur the sample, and a connection that waits untaken belongs to no
//! worker: in one run of `long-lived` under least-connections the kernel's count had a standard deviation of 1.14, the
//! clients' count 0.54. The clients' count is better if connections stay open and the server reports its slot
//! ([`Board`]): a sample takes less than a microsecond. In that case the clients' count is used, for every subject
//! alike, and sampling ends when some client begins no more connections, since from then on no choices are made.
//! `maitred status` would have an exact count of its own, but only under some policies, and no peer has it.

use super::load::board::Board;
use super::stop::Stop;
use crate::core::spread::{Spread, chance};
use crate::sys::process::census::{self, Found, Slots};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::time::Duration;

/// Time between two samples of the open connections. Each reads the processes of the machine, which takes about a
/// millisecond on a small one.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
/// Time between two samples of the clients' own count, which cost almost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Samples with fewer open connections than workers say nothing about evenness.
const OPEN_MIN: f64 = 1.0;

/// What a group of processes used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Processor time, user and system.
    pub cpu_s: f64,
    /// Context switches, without those of processes that ended.
    pub switches: u64,
    /// The most resident memory, summed over processes.
    pub peak_rss_bytes: u64,
}

/// What a subject used while it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// The first process and all others without a slot: maitred's master and its guard, or a peer's proxy.
    pub front: Cost,
    /// The processes with a slot; if there are none, all but the first process.
    pub workers: Cost,
}

/// The processes at one moment.
pub struct Snapshot(Vec<Found>);

impl Snapshot {
    /// The current moment.
    #[must_use]
    pub fn take(root: Pid) -> Snapshot {
        Snapshot(census::tree(root, &mut Slots::new()))
    }

    /// The resources used from `self` to `later`.
    #[must_use]
    pub fn until(&self, later: &Snapshot, root: Pid) -> Costs {
        let mut costs = Costs::default();
        let slots = later.0.iter().any(|found| found.slot.is_some());
        for now in &later.0 {
            let before = self.0.iter().find(|found| found.pid == now.pid);
            let cpu = now.cpu.saturating_sub(before.map_or(Duration::ZERO, |b| b.cpu));
            let ended = now.ended_children_cpu.saturating_sub(before.map_or(Duration::ZERO, |b| b.ended_children_cpu));
            let in_front = now.pid == root || slots && now.slot.is_none();
            let part = if in_front { &mut costs.front } else { &mut costs.workers };
            part.cpu_s += cpu.as_secs_f64();
            part.switches += now.switches.saturating_sub(before.map_or(0, |b| b.switches));
            part.peak_rss_bytes += now.peak_rss_bytes;
            costs.workers.cpu_s += ended.as_secs_f64();
        }
        costs
    }
}

/// The source of the count of open connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeenBy {
    /// The kernel: descriptors of the workers' processes.
    #[default]
    Kernel,
    /// The clients, to which the server reported its slot.
    Clients,
}

/// How evenly open connections were spread, over all samples with enough of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// The source of the counts.
    #[serde(default)]
    pub seen_by: SeenBy,
    /// The number of samples that count.
    pub samples: usize,
    /// Open connections, mean over the samples.
    pub mean: f64,
    /// Standard deviation over the workers, mean over the samples.
    pub sd: f64,
    /// The same if chance had placed as many.
    #[serde(default)]
    pub sd_by_chance: Option<f64>,
    /// Jain's index, mean over the samples.
    pub jain: f64,
    /// The same if chance had placed as many.
    pub jain_by_chance: f64,
    /// The largest over the mean, mean over the samples.
    pub max_over_mean: f64,
    /// The same if chance had placed as many.
    pub max_over_mean_by_chance: f64,
}

impl Open {
    /// Summarizes samples; each has the open connections of every slot.
    #[must_use]
    pub fn of(samples: &[Vec<u64>], seen_by: SeenBy, seed: u64) -> Option<Open> {
        let enough = |open: &&Vec<u64>| open.iter().sum::<u64>() as f64 >= OPEN_MIN * open.len() as f64;
        let samples: Vec<_> = samples.iter().filter(enough).collect();
        let spreads: Vec<(f64, Spread)> = samples
            .iter()
            .filter_map(|open| Some((open.iter().sum::<u64>() as f64 / open.len() as f64, Spread::of(open)?)))
            .collect();
        let workers = samples.first()?.len();
        let mean_of = |of: &dyn Fn(&(f64, Spread)) -> f64| spreads.iter().map(of).sum::<f64>() / spreads.len() as f64;
        let mean = mean_of(&|(mean, _)| *mean) * workers as f64;
        let by_chance = chance(workers, mean.round() as u64, seed)?;
        Some(Open {
            seen_by,
            samples: spreads.len(),
            mean,
            sd: mean_of(&|(mean, spread)| spread.cv * mean),
            sd_by_chance: Some(by_chance.cv * mean / workers as f64),
            jain: mean_of(&|(_, spread)| spread.jain),
            jain_by_chance: by_chance.jain,
            max_over_mean: mean_of(&|(_, spread)| spread.max_over_mean),
            max_over_mean_by_chance: by_chance.max_over_mean,
        })
    }
}

/// Samples the open connections of each slot until `stop`.
#[must_use]
pub fn sample_open(root: Pid, port: u16, workers: usize, stop: &Stop) -> Vec<Vec<u64>> {
    let ports = HashSet::from([port]);
    let mut slots = Slots::new();
    let mut samples = Vec::new();
    while !stop.wait(SAMPLE_EVERY) {
        samples.push(census::open_by_slot(root, &ports, workers, &mut slots));
    }
    samples
}

/// The same from the clients' count, until no more connections are begun.
#[must_use]
pub fn watch_board(board: &Board, stop: &Stop) -> Vec<Vec<u64>> {
    let mut samples = Vec::new();
    while !stop.wait(LOOK_EVERY) {
        let Some(open) = board.look() else { break };
        samples.push(open);
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_with_too_few_connections_do_not_count() {
        let open = Open::of(&[vec![0, 1], vec![10, 10], vec![15, 5], vec![0, 0]], SeenBy::Kernel, 1).unwrap();
        assert_eq!((open.samples, open.mean, open.sd), (2, 20.0, 2.5));
        assert!(open.jain < 1.0 && open.jain_by_chance < 1.0);
        // 20 coins have a standard deviation of √5; half the difference between heads and tails is, on average, √(2/π)
        // times that.
        assert!((open.sd_by_chance.unwrap() - 1.77).abs() < 0.3, "{open:?}");
        assert_eq!(Open::of(&[vec![0, 1]], SeenBy::Clients, 1), None);
    }
}
