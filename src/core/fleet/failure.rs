//! Workers that end or misbehave, and how long their slot waits.

use super::slot::{Admitted, Drain, Life, Occupant, SlotState};
use super::{AbortReason, Action, BOOT_ATTEMPTS, Exit, Fleet, KillReason, Stop, Wanted, kill, time_to_stop};
use crate::core::backoff;
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::core::moment::Moment;
use std::time::Duration;

/// How a worker went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Its process ended.
    Ended(Exit),
    /// It never executed its command.
    NeverStarted,
}

impl Gone {
    /// Whether somebody else ended it: `KILL` comes from outside, from an operator or from the kernel.
    fn is_from_outside(self) -> bool {
        self == Gone::Ended(Exit::Signal(SIGKILL))
    }
}

/// Signal 9 on every architecture (signal(7)).
const SIGKILL: i32 = 9;

/// How long a worker must have served so that its end can be an expected one: workers that end at once are forked again
/// at the pace of failures.
const EXPECTED_FROM: Duration = Duration::from_millis(500);

/// Whether a worker that failed had served before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    Yes,
    No,
}

impl Fleet {
    /// A worker's process has ended.
    pub(super) fn gone(&mut self, now: Moment, worker: WorkerId, gone: Gone, actions: &mut Vec<Action>) {
        let because = match gone {
            Gone::Ended(_) => AbortReason::Ended(worker),
            Gone::NeverStarted => AbortReason::NotStarted(worker),
        };
        let (stopping, target, expected) = (self.is_stopping(), self.reloading(), self.plan.expected);
        let Some((slot, state, index)) = self.slot_of(worker) else { return };
        let occupant = state.occupants.remove(index);
        state.last_worker = Some(worker);
        let lasted = matches!(occupant.life, Life::Ready { since, .. } if now.since(since) >= EXPECTED_FROM);
        let booted = match occupant.life {
            // The reason for the kill has already been counted.
            Life::Draining { phase: Drain::Killed, .. } => return,
            Life::Draining { .. } => {
                if state.occupants.is_empty() {
                    state.failures = 0;
                }
                return;
            }
            Life::Starting { .. } => false,
            Life::Ready { admitted: Admitted::NotYet, .. } if target == Some(occupant.generation) => {
                return self.abort(now, AbortReason::Waiting(worker), actions);
            }
            Life::Ready { since, .. } => {
                if now.since(since) >= backoff::HEALTHY {
                    state.failures = 0;
                }
                // One that ends right after it was ready never was: it found out late what was wrong.
                now.since(since) >= self.plan.min_ready || gone.is_from_outside()
            }
        };
        self.was_ready |= booted;
        if stopping || booted && lasted && matches!(gone, Gone::Ended(exit) if expected.has(exit)) {
            // It had served, and ended as it should: the next one takes its slot, and nothing is counted.
            return;
        }
        if !booted && target == Some(occupant.generation) {
            return self.abort(now, because, actions);
        }
        let served = if booted { Served::Yes } else { Served::No };
        self.failed(now, slot, &occupant, served, actions);
    }

    /// A worker went into the background. The process that was ready is gone, so it counts as a worker that was never
    /// ready. If no other worker ever served, the fleet gives up, since the next worker would do the same.
    pub(super) fn daemonized(&mut self, now: Moment, worker: WorkerId, actions: &mut Vec<Action>) {
        let few = |state: &SlotState| state.restarts < u64::from(BOOT_ATTEMPTS);
        let first = self.newest == Generation(1) && self.slots.iter().all(few);
        let Some((_, state, index)) = self.slot_of(worker) else { return };
        if let Life::Ready { since, .. } = state.occupants[index].life {
            state.occupants[index].life = Life::Starting { since };
            state.rests = false;
        }
        let others = self.slots.iter().flat_map(|state| &state.occupants).any(|o| o.is_ready());
        if first && !others {
            self.was_ready = false;
        }
        if !self.was_ready
            && let Some((_, state, _)) = self.slot_of(worker)
        {
            state.failures = state.failures.max(BOOT_ATTEMPTS - 1);
        }
        self.gone(now, worker, Gone::Ended(Exit::Code(0)), actions);
    }

