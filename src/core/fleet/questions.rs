//! Queries about the fleet.

use super::event::{Resize, SizeRefused, Stop};
use super::slot::{Drain, Life, Occupant, SlotState};
use super::{Fleet, Wanted};
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::core::moment::Moment;

impl Fleet {
    /// The slots, by number.
    #[must_use]
    pub fn slots(&self) -> &[SlotState] {
        &self.slots
    }

    /// The last generation that served in every slot.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.settled
    }

    /// How many workers are wanted; 0 while paused or stopping.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        match self.wanted {
            Wanted::Running(workers) => workers,
            Wanted::Paused(_) | Wanted::Stopped(_) => 0,
        }
    }

    /// Whether no worker has been ready since the start.
    #[must_use]
    pub fn was_never_ready(&self) -> bool {
        !self.was_ready
    }

    /// Whether every slot has a worker that serves, and none is about to be replaced.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.slots.iter().all(|state| state.serving().is_some() && !state.is_starting())
    }

    /// Whether exactly the wanted workers serve, and no change is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let as_many = self.slots.len() == self.wanted() as usize;
        let runs = matches!(self.wanted, Wanted::Running(_)) && self.delayed.is_none();
        runs && as_many && self.reload.is_none() && self.pending.is_none() && self.all_ready()
    }

    /// The worker, whichever slot it is in.
    #[must_use]
    pub fn occupant(&self, worker: WorkerId) -> Option<&Occupant> {
        self.slots.iter().flat_map(|state| &state.occupants).find(|o| o.worker == worker)
    }

    /// Whether this worker serves, or is about to.
    #[must_use]
    pub fn is_wanted(&self, worker: WorkerId) -> bool {
        self.occupant(worker).is_some_and(|o| !o.is_leaving())
    }

    /// Whether the fleet was asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        matches!(self.wanted, Wanted::Stopped(_))
    }

    /// Whether the fleet was asked to stop, also if it goes on serving for a while.
    #[must_use]
    pub fn is_about_to_stop(&self) -> bool {
        self.is_stopping() || self.delayed.is_some()
    }

    /// Whether every worker that still runs is to be killed.
    #[must_use]
    pub fn stops_at_once(&self) -> bool {
        self.wanted == Wanted::Stopped(Stop::Immediate)
    }

    /// Whether this worker was killed and only its end is outstanding.
    #[must_use]
    pub fn is_killed(&self, worker: WorkerId) -> bool {
        let life = self.occupant(worker).map(|o| o.life);
        matches!(life, Some(Life::Draining { phase: Drain::Killed, .. }))
    }

    /// Slots that are left alone after too many failures.
    pub fn resting(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().zip(0..).filter(|(state, _)| state.rests).map(|(_, slot)| Slot(slot))
    }

    /// The number of workers that this request leads to.
    ///
    /// # Errors
    /// [`SizeRefused`].
    pub fn size_after(&self, resize: Resize) -> Result<u32, SizeRefused> {
        let (Wanted::Running(now) | Wanted::Paused(now)) = self.wanted else { return Err(SizeRefused::Stopping) };
        if self.delayed.is_some() {
            return Err(SizeRefused::Stopping);
        }
        let asked = match resize {
            Resize::To(workers) => i64::from(workers),
            Resize::By(more) => i64::from(now) + i64::from(more),
        };
        match u32::try_from(asked) {
            Ok(0) | Err(_) if asked <= 0 => Err(SizeRefused::Zero),
            Ok(workers) if workers <= self.plan.max_workers => Ok(workers),
            _ => Err(SizeRefused::TooMany { asked: asked.unsigned_abs(), most: self.plan.max_workers }),
        }
    }

    /// When to send the next [`Event::Tick`].
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        let stopping = self.is_stopping();
        let backoffs = self.slots.iter().filter_map(move |state| state.backoff.filter(|_| !stopping));
        let lives = self.slots.iter().flat_map(|state| &state.occupants).filter_map(|o| match o.life {
            Life::Starting { since } => Some(since + self.plan.boot_timeout),
            Life::Ready { .. } => Some(o.stalled_since? + self.plan.stall_kill?),
            Life::Draining { phase: Drain::Emptying, stop_at, .. } => stop_at,
            Life::Draining { phase: Drain::Stopping, deadline, .. } => deadline,
            Life::Draining { phase: Drain::Killed, .. } => None,
        });
        let delayed = self.delayed.map(|delayed| delayed.until);
        backoffs.chain(lives).chain(self.closing.and_then(|closing| closing.until)).chain(delayed).min()
    }
}
