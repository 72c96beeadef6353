//! What happens to workers: when one is [`ready`], whether it is well ([`health`]) and takes part as it should
//! ([`look`], [`deaf`]), how it [`drain`]s and ends ([`ending`]; should the master be killed, by the [`guard`]), why it failed ([`failures`]), and how all are replaced
//! ([`reload`]).
//!
//! Nothing here decides: a function takes the facts that it needs, and returns what the fleet ([`crate::core::fleet`])
//! has to know.

pub mod deaf;
pub mod drain;
pub mod ending;
pub mod failures;
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

/// Where it is reported what was found out about workers.
pub type Events = Reports<Event>;

/// What was found out about workers, and moments that are over.
#[derive(Debug)]
pub enum Event {
    /// Something that may count as readiness.
    Ready {
        /// Whose.
        worker: WorkerId,
        /// What.
        signal: ready::Signal,
    },
    /// A worker of a new generation had its moment to listen where the old one does.
    Unfit {
        /// Who.
        worker: WorkerId,
    },
    /// A worker that stopped listening had its moment to listen again.
    Deaf {
        /// Who.
        worker: WorkerId,
    },
    /// A draining worker has no connection left.
    Drained {
        /// Who.
        worker: WorkerId,
    },
    /// It is time to look after the workers.
    LookAfter,
    /// What memory they use.
    Memory {
        /// By process group.
        usage: HashMap<Pid, Usage>,
    },
    /// A worker's probes changed their mind.
    Probed {
        /// Whose.
        worker: WorkerId,
        /// How it is.
        now: Condition,
    },
    /// It was looked whether a worker takes part.
    LookedAt {
        /// Which.
        worker: WorkerId,
        /// What was seen.
        seen: look::Seen,
    },
    /// What a worker that ended while it started had to say was heard.
    WordsHeard(ending::Death),
    /// A worker was killed, and had its time to die.
    Unkillable {
        /// Which.
        worker: WorkerId,
    },
    /// The end of all that came from here took too long.
    EndOverdue,
}
