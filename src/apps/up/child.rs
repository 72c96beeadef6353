//! One master, started by `maitred up`.

use crate::apps::launch::NOT_FOR_APPS;
use crate::apps::plan::Planned;
use crate::core::apps::Ending;
use crate::sys::process::{attached, reap};
use crate::sys::{fd, foreign, memfd, watch};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

/// What it says when wrong options end it, and when its first generation cannot start.
const MISUSED: i32 = 2;
const NOT_STARTED: i32 = 3;

/// A running master.
#[derive(Debug)]
pub struct Child {
    /// Its process.
    pub pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
}

/// Its end of a pipe: a line comes when its first generation serves.
#[derive(Debug)]
pub struct Serves(pipe::Receiver);

impl Serves {
    /// Whether it serves; false if it has ended first.
    pub async fn wait(mut self) -> bool {
        self.0.read(&mut [0]).await.is_ok_and(|read| read > 0)
    }
}

/// Starts the master of an app with this text of its file, in a process group of its own: what a terminal's user types is for `up`, which tells
/// the masters. It is asked to stop when this process ends, however that comes.
///
/// # Errors
/// That of `pipe(2)` or `fork(2)`.
pub fn start(executable: &Path, app: &Planned, text: &str) -> io::Result<(Child, Serves)> {
    let (reads, writes) = nix::unistd::pipe()?;
    let text = memfd::sealed(c"maitred.toml", text.as_bytes())?;
    let (report, from) = (writes.as_raw_fd(), text.as_raw_fd());
    let keep: Vec<i32> = app.passed.iter().copied().chain([report, from]).collect();
    fd::pass_only(&keep)?;
    let mut command = Command::new(executable);
    command.args(["run", "--ready-fd", &report.to_string(), "--text-fd", &from.to_string()]).args(&app.words);
    command.stdin(Stdio::null());
    // What a service manager told this process is not for them.
    for name in NOT_FOR_APPS {
        command.env_remove(name);
    }
    let pid = attached::spawn(command, Signal::SIGTERM)?;
    drop(writes);
    let pidfd = watch::readable(foreign::pidfd(pid)?)?;
    Ok((Child { pid, pidfd }, Serves(pipe::Receiver::from_owned_fd(reads)?)))
}

impl Child {
    /// Waits for its end.
    ///
    /// # Errors
    /// That of `waitid(2)`.
    pub async fn end(&self) -> io::Result<ExitStatus> {
        loop {
            let mut ready = self.pidfd.readable().await?;
            if let Some(status) = reap::reap(self.pidfd.get_ref().as_fd())? {
                return Ok(status);
            }
            ready.clear_ready();
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // One that has ended needs none.
        let _ = reap::signal_process(self.pidfd.get_ref().as_fd(), signal);
    }
}

/// What an exit status means.
#[must_use]
pub fn ending(status: ExitStatus) -> Ending {
    match status.code() {
        Some(0) => Ending::Stopped,
        Some(MISUSED) => Ending::Misused,
        Some(NOT_STARTED) => Ending::NotStarted,
        _ => Ending::Failed,
    }
}
