//! The events that the fleet receives and the actions that it requests.

use super::slot::Sign;
use crate::core::ids::{Generation, Slot, WorkerId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `exit(code)`.
    Code(i32),
    /// Killed by a signal.
    Signal(i32),
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        // A process that ended has a code or a signal.
        status.code().map(Exit::Code).or(status.signal().map(Exit::Signal)).unwrap_or(Exit::Code(0))
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// How the fleet is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// Within the grace time (`TERM`, `INT`).
    Graceful,
    /// However long it takes (`QUIT`).
    Patient,
    /// At once (a second `TERM` or `INT`).
    Immediate,
}

impl Stop {
    /// In a word, for the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stop::Graceful => "graceful",
            Stop::Patient => "patient",
            Stop::Immediate => "immediate",
        }
    }
}

/// How a new generation takes the place of the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// Slot by slot, the first one alone: each new worker is ready before the old one of its slot drains.
    Rolling,
    /// All new workers are started; when all are ready they serve, and all old ones drain.
    Fleet,
    /// Slot by slot, `max_unavailable` at a time: the old worker leaves before the new one starts.
    Restart,
}

impl Manner {
    /// In a word, for the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Manner::Rolling => "rolling",
            Manner::Fleet => "fleet",
            Manner::Restart => "restart",
        }
    }
}

/// A request for another number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// This many.
    To(u32),
    /// This many more or fewer.
    By(i32),
}

/// How many workers a reload brings. If the reload is given up, the number does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// As many as there are.
    Same,
    /// The number in the new configuration, unless the configuration in force has the same number.
    Configured(u32),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The master runs.
    Begin,
    /// The worker counts as ready.
    Ready(WorkerId),
    /// Everything that waited in the kernel's accept queues was handed over, and the listeners are closed.
    ListenersClosed,
    /// This draining worker has no connections any more, neither untaken nor open.
    Emptied(WorkerId),
    /// The worker's process ended.
    Exited(WorkerId, Exit),
    /// The worker's first process ended and other processes go on without it. The master cannot supervise those, so
    /// the worker never served.
    Daemonized(WorkerId),
    /// The worker could not be forked, or its command could not be executed.
    ForkFailed(WorkerId),
    /// Stop the fleet.
    StopAsked(Stop),
    /// Another number of workers.
    Resize(Resize),
    /// Drain all workers and go on without any, until a reload or another number is asked for (`WINCH`).
    Pause,
    /// Replace all workers by a new generation.
    ReloadAsked(Manner, Workers),
    /// The worker has reached its limit of age, size or connections: replace it.
    Recycle(WorkerId),
    /// A sign that the worker does not work.
    Stalled(WorkerId, Sign),
    /// That sign is gone.
    Recovered(WorkerId, Sign),
    /// The worker cannot go on: it must be killed.
    Condemned(WorkerId, KillReason),
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fork a worker into a slot.
    Fork {
        /// The slot.
        slot: Slot,
        /// The worker.
        worker: WorkerId,
        /// The worker's generation.
        generation: Generation,
    },
    /// Let this worker have connections from now on.
    Admit {
        /// The worker.
        worker: WorkerId,
    },
    /// Hand nothing more to this worker, give the connections it has not taken to others, and report
    /// [`Event::Emptied`] when its remaining connections are closed.
    Withdraw {
        /// The worker.
        worker: WorkerId,
    },
    /// Hand nothing to this worker for now, and give the connections it has not taken to others.
    Exclude {
        /// The worker.
        worker: WorkerId,
    },
    /// Hand to this worker again.
    Readmit {
        /// The worker.
        worker: WorkerId,
    },
    /// Take what waits in the kernel's accept queues, then close the listeners.
    CloseListeners,
    /// Send the stop signal to the worker's process group.
    Terminate {
        /// The worker.
        worker: WorkerId,
    },
    /// Kill the worker's process group.
    Kill {
        /// The worker.
        worker: WorkerId,
        /// The reason.
        because: KillReason,
    },
    /// A slot waits before the next attempt.
    Wait {
        /// The slot.
        slot: Slot,
        /// Consecutive failures.
        failures: u32,
        /// The delay.
        delay: Duration,
    },
    /// A slot failed too often and is left alone until a reload or another number of workers is asked for.
    Rest {
        /// The slot.
        slot: Slot,
        /// Its last worker.
        worker: WorkerId,
        /// Failures within the window.
        failures: u32,
    },
    /// Every slot rests: the fleet stops, and the master's exit code will be 1.
    NobodyLeft,
    /// No worker came up: the fleet stops, and the master's exit code will be 3.
    GiveUp {
        /// The slot that failed too often.
        slot: Slot,
        /// Its last worker.
        worker: WorkerId,
        /// The number of attempts.
        attempts: u32,
    },
    /// All workers are gone, as asked or given up; end the master.
    Finish,
    /// A stop was asked for; the fleet goes on serving for a while before.
    StopDelayed {
        /// For how long.
        delay: Duration,
    },
    /// The second request to stop: every worker that still runs is killed.
    StopAtOnce,
    /// The asked size was refused.
    SizeRefused(SizeRefused),
    /// The wanted size changed.
    Resized {
        /// The new size.
        workers: u32,
    },
    /// A reload begins; this is the number of its generation.
    ReloadBegun {
        /// The new generation.
        generation: Generation,
        /// The manner of the reload.
        manner: Manner,
    },
    /// A reload was asked for and waits.
    ReloadWaits {
        /// What it waits for.
        because: WaitReason,
    },
    /// The waiting reload will not happen.
    ReloadDropped,
    /// The first worker of the new generation serves; the others follow.
    CanaryServes {
        /// The new generation.
        generation: Generation,
    },
    /// The new generation serves in every slot.
    ReloadDone {
        /// The new generation.
        generation: Generation,
    },
    /// The new generation is given up, and the old one continues to serve.
    ReloadAborted {
        /// The generation that failed.
        generation: Generation,
        /// The reason.
        because: AbortReason,
    },
}

