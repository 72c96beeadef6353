//! Workers that listened, and listen nowhere any more.

use super::failures::Failures;
use super::{Event, Events};
use crate::core::fleet::{self, Fleet, KillReason, Occupant, Sign};
use crate::workers::worker::Worker;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{info, warn};

/// How long a worker may listen nowhere before it counts as one that does not work.
pub const DEAF_AFTER: Duration = Duration::from_millis(500);

/// A worker closed a socket: if it was the last on which it listened, it has a moment to listen again.
pub fn lost_listener(worker: &mut Worker, fleet: &Fleet, events: &Events) {
    if !worker.is_deaf() || worker.leaves {
        return;
    }
    let (id, events) = (worker.id, events.clone());
    if fleet.occupant(id).is_some_and(Occupant::is_starting) {
        worker.ready = false;
    }
    let moment = tokio::task::spawn_local(async move {
        sleep(DEAF_AFTER).await;
        let _ = events.send(Event::Deaf { worker: id }).await;
    });
    if let Some(before) = worker.deaf_moment.replace(moment) {
        before.abort();
    }
}

/// That moment is over.
pub fn deaf(worker: &Worker, fleet: &Fleet, failures: &mut Failures) -> Option<fleet::Event> {
    if !worker.is_deaf() || worker.leaves || fleet.is_stopping() {
        return None;
    }
    let (id, slot, generation) = (worker.id, worker.slot.0, worker.generation);
    let occupant = fleet.occupant(id)?;
    let brought = fleet.reloading() == Some(generation);
    if brought && occupant.is_starting() {
        warn!(
            slot,
            worker = id.0,
            generation = generation.0,
            "a new worker has closed the last socket that it listened on, so it cannot take the place of the old one"
        );
        failures.failed_because = Some("it listened, and then closed the last socket that it listened on".to_owned());
        return Some(fleet::Event::Condemned(id, KillReason::Elsewhere));
    }
    if !occupant.is_ready() || occupant.signs.has(Sign::Deaf) {
        return None;
    }
    warn!(slot, worker = id.0, "a worker that was ready listens nowhere any more, so it gets no connections");
    if brought {
        failures.failed_because =
            Some("a new worker was ready, and then closed the last socket that it listened on".to_owned());
    }
    Some(fleet::Event::Stalled(id, Sign::Deaf))
}

/// A worker listens. If it had stopped, it has recovered.
#[must_use]
pub fn hears_again(worker: &Worker, fleet: &Fleet) -> Option<fleet::Event> {
    let id = worker.id;
    if !fleet.occupant(id).is_some_and(|o| o.signs.has(Sign::Deaf)) {
        return None;
    }
    info!(worker = id.0, "a worker listens again");
    Some(fleet::Event::Recovered(id, Sign::Deaf))
}
