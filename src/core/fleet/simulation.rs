//! Random histories of a fleet with connections: crashes, slow boots, stalls, overlapping reloads, scaling during
//! reloads, clock jumps. The promises are checked after every step, see [`promises`].
//!
//! `MAITRED_HISTORIES` sets the number of histories; the default is as many as run in a few seconds. Each history is
//! generated from its number, which a failure reports.

mod promises;

use super::tests::plan;
use super::*;
use std::collections::{BTreeMap, BTreeSet};

const STEPS: u32 = 120;
/// Rounds within which a fleet without further trouble must settle.
const CALM_ROUNDS: u32 = 80;
const HISTORIES: u64 = if cfg!(debug_assertions) { 2_000 } else { 50_000 };
/// Connections that a simulated worker may have waiting.
const DEPTH: u32 = 4;

#[test]
fn random_histories_keep_the_promises() {
    let histories: u64 = std::env::var("MAITRED_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(HISTORIES);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for first in 0..threads {
            let part = (1 + first..=histories).step_by(threads as usize);
            scope.spawn(move || part.for_each(|seed| World::new(seed).live()));
        }
    });
}

/// A worker's process as the simulated world sees it.
#[derive(Debug)]
struct Process {
    slot: usize,
    generation: Generation,
    admitted: bool,
    excluded: bool,
    /// Since when it gets no new connections.
    withdrawn: Option<Moment>,
    told: Option<Moment>,
    killed: bool,
    signs: BTreeSet<&'static str>,
    waiting: u32,
    open: u32,
}

impl Process {
    fn new(slot: usize, generation: Generation) -> Process {
        let (admitted, excluded, killed, signs) = (false, false, false, BTreeSet::new());
        let (withdrawn, told, waiting, open) = (None, None, 0, 0);
        Process { slot, generation, admitted, excluded, withdrawn, told, killed, signs, waiting, open }
    }

    fn serves(&self) -> bool {
        self.admitted && self.withdrawn.is_none()
    }
}

/// The permanent fault while everything else works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curse {
    Nothing,
    /// Each worker that serves in the first two slots ends at once.
    ServesBriefly,
    /// In the first slot, the current generation fails to start; the one of the next reload does not.
    OldFails,
    /// The same, but each attempt takes the whole boot timeout.
    OldHangs,
}

/// A reload as its requester sees it.
#[derive(Clone, Copy, Debug)]
struct Running {
    generation: Generation,
    manner: Manner,
    proven: bool,
    /// How many workers its configuration asks for, and how many there will be if the number changes.
    configured: Option<u32>,
    workers: Option<u32>,
}

