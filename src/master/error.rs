//! Why the master did not start, or could not go on, in words that say what to do.

use super::pid_file::PidFileError;
use crate::admin::AdminError;
use crate::control::server::ControlError;
use crate::lifecycle::failures::Failure;
use crate::triggers::WatchError;
use std::io;

/// Why the master did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An admin address cannot be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The control socket is not available.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// The pid file cannot be written.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// Files cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
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
    /// The master needs this thread or process from its start and did not get it.
    #[error("cannot start: {what} cannot be had: {source}{}", advice_on_fork(source))]
    Needs {
        /// What it would do.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Workers did not start, or did not keep running.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Something that the master cannot do without.
    #[error("cannot start: {}{}", .0, crate::sys::process::needs::advice(.0))]
    System(#[from] io::Error),
}

impl RunError {
    /// The exit code that goes with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Failed(failure) => failure.exit_code(),
            _ => 3,
        }
    }
}

/// What to do about a thread or process that could not be made (`clone(2)`).
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
