//! One slot as observed: which worker is in it, which is about to be, and which are leaving.

use crate::core::ids::{Generation, WorkerId};
use crate::core::moment::Moment;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The most processes in one slot at once: one that serves, one that starts, and those that are leaving. A slot with
/// this many gets no replacement.
pub const OCCUPANTS_MAX: usize = 6;

/// One slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SlotState {
    /// Its workers, the oldest first.
    pub occupants: Vec<Occupant>,
    /// Consecutive failures.
    pub failures: u32,
    /// How many times a worker was forked again here.
    pub restarts: u64,
    /// The id of its last worker, for `status` when it is empty.
    pub last_worker: Option<WorkerId>,
    /// Until when it waits before the next attempt.
    pub(super) backoff: Option<Moment>,
    /// Failures within the window, the oldest first.
    pub(super) recent: VecDeque<Moment>,
    /// Whether it is left alone after too many failures.
    pub(super) rests: bool,
    /// The generation of its next worker, if not the usual one.
    pub(super) next: Option<Generation>,
    /// Failures of the generation that a reload under way brings.
    #[serde(default)]
    pub(super) failures_of_new: u32,
    /// The generation that served here last.
    #[serde(default)]
    pub(super) reached: Option<Generation>,
}

/// A worker in a slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Occupant {
    /// The worker.
    pub worker: WorkerId,
    /// The reload that brought it.
    pub generation: Generation,
    /// The phase of its life.
    pub life: Life,
    /// The signs that it does not work.
    pub signs: Signs,
    /// Since when there has been a sign.
    pub stalled_since: Option<Moment>,
    /// Whether it is excluded from connections because of that.
    pub excluded: bool,
    /// Whether it has had its time and is to be replaced.
    pub(super) worn: bool,
}

/// The phase of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// Forked, and not ready yet.
    Starting {
        /// When it was forked.
        since: Moment,
    },
    /// Ready.
    Ready {
        /// Since when.
        since: Moment,
        /// Whether it may have connections.
        admitted: Admitted,
    },
    /// Gets nothing new; ends when it is empty, when told, or when its time is over.
    Draining {
        /// Since when.
        since: Moment,
        /// How far the drain has come.
        phase: Drain,
        /// When it gets its stop signal even if it has connections; never in a patient stop.
        stop_at: Option<Moment>,
        /// When it is killed; never in a patient stop.
        deadline: Option<Moment>,
    },
}

/// Whether a ready worker may have connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admitted {
    /// It serves.
    Yes,
    /// It waits until its whole generation is ready.
    NotYet,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drain {
    /// Waits until its connections are closed.
    Emptying,
    /// The stop signal was sent.
    Stopping,
    /// Killed; only its end is outstanding.
    Killed,
}

/// A sign that a worker does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sign {
    /// Connections wait for it, and it takes none.
    Untaken = 1,
    /// It does not answer its probe as it should.
    Probe = 2,
    /// It does not answer `PING`.
    Heartbeat = 4,
    /// It no longer listens anywhere.
    Deaf = 8,
}

impl Sign {
    /// In words, for logs and `status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sign::Untaken => "takes no connection",
            Sign::Probe => "fails its probe",
            Sign::Heartbeat => "does not answer PING",
            Sign::Deaf => "listens nowhere any more",
        }
    }
}

/// A set of [`Sign`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signs(u8);

impl Signs {
    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this sign is in the set.
    #[must_use]
    pub fn has(self, sign: Sign) -> bool {
        self.0 & sign as u8 != 0
    }

    /// All signs in words.
    #[must_use]
    pub fn names(self) -> String {
        let all = [Sign::Untaken, Sign::Probe, Sign::Heartbeat, Sign::Deaf];
        all.into_iter().filter(|sign| self.has(*sign)).map(Sign::name).collect::<Vec<_>>().join(", ")
    }

    pub(in crate::core) fn set(&mut self, sign: Sign) {
        self.0 |= sign as u8;
    }

    pub(super) fn clear(&mut self, sign: Sign) {
        self.0 &= !(sign as u8);
    }
}

impl Occupant {
    pub(super) fn new(worker: WorkerId, generation: Generation, now: Moment) -> Occupant {
        Occupant {
            worker,
            generation,
            life: Life::Starting { since: now },
            signs: Signs::default(),
            stalled_since: None,
            excluded: false,
            worn: false,
        }
    }

    /// Forked, and not ready yet.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        matches!(self.life, Life::Starting { .. })
    }

    /// Ready, whether admitted or not.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.life, Life::Ready { .. })
    }

    /// Ready and admitted.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self.life, Life::Ready { admitted: Admitted::Yes, .. })
    }

    /// Ready, and waiting for its whole generation.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self.life, Life::Ready { admitted: Admitted::NotYet, .. })
    }

    /// Leaving.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        matches!(self.life, Life::Draining { .. })
    }

    /// The state's name in `status`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.life {
            Life::Starting { .. } => "starting",
            Life::Ready { .. } if !self.signs.is_empty() => "stalled",
            Life::Ready { .. } => "ready",
            Life::Draining { .. } => "draining",
        }
    }

    /// Since when it has been in this phase.
    #[must_use]
    pub fn since(&self) -> Moment {
        match self.life {
            Life::Starting { since } | Life::Ready { since, .. } | Life::Draining { since, .. } => since,
        }
    }
}

impl SlotState {
    /// The worker that serves here.
    #[must_use]
    pub fn serving(&self) -> Option<&Occupant> {
        self.occupants.iter().rev().find(|o| o.serves())
    }

    /// The worker that `status` shows for the slot: the serving one, else the next one, else a leaving one.
    #[must_use]
    pub fn main(&self) -> Option<&Occupant> {
        let starting = || self.occupants.iter().rev().find(|o| !o.is_leaving());
        self.serving().or_else(starting).or(self.occupants.last())
    }

    /// The leaving workers, except the one that `status` shows for the slot.
    pub fn leaving(&self) -> impl Iterator<Item = &Occupant> {
        let main = self.main().map(|main| main.worker);
        self.occupants.iter().filter(move |o| o.is_leaving() && Some(o.worker) != main)
    }

    /// Whether it is left alone after too many failures.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.rests
    }

    /// Failures within the window.
    #[must_use]
    pub fn recent_failures(&self) -> usize {
        self.recent.len()
    }

    /// The state's name in `status`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.main() {
            Some(occupant) if !occupant.is_leaving() => occupant.name(),
            Some(occupant) if self.backoff.is_none() => occupant.name(),
            _ if self.backoff.is_some() => "backoff",
            _ => "stopped",
        }
    }

    /// Whether a worker in it is starting.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.occupants.iter().any(Occupant::is_starting)
    }

    /// Whether another process may be started in the slot now.
    pub(super) fn may_start(&self) -> bool {
        !self.rests && self.occupants.len() < OCCUPANTS_MAX && self.backoff.is_none()
    }
}
