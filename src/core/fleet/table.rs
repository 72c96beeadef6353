//! Every event in every state that it can meet: how the fleet reacts, or why it does not.

use super::slot::{Admitted, Drain, Life};
use super::{Action, Event, Fleet, Wanted, failure};
use crate::core::ids::WorkerId;
use crate::core::moment::Moment;

/// A worker's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Gone: its end was reported.
    Gone,
    Starting,
    /// Ready, but its generation is not.
    Waiting,
    Serving,
    /// Leaving, and may still have connections.
    Emptying,
    /// Told to end.
    Told,
    Killed,
}

impl Fleet {
    /// Records what happened; [`Fleet::reconcile`] acts on it.
    pub(super) fn take_in(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        use Standing::{Emptying, Gone, Killed, Serving, Starting, Told, Waiting};
        match event {
            Event::Ready(worker) => match self.standing(worker) {
                Starting => self.ready(now, worker, actions),
                // It listens on another address, or reports readiness twice.
                Waiting | Serving => {}
                // A worker that leaves does not come back.
                Emptying | Told | Killed => {}
                // A report about a worker that is gone is late, here and below.
                Gone => {}
            },
            Event::Emptied(worker) => match self.standing(worker) {
                Emptying => self.emptied(worker, actions),
                // The clock, a crash or a kill came first.
                Told | Killed | Gone => {}
                // It was not told to leave: it is idle.
                Starting | Waiting | Serving => {}
            },
            Event::Exited(worker, exit) => match self.standing(worker) {
                Starting | Waiting | Serving | Emptying | Told | Killed => {
                    self.gone(now, worker, failure::Gone::Ended(exit), actions);
                }
                Gone => {}
            },
            Event::Daemonized(worker) => match self.standing(worker) {
                Starting | Waiting | Serving | Emptying | Told | Killed => self.daemonized(now, worker, actions),
                Gone => {}
            },
            Event::ForkFailed(worker) => match self.standing(worker) {
                // States other than the first: something else was decided before the attempt was reported.
                Starting | Waiting | Serving | Emptying | Told | Killed => {
                    self.gone(now, worker, failure::Gone::NeverStarted, actions);
                }
                Gone => {}
            },
            Event::Recycle(worker) => match self.standing(worker) {
                Waiting | Serving => self.wear(worker),
                // It has not served yet.
                Starting => {}
                // It leaves anyway.
                Emptying | Told | Killed | Gone => {}
            },
            Event::Stalled(worker, sign) => match self.standing(worker) {
                Waiting | Serving => self.stalled(now, worker, sign, actions),
                // Its boot timeout covers this case.
                Starting => {}
                // Its deadline covers it.
                Emptying | Told | Killed | Gone => {}
            },
            Event::Recovered(worker, sign) => match self.standing(worker) {
                Waiting | Serving => self.recovered(worker, sign),
                // It has no signs.
                Starting => {}
                // It leaves, healthy or not.
                Emptying | Told | Killed | Gone => {}
            },
            Event::Condemned(worker, because) => match self.standing(worker) {
                Starting | Waiting | Serving | Emptying | Told => self.kill_failed(now, worker, because, actions),
                Killed | Gone => {}
            },
            Event::StopAsked(stop) => match self.wanted {
                // What the second request means depends on both; `stop` decides.
                Wanted::Running(_) | Wanted::Paused(_) | Wanted::Stopped(_) => self.stop(now, stop, actions),
            },
            Event::ListenersClosed => match self.wanted {
                Wanted::Stopped(_) => self.closing = None,
                // Only a stop closes all listeners.
                Wanted::Running(_) | Wanted::Paused(_) => {}
            },
            Event::Resize(resize) => match self.wanted {
                // A stopping fleet refuses and says so.
                Wanted::Running(_) | Wanted::Paused(_) | Wanted::Stopped(_) => self.resize(resize, actions),
            },
            Event::Pause => match self.wanted {
                Wanted::Running(_) if self.delayed.is_none() => self.pause(now, actions),
                // This state is what was asked for, or more; or it is about to be.
                Wanted::Running(_) | Wanted::Paused(_) | Wanted::Stopped(_) => {}
            },
            Event::ReloadAsked(manner, workers) => match self.wanted {
                Wanted::Running(_) | Wanted::Paused(_) if self.delayed.is_none() => {
                    self.ask_reload(manner, workers, actions);
                }
                // The master has already refused it.
                Wanted::Running(_) | Wanted::Paused(_) | Wanted::Stopped(_) => {}
            },
            // Time has the same effects in all states.
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
