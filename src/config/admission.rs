//! Admission: limits of open connections, what happens to connections beyond them, and how a new worker begins.

use super::Mode;
use crate::core::source::Prefix;
use std::time::Duration;

/// How long a connection waits to be admitted by default, when a limit admits none.
pub const MAX_WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// `--when-full`: what happens to a connection beyond `--max-open` or `--max-open-per-worker`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenFull {
    /// It waits until another one ends, at most for --max-wait
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

/// All admission settings. Without limits nothing is counted and nothing costs anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Connections that may be open at all workers together.
    pub max_open: Option<u32>,
    /// Connections that one worker may have open.
    pub max_open_per_worker: Option<u32>,
    /// What happens to connections beyond the limits.
    pub when_full: WhenFull,
    /// How long a connection may wait to be admitted before it is refused, if set.
    pub max_wait: Option<Duration>,
    /// Connections that one source may have open.
    pub max_open_per_source: Option<u32>,
    /// New connections of one source per second; as many may come at once.
    pub max_rate_per_source: Option<u32>,
    /// How many bits of an address make one source.
    pub source_prefix: Prefix,
    /// How long a new worker's share grows.
    pub slow_start: Option<Duration>,
    /// How long the kernel keeps a connection on which nothing has been sent.
    pub defer: Option<Duration>,
}

impl Admission {
    /// Whether any limit needs to know which connections are open.
    #[must_use]
    pub fn counts_open(&self) -> bool {
        self.max_open.or(self.max_open_per_worker).or(self.max_open_per_source).is_some()
    }

    /// How long a connection may wait to be admitted; unlimited without `--max-wait` if no limit could make it wait.
    #[must_use]
    pub fn longest_wait(&self) -> Option<Duration> {
        let limited = self.max_open.or(self.max_open_per_worker).is_some();
        self.max_wait.or(limited.then_some(MAX_WAIT_DEFAULT))
    }

    /// Whether these settings work in a mode.
    ///
    /// # Errors
    /// Why not, and what to do instead.
    pub fn fits(&self, mode: Mode) -> Result<(), String> {
        let limits = self.counts_open() || self.max_rate_per_source.is_some() || self.max_wait.is_some();
        let stray = self.when_full != WhenFull::Wait && self.max_open.or(self.max_open_per_worker).is_none();
        match mode {
            Mode::Kernel | Mode::Shared if limits || self.when_full != WhenFull::Wait => Err(format!(
                "admission limits (--max-open, --max-wait and their kin) need --mode handoff: in {} mode maitred does not accept connections itself",
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

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Admission = Admission {
        max_open: None,
        max_open_per_worker: None,
        when_full: WhenFull::Wait,
        max_wait: None,
        max_open_per_source: None,
        max_rate_per_source: None,
        source_prefix: Prefix { v4: 32, v6: 64 },
        slow_start: None,
        defer: None,
    };
    const OPEN: Admission = Admission { max_open: Some(9), ..NONE };
    const OPEN_PER_WORKER: Admission = Admission { max_open_per_worker: Some(9), ..NONE };
    const OPEN_PER_SOURCE: Admission = Admission { max_open_per_source: Some(9), ..NONE };
    const RATE: Admission = Admission { max_rate_per_source: Some(9), ..NONE };
    const WAIT: Admission = Admission { max_wait: Some(Duration::from_secs(2)), ..NONE };
    const RESET: Admission = Admission { when_full: WhenFull::Reset, ..NONE };
    const SLOW: Admission = Admission { slow_start: Some(Duration::from_secs(1)), ..NONE };

    #[test]
    fn what_becomes_of_the_others_has_the_name_that_its_option_has() {
        use clap::ValueEnum;
        for when_full in WhenFull::value_variants() {
            assert_eq!(when_full.to_possible_value().unwrap().get_name(), when_full.name());
        }
    }

    #[test]
    fn only_limits_of_open_connections_count_them() {
        assert!([OPEN, OPEN_PER_WORKER, OPEN_PER_SOURCE].iter().all(Admission::counts_open));
        assert!(![NONE, RATE, WAIT, SLOW].iter().any(Admission::counts_open));
    }

    #[test]
    fn who_waits_for_a_place_does_not_wait_for_ever() {
        assert_eq!([&OPEN, &OPEN_PER_WORKER].map(Admission::longest_wait), [Some(MAX_WAIT_DEFAULT); 2]);
        assert_eq!([&NONE, &OPEN_PER_SOURCE].map(Admission::longest_wait), [None; 2]);
        let both = Admission { max_wait: WAIT.max_wait, ..OPEN };
        assert_eq!([&WAIT, &both].map(Admission::longest_wait), [WAIT.max_wait; 2]);
    }

    #[test]
    fn limits_need_a_master_that_accepts() {
        for limits in [OPEN, OPEN_PER_WORKER, OPEN_PER_SOURCE, RATE, WAIT] {
            assert_eq!(limits.fits(Mode::Handoff), Ok(()), "{limits:?}");
            for mode in [Mode::Shared, Mode::Kernel] {
                let why = limits.fits(mode).unwrap_err();
                assert!(why.contains("--mode handoff") && why.contains(&mode.name()), "{limits:?}: {why}");
            }
        }
        for mode in [Mode::Handoff, Mode::Shared, Mode::Kernel] {
            assert_eq!(NONE.fits(mode), Ok(()));
            assert!(RESET.fits(mode).is_err(), "{mode:?}");
        }
        assert!(RESET.fits(Mode::Handoff).is_err_and(|why| why.contains("--max-open 1000")));
        for limits in [OPEN, OPEN_PER_WORKER, OPEN_PER_SOURCE, RATE] {
            assert_eq!(Admission { when_full: WhenFull::Reset, ..limits }.fits(Mode::Handoff), Ok(()));
        }
    }

    #[test]
    fn a_slow_start_needs_somebody_who_takes_turns() {
        assert_eq!([Mode::Handoff, Mode::Kernel].map(|mode| SLOW.fits(mode)), [Ok(()), Ok(())]);
        assert!(SLOW.fits(Mode::Shared).is_err_and(|why| why.contains("--slow-start")));
    }
}
