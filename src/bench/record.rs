//! The record of one run: what is written down, read again and compared.

use super::command::Ran;
use super::load::ClientCost;
use super::load::tally::{Endings, Tally};
use super::observe::{Costs, Open};
use super::sources::Sources;
use crate::core::spread::Spread;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Times to an answer, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half took no longer.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p99_9: u64,
    /// The longest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
}

impl Latency {
    /// The usual percentiles.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        Latency {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
        }
    }
}

/// What came of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The subject.
    pub subject: String,
    /// Which round, from 1.
    pub round: u32,
    /// Seconds, without planned pauses.
    pub took_s: f64,
    /// Answered connections a second.
    pub connections_per_s: f64,
    /// Answered requests a second.
    pub requests_per_s: f64,
    /// How connections ended.
    pub endings: Endings,
    /// An example of what was wrong with one that was not answered.
    pub example: Option<String>,
    /// Answered requests.
    pub requests: u64,
    /// Time to an answer.
    pub latency_us: Latency,
    /// Connections of each slot.
    pub per_worker: Vec<u64>,
    /// Who counted them.
    pub counted_by: CountedBy,
    /// How even that is.
    pub spread: Option<Spread>,
    /// How even the open connections were.
    pub open: Option<Open>,
    /// The same as the kernel tells, where the clients know better.
    #[serde(default)]
    pub open_by_kernel: Option<Open>,
    /// Which slot served which address, with `--sources`.
    #[serde(default)]
    pub sources: Option<Sources>,
    /// What the subject used.
    pub costs: Option<Costs>,
    /// What the clients used.
    pub client: ClientCost,
    /// 99th percentile of how late connections of an open loop were begun, in microseconds, by the
    /// clients' own fault.
    pub late_p99_us: u64,
    /// Arrivals that waited because too many connections were open.
    pub held_back: u64,
    /// How often workers were disturbed, by the workload or by commands.
    pub disturbances: u64,
    /// What came of the commands of `--disturb`.
    #[serde(default)]
    pub commands: Ran,
    /// What the front says of this run, if it is one of ours.
    #[serde(default)]
    pub front: Option<Front>,
    /// Bytes that the subject wrote on standard error meanwhile.
    pub stderr_bytes: u64,
    /// Part of the machine's processor time that it did not get from its host.
    pub stolen: f64,
    /// Part of the machine's processor time that neither the subject nor the clients used, and that
    /// was not idle.
    pub strangers: f64,
    /// Why this run does not count.
    pub invalid: Vec<String>,
    /// Ctrl-C came.
    pub cut_short: bool,
    /// All latencies.
    #[serde(skip, default = "no_latencies")]
    pub latencies: Histogram<u64>,
}

fn no_latencies() -> Histogram<u64> {
    Tally::default().latency
}

/// Where a number for each worker comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountedBy {
    /// The front, which handed them over or saw them taken.
    Front,
    /// The clients, whom the server told.
    Clients,
    /// Nobody.
    Nobody,
}

/// What the front counted from the beginning of a run to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Connections accepted.
    pub accepted: u64,
    /// Hand-overs.
    #[serde(default)]
    pub handed: u64,
    /// Connections sent back by workers.
    pub returned: u64,
    /// Connections taken back from workers.
    pub rescued: u64,
    /// Connections that were turned away, as admission limits said.
    #[serde(default)]
    pub refused: u64,
    /// Of these, those that were answered with 503; the others were reset.
    #[serde(default)]
    pub answered_503: u64,
    /// Connections that could be given to nobody.
    pub lost: u64,
    /// Workers started in the place of others, after a crash or by a reload.
    pub restarts: u64,
}
