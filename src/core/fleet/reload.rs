//! Replacing workers: a whole generation by the next one, or a single worker that reached a limit.

use super::slot::{Life, Occupant, SlotState};
use super::{AbortReason, Action, Fleet, KillReason, Manner, WaitReason, Wanted, Workers, drain, ending::Limit, kill};
use crate::core::ids::{Generation, WorkerId};
use crate::core::moment::Moment;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most generations that live at once; all but one of them are leaving. A reload that would add one more waits;
/// `--grace` bounds how long.
pub const GENERATIONS_MAX: usize = 4;

/// A reload under way.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Reload {
    target: Generation,
    manner: Manner,
    /// Whether the first worker of the new generation was ready.
    proven: bool,
    /// How many workers its configuration asks for, if that is known.
    #[serde(default)]
    configured: Option<u32>,
    /// How many workers there will be when it is done, if the number changes.
    #[serde(default)]
    workers: Option<u32>,
    /// How many workers were wanted before it added some.
    #[serde(default)]
    before: Option<u32>,
}

impl Fleet {
    /// The generation that a reload is about to bring.
    #[must_use]
    pub fn reloading(&self) -> Option<Generation> {
        self.reload.map(|reload| reload.target)
    }

    /// The manner in which it brings that generation.
    #[must_use]
    pub fn reload_manner(&self) -> Option<Manner> {
        self.reload.map(|reload| reload.manner)
    }

    /// Generations with at least one live worker.
    #[must_use]
    pub fn generations(&self) -> BTreeSet<Generation> {
        self.slots.iter().flat_map(|state| &state.occupants).map(|o| o.generation).collect()
    }

    /// Whether this generation is the one that the reload under way brings.
    pub(super) fn is_target(&self, generation: Generation) -> bool {
        self.reloading() == Some(generation)
    }

    /// The generation of a worker that is forked because a slot is empty. This is the new generation, because people
    /// often reload to fix an old one that fails. Until the new generation is proven, one slot tries it, and the
    /// others keep what they had.
    pub(super) fn generation_to_fork(&self) -> Generation {
        self.reload.filter(|reload| self.may_bring(*reload)).map_or(self.settled, |reload| reload.target)
    }

    /// Whether a worker of the new generation may be started now; the first one starts alone.
    fn may_bring(&self, reload: Reload) -> bool {
        reload.proven || reload.manner == Manner::Fleet || !self.is_on_its_way(reload.target)
    }

    /// Whether the generation that a reload brings may take an empty slot now.
    pub(super) fn may_bring_more(&self) -> bool {
        self.reload.is_some_and(|reload| self.may_bring(reload))
    }

    pub(super) fn ask_reload(&mut self, manner: Manner, workers: Workers, actions: &mut Vec<Action>) {
        let because = match self.reload {
            Some(_) => Some(WaitReason::AnotherRuns),
            None if self.is_crowded(Some(manner)) => Some(WaitReason::OldGenerations),
            None => None,
        };
        self.wake_resting();
        self.pending = Some(manner);
        self.pending_workers = match workers {
            Workers::Same => None,
            Workers::Configured(workers) => Some(workers),
        };
        actions.extend(because.map(|because| Action::ReloadWaits { because }));
    }

    /// Whether one more generation would be too many. A restart ends the existing ones itself. A generation that is
    /// not yet leaving does not count: waiting for it would be pointless, because the reload is what replaces it.
    fn is_crowded(&self, manner: Option<Manner>) -> bool {
        let leaving = self.slots.iter().flat_map(|state| &state.occupants).filter(|o| o.is_leaving());
        let leaving = leaving.map(|o| o.generation).collect::<BTreeSet<_>>().len();
        manner != Some(Manner::Restart) && leaving + 1 >= GENERATIONS_MAX
    }

    /// Drops the waiting reload.
    pub(super) fn drop_pending(&mut self, actions: &mut Vec<Action>) {
        if self.pending.take().is_some() {
            actions.push(Action::ReloadDropped);
        }
    }

    /// Whether a reload waits and its turn has come.
    pub(super) fn may_begin(&self) -> bool {
        self.pending.is_some() && self.reload.is_none() && !self.is_crowded(self.pending)
    }

