//! Settings for the lifecycle of the workers: readiness, drain, reload, stalls, recycling, restarts.

use super::private::{Private, PrivateError};
use crate::core::fleet::ExitCodes;
use crate::sys::process::guard::Detached;
use std::str::FromStr;
use std::time::Duration;

/// When a worker counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// When it listens.
    Listen,
    /// When it listens on this address.
    ListenOn(Private),
    /// When it sends `READY=1` (sd_notify).
    Notify,
    /// When it answers this path with a status of 2xx or 3xx.
    Http(String),
    /// When it has run for this long.
    Delay(Duration),
    /// When it writes a line to this descriptor, or to the first free one (s6's notification descriptor).
    Fd(Option<i32>),
}

/// Which processes of a worker get its signals; the names and meanings are systemd's (`KillMode=`, systemd.kill(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KillMode {
    /// The stop signal goes to its whole process group. It has ended when the group is empty.
    #[default]
    Group,
    /// The stop signal goes to its first process. When that has ended, the rest of the group is killed.
    Mixed,
    /// All signals go to its first process. The rest of the group goes on, unless it has sockets of the master's.
    Process,
}

/// Whether a worker gets its stop signal at the beginning of its drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StopFirst {
    /// If it is a server that is known to answer what it has and then to end.
    #[default]
    Auto,
    /// Yes.
    Signal,
    /// No: only when its connections are closed or idle.
    No,
}

/// The probe that a worker gets from time to time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A request for this path, to be answered with a status of 2xx or 3xx.
    Http(String),
    /// A connection that it has to take.
    Tcp,
}

/// An invalid value of `--ready` or `--probe`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LifeError {
    /// Not a known form of `--ready`.
    #[error("expected listen, notify, http:/PATH, delay:DURATION, fd, fd:N or listen:ADDR")]
    Ready,
    /// Not an address.
    #[error("{0}")]
    Address(PrivateError),
    /// Not a known form of `--probe`.
    #[error("expected http:/PATH or tcp")]
    Probe,
    /// The path does not begin with `/`, or would break the request line.
    #[error("a path begins with / and has no spaces, as in http:/health")]
    Path,
    /// Not a duration.
    #[error("{0:?} is no duration up to 100 years; 500ms, 10s and 2m are")]
    Duration(String),
    /// Not a descriptor's number.
    #[error("a notification descriptor has a number from 3 to 99")]
    Descriptor,
    /// Not a size.
    #[error("expected a size, as in 512M or 1G")]
    Size,
}

fn path(text: &str) -> Result<String, LifeError> {
    let fits = text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err(LifeError::Path) }
}

/// Longest duration that makes sense: a hundred years, beyond which sums could overflow.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A duration; a bare `0` needs no unit.
///
/// # Errors
/// [`LifeError::Duration`].
pub fn duration(text: &str) -> Result<Duration, LifeError> {
    let wrong = || LifeError::Duration(text.to_owned());
    match text {
        "0" => Ok(Duration::ZERO),
        _ => humantime::parse_duration(text).ok().filter(|time| *time <= DURATION_MAX).ok_or_else(wrong),
    }
}

/// The highest number that `--ready fd:N` takes; the channel and other descriptors come after it.
const READY_FD_MAX: i32 = 99;

impl FromStr for Ready {
    type Err = LifeError;

    fn from_str(text: &str) -> Result<Ready, LifeError> {
        match text.split_once(':') {
            None if text == "listen" => Ok(Ready::Listen),
            Some(("listen", rest)) => rest.parse().map(Ready::ListenOn).map_err(LifeError::Address),
            None if text == "notify" => Ok(Ready::Notify),
            None if text == "fd" => Ok(Ready::Fd(None)),
            Some(("http", rest)) => path(rest).map(Ready::Http),
            Some(("delay", rest)) => duration(rest).map(Ready::Delay),
            Some(("fd", rest)) => match rest.parse() {
                Ok(number @ 3..=READY_FD_MAX) => Ok(Ready::Fd(Some(number))),
                _ => Err(LifeError::Descriptor),
            },
            _ => Err(LifeError::Ready),
        }
    }
}

impl FromStr for Probe {
    type Err = LifeError;

    fn from_str(text: &str) -> Result<Probe, LifeError> {
        match text.split_once(':') {
            None if text == "tcp" => Ok(Probe::Tcp),
            Some(("http", rest)) => path(rest).map(Probe::Http),
            _ => Err(LifeError::Probe),
        }
    }
}

/// Bytes: a number, or one with K, M or G (powers of 1024, as in PM2's `--max-memory-restart`).
///
/// # Errors
/// [`LifeError::Size`].
pub fn size(text: &str) -> Result<u64, LifeError> {
    let units = [('K', 10), ('M', 20), ('G', 30), ('k', 10), ('m', 20), ('g', 30)];
    let (number, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift))).unwrap_or((text, 0));
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or(LifeError::Size)
}