    /// Counts a failure and decides how long the slot waits.
    fn failed(&mut self, now: Moment, slot: Slot, who: &Occupant, served: Served, actions: &mut Vec<Action>) {
        let (worker, booted, is_new) = (who.worker, served == Served::Yes, self.is_target(who.generation));
        let others = self.slots.iter().flat_map(|state| &state.occupants).any(Occupant::is_ready);
        let first_boot = !self.was_ready && !others;
        let (random, plan) = (self.random.below(u32::MAX), self.plan);
        let state = &mut self.slots[slot.index()];
        if booted && std::mem::take(&mut state.rests) {
            // Its replacements failed while it continued to serve. Now no worker serves, so the slot starts anew.
            (state.failures, state.backoff) = (0, None);
        }
        state.failures += 1;
        state.recent.push_back(now);
        while state.recent.front().is_some_and(|&at| now.since(at) > plan.restart_window) {
            state.recent.pop_front();
        }
        if first_boot && state.failures >= BOOT_ATTEMPTS {
            let attempts = state.failures;
            self.wanted = Wanted::Stopped(Stop::Immediate);
            return actions.push(Action::GiveUp { slot, worker, attempts });
        }
        if is_new {
            // Counts at any pace: other slots may wait for this slot to be served before their workers leave.
            state.failures_of_new += 1;
        }
        let too_often = state.recent.len() > plan.max_restarts as usize;
        if is_new && !first_boot && (too_often || state.failures_of_new > plan.max_restarts) {
            // The old generation may work where the new one fails, so it gets the slot back.
            state.recent.clear();
            return self.abort(now, AbortReason::Again(worker), actions);
        }
        if !first_boot && too_often {
            let failures = u32::try_from(state.recent.len()).unwrap_or(u32::MAX);
            state.recent.clear();
            // If a new generation is coming, the slot's next worker belongs to it.
            if !self.may_bring_more() {
                let state = &mut self.slots[slot.index()];
                (state.rests, state.backoff) = (true, None);
                return actions.push(Action::Rest { slot, worker, failures });
            }
        }
        let state = &mut self.slots[slot.index()];
        // A worker that served and crashed for the first time is replaced at once, because until then its share of the
        // work is missing. Only repeated failures wait.
        let failures = if booted { state.failures - 1 } else { state.failures };
        if failures > 0 {
            let delay = backoff::delay(failures, random);
            state.backoff = Some(now + delay);
            actions.push(Action::Wait { slot, failures, delay });
        }
    }

    /// Kills or signals every worker that exceeded its time.
    pub(super) fn enforce_limits(&mut self, now: Moment, index: usize, actions: &mut Vec<Action>) {
        let plan = self.plan;
        let mut late = Vec::new();
        for occupant in &mut self.slots[index].occupants {
            let worker = occupant.worker;
            match &mut occupant.life {
                Life::Starting { since } if now.since(*since) >= plan.boot_timeout => {
                    late.push((worker, KillReason::BootTimeout));
                }
                Life::Ready { .. } => {
                    let over = |since| plan.stall_kill.is_some_and(|limit| now.since(since) >= limit);
                    if occupant.stalled_since.is_some_and(over) {
                        late.push((worker, KillReason::Stalled));
                    }
                }
                Life::Draining { phase: phase @ Drain::Emptying, stop_at: Some(stop_at), deadline, .. }
                    if *stop_at <= now =>
                {
                    *phase = Drain::Stopping;
                    // Even if this runs late, the worker gets its time to stop.
                    *deadline = deadline.map(|deadline| deadline.max(now + time_to_stop(plan.grace)));
                    actions.push(Action::Terminate { worker });
                }
                Life::Draining { phase, deadline: Some(deadline), .. }
                    if *phase != Drain::Killed && *deadline <= now =>
                {
                    *phase = Drain::Killed;
                    actions.push(Action::Kill { worker, because: KillReason::GraceOver });
                }
                Life::Starting { .. } | Life::Draining { .. } => {}
            }
        }
        for (worker, because) in late {
            self.kill_failed(now, worker, because, actions);
        }
    }

    /// Kills a worker because it misbehaves; this counts as a failure.
    pub(super) fn kill_failed(
        &mut self,
        now: Moment,
        worker: WorkerId,
        because: KillReason,
        actions: &mut Vec<Action>,
    ) {
        let Some((slot, state, index)) = self.slot_of(worker) else { return };
        let occupant = &mut state.occupants[index];
        let was = occupant.clone();
        if matches!(occupant.life, Life::Ready { since, .. } if now.since(since) >= backoff::HEALTHY) {
            state.failures = 0;
        }
        if occupant.is_leaving() {
            return kill(occupant, now, because, actions);
        }
        kill(occupant, now, because, actions);
        state.last_worker = Some(worker);
        match was.life {
            _ if self.is_stopping() => {}
            Life::Starting { .. } if self.is_target(was.generation) => {
                self.abort(now, AbortReason::NotReady(worker), actions);
            }
            Life::Ready { admitted: Admitted::NotYet, .. } if self.is_target(was.generation) => {
                self.abort(now, AbortReason::Waiting(worker), actions);
            }
            Life::Starting { .. } | Life::Ready { .. } | Life::Draining { .. } => {
                let served = if was.is_ready() { Served::Yes } else { Served::No };
                self.failed(now, slot, &was, served, actions);
            }
        }
    }
}