/// Why a number of workers was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeRefused {
    /// No worker would serve.
    #[error("0 workers would serve nobody; to end them all use stop")]
    Zero,
    /// More than this master can have.
    #[error(
        "{asked} workers are more than the {most} that this maitred can have (1024, or fewer by its limit of descriptors)"
    )]
    TooMany {
        /// The number asked for.
        asked: u64,
        /// The largest possible number.
        most: u32,
    },
    /// The fleet stops.
    #[error("this maitred is stopping")]
    Stopping,
}

/// Why a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// It did not end within the grace time.
    GraceOver,
    /// Asked to stop at once.
    Immediate,
    /// It was not ready within the boot timeout.
    BootTimeout,
    /// It did nothing for longer than `--stall-kill`.
    Stalled,
    /// It missed its watchdog.
    Watchdog,
    /// It does not listen on the addresses of the workers that it should replace.
    Elsewhere,
    /// Its generation was given up.
    Aborted,
    /// It was not ready yet when a reload came, and the new generation takes its slot.
    Outdated,
}

/// Why a reload waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Another reload is not done.
    AnotherRuns,
    /// So many generations are alive that one more would exceed the limit.
    OldGenerations,
}

/// Why a reload was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// A new worker ended before it was ready.
    Ended(WorkerId),
    /// A new worker could not be started.
    NotStarted(WorkerId),
    /// A new worker was not ready in time.
    NotReady(WorkerId),
    /// A new worker was ready, and ended before all workers of its generation were.
    Waiting(WorkerId),
    /// New workers of a slot served, but failed too often.
    Again(WorkerId),
    /// A new worker was ready, and then stopped listening.
    Deaf(WorkerId),
    /// The fleet stops, or is paused.
    Stopping,
}
