//! What `maitred status --json` prints. Scripts rely on these names: they only ever grow.

use crate::core::fairness::Fairness;
use crate::core::histogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole master.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// `--name`.
    pub name: String,
    /// Process id of the master.
    pub pid: i32,
    /// Version of the master.
    pub version: String,
    /// `--mode`.
    pub mode: String,
    /// `--policy`; in kernel mode the policy that is in force: `random` or `hash` where this master may have nothing
    /// else.
    pub policy: String,
    /// In kernel mode, why the policy in force is not `--policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steering: Option<String>,
    /// `--depth`.
    pub depth: u32,
    /// The admission limits, and the connections that were turned away.
    #[serde(default)]
    pub admission: Admission,
    /// Seconds since the master started.
    pub uptime_s: f64,
    /// Whether the master was asked to stop.
    #[serde(default)]
    pub stopping: bool,
    /// Every address that the master holds.
    pub listeners: Vec<Listener>,
    /// Every slot.
    pub workers: Vec<Worker>,
    /// Where the number of workers is not fixed: its range, and why it changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// Workers that are leaving while another worker has their slot.
    #[serde(default)]
    pub leaving: Vec<Leaving>,
    /// The last generation that served in every slot.
    #[serde(default)]
    pub generation: u32,
    /// The generation that a reload is bringing.
    #[serde(default)]
    pub reloading: Option<u32>,
    /// How often the master's binary was replaced.
    #[serde(default)]
    pub upgrades: u32,
    /// How the last reload ended.
    #[serde(default)]
    pub last_reload: Option<String>,
    /// Lines of the log that workers provoked and that were left out.
    #[serde(default)]
    pub log_left_out: u64,
    /// Lines of the log and of workers' output that could not be written, for example to a full disk.
    #[serde(default)]
    pub lines_lost: u64,
    /// How often things happened, and how long they took.
    #[serde(default)]
    pub counts: Counts,
    /// What the master itself uses of the machine.
    #[serde(default)]
    pub master: Used,
    /// Sums over the master's life.
    pub totals: Totals,
    /// Evenness over the slots of `handed`, or in shared mode of `taken`.
    pub fairness: Fairness,
}

/// How often things happened, and how long they took. The reasons are few and fixed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Workers that took the place of another, by the reason.
    pub restarts: BTreeMap<String, u64>,
    /// Workers that ended, by the reason.
    pub exits: BTreeMap<String, u64>,
    /// Signs that a worker does not work, by the sign.
    pub stalls: BTreeMap<String, u64>,
    /// How long reloads took that were done.
    pub reloads_done: Histogram,
    /// How long reloads took that were given up.
    pub reloads_given_up: Histogram,
    /// How long connections wait in the front, of a sample; in hand-off mode.
    pub front_wait: Histogram,
    /// The number of the last event.
    pub events: u64,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Used {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Processor seconds.
    pub cpu_s: f64,
}

/// The range of the number of workers, and its last change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scaling {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// The last change.
    pub last: Option<Scaled>,
}

/// A change of the number of workers that nobody asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scaled {
    /// From this many.
    pub from: u32,
    /// To this many.
    pub to: u32,
    /// Why.
    pub because: String,
    /// Seconds since then.
    pub since_s: f64,
}

/// The state of a worker that serves.
pub const READY: &str = "ready";

impl Status {
    /// How many slots have a worker that serves.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.workers.iter().filter(|worker| worker.state == READY).count()
    }
}

/// Admission limits, and what became of connections beyond them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Admission {
    /// `--max-open`.
    pub max_open: Option<u32>,
    /// `--max-open-per-worker`.
    pub max_open_per_worker: Option<u32>,
    /// `--when-full`.
    pub when_full: String,
    /// How long a connection may wait to be admitted, in seconds.
    pub max_wait_s: Option<f64>,
    /// `--max-open-per-source`.
    pub max_open_per_source: Option<u32>,
    /// `--max-rate-per-source`.
    pub max_rate_per_source: Option<u32>,
    /// `--slow-start`, in seconds.
    pub slow_start_s: Option<f64>,
    /// `--defer`, in seconds.
    pub defer_s: Option<f64>,
    /// Connections that are open now, if they are counted.
    pub open: Option<u64>,
    /// How often closes were missed, and all connections counted again.
    pub recounts: u64,
    /// Whether a limit admits no connection now.
    pub full: bool,
    /// Turned away because as many were open as are allowed.
    pub refused_full: u64,
    /// Turned away because they had waited for `max_wait_s`.
    pub refused_waited: u64,
    /// Turned away because their source had as many open as it is allowed.
    pub refused_source_open: u64,
    /// Turned away because their source came too often.
    pub refused_source_rate: u64,
    /// Turned away because workers had returned them too often.
    #[serde(default)]
    pub refused_returned: u64,
    /// How many of all these were answered with 503.
    pub answered_503: u64,
    /// Sources that are remembered now.
    pub sources: u64,
    /// Connections that were admitted though nothing could be remembered of their source.
    pub sources_unknown: u64,
}

