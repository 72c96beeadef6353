//! What the fleet answers to queries, and what it takes over from a changed configuration.

use super::*;

#[test]
fn a_tenth_of_the_grace_is_time_to_stop_but_no_more_than_two_seconds() {
    let times = [0, 5_000, 20_000, 30_000].map(|grace| time_to_stop(Duration::from_millis(grace)).as_millis());
    assert_eq!(times, [0, 500, 2_000, 2_000]);
}

#[test]
fn a_changed_plan_leaves_the_number_and_the_seed() {
    let (mut fleet, ..) = ready(2);
    fleet.replan(Plan { workers: 9, seed: 8, max_surge: 4, grace: GRACE * 2, ..plan(9) });
    let plan = fleet.plan;
    assert_eq!((plan.workers, plan.seed, plan.max_surge, plan.grace), (2, 7, 4, GRACE * 2));
}

#[test]
fn it_is_known_whether_anybody_was_ever_ready() {
    let now = Moment::default();
    let mut fleet = Fleet::new(plan(1));
    let worker = forked(&fleet.handle(now, Event::Begin))[0];
    assert!(fleet.was_never_ready());
    fleet.handle(now, Event::Ready(worker));
    assert!(!fleet.was_never_ready());
    fleet.handle(now, Event::Exited(worker, Exit::Code(0)));
    assert!(!fleet.was_never_ready());
}

#[test]
fn all_are_ready_when_every_slot_serves_and_nobody_is_about_to_follow() {
    let now = Moment::default();
    let mut fleet = Fleet::new(plan(2));
    let workers = forked(&fleet.handle(now, Event::Begin));
    fleet.handle(now, Event::Ready(workers[0]));
    assert!(!fleet.all_ready());
    fleet.handle(now, Event::Ready(workers[1]));
    assert!(fleet.all_ready());
    let follows = forked(&fleet.handle(now, Event::Recycle(workers[1])))[0];
    assert!(!fleet.all_ready());
    fleet.handle(now, Event::Ready(follows));
    assert!(fleet.all_ready());
    fleet.handle(now, Event::Exited(workers[0], Exit::Code(0)));
    assert!(!fleet.all_ready());
}

#[test]
fn only_an_immediate_stop_kills_at_once() {
    let stops = |stop: Option<Stop>| {
        let (mut fleet, now, _) = ready(1);
        stop.map(|stop| fleet.handle(now, Event::StopAsked(stop)));
        (fleet.is_stopping(), fleet.stops_at_once(), fleet.wanted())
    };
    assert_eq!(stops(None), (false, false, 1));
    assert_eq!(stops(Some(Stop::Graceful)), (true, false, 0));
    assert_eq!(stops(Some(Stop::Patient)), (true, false, 0));
    assert_eq!(stops(Some(Stop::Immediate)), (true, true, 0));
}

#[test]
fn a_worker_is_wanted_until_it_leaves_and_killed_when_it_was() {
    let (mut fleet, now, w) = ready(2);
    let asked = |fleet: &Fleet| (fleet.is_wanted(w[1]), fleet.is_killed(w[1]));
    assert_eq!(asked(&fleet), (true, false));
    fleet.handle(now, Event::Resize(Resize::To(1)));
    assert_eq!(asked(&fleet), (false, false));
    fleet.handle(now + GRACE * 2, Event::Tick);
    fleet.handle(now + GRACE * 3, Event::Tick);
    assert_eq!(asked(&fleet), (false, true));
    fleet.handle(now + GRACE * 3, Event::Exited(w[1], Exit::Signal(9)));
    assert_eq!(asked(&fleet), (false, false));
    assert_eq!(fleet.occupant(w[1]).map(|o| o.worker), None);
    assert_eq!(fleet.occupant(w[0]).map(|o| o.worker), Some(w[0]));
}

#[test]
fn slots_that_rest_are_named() {
    let (mut fleet, now, w) = ready(3);
    fleet.plan.max_restarts = 0;
    assert_eq!(fleet.resting().count(), 0);
    fleet.handle(now, Event::Exited(w[1], Exit::Code(1)));
    assert_eq!(fleet.resting().collect::<Vec<_>>(), [Slot(1)]);
}

