//! The stories of failures: what counts as one, and for how long.

use super::*;

/// A fleet of one worker that was ready and then crashed so many times, each time at once after it was ready.
fn crashed(times: u32) -> (Fleet, Moment, WorkerId) {
    let (mut fleet, mut now, workers) = ready(1);
    let mut worker = workers[0];
    for _ in 0..times {
        worker = crash(&mut fleet, &mut now, worker);
        is_ready(&mut fleet, now, worker);
    }
    (fleet, now, worker)
}

#[test]
fn a_first_worker_that_goes_into_the_background_counts_as_every_attempt_to_boot() {
    let (mut fleet, now, worker) = crashed(BOOT_ATTEMPTS - 1);
    let actions = fleet.handle(now, Event::Daemonized(worker));
    assert_eq!(actions, [Action::GiveUp { slot: Slot(0), worker, attempts: BOOT_ATTEMPTS }, Action::Finish]);
}

#[test]
fn one_that_was_forked_often_before_it_went_into_the_background_is_no_failed_boot() {
    let (mut fleet, now, worker) = crashed(BOOT_ATTEMPTS);
    let actions = fleet.handle(now, Event::Daemonized(worker));
    assert!(matches!(actions[..], [Action::Wait { .. }]), "{actions:?}");
    assert!(!fleet.was_never_ready());
}

#[test]
fn a_failure_counts_until_the_window_is_over() {
    for (later, rests) in [(Duration::from_secs(10), true), (Duration::from_millis(10_001), false)] {
        let (mut fleet, now, workers) = ready(2);
        (fleet.plan.max_restarts, fleet.plan.restart_window) = (1, Duration::from_secs(10));
        let next = forked(&fleet.handle(now, Event::Exited(workers[0], Exit::Code(1))))[0];
        is_ready(&mut fleet, now, next);
        fleet.handle(now + later, Event::Exited(next, Exit::Code(1)));
        assert_eq!(fleet.resting().next().is_some(), rests, "{later:?}");
    }
}

#[test]
fn a_worker_that_is_killed_while_it_waits_for_its_generation_ends_the_reload() {
    let (mut fleet, now, _) = ready(2);
    let new = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Fleet, Workers::Same)));
    assert_eq!(fleet.reload_manner(), Some(Manner::Fleet));
    assert_eq!(is_ready(&mut fleet, now, new[0]), []);
    let actions = fleet.handle(now, Event::Condemned(new[0], KillReason::Watchdog));
    let because = AbortReason::Waiting(new[0]);
    assert!(actions.contains(&Action::ReloadAborted { generation: Generation(2), because }), "{actions:?}");
    assert_eq!(fleet.reload_manner(), None);
}

#[test]
fn who_ends_before_min_ready_is_over_was_never_ready() {
    let brief = Duration::from_millis(499);
    let mut fleet = Fleet::new(Plan { min_ready: Duration::from_millis(500), ..plan(1) });
    let mut now = Moment::default();
    let mut worker = forked(&fleet.handle(now, Event::Begin))[0];
    for attempt in 1..BOOT_ATTEMPTS {
        is_ready(&mut fleet, now, worker);
        assert!(fleet.was_never_ready());
        now = now + brief;
        let actions = fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
        assert!(matches!(actions[..], [Action::Wait { failures, .. }] if failures == attempt), "{actions:?}");
        now = fleet.wakes_at().unwrap();
        worker = forked(&fleet.handle(now, Event::Tick))[0];
    }
    is_ready(&mut fleet, now, worker);
    let actions = fleet.handle(now + brief, Event::Exited(worker, Exit::Code(1)));
    assert_eq!(actions, [Action::GiveUp { slot: Slot(0), worker, attempts: BOOT_ATTEMPTS }, Action::Finish]);
}

#[test]
fn who_lasts_for_min_ready_was_ready_and_is_replaced_at_once() {
    let mut fleet = Fleet::new(Plan { min_ready: Duration::from_millis(500), ..plan(1) });
    let now = Moment::default();
    let worker = forked(&fleet.handle(now, Event::Begin))[0];
    is_ready(&mut fleet, now, worker);
    let later = now + Duration::from_millis(500);
    let actions = fleet.handle(later, Event::Exited(worker, Exit::Code(1)));
    assert_eq!(forked(&actions).len(), 1, "{actions:?}");
    assert!(!fleet.was_never_ready());
}

#[test]
fn an_expected_end_is_no_failure_unless_it_comes_at_once() {
    let mut fleet = Fleet::new(Plan { expected: "0,64".parse().unwrap(), max_restarts: 1, ..plan(1) });
    let mut now = Moment::default();
    let mut worker = forked(&fleet.handle(now, Event::Begin))[0];
    for code in [0, 64, 0, 64] {
        is_ready(&mut fleet, now, worker);
        now = now + Duration::from_millis(500);
        let actions = fleet.handle(now, Event::Exited(worker, Exit::Code(code)));
        worker = forked(&actions)[0];
        assert_eq!(actions.len(), 1, "{actions:?}");
    }
    // Another code, and one that comes too soon, are failures.
    is_ready(&mut fleet, now, worker);
    now = now + Duration::from_millis(500);
    worker = forked(&fleet.handle(now, Event::Exited(worker, Exit::Code(1))))[0];
    is_ready(&mut fleet, now, worker);
    let actions = fleet.handle(now + Duration::from_millis(499), Event::Exited(worker, Exit::Code(0)));
    assert!(actions.iter().any(|action| matches!(action, Action::Rest { failures: 2, .. })), "{actions:?}");
}

#[test]
fn a_new_generation_that_ends_before_min_ready_is_given_up() {
    let (mut fleet, now, workers) = ready(1);
    fleet.plan.min_ready = Duration::from_millis(500);
    let new = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Restart, Workers::Same)));
    assert!(new.is_empty(), "the old one leaves first");
    fleet.handle(now, Event::Emptied(workers[0]));
    let new = forked(&fleet.handle(now, Event::Exited(workers[0], Exit::Code(0))))[0];
    // Had it been believed at once, the reload would be done.
    fleet.handle(now, Event::Ready(new));
    let actions = fleet.handle(now + Duration::from_millis(20), Event::Exited(new, Exit::Code(1)));
    assert!(fleet.reloading().is_none(), "{actions:?}");
}