/// A probe and its rhythm; the names are HAProxy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probing {
    /// The probe.
    pub probe: Probe,
    /// Time from one probe to the next.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
    /// Good answers in a row after which a stalled worker counts as healthy.
    pub rise: u32,
    /// Bad answers in a row after which a worker counts as stalled.
    pub fall: u32,
}

/// All lifecycle settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// When a worker counts as ready.
    pub ready: Ready,
    /// How long it may take to become ready.
    pub boot_timeout: Duration,
    /// Workers that may be started beyond the wanted number during a replacement.
    pub max_surge: u32,
    /// Slots that may be without a worker during a replacement.
    pub max_unavailable: u32,
    /// How long a worker may take none of the connections that wait for it; not watched if not set.
    pub stall: Option<Duration>,
    /// How long it may be stalled before it is killed.
    pub stall_kill: Option<Duration>,
    /// The probe that it gets from time to time.
    pub probing: Option<Probing>,
    /// How often a native worker gets a `PING`.
    pub heartbeat: Option<Duration>,
    /// How often a worker that sends `WATCHDOG=1` must do so.
    pub watchdog: Option<Duration>,
    /// Connections after which a worker is replaced.
    pub max_connections: Option<u64>,
    /// Age at which a worker is replaced.
    pub max_age: Option<Duration>,
    /// Resident bytes at which a worker is replaced.
    pub max_rss: Option<u64>,
    /// Failures of a slot within the window after which it rests.
    pub max_restarts: u32,
    /// The window for `max_restarts`.
    pub restart_window: Duration,
    /// Exit codes with which a worker that served ends as it should.
    pub exit_codes: ExitCodes,
    /// How long a worker must go on listening to have been ready.
    pub min_ready: Duration,
    /// How long the fleet goes on serving after it was asked to stop.
    pub stop_delay: Duration,
    /// Which processes of a worker get its signals.
    pub kill_mode: KillMode,
    /// How long a connection must have been silent to hold up a drain no longer; if not given, each open one does.
    pub idle_after: Option<Duration>,
    /// Whether it gets its stop signal at the beginning of its drain.
    pub stop_first: StopFirst,
    /// What happens to jobs that workers detached when the master ends.
    pub detached: Detached,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_has_many_forms() {
        assert_eq!("listen".parse(), Ok(Ready::Listen));
        assert_eq!("http:/up".parse(), Ok(Ready::Http("/up".to_owned())));
        assert_eq!("delay:250ms".parse(), Ok(Ready::Delay(Duration::from_millis(250))));
        assert_eq!("notify".parse(), Ok(Ready::Notify));
        assert_eq!("fd".parse(), Ok(Ready::Fd(None)));
        assert_eq!("fd:7".parse(), Ok(Ready::Fd(Some(7))));
        assert_eq!("fd:2".parse::<Ready>(), Err(LifeError::Descriptor));
        assert_eq!("http:up".parse::<Ready>(), Err(LifeError::Path));
        assert_eq!("http:/a b".parse::<Ready>(), Err(LifeError::Path));
        assert_eq!("delay:soon".parse::<Ready>(), Err(LifeError::Duration("soon".to_owned())));
        assert_eq!("listens".parse::<Ready>(), Err(LifeError::Ready));
        let on = |address: &str| Ok(Ready::ListenOn(address.parse().unwrap()));
        assert_eq!("listen::8080".parse(), on(":8080"));
        assert_eq!("listen:127.0.0.1:8080".parse(), on("127.0.0.1:8080"));
        assert_eq!("listen:unix:/run/x".parse(), on("unix:/run/x"));
        assert_eq!("listen:8080".parse::<Ready>(), Err(LifeError::Address(PrivateError::Form)));
    }

    #[test]
    fn probes_ask_for_a_path_or_only_for_a_connection() {
        assert_eq!("tcp".parse(), Ok(Probe::Tcp));
        assert_eq!("http:/health?x=1".parse(), Ok(Probe::Http("/health?x=1".to_owned())));
        assert_eq!("icmp".parse::<Probe>(), Err(LifeError::Probe));
    }

    #[test]
    fn a_duration_has_a_unit_and_at_most_a_hundred_years() {
        assert_eq!((duration("0"), duration("1500ms")), (Ok(Duration::ZERO), Ok(Duration::from_millis(1500))));
        assert_eq!(duration("36500days"), Ok(Duration::from_secs(3_153_600_000)));
        for text in ["36501days", "7", "", "soon", "-1s"] {
            assert_eq!(duration(text), Err(LifeError::Duration(text.to_owned())));
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!((size("512M"), size("1g"), size("4096")), (Ok(512 << 20), Ok(1 << 30), Ok(4096)));
        assert_eq!(
            (size("0"), size("M"), size("99999999999G")),
            (Err(LifeError::Size), Err(LifeError::Size), Err(LifeError::Size))
        );
    }
}
