//! The record of one run, which is written, read back and compared.

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
    /// Half of the answers took no longer.
    pub p50: u64,
    /// The same for nine of ten.
    pub p90: u64,
    /// The same for 99 of 100.
    pub p99: u64,
    /// The same for 999 of 1000.
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

/// The result of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The subject.
    pub subject: String,
    /// The round, from 1.
    pub round: u32,
    /// Seconds, without planned pauses.
    pub took_s: f64,
    /// Answered connections per second.
    pub connections_per_s: f64,
    /// Answered requests per second.
    pub requests_per_s: f64,
    /// How connections ended.
    pub endings: Endings,
    /// An example of the error of a connection that was not answered.
    pub example: Option<String>,
    /// Answered requests.
    pub requests: u64,
    /// Time to an answer.
    pub latency_us: Latency,
    /// Connections of each slot.
    pub per_worker: Vec<u64>,
    /// The source of these counts.
    pub counted_by: CountedBy,
    /// How even these counts are.
    pub spread: Option<Spread>,
    /// How even the open connections were.
    pub open: Option<Open>,
    /// The same from the kernel, if the clients' count is better.
    #[serde(default)]
    pub open_by_kernel: Option<Open>,
    /// Which slot served which address, with `--sources`.
    #[serde(default)]
    pub sources: Option<Sources>,
    /// What the subject used.
    pub costs: Option<Costs>,
    /// What the clients used.
    pub client: ClientCost,
    /// 99th percentile of how late connections of an open loop began because of the clients themselves, in
    /// microseconds.
    pub late_p99_us: u64,
    /// Arrivals that waited because too many connections were open.
    pub held_back: u64,
    /// How often workers were disturbed, by the workload or by commands.
    pub disturbances: u64,
    /// The results of the commands of `--disturb`.
    #[serde(default)]
    pub commands: Ran,
    /// What the front reports about this run, if it is one of ours.
    #[serde(default)]
    pub front: Option<Front>,
    /// Bytes that the subject wrote to standard error during the run.
    pub stderr_bytes: u64,
    /// Part of the machine's processor time that its host did not give it.
    pub stolen: f64,
    /// Part of the machine's processor time that was neither used by the subject or the clients nor idle.
    pub strangers: f64,
    /// Why this run does not count.
    pub invalid: Vec<String>,
    /// Whether Ctrl-C interrupted the run.
    pub cut_short: bool,
    /// All latencies.
    #[serde(skip, default = "no_latencies")]
    pub latencies: Histogram<u64>,
}

fn no_latencies() -> Histogram<u64> {
    Tally::default().latency
}

/// The source of a number for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountedBy {
    /// The front, which handed the connections over or saw them taken.
    Front,
    /// The clients, to which the server reported its slot.
    Clients,
    /// No source.
    Nobody,
}

/// What the front counted from the beginning of a run to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Connections accepted.
    pub accepted: u64,
    /// Hand-offs.
    #[serde(default)]
    pub handed: u64,
    /// Connections sent back by workers.
    pub returned: u64,
    /// Connections taken back from workers.
    pub rescued: u64,
    /// Connections that were turned away because of admission limits.
    #[serde(default)]
    pub refused: u64,
    /// Those of them that were answered with 503; the others were reset.
    #[serde(default)]
    pub answered_503: u64,
    /// Connections that no worker could be given.
    pub lost: u64,
    /// Workers started to replace others, after a crash or by a reload.
    pub restarts: u64,
}
