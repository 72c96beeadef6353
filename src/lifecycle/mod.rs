//! What happens to workers: when one is [`ready`], whether it is well ([`health`]) and takes part as it should
//! ([`look`], [`deaf`]), how it [`drain`]s and ends ([`ending`]; if the master is killed, by the [`guard`]), why it
//! failed ([`failures`]), and how all are replaced ([`reload`]).
//!
//! Nothing here decides: a function takes the facts that it needs, and returns what the fleet ([`crate::core::fleet`])
//! has to know.

pub mod deaf;
pub mod drain;
pub mod ending;
pub mod failures;
pub mod groups;
pub mod guard;
pub mod health;
pub mod look;
pub mod ready;
pub mod reload;

use crate::core::ids::WorkerId;
use crate::core::probes::Condition;
use crate::reports::Reports;
use crate::sys::process::Usage;
use nix::unistd::Pid;
use std::collections::HashMap;

/// Where findings about workers are reported.
pub type Events = Reports<Event>;

/// Findings about workers, and waiting times that are over.
#[derive(Debug)]
pub enum Event {
    /// Something that may count as readiness.
    Ready {
        /// The worker.
        worker: WorkerId,
        /// What it said or did.
        signal: ready::Signal,
    },
    /// A worker that stopped listening had its moment to listen again.
    Deaf {
        /// The worker.
        worker: WorkerId,
    },
    /// A draining worker has no connection left.
    Drained {
        /// The worker.
        worker: WorkerId,
    },
    /// It is time to look after the workers.
    LookAfter,
    /// The memory that they use.
    Memory {
        /// By process group.
        usage: HashMap<Pid, Usage>,
    },
    /// A worker's probes reached another verdict.
    Probed {
        /// The worker.
        worker: WorkerId,
        /// Its condition.
        now: Condition,
    },
    /// The check whether a worker takes part is done.
    LookedAt {
        /// The worker.
        worker: WorkerId,
        /// What it found.
        seen: look::Seen,
    },
    /// No process of a leaving worker's group runs any more.
    GroupEnded {
        /// The worker.
        worker: WorkerId,
    },
    /// The last output of a worker that ended while it started was read.
    WordsHeard(ending::Death),
    /// A worker was killed, and had its time to die.
    Unkillable {
        /// The worker.
        worker: WorkerId,
    },
    /// The end of everything that came from the master took too long.
    EndOverdue,
}
