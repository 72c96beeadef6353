//! What the fleet is told, and what it wants done.

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
        // One that ended has a code or a signal.
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

/// How a new generation takes the place of the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// Slot by slot, the first alone: each new worker is ready before the old one of its slot drains.
    Rolling,
    /// All new workers are started; when all are ready they serve, and all old ones drain.
    Fleet,
    /// All old workers drain, and new ones are started as they go.
    Restart,
}

/// A wish for another number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// This many.
    To(u32),
    /// So many more or fewer.
    By(i32),
}

/// How many workers a reload brings. Should it be given up, that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// As many as there are.
    Same,
    /// What the new configuration says: so many, unless the one in force says the same.
    Configured(u32),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The master runs.
    Begin,
    /// The worker counts as ready.
    Ready(WorkerId),
    /// Everything that waited in the kernel's accept queues was handed over, and the listeners are
    /// closed.
    ListenersClosed,
    /// This draining worker has no connection any more, neither untaken nor open.
    Emptied(WorkerId),
    /// The worker's process ended.
    Exited(WorkerId, Exit),
    /// The worker's first process ended and others go on without it: nobody can look after those, so it never
    /// served.
    Daemonized(WorkerId),
    /// The worker could not be forked or its command not be executed.
    ForkFailed(WorkerId),
    /// Stop the fleet.
    StopAsked(Stop),
    /// Another number of workers.
    Resize(Resize),
    /// Drain all workers and go on without any, until a reload or another number is asked for (`WINCH`).
    Pause,
    /// Replace all workers by a new generation.
    ReloadAsked(Manner, Workers),
    /// The worker had its time: replace it.
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
        /// Where.
        slot: Slot,
        /// Who.
        worker: WorkerId,
        /// Of which generation.
        generation: Generation,
    },
    /// Let this worker have connections from now on.
    Admit {
        /// Who.
        worker: WorkerId,
    },
    /// Hand nothing more to this worker, give what it has not taken to others, and report
    /// [`Event::Emptied`] when the connections that it has are closed.
    Withdraw {
        /// Who.
        worker: WorkerId,
    },
    /// Hand nothing to this worker for now, and give what it has not taken to others.
    Exclude {
        /// Who.
        worker: WorkerId,
    },
    /// Hand to this worker again.
    Readmit {
        /// Who.
        worker: WorkerId,
    },
    /// Take what waits in the kernel's accept queues, then close the listeners.
    CloseListeners,
    /// Send the stop signal to the worker's process group.
    Terminate {
        /// Whom.
        worker: WorkerId,
    },
    /// Kill the worker's process group.
    Kill {
        /// Whom.
        worker: WorkerId,
        /// Why.
        because: KillReason,
    },
    /// A slot waits before the next attempt.
    Wait {
        /// Which.
        slot: Slot,
        /// Failures in a row.
        failures: u32,
        /// How long.
        delay: Duration,
    },
    /// A slot failed too often and is left alone until a reload or another number of workers is asked for.
    Rest {
        /// Which.
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
        /// How often.
        attempts: u32,
    },
    /// All workers are gone, as asked or given up; end the master.
    Finish,
    /// The second request to stop: whoever still runs is killed.
    StopAtOnce,
    /// The asked size was refused.
    SizeRefused(SizeRefused),
    /// The wanted size changed.
    Resized {
        /// To this.
        workers: u32,
    },
    /// A reload begins; this is the number of its generation.
    ReloadBegun {
        /// The new generation.
        generation: Generation,
        /// How.
        manner: Manner,
    },
    /// A reload was asked for and waits.
    ReloadWaits {
        /// For what.
        because: WaitReason,
    },
    /// The reload that waits will not come.
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
    /// The new generation is given up, and what served serves on.
    ReloadAborted {
        /// The generation that failed.
        generation: Generation,
        /// Why.
        because: AbortReason,
    },
}

/// Why a number of workers cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeRefused {
    /// Nobody would serve.
    #[error("0 workers would serve nobody; to end them all use stop")]
    Zero,
    /// More than this master can have.
    #[error(
        "{asked} workers are more than the {most} that this maitred can have (1024, or fewer by its limit of descriptors)"
    )]
    TooMany {
        /// What was asked for.
        asked: u64,
        /// The most.
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
    /// It does not listen where those do whose place it should take.
    Elsewhere,
    /// Its generation was given up.
    Aborted,
    /// It was not ready yet when a reload came, and the new generation takes its slot.
    Outdated,
}

/// Why a reload waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Another one is not done.
    AnotherRuns,
    /// So many generations are still alive that one more would be too many.
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
    /// A new worker was ready, and ended before all of its generation were.
    Waiting(WorkerId),
    /// New workers of a slot served, and failed too often.
    Again(WorkerId),
    /// A new worker was ready, and then stopped listening.
    Deaf(WorkerId),
    /// The fleet stops, or is paused.
    Stopping,
}
