//! The fleet's lifecycle without processes or clock, as single stories.

use super::*;
use crate::core::backoff;

mod failure;
mod questions;
mod reload;

const GRACE: Duration = Duration::from_secs(30);

pub(super) fn plan(workers: u32) -> Plan {
    Plan {
        workers,
        max_workers: 64,
        grace: GRACE,
        boot_timeout: Duration::from_secs(60),
        max_surge: 1,
        max_unavailable: 0,
        succession: Succession::Overlapping,
        max_restarts: 30,
        restart_window: Duration::from_secs(900),
        min_ready: Duration::ZERO,
        stop_delay: Duration::ZERO,
        expected: Default::default(),
        stall_kill: None,
        seed: 7,
    }
}

fn forked(actions: &[Action]) -> Vec<WorkerId> {
    let worker = |a: &Action| match a {
        Action::Fork { worker, .. } => Some(*worker),
        _ => None,
    };
    actions.iter().filter_map(worker).collect()
}

/// The worker crashes. Returns the next one of its slot, and lets the time pass until that is forked.
fn crash(fleet: &mut Fleet, now: &mut Moment, worker: WorkerId) -> WorkerId {
    let mut actions = fleet.handle(*now, Event::Exited(worker, Exit::Code(1)));
    if forked(&actions).is_empty() {
        *now = fleet.wakes_at().unwrap();
        actions = fleet.handle(*now, Event::Tick);
    }
    forked(&actions)[0]
}

/// A fleet of `n` ready workers, and the moment at which they became ready.
fn ready(n: u32) -> (Fleet, Moment, Vec<WorkerId>) {
    let now = Moment::default();
    let mut fleet = Fleet::new(plan(n));
    let workers = forked(&fleet.handle(now, Event::Begin));
    for &worker in &workers {
        assert_eq!(fleet.handle(now, Event::Ready(worker)), [Action::Admit { worker }]);
    }
    (fleet, now, workers)
}

#[test]
fn a_worker_that_served_is_forked_again_at_once_and_in_its_slot() {
    let (mut fleet, now, workers) = ready(3);
    let actions = fleet.handle(now, Event::Exited(workers[1], Exit::Signal(9)));
    assert_eq!(actions, [Action::Fork { slot: Slot(1), worker: WorkerId(4), generation: Generation(1) }]);
    assert_eq!(fleet.slots()[1].restarts, 1);
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
    // After a healthy period the next crash counts as the first.
    now = now + backoff::HEALTHY;
    assert_eq!(forked(&fleet.handle(now, Event::Exited(worker, Exit::Code(1)))).len(), 1);
}

#[test]
fn masters_that_fail_together_do_not_come_back_in_step() {
    let delay = |seed: u64| {
        let mut fleet = Fleet::new(Plan { seed, ..plan(1) });
        let now = Moment::default();
        let worker = forked(&fleet.handle(now, Event::Begin))[0];
        let actions = fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
        let [Action::Wait { delay, .. }] = actions[..] else { panic!("{actions:?}") };
        delay
    };
    let delays: Vec<Duration> = (0..100).map(delay).collect();
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    // At most a quarter less: nearly both ends of the range are drawn.
    assert!((0.75..0.77).contains(&least.div_duration_f64(backoff::BASE)), "{least:?}");
    assert!((0.98..1.0).contains(&most.div_duration_f64(backoff::BASE)), "{most:?}");
}