    /// Begins the waiting reload, if it may.
    pub(super) fn begin_pending(&mut self, actions: &mut Vec<Action>) {
        if !self.may_begin() {
            return;
        }
        let Some(manner) = self.pending.take() else { return };
        if let Wanted::Paused(workers) = self.wanted {
            self.wanted = Wanted::Running(workers);
        }
        self.newest = Generation(self.newest.0 + 1);
        let nobody_serves = !self.slots.iter().any(|state| state.serving().is_some());
        let configured = self.pending_workers.take();
        // If someone has changed the number by hand since, it stays as long as the configured number is the same.
        let workers = configured.filter(|workers| *workers != self.plan.workers);
        let (target, before) = (self.newest, None);
        self.reload = Some(Reload { target, manner, proven: nobody_serves, configured, workers, before });
        self.wake_resting();
        for state in &mut self.slots {
            // The planned successor of a worn worker is obsolete, too.
            (state.backoff, state.next, state.failures_of_new) = (None, None, 0);
            // The failures of the old generation do not count against the new one.
            state.recent.clear();
        }
        actions.push(Action::ReloadBegun { generation: self.newest, manner });
        if nobody_serves {
            self.add_slots(actions);
        }
    }

    /// Adds the slots that the new configuration asks for when its first worker serves. A reduction happens only at
    /// the end, so that everything can continue as before if the reload is given up.
    fn add_slots(&mut self, actions: &mut Vec<Action>) {
        let Wanted::Running(before) = self.wanted else { return };
        let Some(reload) = &mut self.reload else { return };
        if let Some(workers) = reload.workers.filter(|workers| *workers > before) {
            reload.before = Some(before);
            self.wanted = Wanted::Running(workers);
            self.slots.resize(self.slots.len().max(workers as usize), SlotState::default());
            actions.push(Action::Resized { workers });
        }
    }

    /// How many slots get the new generation.
    fn span(&self) -> usize {
        let after = self.reload.and_then(|reload| reload.workers);
        after.map_or(self.wanted(), |after| after.min(self.wanted())) as usize
    }

    /// Someone chose another number by hand: it stays, whatever the outcome of the reload.
    pub(super) fn forget_number(&mut self) {
        if let Some(reload) = &mut self.reload {
            (reload.workers, reload.before) = (None, None);
        }
    }

    /// Whether a ready worker must wait for the others of its generation.
    pub(super) fn waits_for_its_generation(&self, worker: WorkerId) -> bool {
        let Some(Reload { target, manner: Manner::Fleet, .. }) = self.reload else { return false };
        let of_it = |state: &&SlotState| state.occupants.iter().any(|o| o.worker == worker && o.generation == target);
        let of_another = |o: &Occupant| o.generation != target;
        self.slots.iter().find(of_it).and_then(SlotState::serving).is_some_and(of_another)
    }

    /// The worker serves: if it is the first of the new generation, the others may follow.
    pub(super) fn proven_by(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let generation = self.occupant(worker).map(|o| o.generation);
        if let Some(reload) = self.reload.as_mut().filter(|r| !r.proven && Some(r.target) == generation) {
            reload.proven = true;
            let target = reload.target;
            // The new generation may work where the old one failed.
            self.wake_resting();
            actions.push(Action::CanaryServes { generation: target });
            self.add_slots(actions);
        }
    }

    /// Whether a serving worker is to be replaced.
    fn is_outdated(&self, occupant: &Occupant) -> bool {
        occupant.worn || self.reload.is_some_and(|reload| occupant.generation != reload.target)
    }

    /// In a slot where no worker serves, a worker of an old generation that is still starting makes room for the new
    /// one: it may be what the reload is meant to fix, and it may take its whole boot timeout to fail again.
    pub(super) fn make_room(&mut self, now: Moment, actions: &mut Vec<Action>) {
        for index in 0..self.span() {
            let Some(Reload { target, .. }) = self.reload.filter(|reload| self.may_bring(*reload)) else { return };
            let state = &mut self.slots[index];
            if state.serving().is_some() {
                continue;
            }
            let outdated = |o: &&mut Occupant| o.is_starting() && o.generation != target;
            if let Some(starting) = state.occupants.iter_mut().find(outdated) {
                kill(starting, now, KillReason::Outdated, actions);
                (state.next, state.rests) = (Some(target), false);
                self.fill(now, index, actions);
            }
        }
    }

