//! The trial of the new binary, which shows whether it could go on.

use super::environment;
use super::fallback::inherited_environment;
use super::state::FORMAT;
use crate::core::fleet::Exit;
use crate::sys::exec::Passing;
use crate::sys::process::{reap, spawn};
use crate::sys::watch;
use crate::workers::watching::executed;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long the trial may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Most of its output that is read.
const OUTPUT_MAX: usize = 16 * 1024;

/// What a binary says if it can go on; a version follows.
pub const HANDSHAKE: &str = "maitred-goes-on";

/// The line with which this binary says that it can go on.
#[must_use]
pub fn handshake() -> String {
    format!("{HANDSHAKE} {FORMAT} {}", env!("CARGO_PKG_VERSION"))
}

/// The new binary, while it runs.
pub struct Check {
    /// Its process.
    pub pid: Pid,
    pidfd: OwnedFd,
    report: spawn::Report,
    out: OwnedFd,
    err: OwnedFd,
}

/// Starts the new binary with the arguments of this program.
///
/// # Errors
/// When it cannot be executed.
pub fn run(
    executable: &Path,
    state: &OwnedFd,
    passing: &Passing,
    descriptors: u64,
) -> Result<Check, spawn::SpawnError> {
    let pipe = || spawn::output_pipe().map_err(|source| spawn::SpawnError::Call { call: "pipe2(2)", source });
    let ((out, out_write), (err, err_write)) = (pipe()?, pipe()?);
    let order = format!("check {}", state.as_raw_fd());
    let program = spawn::Program {
        path: executable.to_owned(),
        args: std::env::args_os().collect(),
        env: inherited_environment().chain([(environment::UPGRADE.into(), order.into())]).collect(),
        cwd: None,
        stdin: None,
        stdout: spawn::Stream::Pipe(out_write),
        stderr: spawn::Stream::Pipe(err_write),
        // It gets copies of all that the next program will find.
        keep: passing.numbers().into_iter().chain([state.as_raw_fd()]).collect(),
        listen_fds: Vec::new(),
        placed: Vec::new(),
        descriptors,
        watched: None,
        attributes: Default::default(),
    };
    let child = spawn::spawn(&program)?;
    Ok(Check { pid: child.pid, pidfd: child.pidfd, report: child.report, out, err })
}

impl Check {
    /// Waits for its end. Returns the version that can go on.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub async fn wait(self) -> Result<String, String> {
        let Check { pid, pidfd, report, out, err } = self;
        let ended = async {
            let executed = executed(report).await;
            let (said, complained) = (read(out).await, read(err).await);
            let pidfd = watch::readable(pidfd).map_err(|error| error.to_string())?;
            loop {
                let mut ready = pidfd.readable().await.map_err(|error| error.to_string())?;
                // Kills what is left of its group while its process id is still its own.
                let _ = reap::signal_group(pid, Signal::SIGKILL);
                match reap::reap(pidfd.get_ref().as_fd()) {
                    Ok(Some(exit)) => {
                        executed.map_err(|error| error.to_string())?;
                        return judge(exit.into(), &said, &complained);
                    }
                    Ok(None) => ready.clear_ready(),
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        timeout(CHECK_TIMEOUT, ended).await.unwrap_or_else(|_| {
            let _ = reap::signal_group(pid, Signal::SIGKILL);
            let limit = humantime::format_duration(CHECK_TIMEOUT);
            Err(format!("the new binary did not say within {limit} that it can go on"))
        })
    }
}

fn judge(exit: Exit, said: &str, complained: &str) -> Result<String, String> {
    let words = said.lines().find_map(|line| line.strip_prefix(HANDSHAKE));
    let mut words = words.unwrap_or_default().split_whitespace();
    match (exit, words.next(), words.next()) {
        (Exit::Code(0), Some(format), Some(version)) if format == FORMAT.to_string() => Ok(version.to_owned()),
        (Exit::Code(0), Some(format), Some(version)) => {
            Err(format!("version {version} knows state of format {format} and not {FORMAT}"))
        }
        (Exit::Code(0), ..) => Err("the new binary is no maitred that can go on".to_owned()),
        (Exit::Signal(signal), ..) if complained.is_empty() => {
            Err(format!("the new binary ended with signal {signal} at once; is the file complete?"))
        }
        (exit, ..) => {
            let why = complained.lines().last().unwrap_or("it said nothing");
            Err(format!("the new binary ended with {exit}: {why}"))
        }
    }
}

/// Reads to the end, and keeps only the beginning.
async fn read(pipe: OwnedFd) -> String {
    let Ok(pipe) = watch::readable(pipe) else { return String::new() };
    let mut text = Vec::new();
    while let Ok(mut ready) = pipe.readable().await {
        let mut buffer = [0; 2048];
        match nix::unistd::read(pipe.get_ref(), &mut buffer) {
            Ok(0) => break,
            Ok(read) if text.len() < OUTPUT_MAX => text.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_binary_that_says_so_can_go_on() {
        assert_eq!(judge(Exit::Code(0), &handshake(), ""), Ok(env!("CARGO_PKG_VERSION").to_owned()));
        assert!(judge(Exit::Code(0), "", "").is_err());
        assert!(judge(Exit::Code(0), &format!("{HANDSHAKE} 999 2.0.0"), "").unwrap_err().contains("999"));
        assert_eq!(judge(Exit::Code(3), "", "a\nb"), Err("the new binary ended with exit status 3: b".to_owned()));
        assert!(judge(Exit::Signal(11), "", "").unwrap_err().contains("is the file complete?"));
    }
}