struct World {
    seed: u64,
    random: Chance,
    fleet: Fleet,
    now: Moment,
    alive: BTreeMap<WorkerId, Process>,
    used: BTreeSet<WorkerId>,
    /// Connections that no worker has.
    backlog: u32,
    turn: usize,
    reload: Option<Running>,
    /// How the last reload ended: the generation that serves, if it did not fail.
    last_reload: Option<Generation>,
    /// Clients that wait for a reload that has not begun, and for the one under way.
    waiters: (u32, u32),
    /// The number of workers of the last configuration that was asked for, and of the one in force.
    asked_workers: Option<u32>,
    configured: u32,
    /// How many workers are wanted while no reload runs.
    number: u32,
    /// Failures of each slot.
    failures: BTreeMap<usize, Vec<Moment>>,
    done: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let max_surge = (seed / 5 % 3) as u32;
        let max_unavailable = if max_surge == 0 { 1 } else { (seed / 10 % 2) as u32 };
        let plan = Plan {
            workers: 1 + (seed % 5) as u32,
            max_workers: 8,
            max_surge,
            max_unavailable,
            max_restarts: 3 + (seed / 20 % 10) as u32,
            succession: if (max_unavailable, seed / 40 % 3) == (1, 0) {
                Succession::AfterEnd
            } else {
                Succession::Overlapping
            },
            // With the short window, failures come too slowly for the limit and can go on forever.
            restart_window: Duration::from_secs(if seed.is_multiple_of(3) { 1 } else { 900 }),
            min_ready: Duration::from_millis(if (seed / 7).is_multiple_of(2) { 0 } else { 500 }),
            stop_delay: Duration::from_secs(if (seed / 11).is_multiple_of(3) { 5 } else { 0 }),
            expected: Default::default(),
            stall_kill: (seed / 200).is_multiple_of(2).then_some(Duration::from_secs(20)),
            seed,
            ..plan(1)
        };
        World {
            seed,
            random: Chance::new(seed),
            fleet: Fleet::new(plan),
            now: Moment::default(),
            alive: BTreeMap::new(),
            used: BTreeSet::new(),
            backlog: 0,
            turn: 0,
            reload: None,
            last_reload: None,
            waiters: (0, 0),
            asked_workers: None,
            configured: plan.workers,
            number: plan.workers,
            failures: BTreeMap::new(),
            done: false,
        }
    }

    fn pick(&mut self, n: usize) -> usize {
        self.random.below(n as u32) as usize
    }

    fn live(mut self) {
        self.tell(Event::Begin);
        for _ in 0..STEPS {
            if self.done {
                break;
            }
            self.connections();
            let event = self.something();
            self.tell(event);
        }
        let curses = [Curse::Nothing, Curse::ServesBriefly, Curse::OldFails, Curse::OldHangs];
        let curse = curses[self.pick(curses.len())];
        self.calm_down(curse);
        self.end();
    }

    /// From here on every worker behaves, except those under the curse: then every reload must end and every slot must
    /// be served.
    fn calm_down(&mut self, curse: Curse) {
        let mends = matches!(curse, Curse::OldFails | Curse::OldHangs);
        let stopped = self.fleet.is_about_to_stop();
        let old = self.fleet.newest;
        if curse != Curse::Nothing {
            self.tell(Event::ReloadAsked(Manner::Rolling, Workers::Same));
        }
        for _ in 0..CALM_ROUNDS {
            if self.done {
                return;
            }
            self.connections();
            let workers: Vec<WorkerId> = self.alive.keys().copied().collect();
            for &worker in &workers {
                for sign in [Sign::Untaken, Sign::Probe, Sign::Heartbeat] {
                    self.tell(Event::Recovered(worker, sign));
                }
                let Some(process) = self.alive.get_mut(&worker) else { continue };
                let (slot, is_old, serves) = (process.slot, process.generation <= old, process.serves());
                if process.told.is_some() || process.killed {
                    self.tell(Event::Exited(worker, Exit::Code(0)));
                } else if process.withdrawn.is_some() {
                    (process.open, process.waiting) = (0, 0);
                    self.tell(Event::Emptied(worker));
                } else if mends && slot == 0 && is_old {
                    match (curse, serves) {
                        (Curse::OldHangs, false) => {}
                        _ => self.tell(Event::Exited(worker, Exit::Code(1))),
                    }
                } else {
                    (process.open, process.waiting) = (0, 0);
                    self.tell(Event::Ready(worker));
                    let brief = curse == Curse::ServesBriefly && slot < 2;
                    if brief && self.alive.get(&worker).is_some_and(Process::serves) {
                        self.tell(Event::Exited(worker, Exit::Code(1)));
                    }
                }
            }
            // New workers act before the clock moves.
            if self.alive.keys().all(|worker| workers.contains(worker)) {
                self.now = self.fleet.wakes_at().unwrap_or(self.now).max(self.now);
            }
            self.tell(if self.fleet.is_stopping() { Event::ListenersClosed } else { Event::Tick });
        }
        self.is_calm(curse, stopped);
    }

    fn is_calm(&mut self, curse: Curse, stopped: bool) {
        self.must(self.fleet.reloading().is_none(), "a reload never ends");
        self.must(self.waiters == (0, 0), "somebody waits for a reload that never comes");
        let mends = matches!(curse, Curse::OldFails | Curse::OldHangs) && !stopped;
        self.must(!mends || self.last_reload.is_some(), "a reload does not mend a slot");
        // Where no slot has to wait for them, slots that fail permanently do not end the reload either.
        let plan = self.fleet.plan;
        let surges = plan.max_surge > 0 && plan.succession == Succession::Overlapping;
        let time = plan.max_restarts >= 2 * self.fleet.wanted() + 2;
        let serves = plan.min_ready.is_zero();
        let goes_on = curse == Curse::ServesBriefly && serves && surges && time && !stopped;
        self.must(!goes_on || self.last_reload.is_some(), "a slot that fails for good ends a reload");
        let brief = |slot: usize| curse == Curse::ServesBriefly && slot < 2;
        let wanted = self.fleet.wanted() as usize;
        let mut served = self.fleet.slots()[..wanted].iter().enumerate();
        let served = served.all(|(slot, state)| state.serving().is_some() || state.rests() || brief(slot));
        self.must(served, "a slot is never served again");
        let generations = self.fleet.generations().len();
        let few = generations <= 1 + self.fleet.resting().count();
        // Slots that are never served for long leave no gap for another slot.
        let may_stay = self.fleet.is_stopping() || curse == Curse::ServesBriefly;
        self.must(may_stay || few, "old generations stay");
        self.connections();
        // No new connections come, and each worker takes what it gets at once.
        for _ in 0..self.backlog {
            self.alive.values_mut().for_each(|process| process.waiting = 0);
            self.spread();
        }
        let somebody = self.alive.values().any(Process::serves);
        self.must(self.backlog == 0 || !somebody || curse != Curse::Nothing, "connections wait and workers serve");
    }

    /// Stops the fleet and checks that everything ends.
    fn end(mut self) {
        let asked = self.now + SAME_REQUEST;
        self.now = asked;
        if !self.done {
            self.tell(Event::StopAsked(Stop::Graceful));
        }
        if self.pick(2) == 0 {
            // No worker does what it is told.
            while !self.fleet.is_stopping() || !self.alive.values().all(|process| process.killed) {
                let wakes = self.fleet.wakes_at();
                self.must(wakes.is_some(), "a graceful stop has no deadline");
                self.now = wakes.unwrap_or(self.now);
                self.tell(Event::Tick);
            }
            let grace = self.fleet.plan.grace;
            let latest = asked + self.fleet.plan.stop_delay + grace;
            self.must(self.now <= latest, "a graceful stop is late");
        } else if !self.done {
            self.now = self.now + SAME_REQUEST;
            self.tell(Event::StopAsked(Stop::Graceful));
            if self.alive.values().any(|process| !process.killed) {
                // The second one ended the delay of the first.
                self.must(!self.fleet.plan.stop_delay.is_zero(), "the second request to stop does nothing");
                self.now = self.now + SAME_REQUEST;
                self.tell(Event::StopAsked(Stop::Graceful));
            }
            self.must(self.alive.values().all(|process| process.killed), "the second request to stop kills at once");
        }
        while let Some(&worker) = self.alive.keys().next() {
            self.tell(Event::Exited(worker, Exit::Signal(9)));
        }
        self.must(self.done, "a stopped fleet without workers must end");
        self.must(self.reload.is_none() && self.waiters == (0, 0), "a reload has no end");
    }

    /// Some connections come, some are taken, some are served.
    fn connections(&mut self) {
        self.backlog += self.pick(4) as u32;
        self.spread();
        let workers: Vec<WorkerId> = self.alive.keys().copied().collect();
        for worker in workers {
            let (takes, serves) = (self.pick(3) as u32, self.pick(3) as u32);
            let process = self.alive.get_mut(&worker).unwrap();
            let taken = takes.min(process.waiting);
            process.waiting -= taken;
            process.open = (process.open + taken).saturating_sub(serves);
        }
    }

    /// Hands the waiting connections to the workers in turn.
    fn spread(&mut self) {
        let may = |p: &Process| p.serves() && !p.excluded && p.waiting < DEPTH;
        while self.backlog > 0 {
            let eligible: Vec<WorkerId> = self.alive.iter().filter(|(_, p)| may(p)).map(|(id, _)| *id).collect();
            if eligible.is_empty() {
                break;
            }
            self.turn += 1;
            let chosen = eligible[self.turn % eligible.len()];
            self.backlog -= 1;
            self.alive.get_mut(&chosen).unwrap().waiting += 1;
        }
    }

    fn something(&mut self) -> Event {
        let workers: Vec<WorkerId> = self.alive.keys().copied().collect();
        let some = (!workers.is_empty()).then(|| workers[self.pick(workers.len())]);
        let manner = [Manner::Rolling, Manner::Rolling, Manner::Rolling, Manner::Fleet, Manner::Restart][self.pick(5)];
        let sign = [Sign::Untaken, Sign::Probe, Sign::Heartbeat, Sign::Deaf][self.pick(4)];
        match (self.pick(32), some) {
            (0..=8, Some(worker)) => Event::Ready(worker),
            (9..=11, Some(worker)) => Event::Exited(worker, Exit::Code(1)),
            (12, Some(worker)) if self.fleet.occupant(worker).is_some_and(Occupant::is_starting) => {
                Event::ForkFailed(worker)
            }
            (13..=15, _) => self.somebody_is_empty().map_or(Event::Tick, Event::Emptied),
            (16, _) => Event::Resize(Resize::By(self.pick(5) as i32 - 2)),
            (17, _) => Event::Resize(Resize::To(self.pick(12) as u32)),
            (18 | 19, _) => Event::ReloadAsked(manner, Workers::Same),
            (20, _) => Event::ReloadAsked(manner, Workers::Configured(1 + self.pick(8) as u32)),
            (21, Some(worker)) => Event::Recycle(worker),
            (22 | 23, Some(worker)) => Event::Stalled(worker, sign),
            (24 | 25, Some(worker)) => Event::Recovered(worker, sign),
            (26, Some(worker)) if self.pick(4) == 0 => Event::Condemned(worker, KillReason::Watchdog),
            (26, Some(worker)) if self.pick(8) == 0 => Event::Daemonized(worker),
            (27, _) if self.pick(10) == 0 => Event::Pause,
            (28, _) if self.pick(60) == 0 => Event::StopAsked(Stop::Patient),
            (29, _) if self.fleet.is_stopping() => Event::ListenersClosed,
            _ => {
                // Sometimes the machine sleeps for a month.
                let most = if self.pick(20) == 0 { 2_600_000_000 } else { 40_000 };
                self.now = self.now + Duration::from_millis(self.pick(most) as u64);
                Event::Tick
            }
        }
    }

    fn somebody_is_empty(&self) -> Option<WorkerId> {
        let empty = |p: &&Process| p.withdrawn.is_some() && p.waiting == 0 && p.open == 0;
        self.alive.iter().find(|(_, p)| empty(p)).map(|(id, _)| *id)
    }

    fn must(&self, holds: bool, what: &str) {
        assert!(holds, "history {}: {what}", self.seed);
    }
}
