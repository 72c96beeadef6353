//! The lifecycle of the workers: what happened comes in as an [`Event`], what to do goes out as [`Action`]s.
//! [`crate::master`] carries the actions out and reports back.
//!
//! The wanted state (how many slots, which generation, stopping or not) and the observed state (each slot's
//! [`SlotState`]) are kept apart; after every event `reconcile` closes the gap. The rule of use: pass one event, carry
//! out all actions, pass the next event; pass [`Event::Tick`] when [`Fleet::wakes_at`] is due.
//!
//! A slot's worker leaves only when another is ready in its place, unless it failed, was told to stop or
//! `max_unavailable` allows a gap. The whole state can be serialized and read back, so that the next binary of the
//! master continues where this one stopped.

mod ending;
mod event;
mod exit_codes;
mod failure;
mod questions;
mod reload;
mod slot;
mod table;
mod wishes;

pub use event::{AbortReason, Action, Event, Exit, KillReason, Manner, Resize, SizeRefused, Stop, WaitReason, Workers};
pub use exit_codes::ExitCodes;
pub use slot::{Admitted, Drain, Life, OCCUPANTS_MAX, Occupant, Sign, Signs, SlotState};
pub use wishes::SAME_REQUEST;

use super::chance::Chance;
use super::ids::{Generation, Slot, WorkerId};
use super::moment::Moment;
use ending::{Limit, drain, kill};
use reload::Reload;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Consecutive boot failures of one slot before the master gives up; only in a first generation of which no worker was
/// ever ready.
pub const BOOT_ATTEMPTS: u32 = 3;

/// A worker that still has connections gets its stop signal this much of the grace time before it is killed, so that a
/// server that can stop gracefully has time to close idle connections: a tenth of the grace time, at most two seconds.
#[must_use]
pub fn time_to_stop(grace: Duration) -> Duration {
    (grace / 10).min(Duration::from_secs(2))
}

/// The settings of the fleet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The number of workers in the current configuration; the wanted number at the start.
    pub workers: u32,
    /// The largest number that can be asked for later.
    pub max_workers: u32,
    /// How long a worker may take to end.
    pub grace: Duration,
    /// How long a worker may take to be ready.
    pub boot_timeout: Duration,
    /// Workers that may be started beyond the wanted number during a replacement.
    pub max_surge: u32,
    /// Slots that may be without a serving worker during a replacement.
    pub max_unavailable: u32,
    /// When a slot may get its next worker.
    pub succession: Succession,
    /// Failures of a slot within `restart_window` after which it rests.
    pub max_restarts: u32,
    /// The window in which `max_restarts` counts failures.
    pub restart_window: Duration,
    /// How long a worker must have been ready to count as one that ever was.
    #[serde(default)]
    pub min_ready: Duration,
    /// How long the fleet goes on serving after it was asked to stop.
    #[serde(default)]
    pub stop_delay: Duration,
    /// How long a worker may be stalled before it is killed; never if not given.
    pub stall_kill: Option<Duration>,
    /// Exit codes with which a worker that served ends as it should.
    #[serde(default)]
    pub expected: ExitCodes,
    /// Seed of the jitter.
    pub seed: u64,
}

/// When a slot may get its next worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Succession {
    /// While the previous worker is still there.
    Overlapping,
    /// When the previous worker is gone: the two would share a queue.
    AfterEnd,
}

/// The wanted state of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Wanted {
    /// This many workers.
    Running(u32),
    /// No workers for now, and this many later.
    Paused(u32),
    /// No workers; how to stop them.
    Stopped(Stop),
}

/// The time in which the listeners take their last connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Closing {
    /// When it ends in any case; never for a patient stop.
    until: Option<Moment>,
}

/// A stop that begins later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Delayed {
    stop: Stop,
    until: Moment,
}

/// All slots, and their wanted state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fleet {
    plan: Plan,
    wanted: Wanted,
    #[serde(rename = "seats")]
    slots: Vec<SlotState>,
    /// The last generation that served in every slot; workers that are forked again belong to it.
    settled: Generation,
    /// The highest generation number so far.
    newest: Generation,
    reload: Option<Reload>,
    /// A reload that waits for its turn. Only the latest request counts.
    pending: Option<Manner>,
    /// How many workers its configuration asks for.
    #[serde(default)]
    pending_workers: Option<u32>,
    next_worker: u64,
    random: Chance,
    /// While the fleet stops: until when workers still get the connections that waited in the accept queues.
    closing: Option<Closing>,
    /// A stop that was asked for and has not begun.
    #[serde(default)]
    delayed: Option<Delayed>,
    /// When the last request to stop arrived that was not a repetition of the same one.
    stop_asked: Option<Moment>,
    /// Whether any worker was ever ready; if so, the master never gives up.
    was_ready: bool,
    /// Whether [`Action::Finish`] was issued.
    ended: bool,
}

