//! Every event in every state that it can meet: what the fleet makes of it, or why nothing.

use super::slot::{Admitted, Drain, Life};
use super::{AbortReason, Action, Event, Fleet, Wanted};
use crate::core::ids::WorkerId;
use crate::core::moment::Moment;

/// Where a worker is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nowhere: its end was reported.
    Gone,
    Starting,
    /// Ready, and its generation is not.
    Waiting,
    Serving,
    /// Leaves, and may still have connections.
    Emptying,
    /// Was told to end.
    Told,
    Killed,
}

impl Fleet {
    /// Takes in what happened; [`Fleet::reconcile`] draws the conclusions.
    pub(super) fn take_in(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        use Standing::{Emptying, Gone, Killed, Serving, Starting, Told, Waiting};
        match event {
            Event::Ready(worker) => match self.standing(worker) {
                Starting => self.ready(now, worker, actions),
                // It listens on a further address, or says so twice.
                Waiting | Serving => {}
                // Whoever leaves does not come back.
                Emptying | Told | Killed => {}
                // What is said of one that is gone comes late, here and below.
                Gone => {}
            },
            Event::Emptied(worker) => match self.standing(worker) {
                Emptying => self.emptied(worker, actions),
                // The clock, a crash or a kill was faster.
                Told | Killed | Gone => {}
                // Nobody told it to leave: it idles.
                Starting | Waiting | Serving => {}
            },
            Event::Exited(worker, _) => match self.standing(worker) {
                Starting | Waiting | Serving | Emptying | Told | Killed => {
                    self.gone(now, worker, AbortReason::Ended(worker), actions);
                }
                Gone => {}
            },
            Event::Daemonized(worker) => match self.standing(worker) {
                Starting | Waiting | Serving | Emptying | Told | Killed => self.daemonized(now, worker, actions),
                Gone => {}
            },
            Event::ForkFailed(worker) => match self.standing(worker) {
                // Others than the first: something else was decided before the attempt was reported.
                Starting | Waiting | Serving | Emptying | Told | Killed => {
                    self.gone(now, worker, AbortReason::NotStarted(worker), actions);
                }
                Gone => {}
            },
            Event::Recycle(worker) => match self.standing(worker) {
                Waiting | Serving => self.wear(worker),
                // It has had no time yet.
                Starting => {}
                // It leaves anyway.
                Emptying | Told | Killed | Gone => {}
            },
            Event::Stalled(worker, sign) => match self.standing(worker) {
                Waiting | Serving => self.stalled(now, worker, sign, actions),
                // Its boot timeout looks after it.
                Starting => {}
                // Its deadline does.
                Emptying | Told | Killed | Gone => {}
            },
            Event::Recovered(worker, sign) => match self.standing(worker) {
                Waiting | Serving => self.recovered(worker, sign),
                // It has no signs.
                Starting => {}
                // It leaves, whether it is well or not.
                Emptying | Told | Killed | Gone => {}
            },
            Event::Condemned(worker, because) => match self.standing(worker) {
                Starting | Waiting | Serving | Emptying | Told => self.kill_failed(now, worker, because, actions),
                Killed | Gone => {}
            },
            Event::StopAsked(stop) => match self.wanted {
                // What the second one means depends on both, see there.
                Wanted::Running(_) | Wanted::Paused(_) | Wanted::Stopped(_) => self.stop(now, stop, actions),
            },
            Event::ListenersClosed => match self.wanted {
                Wanted::Stopped(_) => self.closing = None,
                // Only a stop closes them all.
                Wanted::Running(_) | Wanted::Paused(_) => {}
            },
            Event::Resize(resize) => match self.wanted {
                // Who stops says so.
                Wanted::Running(_) | Wanted::Paused(_) | Wanted::Stopped(_) => self.resize(resize, actions),
            },
            Event::Pause => match self.wanted {
                Wanted::Running(_) => self.pause(now, actions),
                // It is what was asked for, or more than that.
                Wanted::Paused(_) | Wanted::Stopped(_) => {}
            },
            Event::ReloadAsked(manner, workers) => match self.wanted {
                Wanted::Running(_) | Wanted::Paused(_) => self.ask_reload(manner, workers, actions),
                // The master has refused it.
                Wanted::Stopped(_) => {}
            },
            // Whatever the time brings is for all states the same.
            Event::Begin | Event::Tick => match self.wanted {
                Wanted::Running(_) | Wanted::Paused(_) | Wanted::Stopped(_) => {}
            },
        }
    }

    fn standing(&self, worker: WorkerId) -> Standing {
        match self.occupant(worker).map(|occupant| occupant.life) {
            None => Standing::Gone,
            Some(Life::Starting { .. }) => Standing::Starting,
            Some(Life::Ready { admitted: Admitted::NotYet, .. }) => Standing::Waiting,
            Some(Life::Ready { admitted: Admitted::Yes, .. }) => Standing::Serving,
            Some(Life::Draining { phase: Drain::Emptying, .. }) => Standing::Emptying,
            Some(Life::Draining { phase: Drain::Stopping, .. }) => Standing::Told,
            Some(Life::Draining { phase: Drain::Killed, .. }) => Standing::Killed,
        }
    }
}
