//! How a worker is told to end.

use super::event::{Action, KillReason};
use super::slot::{Drain, Life, Occupant};
use super::time_to_stop;
use crate::core::moment::Moment;
use std::time::Duration;

/// How long a drain may take.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// Until the worker is killed.
    pub all: Duration,
    /// The part of it that comes after the stop signal.
    pub stop: Duration,
}

impl Limit {
    /// All of the grace time.
    pub(super) fn of(grace: Duration) -> Limit {
        Limit { all: grace, stop: time_to_stop(grace) }
    }

    /// When the stop signal comes at the latest, and when the kill does.
    pub(super) fn ends(self, now: Moment) -> (Moment, Moment) {
        (now + self.all.saturating_sub(self.stop), now + self.all)
    }
}

/// Starts the drain of a worker; without a limit it may take any time.
pub(super) fn drain(occupant: &mut Occupant, now: Moment, limit: Option<Limit>, actions: &mut Vec<Action>) {
    let worker = occupant.worker;
    let (stop_at, deadline) = limit.map(|limit| limit.ends(now)).unzip();
    occupant.life = Life::Draining { since: now, phase: Drain::Emptying, stop_at, deadline };
    actions.push(Action::Withdraw { worker });
}

/// Kills a worker that is not killed yet.
pub(super) fn kill(occupant: &mut Occupant, now: Moment, because: KillReason, actions: &mut Vec<Action>) {
    if let Life::Draining { phase: Drain::Killed, .. } = occupant.life {
        return;
    }
    occupant.life = Life::Draining { since: now, phase: Drain::Killed, stop_at: None, deadline: None };
    actions.push(Action::Kill { worker: occupant.worker, because });
}
