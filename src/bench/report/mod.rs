//! The output of a measurement: a table for the terminal, and files to keep.

pub mod comparison;
pub mod csv;
pub mod figures;
pub mod html;
pub mod markdown;
pub mod plots;
pub mod table;

use super::doubts::doubts;
use super::plan::Plan;
use super::record::Run;
use super::session::Finish;
use super::summary::{Summary, summarise};
use super::verdict::verdicts;
use crate::config::workers::usable_cores;
use procfs::Current;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Version of the JSON file's format; it grows when a name changes its meaning.
const FORM: u32 = 1;

/// Everything that is known at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of this format.
    pub form: u32,
    /// Version of maitred.
    pub maitred: String,
    /// The exact command line.
    pub invocation: String,
    /// When it began, in UTC.
    pub began: String,
    /// The machine.
    pub machine: Machine,
    /// What was requested.
    pub plan: Plan,
    /// Whether everything that was requested was measured.
    pub complete: bool,
    /// The reason, if not.
    pub ended_early: Option<String>,
    /// The results of each subject.
    pub summaries: Vec<Summary>,
    /// The result in words.
    #[serde(default)]
    pub verdicts: Vec<String>,
    /// What a reader should doubt.
    pub doubts: Vec<String>,
    /// Every single run.
    pub runs: Vec<Run>,
}

/// The machine, without anything that identifies it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that may be used.
    pub cores: usize,
    /// The name of the processor.
    pub processor: String,
    /// Memory.
    pub memory_bytes: u64,
    /// Version of Linux.
    pub linux: String,
}

impl Machine {
    /// The current machine.
    #[must_use]
    pub fn here() -> Machine {
        let processor = procfs::CpuInfo::current().ok().and_then(|info| info.model_name(0).map(str::to_owned));
        Machine {
            cores: usable_cores() as usize,
            processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory_bytes: procfs::Meminfo::current().map_or(0, |info| info.mem_total),
            linux: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }

    /// A summary in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        format!("{} cores of {}, {gib:.0} GiB, Linux {}", self.cores, self.processor, self.linux)
    }
}

impl Report {
    /// Combines all results.
    #[must_use]
    pub fn new(plan: Plan, runs: Vec<Run>, finish: &Finish, invocation: String, began: SystemTime) -> Report {
        let machine = Machine::here();
        let summaries = summarise(&plan, &runs);
        let verdicts = verdicts(&summaries, &runs);
        let doubts = doubts(&plan, &runs, &summaries, machine.cores);
        Report {
            form: FORM,
            maitred: env!("CARGO_PKG_VERSION").to_owned(),
            invocation,
            began: humantime::format_rfc3339_seconds(began).to_string(),
            complete: matches!(finish, Finish::Complete),
            ended_early: match finish {
                Finish::Complete => None,
                Finish::CutShort => Some("cut short by a signal".to_owned()),
                Finish::Failed(error) => Some(error.to_string()),
                Finish::Without(missing) => {
                    Some(missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
                }
            },
            machine,
            plan,
            summaries,
            verdicts,
            doubts,
            runs,
        }
    }

    /// The reasons why runs do not count.
    #[must_use]
    pub fn invalid(&self) -> Vec<String> {
        let of = |run: &Run| -> Vec<String> {
            let why = |why: &String| format!("{}, round {}: {why}", run.subject, run.round);
            run.invalid.iter().map(why).collect()
        };
        self.runs.iter().flat_map(of).collect()
    }

    /// The load in one line.
    #[must_use]
    pub fn load_line(&self) -> String {
        let (plan, load) = (&self.plan, &self.plan.load);
        use super::load::{Arrival, Protocol, Volume};
        let volume = match load.volume {
            Volume::Connections(n) => format!("{n} connections a run"),
            Volume::Duration(duration) => format!("{} a run", humantime::format_duration(duration)),
        };
        let arrival = match load.arrival {
            Arrival::Closed { clients: 1 } => "one at a time".to_owned(),
            Arrival::Closed { clients } => format!("{clients} at a time"),
            Arrival::Open { per_second } => format!("{per_second} a second"),
            Arrival::Bursts { size, pause } => {
                format!("{size} at once, then {} idle", humantime::format_duration(pause))
            }
        };
        let protocol = match load.protocol {
            Protocol::Http => "HTTP/1.1, one request each".to_owned(),
            Protocol::KeepAlive => format!("HTTP/1.1, {} requests each", load.exchanges),
            Protocol::Echo => format!("{} echoes each", load.exchanges),
        };
        let rounds = self.runs.iter().map(|run| run.round).max().unwrap_or(0);
        format!(
            "{}: {volume}, {arrival}; {protocol}; {} worker{}; {rounds} of {} interleaved rounds",
            plan.workload.name(),
            plan.workers,
            if plan.workers == 1 { "" } else { "s" },
            plan.repeat
        )
    }
}

/// Words quoted for a shell.
#[must_use]
pub fn quoted(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    let quote = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_a_shell_wants_them() {
        let words = ["maitred", "bench", "--peer", "it's=node x.js", ""].map(str::to_owned);
        assert_eq!(quoted(&words), r"maitred bench --peer 'it'\''s=node x.js' ''");
    }
}