impl Fleet {
    /// A fleet of empty slots; [`Event::Begin`] fills them.
    #[must_use]
    pub fn new(plan: Plan) -> Fleet {
        Fleet {
            plan,
            wanted: Wanted::Running(plan.workers),
            slots: Vec::new(),
            settled: Generation(1),
            newest: Generation(1),
            reload: None,
            pending: None,
            pending_workers: None,
            next_worker: 1,
            random: Chance::new(plan.seed),
            closing: None,
            delayed: None,
            stop_asked: None,
            was_ready: false,
            ended: false,
        }
    }

    /// Applies the times and limits of a changed configuration; the number of workers stays.
    pub fn replan(&mut self, plan: Plan) {
        self.plan = Plan { workers: self.plan.workers, seed: self.plan.seed, ..plan };
    }

    /// Processes what happened; the caller must carry out the actions in order.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.was_ready |= self.slots.iter().flat_map(|state| &state.occupants).any(|o| self.has_lasted(o, now));
        self.take_in(now, event, &mut actions);
        self.reconcile(now, &mut actions);
        actions
    }

    fn slot_of(&mut self, worker: WorkerId) -> Option<(Slot, &mut SlotState, usize)> {
        self.slots.iter_mut().zip(0..).find_map(|(state, slot)| {
            let index = state.occupants.iter().position(|o| o.worker == worker)?;
            Some((Slot(slot), state, index))
        })
    }

    fn occupant_mut(&mut self, worker: WorkerId) -> Option<&mut Occupant> {
        self.slots.iter_mut().flat_map(|state| &mut state.occupants).find(|o| o.worker == worker)
    }

    fn ready(&mut self, now: Moment, worker: WorkerId, actions: &mut Vec<Action>) {
        let Some(occupant) = self.occupant_mut(worker) else { return };
        occupant.life = Life::Ready { since: now, admitted: Admitted::NotYet };
        self.was_ready |= self.plan.min_ready.is_zero();
        if !self.is_stopping() && !self.waits_for_its_generation(worker) {
            self.admit(now, worker, actions);
        }
    }

    /// Lets a ready worker serve; any worker that served in its slot drains.
    fn admit(&mut self, now: Moment, worker: WorkerId, actions: &mut Vec<Action>) {
        let grace = self.plan.grace;
        let Some((_, state, index)) = self.slot_of(worker) else { return };
        if let Life::Ready { admitted, .. } = &mut state.occupants[index].life {
            *admitted = Admitted::Yes;
        }
        state.reached = Some(state.occupants[index].generation);
        actions.push(Action::Admit { worker });
        for other in state.occupants.iter_mut().filter(|o| o.worker != worker && o.is_ready()) {
            drain(other, now, Some(Limit::of(grace)), actions);
        }
        self.proven_by(worker, actions);
    }

    /// Whether this worker has been ready for as long as it takes to believe it.
    fn has_lasted(&self, occupant: &Occupant, now: Moment) -> bool {
        matches!(occupant.life, Life::Ready { since, .. } if now.since(since) >= self.plan.min_ready)
    }

    fn emptied(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let Some(occupant) = self.occupant_mut(worker) else { return };
        if let Life::Draining { phase: phase @ Drain::Emptying, .. } = &mut occupant.life {
            *phase = Drain::Stopping;
            actions.push(Action::Terminate { worker });
        }
    }

    fn stalled(&mut self, now: Moment, worker: WorkerId, sign: Sign, actions: &mut Vec<Action>) {
        let Some(occupant) = self.occupant_mut(worker) else { return };
        occupant.signs.set(sign);
        occupant.stalled_since.get_or_insert(now);
        let generation = occupant.generation;
        if sign == Sign::Deaf && self.is_target(generation) {
            // It said that it serves, but it does not: the others of its generation would do the same.
            self.abort(now, AbortReason::Deaf(worker), actions);
        }
    }

    fn recovered(&mut self, worker: WorkerId, sign: Sign) {
        if let Some(occupant) = self.occupant_mut(worker) {
            occupant.signs.clear(sign);
            if occupant.signs.is_empty() {
                occupant.stalled_since = None;
            }
        }
    }

    /// Closes the gap between the wanted and the observed state.
    fn reconcile(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.closing.is_some_and(|closing| closing.until.is_some_and(|until| until <= now)) {
            self.closing = None;
        }
        if let Some(Delayed { stop, .. }) = self.delayed.take_if(|delayed| delayed.until <= now) {
            self.begin_stop(now, stop, actions);
        }
        for state in &mut self.slots {
            state.backoff = state.backoff.filter(|until| *until > now);
        }
        for index in 0..self.slots.len() {
            self.enforce_limits(now, index, actions);
        }
        if self.is_stopping() {
            self.drop_pending(actions);
            self.abort(now, AbortReason::Stopping, actions);
        }
        self.begin_pending(actions);
        let wanted = self.wanted() as usize;
        if self.slots.len() < wanted {
            self.slots.resize(wanted, SlotState::default());
        }
        for index in 0..self.slots.len() {
            if index < wanted {
                self.fill(now, index, actions);
            } else if self.closing.is_none() {
                self.empty(now, index, actions);
            }
        }
        self.make_room(now, actions);
        self.replace(now, actions);
        self.finish_reload(now, actions);
        self.exclude(actions);
        self.trim(actions);
        if self.wanted() as usize != wanted || self.may_begin() {
            // The reload was given up meanwhile, or the next one's turn has come.
            self.reconcile(now, actions);
        }
    }

    /// Forks into a wanted slot in which no worker serves or is about to.
    fn fill(&mut self, now: Moment, index: usize, actions: &mut Vec<Action>) {
        let state = &self.slots[index];
        let free = match self.succession() {
            Succession::Overlapping => state.occupants.iter().all(Occupant::is_leaving),
            Succession::AfterEnd => state.occupants.is_empty(),
        };
        if state.may_start() && free {
            let generation = state.next.unwrap_or_else(|| self.generation_to_fork());
            self.fork(now, index, generation, actions);
        }
    }

    /// When a slot may get its next worker. A restart promises that the old one leaves first, and so does a plan that
    /// allows no surge: two at a time might want the same lock or the same file.
    fn succession(&self) -> Succession {
        if self.is_old_first() { Succession::AfterEnd } else { self.plan.succession }
    }

    /// Whether a slot's old worker leaves before the next one starts.
    #[must_use]
    pub fn is_old_first(&self) -> bool {
        self.reload_manner() == Some(Manner::Restart) || self.plan.max_surge == 0
    }

    fn fork(&mut self, now: Moment, index: usize, generation: Generation, actions: &mut Vec<Action>) {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        let state = &mut self.slots[index];
        state.restarts += u64::from(state.last_worker.is_some() || !state.occupants.is_empty());
        (state.backoff, state.next) = (None, None);
        state.occupants.push(Occupant::new(worker, generation, now));
        actions.push(Action::Fork { slot: Slot(index as u32), worker, generation });
    }

    /// Drains or kills the workers of a slot that is not wanted.
    fn empty(&mut self, now: Moment, index: usize, actions: &mut Vec<Action>) {
        let stop = match self.wanted {
            Wanted::Stopped(stop) => Some(stop),
            Wanted::Running(_) | Wanted::Paused(_) => None,
        };
        let whole = Limit::of(self.plan.grace);
        let limit = match stop {
            Some(Stop::Patient) => None,
            // The time in which the listeners took their last connections is part of it.
            Some(Stop::Graceful) => {
                let left = self.stop_asked.map_or(whole.all, |asked| (asked + whole.all).since(now));
                Some(Limit { all: left, ..whole })
            }
            Some(Stop::Immediate) | None => Some(whole),
        };
        let state = &mut self.slots[index];
        (state.backoff, state.next) = (None, None);
        for occupant in &mut state.occupants {
            match &mut occupant.life {
                Life::Draining { phase: Drain::Killed, .. } => {}
                _ if stop == Some(Stop::Immediate) => kill(occupant, now, KillReason::Immediate, actions),
                Life::Starting { .. } | Life::Ready { .. } => drain(occupant, now, limit, actions),
                // TERM after QUIT sets the limits that were not set before.
                Life::Draining { stop_at, deadline: deadline @ None, .. } if stop == Some(Stop::Graceful) => {
                    (*stop_at, *deadline) = limit.map(|limit| limit.ends(now)).unzip();
                }
                Life::Draining { .. } => {}
            }
        }
    }

    /// Excludes stalled workers from connections, as long as there are others.
    fn exclude(&mut self, actions: &mut Vec<Action>) {
        let serving = || self.slots.iter().flat_map(|state| &state.occupants).filter(|o| o.serves());
        let others = serving().any(|o| o.signs.is_empty());
        for occupant in self.slots.iter_mut().flat_map(|state| &mut state.occupants).filter(|o| o.serves()) {
            let exclude = others && !occupant.signs.is_empty();
            if occupant.excluded != exclude {
                occupant.excluded = exclude;
                let worker = occupant.worker;
                actions.push(if exclude { Action::Exclude { worker } } else { Action::Readmit { worker } });
            }
        }
    }

    /// Removes slots above the wanted number once they are empty, and detects the end. A stopped fleet keeps its
    /// slots, so that the last status still shows which workers were there.
    fn trim(&mut self, actions: &mut Vec<Action>) {
        if let Wanted::Running(wanted) = self.wanted {
            while self.slots.len() > wanted as usize && self.slots.last().is_some_and(|s| s.occupants.is_empty()) {
                self.slots.pop();
            }
            let given_up = |state: &SlotState| state.rests && state.occupants.is_empty();
            if !self.slots.is_empty() && self.slots.iter().all(given_up) {
                self.wanted = Wanted::Stopped(Stop::Immediate);
                actions.push(Action::NobodyLeft);
            }
        }
        let all_gone = self.slots.iter().all(|state| state.occupants.is_empty());
        if self.is_stopping() && all_gone && !self.ended {
            self.ended = true;
            actions.push(Action::Finish);
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
