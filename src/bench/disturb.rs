//! Disturbs the workers while they serve: from outside, by signals, so that it works with any server.

use super::stop::Stop;
use super::subject::status;
use super::workload::Disturbance;
use crate::control::status::Status;
use crate::sys::process::reap::signal_group;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::path::Path;
use std::time::Duration;

/// Time between two kills.
const KILL_EVERY: Duration = Duration::from_secs(1);
/// A stalling worker runs for this long …
const RUNS: Duration = Duration::from_secs(2);
/// … and then is stopped for this long.
const STALLS: Duration = Duration::from_secs(1);
/// A slow worker is stopped for this part of every [`SLOW_PERIOD`], so it runs one twentieth of the time.
const SLOW_STOPPED: Duration = Duration::from_millis(19);
/// See [`SLOW_STOPPED`].
const SLOW_PERIOD: Duration = Duration::from_millis(20);

/// Disturbs the workers of the front behind `control` until `stop`; returns the number of disturbances.
#[must_use]
pub fn disturb(kind: Disturbance, control: &Path, stop: &Stop) -> u64 {
    let mut times = 0;
    match kind {
        Disturbance::None => {}
        Disturbance::Crash => {
            while !stop.wait(KILL_EVERY) {
                let Some(status) = look(control) else { continue };
                let slot = times as usize % status.workers.len().max(1);
                if let Some(pid) = pid_of(&status, slot) {
                    let _ = signal_group(pid, Signal::SIGKILL);
                }
                times += 1;
            }
        }
        Disturbance::Stall => {
            while !stop.wait(RUNS) {
                let Some(pid) = look(control).and_then(|status| pid_of(&status, 0)) else { continue };
                stopped(pid, STALLS, stop);
                times += 1;
            }
        }
        Disturbance::Slow => {
            let Some(pid) = look(control).and_then(|status| pid_of(&status, 0)) else { return 0 };
            while !stop.wait(SLOW_PERIOD - SLOW_STOPPED) {
                stopped(pid, SLOW_STOPPED, stop);
                times += 1;
            }
        }
    }
    times
}

/// Stops a worker for this long; it runs again however this function ends.
fn stopped(pid: Pid, time: Duration, stop: &Stop) {
    let _ = signal_group(pid, Signal::SIGSTOP);
    let _ = stop.wait(time);
    let _ = signal_group(pid, Signal::SIGCONT);
}

/// A front that does not answer is detected elsewhere.
fn look(control: &Path) -> Option<Status> {
    status(control, "the front").ok()
}

fn pid_of(status: &Status, slot: usize) -> Option<Pid> {
    status.workers.get(slot).and_then(|worker| worker.pid).map(Pid::from_raw)
}
