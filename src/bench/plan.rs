//! What is to be measured, checked for contradictions before anything is started.

use super::command::Command;
use super::load::{Arrival, Load, Protocol, TurnedAway, Volume};
use super::workload::{Disturbance, Workload};
use crate::config::Mode;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

/// The most connections that may be open at a time in an open loop or a burst, if the descriptor limit allows it.
pub const OPEN_MAX: usize = 10_000;
/// Descriptors that the lab needs besides its connections.
pub const DESCRIPTORS_OF_LAB: u64 = 64;
/// Rounds by default; with fewer, the spread of the results is unknown.
pub const REPEAT_DEFAULT: u32 = 3;
/// How long an answer may take, by default.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// The longest run, and the longest wait for an answer.
pub const LENGTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The slowest and the fastest open loop, in connections per second.
pub const RATES: std::ops::RangeInclusive<f64> = 0.01..=1e6;
/// The most addresses that clients come from.
pub const SOURCES_MAX: u32 = 65_536;
/// Requests on a connection that is kept alive, by default.
pub const KEEP_ALIVE_DEFAULT: u32 = 10;

/// A subject of the measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// maitred in this mode, in front of the workers.
    Mode(Mode),
    /// The same with options of its own.
    Variant {
        /// Its name in the report.
        name: String,
        /// Its mode.
        mode: Mode,
        /// Copies of the worker, if the number differs from the common one.
        workers: Option<u32>,
        /// Additional options for `maitred run`, after all others.
        options: Vec<String>,
    },
    /// Any command that serves on a given port.
    Peer {
        /// Its name in the report.
        name: String,
        /// The command, for `sh -c`.
        command: String,
    },
    /// Something that already runs.
    Target {
        /// Its name in the report.
        name: String,
        /// Where it listens.
        address: SocketAddr,
    },
}

impl Subject {
    /// Its name in the report.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Subject::Mode(mode) => mode.name(),
            Subject::Variant { name, .. } | Subject::Peer { name, .. } | Subject::Target { name, .. } => name.clone(),
        }
    }

    /// Whether it is a front of ours, whose workers are known.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        match self {
            Subject::Mode(_) | Subject::Variant { .. } => true,
            Subject::Peer { .. } | Subject::Target { .. } => false,
        }
    }
}

/// The whole measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The subjects, in the order of each round.
    pub subjects: Vec<Subject>,
    /// The workload's name.
    pub workload: Workload,
    /// What the clients do.
    pub load: Load,
    /// Copies of the worker behind maitred.
    pub workers: u32,
    /// Rounds.
    pub repeat: u32,
    /// The user's server; the built-in worker if empty.
    #[serde(skip)]
    pub command: Vec<OsString>,
    /// Options about the choice of a worker, for each mode that has that choice.
    #[serde(skip)]
    pub choices: Vec<(Mode, Vec<OsString>)>,
    /// Additional options for `maitred run`.
    #[serde(skip)]
    pub run_options: Vec<OsString>,
    /// The address to use if there are several listeners.
    pub address: Option<SocketAddr>,
    /// The disturbance in addition to that of the workload.
    #[serde(default)]
    pub disturb: Option<Command>,
}

/// Why a plan is invalid.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Two options that exclude each other.
    #[error("{0} and {1} contradict each other: {2}")]
    Contradiction(&'static str, String, &'static str),
    /// An option with a meaningless value.
    #[error("{0} must be {1}")]
    Nonsense(&'static str, &'static str),
    /// Two subjects with the same name.
    #[error("two things to measure are called {0:?}; give one of them another name")]
    SameName(String),
    /// Not enough descriptors.
    #[error(
        "{wanted} connections at a time need {needed} descriptors, and {limit} are allowed here; lower --concurrency \
         or raise ulimit -n"
    )]
    Descriptors {
        /// Connections at a time.
        wanted: usize,
        /// Descriptors for them.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
}

/// The requested settings of a load; the workload supplies the missing ones.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--connections`.
    pub connections: Option<u64>,
    /// `--duration`.
    pub duration: Option<Duration>,
    /// `--concurrency`.
    pub concurrency: Option<usize>,
    /// `--rate`.
    pub rate: Option<f64>,
    /// `--protocol`.
    pub protocol: Option<Protocol>,
    /// `--requests`.
    pub requests: Option<u32>,
    /// `--path`, each value.
    pub paths: Vec<String>,
    /// `--timeout`.
    pub timeout: Duration,
    /// `--threads`.
    pub threads: usize,
    /// `--seed`.
    pub seed: u64,
    /// `--sources`.
    pub sources: Option<u32>,
    /// Whether the server is the user's own.
    pub own_server: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connections: None,
            duration: None,
            concurrency: None,
            rate: None,
            protocol: None,
            requests: None,
            paths: Vec::new(),
            timeout: TIMEOUT_DEFAULT,
            threads: 1,
            seed: 1,
            sources: None,
            own_server: false,
        }
    }
}