#[test]
fn the_largest_number_is_one_that_can_be_asked_for() {
    let (mut fleet, now, _) = ready(1);
    assert_eq!(fleet.size_after(Resize::To(64)), Ok(64));
    assert_eq!(fleet.size_after(Resize::To(65)), Err(SizeRefused::TooMany { asked: 65, most: 64 }));
    fleet.handle(now, Event::StopAsked(Stop::Graceful));
    assert_eq!(fleet.size_after(Resize::To(2)), Err(SizeRefused::Stopping));
}

#[test]
fn only_a_new_worker_that_listens_nowhere_gives_its_generation_up() {
    // A canary that serves, and the old worker in the other slot.
    let reloading = || {
        let (mut fleet, now, old) = ready(2);
        let canary = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
        is_ready(&mut fleet, now, canary);
        (fleet, now, old[1], canary)
    };
    let gives_up = |stalled: fn(WorkerId, WorkerId) -> Event| {
        let (mut fleet, now, old, canary) = reloading();
        let actions = fleet.handle(now, stalled(old, canary));
        actions.iter().any(|action| matches!(action, Action::ReloadAborted { .. }))
    };
    assert!(gives_up(|_, canary| Event::Stalled(canary, Sign::Deaf)));
    assert!(!gives_up(|_, canary| Event::Stalled(canary, Sign::Untaken)));
    assert!(!gives_up(|old, _| Event::Stalled(old, Sign::Deaf)));
}

/// What `status` shows of a slot: its state, the worker, and those that are leaving beside it.
fn shown(fleet: &Fleet) -> (&'static str, Option<WorkerId>, Vec<WorkerId>) {
    let state = &fleet.slots[0];
    (state.name(), state.main().map(|o| o.worker), state.leaving().map(|o| o.worker).collect())
}

#[test]
fn a_slot_shows_who_serves_and_who_leaves() {
    let mut now = Moment::default();
    let mut fleet = Fleet::new(plan(1));
    let first = forked(&fleet.handle(now, Event::Begin))[0];
    assert_eq!(shown(&fleet), ("starting", Some(first), vec![]));
    fleet.handle(now, Event::Ready(first));
    assert_eq!(shown(&fleet), ("ready", Some(first), vec![]));
    fleet.handle(now, Event::Stalled(first, Sign::Probe));
    assert_eq!(shown(&fleet), ("stalled", Some(first), vec![]));
    let signs = fleet.slots[0].occupants[0].signs;
    assert_eq!(signs.names(), Sign::Probe.name());
    fleet.handle(now, Event::Recovered(first, Sign::Probe));
    now = now + Duration::from_secs(1);
    let second = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
    assert_eq!(shown(&fleet), ("ready", Some(first), vec![]));
    fleet.handle(now, Event::Ready(second));
    assert_eq!(shown(&fleet), ("ready", Some(second), vec![first]));
    assert_eq!(fleet.slots[0].occupants[0].since(), now);
    fleet.handle(now, Event::Exited(first, Exit::Code(0)));
    // Whoever fails twice waits, and a stopped slot is stopped.
    let third = crash(&mut fleet, &mut now, second);
    assert_eq!(fleet.slots[0].recent_failures(), 1);
    fleet.handle(now, Event::Exited(third, Exit::Code(1)));
    assert_eq!(shown(&fleet), ("backoff", None, vec![]));
    assert_eq!(fleet.slots[0].recent_failures(), 2);
    fleet.handle(now, Event::StopAsked(Stop::Immediate));
    assert_eq!(shown(&fleet), ("stopped", None, vec![]));
}

#[test]
fn a_leaving_worker_is_shown_while_nobody_follows() {
    let (mut fleet, now, workers) = ready(1);
    fleet.handle(now, Event::StopAsked(Stop::Patient));
    fleet.handle(now, Event::ListenersClosed);
    assert_eq!(shown(&fleet), ("draining", Some(workers[0]), vec![]));
}

#[test]
fn ways_have_their_names() {
    assert_eq!([Stop::Graceful, Stop::Patient, Stop::Immediate].map(Stop::name), ["graceful", "patient", "immediate"]);
    assert_eq!([Manner::Rolling, Manner::Fleet, Manner::Restart].map(Manner::name), ["rolling", "fleet", "restart"]);
}
