//! Which process it is: another one may have its number by now.

use super::reap;
use crate::sys::foreign;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use procfs::process::Process;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::AsFd;

/// A process. The number is given again, but not with the same start. An `execve` changes neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pid: i32,
    /// When it started, in clock ticks since the machine did (`proc_pid_stat(5)`).
    since: u64,
}

impl Identity {
    /// The identity of a process that runs.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Identity> {
        let stat = Process::new(pid.as_raw()).ok()?.stat().ok()?;
        (!['Z', 'X'].contains(&stat.state)).then_some(Identity { pid: pid.as_raw(), since: stat.starttime })
    }

    /// Its number, as long as it runs.
    #[must_use]
    pub fn running(self) -> Option<Pid> {
        let pid = Pid::from_raw(self.pid);
        (Identity::of(pid) == Some(self)).then_some(pid)
    }
}

impl Identity {
    /// Asks it to end with `TERM`, and waits until it has. One that has ended needs neither.
    ///
    /// # Errors
    /// That of `pidfd_open(2)`, of `pidfd_send_signal(2)` or of `poll(2)`.
    pub fn end(self) -> io::Result<()> {
        let Some(pid) = self.running() else { return Ok(()) };
        let pidfd = foreign::pidfd(pid)?;
        // Its number may have been another's when that was opened, but not if it still runs.
        if self.running().is_none() {
            return Ok(());
        }
        reap::signal_process(pidfd.as_fd(), Signal::SIGTERM)?;
        reap::wait(pidfd.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_until_it_has_ended() {
        let me = Identity::of(Pid::this()).unwrap();
        assert_eq!(me.running(), Some(Pid::this()));
        assert_eq!(Identity { since: me.since + 1, ..me }.running(), None);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let identity = Identity::of(pid);
        child.wait().unwrap();
        assert!(identity.is_none_or(|identity| identity.running().is_none()));
    }
}
