//! The fleet's life without processes or clock: single stories, then a seeded simulation.

use super::*;
use std::collections::HashMap;

const GRACE: Duration = Duration::from_secs(30);

fn plan(workers: u32) -> Plan {
    Plan { workers, max_workers: 64, grace: GRACE, seed: 7 }
}

fn forked(actions: &[Action]) -> Vec<WorkerId> {
    let worker = |a: &Action| match a {
        Action::Fork { worker, .. } => Some(*worker),
        _ => None,
    };
    actions.iter().filter_map(worker).collect()
}

/// A fleet of `n` ready workers and the moment at which they are.
fn ready(n: u32) -> (Fleet, Instant, Vec<WorkerId>) {
    let now = Instant::now();
    let mut fleet = Fleet::new(plan(n));
    let workers = forked(&fleet.handle(now, Event::Begin));
    for &worker in &workers {
        assert_eq!(fleet.handle(now, Event::Ready(worker)), []);
    }
    (fleet, now, workers)
}

#[test]
fn a_worker_that_served_is_forked_again_at_once_and_in_its_slot() {
    let (mut fleet, now, workers) = ready(3);
    let actions = fleet.handle(now, Event::Exited(workers[1], Exit::Signal(9)));
    assert_eq!(actions, [Action::Fork { slot: Slot(1), worker: WorkerId(4), generation: Generation(1) }]);
    assert_eq!(fleet.seats()[1].restarts, 1);
}

#[test]
fn a_worker_that_crashes_again_and_again_waits_longer_each_time() {
    let (mut fleet, mut now, workers) = ready(1);
    let mut worker = workers[0];
    let mut delays = Vec::new();
    for _ in 0..12 {
        let mut actions = fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
        if let [Action::Wait { delay, .. }] = actions[..] {
            delays.push(delay);
            now = fleet.wakes_at().unwrap();
            actions = fleet.handle(now, Event::Tick);
        }
        worker = forked(&actions)[0];
        fleet.handle(now, Event::Ready(worker));
    }
    // Near the cap the jitter is larger than the growth.
    assert!(delays[..8].is_sorted(), "{delays:?}");
    assert!(delays[0] <= backoff::BASE);
    assert!(*delays.last().unwrap() > backoff::CAP / 2);
    // After a healthy while the next crash is a first one.
    now += backoff::HEALTHY;
    assert_eq!(forked(&fleet.handle(now, Event::Exited(worker, Exit::Code(1)))).len(), 1);
}

#[test]
fn a_first_generation_that_never_boots_is_given_up() {
    let mut now = Instant::now();
    let mut fleet = Fleet::new(plan(1));
    let mut actions = fleet.handle(now, Event::Begin);
    for attempt in 1..=BOOT_ATTEMPTS {
        let worker = forked(&actions)[0];
        actions = fleet.handle(now, Event::Exited(worker, Exit::Code(0)));
        if attempt < BOOT_ATTEMPTS {
            assert!(matches!(actions[..], [Action::Wait { .. }]), "{actions:?}");
            now = fleet.wakes_at().unwrap();
            actions = fleet.handle(now, Event::Tick);
        }
    }
    assert_eq!(actions, [Action::GiveUp { slot: Slot(0), worker: WorkerId(3), attempts: 3 }, Action::Finish]);
}

#[test]
fn once_somebody_was_ready_boot_failures_only_wait() {
    let (mut fleet, mut now, workers) = ready(2);
    let mut worker = forked(&fleet.handle(now, Event::Exited(workers[0], Exit::Code(1))))[0];
    for _ in 0..20 {
        let actions = fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
        assert!(matches!(actions[..], [Action::Wait { .. }]), "{actions:?}");
        now = fleet.wakes_at().unwrap();
        worker = forked(&fleet.handle(now, Event::Tick))[0];
    }
}

#[test]
fn a_graceful_stop_empties_then_signals_then_kills() {
    let (mut fleet, now, w) = ready(1);
    let actions = fleet.handle(now, Event::StopAsked(Stop::Graceful));
    assert_eq!(actions, [Action::CloseListeners]);
    // Until the queues are empty the worker is needed.
    assert_eq!(fleet.handle(now, Event::ListenersClosed), [Action::Withdraw { worker: w[0] }]);
    assert_eq!(fleet.handle(now, Event::Emptied(w[0])), [Action::Terminate { worker: w[0] }]);
    assert_eq!(fleet.wakes_at(), Some(now + GRACE));
    let killed = fleet.handle(now + GRACE, Event::Tick);
    assert_eq!(killed, [Action::Kill { worker: w[0], because: KillReason::GraceOver }]);
    assert_eq!(fleet.handle(now + GRACE, Event::Exited(w[0], Exit::Signal(9))), [Action::Finish]);
}

#[test]
fn a_second_stop_kills_at_once() {
    let (mut fleet, now, w) = ready(1);
    fleet.handle(now, Event::StopAsked(Stop::Graceful));
    // The same signal, forwarded by a wrapper.
    assert_eq!(fleet.handle(now + SAME_REQUEST / 5, Event::StopAsked(Stop::Graceful)), []);
    let actions = fleet.handle(now + SAME_REQUEST * 2, Event::StopAsked(Stop::Graceful));
    assert_eq!(actions, [Action::StopAtOnce, Action::Kill { worker: w[0], because: KillReason::Immediate }]);
}

