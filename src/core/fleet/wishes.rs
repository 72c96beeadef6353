//! Requests to the fleet: a stop, a pause, another number of workers.

use super::ending::Limit;
use super::event::{AbortReason, Action, Resize, Stop};
use super::{Closing, Delayed, Fleet, Wanted};
use crate::core::ids::WorkerId;
use crate::core::moment::Moment;
use std::time::Duration;

/// A second request to stop that comes sooner than this is the same one: wrappers forward a signal that the whole
/// process group gets anyway (`timeout(1)` does).
pub const SAME_REQUEST: Duration = Duration::from_millis(500);

impl Fleet {
    pub(super) fn stop(&mut self, now: Moment, stop: Stop, actions: &mut Vec<Action>) {
        let repeated = self.stop_asked.is_some_and(|asked| now.since(asked) < SAME_REQUEST);
        let delayed = self.delayed.map(|delayed| Wanted::Stopped(delayed.stop));
        if delayed.unwrap_or(self.wanted) == Wanted::Stopped(Stop::Graceful) && stop == Stop::Graceful && repeated {
            return;
        }
        let delay = self.plan.stop_delay;
        if !delay.is_zero() && delayed.is_none() && !self.is_stopping() {
            self.stop_asked = Some(now);
            self.delayed = Some(Delayed { stop, until: now + delay });
            return actions.push(Action::StopDelayed { delay });
        }
        self.begin_stop(now, stop, actions);
    }

    /// Stops now; a stop that was to begin later is this one.
    pub(super) fn begin_stop(&mut self, now: Moment, stop: Stop, actions: &mut Vec<Action>) {
        self.delayed = None;
        self.stop_asked = Some(now);
        let stop = match (self.wanted, stop) {
            (Wanted::Running(_) | Wanted::Paused(_), first) => {
                actions.push(Action::CloseListeners);
                self.closing = Some(Closing { until: None });
                first
            }
            // A second request of any kind but QUIT means: stop at once.
            (Wanted::Stopped(Stop::Graceful | Stop::Immediate), Stop::Graceful | Stop::Immediate) => {
                actions.push(Action::StopAtOnce);
                Stop::Immediate
            }
            (Wanted::Stopped(Stop::Patient), asked) => asked,
            (Wanted::Stopped(already), Stop::Patient) => already,
        };
        self.wanted = Wanted::Stopped(stop);
        self.closing = match (self.closing, stop) {
            // The workers need the rest: to be told, and to end.
            (Some(Closing { until: None }), Stop::Graceful) => {
                let whole = Limit::of(self.plan.grace);
                Some(Closing { until: Some(now + whole.all.saturating_sub(whole.stop * 2)) })
            }
            (_, Stop::Immediate) => None,
            (closing, _) => closing,
        };
    }

    pub(super) fn pause(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.drop_pending(actions);
        self.abort(now, AbortReason::Stopping, actions);
        if let Wanted::Running(workers) = self.wanted {
            self.wanted = Wanted::Paused(workers);
        }
    }

    pub(super) fn resize(&mut self, resize: Resize, actions: &mut Vec<Action>) {
        match self.size_after(resize) {
            Ok(workers) => {
                self.wanted = Wanted::Running(workers);
                self.forget_number();
                self.wake_resting();
                actions.push(Action::Resized { workers });
            }
            Err(refused) => actions.push(Action::SizeRefused(refused)),
        }
    }

    /// Someone has taken action: slots that rest get another chance.
    pub(super) fn wake_resting(&mut self) {
        for state in &mut self.slots {
            if std::mem::take(&mut state.rests) {
                state.failures = 0;
            }
        }
    }

    pub(super) fn wear(&mut self, worker: WorkerId) {
        if let Some(occupant) = self.occupant_mut(worker) {
            occupant.worn = true;
        }
    }
}