    /// Starts replacements; where a gap is allowed, it drains the old worker before the new one is there.
    pub(super) fn replace(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let wanted = self.wanted() as usize;
        let reload = self.reload;
        let replaced_by_now = |state: &SlotState| state.serving().is_some() && state.occupants.iter().any(is_coming);
        let mut surging = self.slots[..wanted].iter().filter(|state| replaced_by_now(state)).count();
        let mut missing = self.slots[..wanted].iter().filter(|state| state.serving().is_none()).count();
        let (surge, unavailable) = match reload.map(|reload| reload.manner) {
            Some(Manner::Fleet) => (wanted, 0),
            Some(Manner::Restart) => (0, self.plan.max_unavailable.max(1) as usize),
            Some(Manner::Rolling) | None => (self.plan.max_surge as usize, self.plan.max_unavailable as usize),
        };
        let span = self.span();
        for index in 0..wanted {
            let state = &self.slots[index];
            let Some(serving) = state.serving().filter(|o| self.is_outdated(o)) else { continue };
            if state.occupants.iter().any(is_coming) || !state.may_start() {
                continue;
            }
            let to_reload = reload.filter(|reload| reload.target != serving.generation);
            if to_reload.is_some() && index >= span {
                continue;
            }
            let generation = to_reload.map_or_else(|| self.generation_to_fork(), |reload| reload.target);
            if to_reload.is_some_and(|reload| !self.may_bring(reload)) {
                continue;
            }
            if surging < surge {
                surging += 1;
                self.fork(now, index, generation, actions);
            } else if missing < unavailable {
                missing += 1;
                let grace = self.plan.grace;
                let state = &mut self.slots[index];
                state.next = Some(generation);
                for occupant in state.occupants.iter_mut().filter(|o| o.is_ready()) {
                    drain(occupant, now, Some(Limit::of(grace)), actions);
                }
                self.fill(now, index, actions);
            }
        }
    }

    /// Whether a worker of this generation was started, or is about to be, and does not serve yet.
    fn is_on_its_way(&self, generation: Generation) -> bool {
        let coming = |state: &SlotState| state.occupants.iter().any(|o| is_coming(o) && o.generation == generation);
        self.slots.iter().any(|state| coming(state) || state.next == Some(generation))
    }

    /// Lets a whole generation serve at once, and detects the end of a reload. A slot counts as reloaded once a worker
    /// of the new generation has served there: if that worker fails again and again, the other slots do not wait
    /// forever.
    pub(super) fn finish_reload(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.admit_who_waits_no_longer(now, actions);
        let Some(Reload { target, manner, configured, workers, .. }) = self.reload else { return };
        let wanted = self.span();
        let is_ready = |o: &&Occupant| o.generation == target && o.is_ready();
        let has_it = |state: &SlotState| state.reached == Some(target) || state.occupants.iter().any(|o| is_ready(&o));
        if !self.slots[..wanted].iter().all(has_it) {
            return;
        }
        if manner == Manner::Fleet {
            let ready = self.slots[..wanted].iter().flat_map(|state| &state.occupants).filter(is_ready);
            let waiting: Vec<_> = ready.filter(|o| o.waits()).map(|o| o.worker).collect();
            for worker in waiting {
                self.admit(now, worker, actions);
            }
        }
        let done = |state: &SlotState| match state.serving() {
            Some(serving) => serving.generation == target,
            None => state.reached == Some(target),
        };
        if self.slots[..wanted].iter().all(done) && wanted > 0 {
            self.reload = None;
            self.settled = target;
            self.plan.workers = configured.unwrap_or(self.plan.workers);
            if let Some(workers) = workers.filter(|workers| *workers < self.wanted()) {
                self.wanted = Wanted::Running(workers);
                actions.push(Action::Resized { workers });
            }
            actions.push(Action::ReloadDone { generation: target });
        }
    }

    /// Lets workers serve that no longer have to wait for their generation, because the worker of their slot died or
    /// the reload is over.
    fn admit_who_waits_no_longer(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let all = self.slots.iter().flat_map(|state| &state.occupants);
        let waiting: Vec<_> = all.filter(|o| o.waits()).map(|o| o.worker).collect();
        for worker in waiting {
            if !self.is_stopping() && !self.waits_for_its_generation(worker) {
                self.admit(now, worker, actions);
            }
        }
    }

    /// Gives the new generation up. Those of its workers that serve continue until the old generation is back in their
    /// slots; the others end. The wanted number of workers returns to what it was before.
    pub(super) fn abort(&mut self, now: Moment, because: AbortReason, actions: &mut Vec<Action>) {
        let Some(Reload { target, before, .. }) = self.reload.take() else { return };
        let grace = self.plan.grace;
        for state in &mut self.slots {
            state.next = state.next.filter(|next| *next != target);
            for occupant in state.occupants.iter_mut().filter(|o| o.generation == target && is_coming(o)) {
                match occupant.life {
                    Life::Starting { .. } => kill(occupant, now, KillReason::Aborted, actions),
                    Life::Ready { .. } | Life::Draining { .. } => drain(occupant, now, Some(Limit::of(grace)), actions),
                }
            }
            for occupant in state.occupants.iter_mut().filter(|o| o.generation == target && o.serves()) {
                occupant.worn = true;
            }
        }
        actions.push(Action::ReloadAborted { generation: target, because });
        if let (Wanted::Running(_), Some(workers)) = (self.wanted, before) {
            self.wanted = Wanted::Running(workers);
            actions.push(Action::Resized { workers });
        }
    }
}

/// Whether a worker was started and does not serve yet.
fn is_coming(occupant: &Occupant) -> bool {
    !occupant.is_leaving() && !occupant.serves()
}