/// The load that a workload and the additional options mean.
///
/// # Errors
/// [`PlanError`] when they contradict each other.
pub fn load(workload: Workload, asked: &Options) -> Result<Load, PlanError> {
    let name = || format!("--workload {}", workload.name());
    let contradiction = |option, why| Err(PlanError::Contradiction(option, name(), why));
    if workload.fixes_arrival() && asked.concurrency.is_some() {
        return contradiction("--concurrency", "how connections arrive is what this workload is about");
    }
    if workload.fixes_arrival() && asked.rate.is_some() {
        return contradiction("--rate", "how connections arrive is what this workload is about");
    }
    if workload == Workload::Costly && asked.own_server && asked.paths.is_empty() {
        return contradiction(
            "COMMAND or --target",
            "only the built-in worker knows how to burn time; give --path with a costly request of your server, \
             several times for a mix",
        );
    }
    let arrival = match (asked.concurrency, asked.rate) {
        (Some(0), _) => return Err(PlanError::Nonsense("--concurrency", "1 or more")),
        (_, Some(rate)) if !RATES.contains(&rate) => {
            return Err(PlanError::Nonsense("--rate", "between 0.01 and a million a second"));
        }
        (Some(clients), _) => Arrival::Closed { clients },
        (None, Some(per_second)) => Arrival::Open { per_second },
        (None, None) => workload.arrival(),
    };
    if asked.timeout.is_zero() || asked.timeout > LENGTH_MAX {
        return Err(PlanError::Nonsense("--timeout", "longer than nothing, and a day at most"));
    }
    let volume = match (asked.connections, asked.duration) {
        (Some(0), _) => return Err(PlanError::Nonsense("--connections", "1 or more")),
        (_, Some(duration)) if duration.is_zero() || duration > LENGTH_MAX => {
            return Err(PlanError::Nonsense("--duration", "longer than nothing, and a day at most"));
        }
        (Some(connections), _) => Volume::Connections(connections),
        (None, Some(duration)) => Volume::Duration(duration),
        (None, None) => workload.volume(),
    };
    if asked.paths.iter().any(|p| !p.starts_with('/') || p.bytes().any(|b| b <= b' ' || b == 0x7f)) {
        return Err(PlanError::Nonsense("--path", "a path that begins with / and has no blanks"));
    }
    let protocol = asked.protocol.unwrap_or(match workload.stay() {
        Some(_) => Protocol::KeepAlive,
        None => Protocol::Http,
    });
    if protocol == Protocol::Echo && !asked.paths.is_empty() {
        return Err(PlanError::Contradiction("--path", "--protocol echo".to_owned(), "an echo has no paths"));
    }
    if protocol == Protocol::Echo && workload == Workload::Costly {
        return contradiction("--protocol echo", "an echo burns no time");
    }
    if protocol == Protocol::Http && workload.stay().is_some() {
        return contradiction("--protocol http", "connections that stay have several requests; use keep-alive or echo");
    }
    let exchanges = match (asked.requests, protocol) {
        (Some(0), _) => return Err(PlanError::Nonsense("--requests", "1 or more")),
        (Some(2..), Protocol::Http) => {
            return Err(PlanError::Contradiction(
                "--requests",
                "--protocol http".to_owned(),
                "that is one request per connection; use --protocol keep-alive",
            ));
        }
        (Some(1), _) if workload.stay().is_some() => return contradiction("--requests 1", "it pauses between two"),
        (Some(requests), _) => requests,
        (None, _) if workload.stay().is_some() => workload.stay().map_or(1, |(requests, _)| requests),
        (None, Protocol::KeepAlive) => KEEP_ALIVE_DEFAULT,
        (None, Protocol::Http | Protocol::Echo) => 1,
    };
    Ok(Load {
        arrival,
        volume,
        protocol,
        exchanges,
        paths: if asked.paths.is_empty() { workload.paths() } else { asked.paths.clone() },
        pause: workload.stay().map(|(_, pause)| pause),
        timeout: asked.timeout,
        threads: asked.threads,
        open_max: OPEN_MAX,
        seed: asked.seed,
        sources: asked.sources,
        turned_away: TurnedAway::Wrong,
    })
}

impl Plan {
    /// Copies of the worker for a subject.
    #[must_use]
    pub fn workers_of(&self, subject: &Subject) -> u32 {
        match subject {
            Subject::Variant { workers: Some(workers), .. } => *workers,
            Subject::Variant { workers: None, .. }
            | Subject::Mode(_)
            | Subject::Peer { .. }
            | Subject::Target { .. } => self.workers,
        }
    }

    /// Checks settings that depend on each other, and adapts the open loop's limit to the descriptor limit.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn check(mut self, descriptors: u64) -> Result<Plan, PlanError> {
        let mut names: Vec<String> = self.subjects.iter().map(Subject::name).collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(PlanError::SameName(pair[0].clone()));
        }
        if let Some(Subject::Target { name, address }) = self.subjects.iter().find(|subject| {
            matches!(subject, Subject::Target { address, .. } if !(address.is_ipv4() && address.ip().is_loopback()))
        }) && self.load.sources.is_some()
        {
            let why = "only to the IPv4 loopback can clients come from many addresses";
            return Err(PlanError::Contradiction("--sources", format!("--target {name}={address}"), why));
        }
        let strangers = self.subjects.iter().any(|subject| !subject.is_ours());
        if strangers && self.workload.disturbance() != Disturbance::None {
            return Err(PlanError::Contradiction(
                "--target or --peer",
                format!("--workload {}", self.workload.name()),
                "only workers of maitred can be disturbed",
            ));
        }
        let room = descriptors.saturating_sub(DESCRIPTORS_OF_LAB) as usize;
        match self.load.arrival {
            Arrival::Closed { clients: wanted } | Arrival::Bursts { size: wanted, .. } if wanted > room => {
                let needed = wanted as u64 + DESCRIPTORS_OF_LAB;
                return Err(PlanError::Descriptors { wanted, needed, limit: descriptors });
            }
            _ => self.load.open_max = self.load.open_max.min(room).max(1),
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
