//! Who is let in: limits of open connections, what becomes of those beyond, and how a fresh worker begins.

use super::Mode;
use crate::core::source::Prefix;
use std::time::Duration;

/// How long a connection waits at the door by default, when a limit lets nobody in.
pub const MAX_WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// `--when-full`: what becomes of a connection beyond `--max-open` or `--max-open-per-worker`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenFull {
    /// It waits until one ends, at most for --max-wait
    #[default]
    Wait,
    /// It is reset at once
    Reset,
    /// It is answered with a fixed HTTP 503 and closed
    #[value(name = "503")]
    Unavailable,
}

impl WhenFull {
    /// Its name on the command line and in the status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WhenFull::Wait => "wait",
            WhenFull::Reset => "reset",
            WhenFull::Unavailable => "503",
        }
    }
}

/// All of it. Without limits nothing is counted and nothing costs anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Connections that may be open at all workers together.
    pub max_open: Option<u32>,
    /// Connections that one worker may have open.
    pub max_open_per_worker: Option<u32>,
    /// What becomes of those beyond.
    pub when_full: WhenFull,
    /// How long a connection may wait at the door before it is refused, if that was said.
    pub max_wait: Option<Duration>,
    /// Connections that one source may have open.
    pub max_open_per_source: Option<u32>,
    /// New connections of one source in a second; as many may come at once.
    pub max_rate_per_source: Option<u32>,
    /// How much of an address is one source.
    pub source_prefix: Prefix,
    /// How long a fresh worker's share grows.
    pub slow_start: Option<Duration>,
    /// How long the kernel keeps a connection to itself that says nothing.
    pub defer: Option<Duration>,
}

impl Admission {
    /// Whether any limit needs to know which connections are open.
    #[must_use]
    pub fn counts_open(&self) -> bool {
        self.max_open.or(self.max_open_per_worker).or(self.max_open_per_source).is_some()
    }

    /// How long a connection may wait at the door; without a limit that could make it wait, and without
    /// `--max-wait`, for as long as it takes.
    #[must_use]
    pub fn longest_wait(&self) -> Option<Duration> {
        let limited = self.max_open.or(self.max_open_per_worker).is_some();
        self.max_wait.or(limited.then_some(MAX_WAIT_DEFAULT))
    }

    /// Whether it can be had in a mode.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn fits(&self, mode: Mode) -> Result<(), String> {
        let limits = self.counts_open() || self.max_rate_per_source.is_some() || self.max_wait.is_some();
        let stray = self.when_full != WhenFull::Wait && self.max_open.or(self.max_open_per_worker).is_none();
        match mode {
            Mode::Kernel | Mode::Shared if limits || self.when_full != WhenFull::Wait => Err(format!(
                "limits at the door (--max-open, --max-wait and their kin) need --mode handoff: in {} mode nobody stands there",
                mode.name()
            )),
            Mode::Shared if self.slow_start.is_some() => {
                Err("--slow-start needs --mode handoff or kernel: in shared mode nobody can hold a worker back"
                    .to_owned())
            }
            Mode::Handoff if stray && self.max_open_per_source.is_none() && self.max_rate_per_source.is_none() => {
                Err("--when-full says what to do beyond a limit; give one, as in --max-open 1000".to_owned())
            }
            Mode::Handoff | Mode::Kernel | Mode::Shared => Ok(()),
        }
    }
}
