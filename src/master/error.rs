//! Why the master did not get going, or did not get on, in words that say what to do.

use crate::control::server::ControlError;
use crate::workers::start::StartError;
use std::io;

/// Why the master did not get going, or did not get on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address of `--bind` cannot be had.
    #[error("cannot bind {address}: {source}{}", advice(address, source))]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A worker cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The control socket cannot be had.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// More workers than the limit of descriptors allows.
    #[error(
        "cannot run {workers} workers: they need about {needed} descriptors and the limit is {limit}; raise it with \
         ulimit -n, or start fewer workers"
    )]
    Descriptors {
        /// `--workers`.
        workers: u32,
        /// What they need.
        needed: u64,
        /// What there is.
        limit: u64,
    },
    /// Nothing in the kernel can tell clients apart.
    #[error(
        "cannot keep each client at its worker in kernel mode (--policy source-hash): {0}; or use --mode handoff, \
         which needs no privilege"
    )]
    NoSourceHash(String),
    /// The first generation never came up.
    #[error("{0}")]
    GaveUp(String),
    /// Every slot failed too often.
    #[error("every worker failed too often within --restart-window, nobody is left to serve\n{0}")]
    NobodyLeft(String),
    /// Some slots failed too often; the others served to the end.
    #[error("stopped, but not all had served: slots failed too often within --restart-window\n{0}")]
    SlotsRest(String),
    /// A thread or process that the master needs from its start.
    #[error("cannot start: {what} cannot be had: {source}{}", advice_on_fork(source))]
    Needs {
        /// What it would do.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Not everything that came from here has ended.
    #[error(
        "stopped, but some processes that workers left behind cannot be killed: {0}; they hang in the kernel, or \
         belong to another user: see ps -o pid,user,stat,wchan"
    )]
    LeftRunning(String),
    /// Something that the master cannot do without.
    #[error("cannot start: {}{}", .0, crate::sys::needs::advice(.0))]
    System(#[from] io::Error),
    /// A listener broke while running.
    #[error("cannot go on accepting on {address}: {source}")]
    Listener {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

impl RunError {
    /// The exit code that goes with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Listener { .. } | RunError::NobodyLeft(_) | RunError::SlotsRest(_) | RunError::LeftRunning(_) => {
                1
            }
            _ => 3,
        }
    }
}

/// What to do about a thread or process that cannot be had (`clone(2)`).
#[must_use]
pub fn advice_on_fork(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            "; no more processes are allowed: see ulimit -u, or what the unit or container allows (TasksMax, pids.max)"
        }
        Some(libc::ENOMEM) => "; memory is short",
        _ => "",
    }
}

/// What to do about an address that cannot be bound.
pub fn advice(address: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let port = address.rsplit(':').next().unwrap_or_default();
            match address.starts_with("unix:") {
                true => "; another server listens there".to_owned(),
                false => format!("; find its owner with ss -ltnp 'sport = :{port}', or choose another port"),
            }
        }
        Some(libc::ENOENT) if address.starts_with("unix:") => "; create its directory first".to_owned(),
        Some(libc::EACCES) if address.starts_with("unix:") => "; the directory must be writable".to_owned(),
        Some(libc::EACCES) => "; use a port above 1023, or grant CAP_NET_BIND_SERVICE".to_owned(),
        Some(libc::EADDRNOTAVAIL) => "; no interface of this machine has that address".to_owned(),
        Some(libc::EBADF) => "; no such descriptor was passed to maitred".to_owned(),
        _ if error.kind() == io::ErrorKind::AlreadyExists => "; there is a file that is no socket".to_owned(),
        _ => String::new(),
    }
}