impl Admission {
    /// Whether connections may be turned away because of a limit.
    #[must_use]
    pub fn limits(&self) -> bool {
        let counts = [self.max_open, self.max_open_per_worker, self.max_open_per_source, self.max_rate_per_source];
        counts.iter().any(Option::is_some) || self.max_wait_s.is_some()
    }
}

/// One address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// The address, with its real port.
    pub address: String,
    /// Length of the kernel's accept queue.
    pub backlog: u32,
    /// Connections that the master accepted here, or that the kernel steered from here.
    pub accepted: u64,
    /// Connections that are pending in the kernel's accept queue.
    pub queued: u32,
}

/// One slot and its worker. `handed`, `taken`, `returned` and `rescued` count over all workers that had the slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// The slot.
    pub slot: u32,
    /// Id of the worker, the last one if the slot is empty.
    pub id: Option<u64>,
    /// Process id, if there is a worker.
    pub pid: Option<i32>,
    /// Which reload brought it.
    pub generation: u32,
    /// `starting`, `ready`, `draining`, `stalled`, `backoff` or `stopped`.
    pub state: String,
    /// Seconds since it entered that state.
    #[serde(default)]
    pub since_s: f64,
    /// Why it is stalled, waits or rests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The adapter that makes it take part.
    pub adapter: String,
    /// Connections handed to it.
    pub handed: u64,
    /// Connections that it has received: those handed to it, less those that are pending, returned or taken back. In
    /// shared mode those that it accepted, counted by the shim; 0 with other adapters.
    pub taken: u64,
    /// Its weight.
    #[serde(default)]
    pub weight: u32,
    /// Pending connections, which it has not taken.
    pub queued: u64,
    /// TCP connections that it has open now; where maitred counts them, also those that are pending for it.
    pub open: u64,
    /// Connections that it returned.
    pub returned: u64,
    /// Connections that were taken back from it.
    pub rescued: u64,
    /// Connections lost in it because no descriptor was free.
    pub truncated: u64,
    /// How often the slot was filled again.
    pub restarts: u64,
    /// Seconds since the worker was forked.
    pub uptime_s: f64,
    /// Resident memory of its processes.
    pub rss_bytes: u64,
    /// Processor seconds of its processes.
    pub cpu_s: f64,
}

/// A worker that is leaving.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leaving {
    /// Its slot, which another worker has by now.
    pub slot: u32,
    /// Its id.
    pub id: u64,
    /// Its process id.
    pub pid: Option<i32>,
    /// Which reload brought it.
    pub generation: u32,
    /// `draining`.
    pub state: String,
    /// Seconds since it stopped getting connections.
    pub since_s: f64,
    /// Connections that are pending for it.
    pub queued: u64,
    /// TCP connections that it still has open.
    pub open: u64,
}

/// Sums over the master's life. `accepted + returned + rescued` is `handed` plus what is under way
/// in the master at this moment (at most one per listener), plus `refused`, plus `lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Connections accepted.
    pub accepted: u64,
    /// Hand-offs.
    pub handed: u64,
    /// Connections returned by workers.
    pub returned: u64,
    /// Connections taken back from workers.
    pub rescued: u64,
    /// Connections that were turned away; `admission` has the details.
    #[serde(default)]
    pub refused: u64,
    /// Connections that could not be given to any worker; must be 0.
    pub lost: u64,
    /// Connections that the master holds because no worker can have them yet.
    #[serde(default)]
    pub held: u64,
    /// What is missing when `accepted + returned + rescued` is compared with `handed + refused + lost + held`. It must
    /// be 0; it is below 0 when more ended than came. Only hand-off mode can know it.
    #[serde(default)]
    pub unaccounted: i64,
}
