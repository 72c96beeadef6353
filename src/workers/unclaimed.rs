//! The time between a fork and the moment when the master knows the worker.

use crate::sys::process::guard::Guard;
use crate::sys::process::reap;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A worker that was just forked, until the master has taken it in. If taking it in fails, the worker is killed.
#[derive(Debug)]
pub struct Unclaimed<'a> {
    pid: Option<Pid>,
    guard: &'a Guard,
}

impl<'a> Unclaimed<'a> {
    /// Takes charge of the worker.
    pub fn new(pid: Pid, guard: &'a Guard) -> Unclaimed<'a> {
        Unclaimed { pid: Some(pid), guard }
    }

    /// The master has taken the worker in.
    pub fn claim(mut self) {
        self.pid = None;
    }
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            let _ = reap::signal_group(pid, Signal::SIGKILL);
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            self.guard.remove(pid);
            let _ = nix::sys::wait::waitpid(pid, None);
        }
    }
}