#[test]
fn quit_waits_without_limit_until_term_sets_one() {
    let (mut fleet, now, w) = ready(1);
    fleet.handle(now, Event::StopAsked(Stop::Patient));
    fleet.handle(now, Event::ListenersClosed);
    fleet.handle(now, Event::Emptied(w[0]));
    assert_eq!(fleet.wakes_at(), None);
    assert_eq!(fleet.handle(now, Event::StopAsked(Stop::Graceful)), []);
    assert_eq!(fleet.wakes_at(), Some(now + GRACE));
}

#[test]
fn one_more_and_one_fewer() {
    let (mut fleet, now, _) = ready(1);
    assert_eq!(fleet.handle(now, Event::Fewer), [Action::SizeRefused { workers: 1 }]);
    let actions = fleet.handle(now, Event::More);
    assert_eq!(actions[0], Action::Resized { workers: 2 });
    let worker = forked(&actions)[0];
    fleet.handle(now, Event::Ready(worker));
    let actions = fleet.handle(now, Event::Fewer);
    assert_eq!(actions, [Action::Resized { workers: 1 }, Action::Withdraw { worker }]);
    fleet.handle(now, Event::Exited(worker, Exit::Signal(15)));
    assert_eq!(fleet.seats().len(), 1);
}

/// Random histories; after every step the invariants hold, and a fleet told to stop ends.
#[test]
fn random_histories_keep_the_invariants() {
    for seed in 1..=2_000u64 {
        Story::new(seed).run();
    }
}

struct Story {
    seed: u64,
    random: u64,
    fleet: Fleet,
    now: Instant,
    /// Workers that live, and whether they were told to end.
    alive: HashMap<WorkerId, bool>,
    done: bool,
}

impl Story {
    fn new(seed: u64) -> Story {
        let plan = Plan { workers: 1 + (seed % 5) as u32, max_workers: 8, grace: GRACE, seed };
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Story { seed, random, fleet: Fleet::new(plan), now: Instant::now(), alive: HashMap::new(), done: false }
    }

    fn pick(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) % n
    }

    fn run(&mut self) {
        self.tell(Event::Begin);
        for _ in 0..200 {
            if self.done {
                return;
            }
            let event = self.something();
            self.tell(event);
        }
        self.tell(Event::StopAsked(Stop::Graceful));
        self.now += SAME_REQUEST;
        self.tell(Event::StopAsked(Stop::Graceful));
        while let Some(worker) = self.alive.keys().next().copied() {
            self.tell(Event::Exited(worker, Exit::Signal(9)));
        }
        assert!(self.done, "seed {}: a stopped fleet without workers must end", self.seed);
    }

    fn something(&mut self) -> Event {
        let mut workers: Vec<_> = self.alive.keys().copied().collect();
        workers.sort();
        let some = (!workers.is_empty()).then(|| workers[self.pick(workers.len() as u64) as usize]);
        match (self.pick(12), some) {
            (0..=2, Some(worker)) => Event::Ready(worker),
            (3 | 4, Some(worker)) => Event::Exited(worker, Exit::Code(1)),
            (5, Some(worker)) => Event::ForkFailed(worker),
            (6, Some(worker)) => Event::Emptied(worker),
            (7, _) => Event::More,
            (8, _) => Event::Fewer,
            (9, _) if self.pick(30) == 0 => Event::StopAsked(Stop::Patient),
            (10, _) if self.fleet.is_stopping() => Event::ListenersClosed,
            _ => {
                let passed = Duration::from_millis(self.pick(40_000));
                self.now += passed;
                Event::Tick
            }
        }
    }

    fn tell(&mut self, event: Event) {
        if let Event::Exited(worker, _) | Event::ForkFailed(worker) = event {
            self.alive.remove(&worker);
        }
        let actions = self.fleet.handle(self.now, event.clone());
        for action in actions {
            match action {
                Action::Fork { worker, slot, .. } => {
                    assert!(!self.fleet.is_stopping(), "seed {}: fork while stopping", self.seed);
                    assert_eq!(self.fleet.seats()[slot.index()].state.worker(), Some(worker));
                    assert!(self.alive.insert(worker, false).is_none(), "seed {}: id used twice", self.seed);
                }
                Action::Withdraw { worker } | Action::Kill { worker, .. } => {
                    assert!(self.alive.contains_key(&worker), "seed {}: {event:?} touches a dead worker", self.seed);
                }
                Action::Terminate { worker } => {
                    let told = self.alive.get_mut(&worker).expect("only the living are told");
                    assert!(!*told, "seed {}: told twice", self.seed);
                    *told = true;
                }
                Action::Finish => {
                    assert!(!self.done, "seed {}: ended twice", self.seed);
                    self.done = true;
                }
                Action::GiveUp { .. }
                | Action::CloseListeners
                | Action::Wait { .. }
                | Action::StopAtOnce
                | Action::SizeRefused { .. }
                | Action::Resized { .. } => {}
            }
        }
        let seats = self.fleet.seats();
        let seated: Vec<_> = seats.iter().filter_map(|s| s.state.worker()).collect();
        assert_eq!(seated.len(), self.alive.len(), "seed {}: every living worker has one seat", self.seed);
        assert!(seated.iter().all(|w| self.alive.contains_key(w)));
        assert!(seats.len() <= 9, "seed {}: slots are bounded", self.seed);
        if let Some(at) = self.fleet.wakes_at() {
            assert!(at > self.now, "seed {}: a deadline in the past would spin", self.seed);
        }
    }
}
