//! Random histories of a fleet with connections: crashes, slow boots, stalls, reloads in reloads,
//! scaling in reloads, clock jumps. After every step the promises are checked.
//!
//! `MAITRED_HISTORIES` sets how many, by default as many as take a few seconds; each is made from its
//! number, which a failure names.

use super::reload::GENERATIONS_MAX;
use super::tests::plan;
use super::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const STEPS: u32 = 120;
/// Rounds in which a fleet without further troubles must come to rest.
const CALM_ROUNDS: u32 = 60;
const HISTORIES: u64 = if cfg!(debug_assertions) { 2_000 } else { 50_000 };
/// Connections that a simulated worker may have waiting.
const DEPTH: usize = 4;

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

/// A worker's process as the world knows it.
#[derive(Debug, Default)]
struct Process {
    admitted: bool,
    excluded: bool,
    withdrawn: bool,
    told: bool,
    killed: bool,
    waiting: VecDeque<u32>,
    open: Vec<u32>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Served,
    DiedWithWorker,
    LeftAtTheEnd,
}

struct World {
    seed: u64,
    random: u64,
    fleet: Fleet,
    now: Moment,
    alive: BTreeMap<WorkerId, Process>,
    used: BTreeSet<WorkerId>,
    /// Connections that nobody has; the number of a connection is its place in `endings`.
    backlog: VecDeque<u32>,
    endings: Vec<Option<Ending>>,
    turn: usize,
    reload: Option<(Generation, Manner)>,
    restarted: bool,
    done: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let plan = Plan {
            workers: 1 + (seed % 5) as u32,
            max_workers: 8,
            max_surge: 1 + (seed / 5 % 2) as u32,
            max_unavailable: (seed / 10 % 2) as u32,
            max_restarts: 3 + (seed / 20 % 10) as u32,
            succession: if (seed / 10 % 2, seed / 40 % 3) == (1, 0) {
                Succession::AfterEnd
            } else {
                Succession::Overlapping
            },
            stall_kill: (seed / 200).is_multiple_of(2).then_some(Duration::from_secs(20)),
            seed,
            ..plan(1)
        };
        World {
            seed,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            fleet: Fleet::new(plan),
            now: Moment::default(),
            alive: BTreeMap::new(),
            used: BTreeSet::new(),
            backlog: VecDeque::new(),
            endings: Vec::new(),
            turn: 0,
            reload: None,
            restarted: false,
            done: false,
        }
    }

    fn pick(&mut self, n: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % n
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
        self.calm_down();
        self.end();
    }

    /// From here on every worker does what it should: then every reload ends and every slot is served.
    fn calm_down(&mut self) {
        for _ in 0..CALM_ROUNDS {
            if self.done {
                return;
            }
            let workers: Vec<WorkerId> = self.alive.keys().copied().collect();
            for worker in workers {
                for sign in [Sign::Untaken, Sign::Probe, Sign::Heartbeat] {
                    self.tell(Event::Recovered(worker, sign));
                }
                let Some(process) = self.alive.get_mut(&worker) else { continue };
                if process.told || process.killed {
                    self.tell(Event::Exited(worker, Exit::Code(0)));
                } else if process.withdrawn {
                    let served: Vec<u32> = process.open.drain(..).collect();
                    served.into_iter().for_each(|connection| self.ends(connection, Ending::Served));
                    self.tell(Event::Emptied(worker));
                } else {
                    self.tell(Event::Ready(worker));
                }
            }
            self.now = self.fleet.wakes_at().unwrap_or(self.now).max(self.now);
            self.tell(if self.fleet.is_stopping() { Event::ListenersClosed } else { Event::Tick });
        }
        let seed = self.seed;
        assert_eq!(self.fleet.reloading(), None, "history {seed}: a reload never ends");
        let served = |seat: &Seat| seat.serving().is_some() || seat.rests();
        let wanted = self.fleet.wanted() as usize;
        assert!(self.fleet.seats()[..wanted].iter().all(served), "history {seed}: a slot is never served again");
        assert!(
            self.fleet.is_stopping() || self.fleet.generations().len() <= 1 + self.fleet.resting().count(),
            "history {seed}: {:?}",
            self.fleet.generations()
        );
    }

    /// Stops the fleet and checks that everything has come to its end.
    fn end(mut self) {
        for _ in 0..2 {
            self.now = self.now + SAME_REQUEST;
            if !self.done {
                self.tell(Event::StopAsked(Stop::Graceful));
            }
        }
        while let Some(&worker) = self.alive.keys().next() {
            self.tell(Event::Exited(worker, Exit::Signal(9)));
        }
        assert!(self.done, "history {}: a stopped fleet without workers must end", self.seed);
        assert_eq!(self.reload, None, "history {}: a reload has no end", self.seed);
        while let Some(left) = self.backlog.pop_front() {
            self.ends(left, Ending::LeftAtTheEnd);
        }
        let unended = self.endings.iter().filter(|ending| ending.is_none()).count();
        assert_eq!(unended, 0, "history {}: connections without an ending", self.seed);
    }

    fn ends(&mut self, connection: u32, ending: Ending) {
        let before = self.endings[connection as usize].replace(ending);
        assert_eq!(before, None, "history {}: a connection ended twice", self.seed);
    }

    /// Some connections come, some are taken, some are served.
    fn connections(&mut self) {
        for _ in 0..self.pick(4) {
            self.backlog.push_back(self.endings.len() as u32);
            self.endings.push(None);
        }
        let may = |p: &Process| p.admitted && !p.withdrawn && !p.excluded && p.waiting.len() < DEPTH;
        while let Some(connection) = self.backlog.pop_front() {
            let eligible: Vec<WorkerId> = self.alive.iter().filter(|(_, p)| may(p)).map(|(id, _)| *id).collect();
            if eligible.is_empty() {
                self.backlog.push_front(connection);
                break;
            }
            self.turn += 1;
            let chosen = eligible[self.turn % eligible.len()];
            self.alive.get_mut(&chosen).unwrap().waiting.push_back(connection);
        }
        let workers: Vec<WorkerId> = self.alive.keys().copied().collect();
        for worker in workers {
            let (takes, serves) = (self.pick(3), self.pick(3));
            let process = self.alive.get_mut(&worker).unwrap();
            let taken: Vec<u32> = process.waiting.drain(..takes.min(process.waiting.len())).collect();
            process.open.extend(taken);
            let served: Vec<u32> = process.open.drain(..serves.min(process.open.len())).collect();
            served.into_iter().for_each(|connection| self.ends(connection, Ending::Served));
        }
    }

    fn something(&mut self) -> Event {
        let workers: Vec<WorkerId> = self.alive.keys().copied().collect();
        let some = (!workers.is_empty()).then(|| workers[self.pick(workers.len())]);
        let manner = [Manner::Rolling, Manner::Rolling, Manner::Rolling, Manner::Fleet, Manner::Restart][self.pick(5)];
        let sign = [Sign::Untaken, Sign::Probe, Sign::Heartbeat][self.pick(3)];
        match (self.pick(32), some) {
            (0..=8, Some(worker)) => Event::Ready(worker),
            (9..=11, Some(worker)) => Event::Exited(worker, Exit::Code(1)),
            (12, Some(worker)) if self.fleet.occupant(worker).is_some_and(Occupant::is_starting) => {
                Event::ForkFailed(worker)
            }
            (13..=15, _) => self.somebody_is_empty().map_or(Event::Tick, Event::Emptied),
            (16, _) => Event::Resize(Resize::By(self.pick(5) as i32 - 2)),
            (17, _) => Event::Resize(Resize::To(self.pick(12) as u32)),
            (18..=20, _) => Event::ReloadAsked(manner, Workers::Same),
            (21, Some(worker)) => Event::Recycle(worker),
            (22 | 23, Some(worker)) => Event::Stalled(worker, sign),
            (24 | 25, Some(worker)) => Event::Recovered(worker, sign),
            (26, Some(worker)) if self.pick(4) == 0 => Event::Condemned(worker, KillReason::Watchdog),
            (27, _) if self.pick(10) == 0 => Event::Pause,
            (28, _) if self.pick(60) == 0 => Event::StopAsked(Stop::Patient),
            (29, _) if self.fleet.is_stopping() => Event::ListenersClosed,
            _ => {
                // Sometimes the machine slept for a month.
                let most = if self.pick(20) == 0 { 2_600_000_000 } else { 40_000 };
                self.now = self.now + Duration::from_millis(self.pick(most) as u64);
                Event::Tick
            }
        }
    }

    fn somebody_is_empty(&self) -> Option<WorkerId> {
        let empty = |p: &&Process| p.withdrawn && p.waiting.is_empty() && p.open.is_empty();
        self.alive.iter().find(|(_, p)| empty(p)).map(|(id, _)| *id)
    }

    fn tell(&mut self, event: Event) {
        let before: BTreeSet<usize> = self.serving_slots();
        let mut excused = BTreeSet::new();
        if let Event::Exited(worker, _) | Event::ForkFailed(worker) = event {
            excused.extend(self.slot_of(worker));
            let process = self.alive.remove(&worker).unwrap();
            // What it never took goes to others, as the master's own end of the socket allows.
            self.backlog.extend(process.waiting);
            process.open.into_iter().for_each(|connection| self.ends(connection, Ending::DiedWithWorker));
        }
        let actions = self.fleet.handle(self.now, event.clone());
        for action in &actions {
            self.carry_out(action, &event, &mut excused);
        }
        self.check(&event, &before, &excused);
    }

    fn process(&mut self, worker: WorkerId, event: &Event) -> &mut Process {
        let seed = self.seed;
        self.alive.get_mut(&worker).unwrap_or_else(|| panic!("history {seed}: {event:?} touches a dead worker"))
    }

    fn carry_out(&mut self, action: &Action, event: &Event, excused: &mut BTreeSet<usize>) {
        let seed = self.seed;
        match *action {
            Action::Fork { worker, .. } => {
                assert!(!self.fleet.is_stopping(), "history {seed}: fork while stopping");
                assert!(self.used.insert(worker), "history {seed}: an id used twice");
                self.alive.insert(worker, Process::default());
            }
            Action::Admit { worker } => {
                let process = self.process(worker, event);
                assert!(!process.admitted && !process.withdrawn, "history {seed}: admitted twice, or too late");
                process.admitted = true;
            }
            Action::Withdraw { worker } => {
                let process = self.process(worker, event);
                assert!(!std::mem::replace(&mut process.withdrawn, true), "history {seed}: withdrawn twice");
                let rescued = std::mem::take(&mut process.waiting);
                self.backlog.extend(rescued);
            }
            Action::Exclude { worker } => {
                let process = self.process(worker, event);
                assert!(!std::mem::replace(&mut process.excluded, true), "history {seed}: excluded twice");
                let rescued = std::mem::take(&mut process.waiting);
                self.backlog.extend(rescued);
            }
            Action::Readmit { worker } => {
                let process = self.process(worker, event);
                assert!(std::mem::replace(&mut process.excluded, false), "history {seed}: readmitted for nothing");
            }
            Action::Terminate { worker } => {
                let process = self.process(worker, event);
                assert!(!std::mem::replace(&mut process.told, true), "history {seed}: told twice");
            }
            Action::Kill { worker, because } => {
                if matches!(because, KillReason::Stalled | KillReason::Watchdog | KillReason::Immediate) {
                    excused.extend(self.slot_of(worker));
                }
                let process = self.process(worker, event);
                assert!(!std::mem::replace(&mut process.killed, true), "history {seed}: killed twice");
                process.withdrawn = true;
            }
            Action::ReloadBegun { generation, manner } => {
                assert_eq!(self.reload.replace((generation, manner)), None, "history {seed}: two reloads");
                self.restarted |= manner == Manner::Restart;
            }
            Action::ReloadDone { generation } | Action::ReloadAborted { generation, .. } => {
                let ended = self.reload.take().map(|(generation, _)| generation);
                assert_eq!(ended, Some(generation), "history {seed}: a reload ended that did not run");
            }
            Action::Finish => assert!(!std::mem::replace(&mut self.done, true), "history {seed}: ended twice"),
            Action::GiveUp { .. }
            | Action::NobodyLeft
            | Action::Rest { .. }
            | Action::CanaryServes { .. }
            | Action::ReloadDropped
            | Action::ReloadWaits { .. }
            | Action::CloseListeners
            | Action::Wait { .. }
            | Action::StopAtOnce
            | Action::SizeRefused(_)
            | Action::Resized { .. } => {}
        }
    }

    fn slot_of(&self, worker: WorkerId) -> Option<usize> {
        self.fleet.seats().iter().position(|seat| seat.occupants.iter().any(|o| o.worker == worker))
    }

    fn serving_slots(&self) -> BTreeSet<usize> {
        let wanted = self.fleet.wanted() as usize;
        (0..self.fleet.seats().len().min(wanted)).filter(|&i| self.fleet.seats()[i].serving().is_some()).collect()
    }

    fn check(&self, event: &Event, before: &BTreeSet<usize>, excused: &BTreeSet<usize>) {
        let (seed, seats, wanted) = (self.seed, self.fleet.seats(), self.fleet.wanted() as usize);
        let seated: BTreeSet<WorkerId> = seats.iter().flat_map(|s| &s.occupants).map(|o| o.worker).collect();
        let alive: BTreeSet<WorkerId> = self.alive.keys().copied().collect();
        assert_eq!(seated, alive, "history {seed}: every living worker has one seat");
        for seat in seats {
            let count = |is: fn(&Occupant) -> bool| seat.occupants.iter().filter(|o| is(o)).count();
            assert!(seat.occupants.len() <= OCCUPANTS_MAX, "history {seed}: processes of a slot are bounded");
            assert!(count(Occupant::is_starting) <= 1, "history {seed}: one starts at a time in a slot");
            assert!(count(Occupant::serves) <= 1, "history {seed}: one serves in a slot");
        }
        for (id, process) in &self.alive {
            let occupant = self.fleet.occupant(*id).unwrap();
            let serves = process.admitted && !process.withdrawn;
            assert_eq!(
                serves,
                occupant.serves(),
                "history {seed}: {event:?}: who serves is admitted and not withdrawn"
            );
        }
        // Nobody leaves for the fleet's own reasons before there is another, but for an allowed gap.
        let now_serving = self.serving_slots();
        let gaps: Vec<_> =
            before.iter().filter(|s| **s < wanted && !now_serving.contains(s) && !excused.contains(s)).collect();
        let restarting = self.reload.is_some_and(|(_, manner)| manner == Manner::Restart);
        let missing = (0..wanted.min(seats.len())).filter(|slot| !now_serving.contains(slot)).count();
        if !gaps.is_empty() && !restarting {
            let allowed = self.fleet.plan.max_unavailable as usize;
            assert!(missing <= allowed, "history {seed}: {event:?} left slots {gaps:?} without a worker");
        }
        let serving = || seats.iter().flat_map(|s| &s.occupants).filter(|o| o.serves());
        let some_serve = serving().next().is_none() || serving().any(|o| !o.excluded);
        assert!(some_serve, "history {seed}: all are excluded");
        // The settled one may come back beside the others when a slot is filled after an abort.
        let generations = self.fleet.generations().len();
        assert!(self.restarted || generations <= GENERATIONS_MAX + 1, "history {seed}: {generations} generations");
        assert!(seats.len() <= 8, "history {seed}: slots are bounded");
        if let Some(at) = self.fleet.wakes_at() {
            assert!(at > self.now, "history {seed}: {event:?}: a deadline in the past would spin");
        }
        if self.random.is_multiple_of(64) {
            let copy: Fleet = serde_json::from_str(&serde_json::to_string(&self.fleet).unwrap()).unwrap();
            assert_eq!(format!("{copy:?}"), format!("{:?}", self.fleet), "history {seed}: written down and read again");
        }
    }
}
