//! The workloads: what the clients do, and what happens to the workers meanwhile.

use super::load::{Arrival, Volume};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Clients of a closed loop, unless the workload or `--concurrency` says otherwise; the number that most published
/// comparisons use.
const CLIENTS: usize = 64;
/// Connections of one burst.
const BURST: usize = 500;
/// Time from the end of a burst to the beginning of the next.
const BURST_PAUSE: Duration = Duration::from_millis(100);
/// Clients whose connections stay open.
const STAYING: usize = 200;
/// How long they stay open on average: the durations are exponentially distributed.
const STAY: Duration = Duration::from_millis(500);

/// A named workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Short requests, 64 clients
    Cheap,
    /// Idle, then 500 connections at once, again and again
    Bursty,
    /// One client at a time: shows which worker the kernel wakes first
    Trickle,
    /// 200 connections that stay open for half a second on average, each for its own time
    LongLived,
    /// Requests that burn 0.1, 1 or 10 ms of processor time, mixed 16:3:1
    Costly,
    /// The worker in slot 0 runs only one twentieth of the time
    OneSlowWorker,
    /// The worker in slot 0 stops for a second every three seconds
    StalledWorker,
    /// A worker is killed every second, each slot in turn
    Crash,
}

/// What happens to the workers while they serve; it acts on them from outside, by signals, so that it works with any
/// server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disturbance {
    /// Nothing.
    None,
    /// Slot 0 is stopped and continued so that it runs one twentieth of the time.
    Slow,
    /// Slot 0 is stopped for a second every three seconds.
    Stall,
    /// One slot after the other is killed, one per second.
    Crash,
}

impl Workload {
    /// What the clients do unless told otherwise.
    #[must_use]
    pub fn arrival(self) -> Arrival {
        match self {
            Workload::Trickle => Arrival::Closed { clients: 1 },
            Workload::Bursty => Arrival::Bursts { size: BURST, pause: BURST_PAUSE },
            Workload::LongLived => Arrival::Closed { clients: STAYING },
            Workload::Cheap
            | Workload::Costly
            | Workload::OneSlowWorker
            | Workload::StalledWorker
            | Workload::Crash => Arrival::Closed { clients: CLIENTS },
        }
    }

    /// The amount of work unless told otherwise: some seconds on two cores.
    #[must_use]
    pub fn volume(self) -> Volume {
        match self {
            Workload::Cheap => Volume::Connections(60_000),
            Workload::Bursty => Volume::Connections(40_000),
            Workload::Trickle => Volume::Connections(20_000),
            Workload::LongLived => Volume::Connections(2_000),
            Workload::Costly => Volume::Connections(8_000),
            Workload::OneSlowWorker => Volume::Duration(Duration::from_secs(5)),
            Workload::StalledWorker | Workload::Crash => Volume::Duration(Duration::from_secs(10)),
        }
    }

    /// The paths to request; each request picks one at random.
    #[must_use]
    pub fn paths(self) -> Vec<String> {
        match self {
            Workload::Costly => {
                let times = |path: &str, n| std::iter::repeat_n(path.to_owned(), n);
                times("/burn/100", 16).chain(times("/burn/1000", 3)).chain(times("/burn/10000", 1)).collect()
            }
            _ => vec!["/".to_owned()],
        }
    }

    /// Requests on each connection, and the mean pause between them.
    #[must_use]
    pub fn stay(self) -> Option<(u32, Duration)> {
        (self == Workload::LongLived).then_some((2, STAY))
    }

    /// Whether the workload is about the shape of the arrivals.
    #[must_use]
    pub fn fixes_arrival(self) -> bool {
        matches!(self, Workload::Trickle | Workload::Bursty)
    }

    /// What happens to the workers.
    #[must_use]
    pub fn disturbance(self) -> Disturbance {
        match self {
            Workload::OneSlowWorker => Disturbance::Slow,
            Workload::StalledWorker => Disturbance::Stall,
            Workload::Crash => Disturbance::Crash,
            Workload::Cheap | Workload::Bursty | Workload::Trickle | Workload::LongLived | Workload::Costly => {
                Disturbance::None
            }
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