#[test]
fn a_first_generation_that_never_boots_is_given_up() {
    let mut now = Moment::default();
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
fn being_killed_for_not_being_ready_counts_as_a_failure_to_boot() {
    let mut now = Moment::default();
    let mut fleet = Fleet::new(plan(1));
    let mut worker = forked(&fleet.handle(now, Event::Begin))[0];
    for attempt in 1..=BOOT_ATTEMPTS {
        now = fleet.wakes_at().unwrap();
        let actions = fleet.handle(now, Event::Tick);
        assert_eq!(actions[0], Action::Kill { worker, because: KillReason::BootTimeout });
        if attempt == BOOT_ATTEMPTS {
            assert!(matches!(actions[1], Action::GiveUp { attempts: BOOT_ATTEMPTS, .. }), "{actions:?}");
            return;
        }
        fleet.handle(now, Event::Exited(worker, Exit::Signal(9)));
        now = fleet.wakes_at().unwrap();
        worker = forked(&fleet.handle(now, Event::Tick))[0];
    }
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
    // The worker is needed until the queues are empty.
    assert_eq!(fleet.handle(now, Event::ListenersClosed), [Action::Withdraw { worker: w[0] }]);
    assert_eq!(fleet.handle(now, Event::Emptied(w[0])), [Action::Terminate { worker: w[0] }]);
    assert_eq!(fleet.wakes_at(), Some(now + GRACE));
    let killed = fleet.handle(now + GRACE, Event::Tick);
    assert_eq!(killed, [Action::Kill { worker: w[0], because: KillReason::GraceOver }]);
    assert_eq!(fleet.handle(now + GRACE, Event::Exited(w[0], Exit::Signal(9))), [Action::Finish]);
}

#[test]
fn a_graceful_stop_takes_the_grace_time_once_also_when_the_queues_stay_full() {
    let (mut fleet, now, w) = ready(2);
    assert_eq!(fleet.handle(now, Event::StopAsked(Stop::Graceful)), [Action::CloseListeners]);
    let closed = now + (GRACE - time_to_stop(GRACE) * 2);
    assert_eq!(fleet.wakes_at(), Some(closed));
    let withdrawn = w.iter().map(|&worker| Action::Withdraw { worker }).collect::<Vec<_>>();
    assert_eq!(fleet.handle(closed, Event::Tick), withdrawn);
    assert_eq!(fleet.handle(closed, Event::Emptied(w[0])), [Action::Terminate { worker: w[0] }]);
    let told = now + (GRACE - time_to_stop(GRACE));
    assert_eq!(fleet.handle(told, Event::Tick), [Action::Terminate { worker: w[1] }]);
    let killed = w.iter().map(|&worker| Action::Kill { worker, because: KillReason::GraceOver }).collect::<Vec<_>>();
    assert_eq!(fleet.handle(now + GRACE, Event::Tick), killed);
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
fn term_after_quit_gives_those_who_still_serve_their_grace() {
    let (mut fleet, now, w) = ready(1);
    fleet.handle(now, Event::StopAsked(Stop::Patient));
    fleet.handle(now, Event::ListenersClosed);
    let later = now + GRACE * 10;
    fleet.handle(later, Event::StopAsked(Stop::Graceful));
    assert_eq!(fleet.wakes_at(), Some(later + (GRACE - time_to_stop(GRACE))));
    assert_eq!(fleet.handle(fleet.wakes_at().unwrap(), Event::Tick), [Action::Terminate { worker: w[0] }]);
    assert_eq!(fleet.wakes_at(), Some(later + GRACE));
}

#[test]
fn who_was_killed_is_not_killed_again() {
    let (mut fleet, now, w) = ready(1);
    let kill = Action::Kill { worker: w[0], because: KillReason::Immediate };
    assert!(fleet.handle(now, Event::StopAsked(Stop::Immediate)).contains(&kill));
    assert!(!fleet.handle(now + GRACE, Event::StopAsked(Stop::Immediate)).contains(&kill));
    assert!(!fleet.handle(now + GRACE * 9, Event::Tick).contains(&kill));
}

#[test]
fn one_more_and_one_fewer() {
    let (mut fleet, now, _) = ready(1);
    assert_eq!(fleet.handle(now, Event::Resize(Resize::By(-1))), [Action::SizeRefused(SizeRefused::Zero)]);
    let actions = fleet.handle(now, Event::Resize(Resize::By(1)));
    assert_eq!(actions[0], Action::Resized { workers: 2 });
    let worker = forked(&actions)[0];
    fleet.handle(now, Event::Ready(worker));
    let actions = fleet.handle(now, Event::Resize(Resize::By(-1)));
    assert_eq!(actions, [Action::Resized { workers: 1 }, Action::Withdraw { worker }]);
    fleet.handle(now, Event::Exited(worker, Exit::Signal(15)));
    assert_eq!(fleet.slots().len(), 1);
}

/// Tells the fleet that a worker is ready and returns the resulting actions.
fn is_ready(fleet: &mut Fleet, now: Moment, worker: WorkerId) -> Vec<Action> {
    fleet.handle(now, Event::Ready(worker))
}

#[test]
fn a_worker_with_connections_gets_its_stop_signal_before_its_time_is_over() {
    let (mut fleet, now, w) = ready(2);
    fleet.handle(now, Event::Resize(Resize::To(1)));
    let stop_at = now + (GRACE - time_to_stop(GRACE));
    assert_eq!(fleet.wakes_at(), Some(stop_at));
    assert_eq!(fleet.handle(stop_at, Event::Tick), [Action::Terminate { worker: w[1] }]);
    assert_eq!(fleet.wakes_at(), Some(now + GRACE));
}

#[test]
fn a_fleet_that_wakes_too_late_still_asks_before_it_kills() {
    let (mut fleet, now, w) = ready(2);
    fleet.handle(now, Event::Resize(Resize::To(1)));
    let late = now + GRACE * 3;
    assert_eq!(fleet.handle(late, Event::Tick), [Action::Terminate { worker: w[1] }]);
    let because = KillReason::GraceOver;
    assert_eq!(fleet.handle(late + time_to_stop(GRACE), Event::Tick), [Action::Kill { worker: w[1], because }]);
}

#[test]
fn a_stalled_worker_is_passed_over_unless_all_are() {
    let (mut fleet, now, w) = ready(2);
    let stalls = |worker| Event::Stalled(worker, Sign::Untaken);
    assert_eq!(fleet.handle(now, stalls(w[0])), [Action::Exclude { worker: w[0] }]);
    assert_eq!(fleet.slots()[0].name(), "stalled");
    assert_eq!(fleet.handle(now, stalls(w[1])), [Action::Readmit { worker: w[0] }]);
    let recovers = |worker| Event::Recovered(worker, Sign::Untaken);
    assert_eq!(fleet.handle(now, recovers(w[0])), [Action::Exclude { worker: w[1] }]);
    assert_eq!(fleet.handle(now, recovers(w[1])), [Action::Readmit { worker: w[1] }]);
}

#[test]
fn a_worker_that_stays_stalled_is_killed_and_replaced_at_once() {
    let (mut fleet, now, w) = ready(2);
    fleet.plan.stall_kill = Some(Duration::from_secs(5));
    fleet.handle(now, Event::Stalled(w[0], Sign::Probe));
    let actions = fleet.handle(fleet.wakes_at().unwrap(), Event::Tick);
    assert_eq!(actions[0], Action::Kill { worker: w[0], because: KillReason::Stalled });
    assert_eq!(forked(&actions).len(), 1);
}

#[test]
fn a_worn_worker_is_replaced_before_it_leaves() {
    let (mut fleet, now, w) = ready(2);
    let new = forked(&fleet.handle(now, Event::Recycle(w[1])))[0];
    // One at a time.
    assert_eq!(fleet.handle(now, Event::Recycle(w[0])), []);
    let actions = is_ready(&mut fleet, now, new);
    assert_eq!(actions[..2], [Action::Admit { worker: new }, Action::Withdraw { worker: w[1] }]);
    assert_eq!(forked(&actions).len(), 1, "now the other's turn");
}

#[test]
fn a_master_whose_slots_all_rest_ends() {
    let (mut fleet, now, w) = ready(1);
    fleet.plan.max_restarts = 0;
    let actions = fleet.handle(now, Event::Exited(w[0], Exit::Code(1)));
    let rest = Action::Rest { slot: Slot(0), worker: w[0], failures: 1 };
    assert_eq!(actions, [rest, Action::NobodyLeft, Action::Finish]);
}

#[test]
fn a_paused_fleet_has_no_workers_until_somebody_asks_for_them() {
    let (mut fleet, now, w) = ready(1);
    assert_eq!(fleet.handle(now, Event::Pause), [Action::Withdraw { worker: w[0] }]);
    assert_eq!(fleet.handle(now, Event::Exited(w[0], Exit::Code(0))), []);
    assert_eq!(forked(&fleet.handle(now, Event::Resize(Resize::By(1)))).len(), 2);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let (fleet, _, _) = ready(2);
    assert_eq!(fleet.size_after(Resize::To(0)), Err(SizeRefused::Zero));
    assert_eq!(fleet.size_after(Resize::By(-2)), Err(SizeRefused::Zero));
    assert_eq!(fleet.size_after(Resize::To(10_000)), Err(SizeRefused::TooMany { asked: 10_000, most: 64 }));
    assert_eq!(fleet.size_after(Resize::By(3)), Ok(5));
}

#[test]
fn a_delayed_stop_serves_on_and_begins_by_itself() {
    let (mut fleet, now, workers) = ready(2);
    fleet.plan.stop_delay = Duration::from_secs(5);
    let actions = fleet.handle(now, Event::StopAsked(Stop::Graceful));
    assert_eq!(actions, [Action::StopDelayed { delay: Duration::from_secs(5) }]);
    assert!(fleet.is_about_to_stop() && !fleet.is_stopping() && fleet.all_ready());
    // Neither a copy of the signal nor anything else changes that.
    let soon = now + Duration::from_millis(100);
    assert_eq!(fleet.handle(soon, Event::StopAsked(Stop::Graceful)), []);
    assert_eq!(fleet.handle(soon, Event::Resize(Resize::By(1))), [Action::SizeRefused(SizeRefused::Stopping)]);
    assert_eq!(fleet.handle(soon, Event::ReloadAsked(Manner::Rolling, Workers::Same)), []);
    assert_eq!(fleet.handle(soon, Event::Pause), []);
    assert_eq!(forked(&fleet.handle(soon, Event::Exited(workers[0], Exit::Code(1)))).len(), 1);
    let then = now + Duration::from_secs(5);
    assert_eq!(fleet.wakes_at(), Some(then));
    assert!(fleet.handle(then, Event::Tick).contains(&Action::CloseListeners));
    assert!(fleet.is_stopping());
}

#[test]
fn a_second_request_ends_the_delay_and_a_third_one_everything() {
    let (mut fleet, now, _) = ready(1);
    fleet.plan.stop_delay = Duration::from_secs(5);
    fleet.handle(now, Event::StopAsked(Stop::Graceful));
    let then = now + SAME_REQUEST;
    assert!(fleet.handle(then, Event::StopAsked(Stop::Graceful)).contains(&Action::CloseListeners));
    assert!(fleet.is_stopping() && !fleet.stops_at_once());
    assert!(fleet.handle(then + SAME_REQUEST, Event::StopAsked(Stop::Graceful)).contains(&Action::StopAtOnce));
}

#[test]
fn a_first_generation_that_goes_into_the_background_is_given_up_though_it_was_ready() {
    let (mut fleet, now, workers) = ready(2);
    // The other one still looks as if it serves.
    let actions = fleet.handle(now, Event::Daemonized(workers[0]));
    assert!(matches!(actions[..], [Action::Wait { failures: 1, .. }]), "{actions:?}");
    let actions = fleet.handle(now, Event::Daemonized(workers[1]));
    let [Action::GiveUp { slot: Slot(1), worker, .. }, Action::Finish] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(worker, workers[1]);
}

#[test]
fn an_end_is_told_as_the_shell_has_it() {
    assert_eq!([Exit::Code(3), Exit::Signal(9)].map(|exit| exit.to_string()), ["exit status 3", "signal 9"]);
}
