//! Reloads at certain times.

use super::Event;
use crate::config::triggers::Times;
use crate::core::schedule::Schedule;
use crate::reports::Reports;
use std::time::{Duration, SystemTime};

/// How long the clock may be left unlooked at: it may be set meanwhile, which nothing reports.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// What is slept at least, so that a time that has come is over.
const LOOK_AFTER: Duration = Duration::from_millis(1);

/// Reports each time when it comes. Several at the same moment are one.
pub async fn keep(times: Vec<Times>, reports: Reports<Event>) {
    let next = |after: SystemTime| times.iter().filter_map(|times| times.next(after)).min();
    let mut schedule = Schedule::new(SystemTime::now());
    loop {
        let now = SystemTime::now();
        let wait = next(now).and_then(|at| at.duration_since(now).ok()).unwrap_or(LOOK_EVERY);
        tokio::time::sleep(wait.clamp(LOOK_AFTER, LOOK_EVERY)).await;
        if schedule.is_due(SystemTime::now(), next) && reports.send(Event::Due).await.is_err() {
            return;
        }
    }
}
