//! How a worker is told to end.

use super::event::{Action, KillReason};
use super::slot::{Drain, Life, Occupant};
use super::time_to_stop;
use crate::core::moment::Moment;
use std::time::Duration;

/// Starts the drain of a worker; without `grace` there is no time limit.
pub(super) fn drain(occupant: &mut Occupant, now: Moment, grace: Option<Duration>, actions: &mut Vec<Action>) {
    let worker = occupant.worker;
    occupant.life = Life::Draining {
        since: now,
        phase: Drain::Emptying,
        stop_at: grace.map(|grace| now + (grace - time_to_stop(grace))),
        deadline: grace.map(|grace| now + grace),
    };
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
