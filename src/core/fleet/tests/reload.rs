//! The stories of reloads: what replaces what, and what makes a new generation fail.

use super::*;
use crate::core::fleet::reload::GENERATIONS_MAX;

#[test]
fn a_reload_replaces_one_worker_after_the_other_and_the_first_alone() {
    let (mut fleet, now, old) = ready(3);
    fleet.plan.max_surge = 2;
    let actions = fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    let canary = WorkerId(4);
    assert_eq!(
        actions,
        [
            Action::ReloadBegun { generation: Generation(2), manner: Manner::Rolling },
            Action::Fork { slot: Slot(0), worker: canary, generation: Generation(2) },
        ]
    );
    let actions = is_ready(&mut fleet, now, canary);
    assert_eq!(
        actions[..3],
        [
            Action::Admit { worker: canary },
            Action::Withdraw { worker: old[0] },
            Action::CanaryServes { generation: Generation(2) },
        ]
    );
    let others = forked(&actions);
    assert_eq!(others.len(), 2, "as many at once as max_surge allows: {actions:?}");
    is_ready(&mut fleet, now, others[0]);
    let actions = is_ready(&mut fleet, now, others[1]);
    assert_eq!(actions.last(), Some(&Action::ReloadDone { generation: Generation(2) }));
    assert_eq!(fleet.generation(), Generation(2));
}

#[test]
fn a_new_generation_that_fails_leaves_the_old_one_serving() {
    let (mut fleet, now, _) = ready(2);
    let canary = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
    let actions = fleet.handle(now, Event::Exited(canary, Exit::Code(1)));
    let because = AbortReason::Ended(canary);
    assert_eq!(actions, [Action::ReloadAborted { generation: Generation(2), because }]);
    assert!(fleet.all_ready());
    assert_eq!(fleet.generation(), Generation(1));
    // The next attempt gets a new number.
    let actions = fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    assert_eq!(actions[0], Action::ReloadBegun { generation: Generation(3), manner: Manner::Rolling });
}

#[test]
fn a_generation_that_fails_half_way_is_rolled_back() {
    let (mut fleet, now, _) = ready(2);
    let canary = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
    let second = forked(&is_ready(&mut fleet, now, canary))[0];
    let late = now + fleet.plan.boot_timeout;
    let actions = fleet.handle(late, Event::Tick);
    assert!(actions.contains(&Action::Kill { worker: second, because: KillReason::BootTimeout }), "{actions:?}");
    let back = forked(&actions);
    assert_eq!(fleet.occupant(back[0]).map(|o| o.generation), Some(Generation(1)));
    let actions = is_ready(&mut fleet, late, back[0]);
    assert_eq!(actions, [Action::Admit { worker: back[0] }, Action::Withdraw { worker: canary }]);
}

#[test]
fn a_fleet_reload_serves_only_when_all_of_it_are_ready() {
    let (mut fleet, now, old) = ready(2);
    let new = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Fleet, Workers::Same)));
    assert_eq!(new.len(), 2);
    assert_eq!(is_ready(&mut fleet, now, new[1]), []);
    let actions = is_ready(&mut fleet, now, new[0]);
    let served = |worker| Action::Admit { worker };
    let gone = |worker| Action::Withdraw { worker };
    assert_eq!(actions[..2], [served(new[0]), gone(old[0])]);
    assert!(actions.contains(&served(new[1])) && actions.contains(&gone(old[1])), "{actions:?}");
    assert_eq!(actions.last(), Some(&Action::ReloadDone { generation: Generation(2) }));
}

#[test]
fn a_reload_during_a_reload_waits_and_generations_are_bounded() {
    let (mut fleet, now, _) = ready(1);
    let mut next = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
    let actions = fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    assert_eq!(actions, [Action::ReloadWaits { because: WaitReason::AnotherRuns }]);
    // No worker of the old generations ends, until the limit is reached.
    for _ in 2..GENERATIONS_MAX {
        next = forked(&is_ready(&mut fleet, now, next))[0];
        fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    }
    assert_eq!(forked(&is_ready(&mut fleet, now, next)), []);
    assert_eq!(fleet.generations().len(), GENERATIONS_MAX);
    let oldest = fleet.slots()[0].occupants[0].worker;
    let actions = fleet.handle(now, Event::Exited(oldest, Exit::Code(0)));
    assert!(matches!(actions[0], Action::ReloadBegun { .. }), "{actions:?}");
}

#[test]
fn a_slot_that_fails_too_often_rests_until_somebody_cares() {
    let (mut fleet, mut now, w) = ready(2);
    fleet.plan.max_restarts = 3;
    let mut worker = w[0];
    for _ in 0..3 {
        worker = crash(&mut fleet, &mut now, worker);
        fleet.handle(now, Event::Ready(worker));
    }
    let actions = fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
    assert_eq!(actions, [Action::Rest { slot: Slot(0), worker, failures: 4 }]);
    assert_eq!((fleet.wakes_at(), fleet.slots()[0].name()), (None, "stopped"));
    let actions = fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    assert!(matches!(actions[1..], [Action::Fork { slot: Slot(0), generation: Generation(2), .. }]), "{actions:?}");
}

#[test]
fn a_new_generation_that_crashes_again_and_again_is_given_up() {
    let (mut fleet, mut now, _) = ready(2);
    fleet.plan.max_restarts = 2;
    let mut worker = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
    // The second slot's new worker never becomes ready; the first one's crashes meanwhile.
    is_ready(&mut fleet, now, worker);
    for _ in 0..2 {
        worker = crash(&mut fleet, &mut now, worker);
        is_ready(&mut fleet, now, worker);
    }
    let actions = fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
    assert!(
        matches!(actions[..], [Action::ReloadAborted { .. }, ..] | [_, Action::ReloadAborted { .. }, ..]),
        "{actions:?}"
    );
    assert_eq!((fleet.reloading(), fleet.resting().next()), (None, None));
}

#[test]
fn where_two_would_share_a_queue_the_next_worker_comes_when_the_last_is_gone() {
    let (mut fleet, now, old) = ready(2);
    (fleet.plan.max_surge, fleet.plan.max_unavailable) = (0, 1);
    fleet.plan.succession = Succession::AfterEnd;
    let actions = fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    assert_eq!(actions[1..], [Action::Withdraw { worker: old[0] }]);
    let new = forked(&fleet.handle(now, Event::Exited(old[0], Exit::Code(0))));
    assert_eq!(fleet.occupant(new[0]).map(|o| o.generation), Some(Generation(2)));
}

#[test]
fn a_worn_worker_is_replaced_during_a_reload_of_the_whole_fleet_too() {
    let (mut fleet, now, _) = ready(2);
    let new = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Fleet, Workers::Same)));
    is_ready(&mut fleet, now, new[0]);
    // The old worker of the second slot dies, so its new one serves at once, and then reaches a limit.
    let old = fleet.slots()[1].serving().unwrap().worker;
    fleet.handle(now, Event::Exited(old, Exit::Code(1)));
    is_ready(&mut fleet, now, new[1]);
    let next = forked(&fleet.handle(now, Event::Recycle(new[1])))[0];
    assert!(is_ready(&mut fleet, now, next).contains(&Action::Admit { worker: next }));
}

#[test]
fn a_new_generation_that_goes_into_the_background_never_takes_down_the_good_one() {
    let (mut fleet, now, workers) = ready(1);
    let canary = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
    let actions = fleet.handle(now, Event::Daemonized(canary));
    assert!(matches!(actions[0], Action::ReloadAborted { because: AbortReason::Ended(_), .. }), "{actions:?}");
    assert!(fleet.is_wanted(workers[0]) && !fleet.is_stopping());
}

/// A fleet of two whose first slot fails again and again, and the moment at which that slot waits.
fn one_of_two_fails(surge: u32, unavailable: u32, succession: Succession) -> (Fleet, Moment, WorkerId) {
    let (mut fleet, mut now, w) = ready(2);
    (fleet.plan.max_surge, fleet.plan.max_unavailable) = (surge, unavailable);
    fleet.plan.succession = succession;
    let mut worker = w[0];
    for _ in 0..4 {
        worker = crash(&mut fleet, &mut now, worker);
    }
    (fleet, now, worker)
}

/// Lets every worker behave until the reload is over; returns the resulting actions.
fn carry_on(fleet: &mut Fleet, now: Moment) -> Vec<Action> {
    let mut done = Vec::new();
    for _ in 0..20 {
        let all = fleet.slots().iter().flat_map(|state| &state.occupants);
        let events: Vec<Event> = all
            .map(|o| match o.life {
                Life::Draining { .. } => Event::Exited(o.worker, Exit::Code(0)),
                Life::Starting { .. } | Life::Ready { .. } => Event::Ready(o.worker),
            })
            .collect();
        for event in events {
            done.extend(fleet.handle(now, event));
        }
    }
    done
}

#[test]
fn a_reload_mends_a_slot_that_fails_again_and_again() {
    let kernel = (0, 1, Succession::AfterEnd);
    for (surge, unavailable, succession) in [kernel, (0, 1, Succession::Overlapping), (1, 0, Succession::Overlapping)] {
        for manner in [Manner::Rolling, Manner::Fleet, Manner::Restart] {
            // While the slot waits for its next attempt.
            let (mut fleet, now, worker) = one_of_two_fails(surge, unavailable, succession);
            fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
            let actions = fleet.handle(now, Event::ReloadAsked(manner, Workers::Same));
            let first = Action::Fork { slot: Slot(0), worker: WorkerId(7), generation: Generation(2) };
            assert_eq!(actions[1], first, "{succession:?} {manner:?}");
            let actions = carry_on(&mut fleet, now);
            assert!(actions.contains(&Action::ReloadDone { generation: Generation(2) }), "{manner:?}: {actions:?}");
            assert!(fleet.all_ready());
        }
    }
}

#[test]
fn a_reload_does_not_wait_for_an_old_worker_that_takes_its_time_to_fail() {
    for succession in [Succession::AfterEnd, Succession::Overlapping] {
        for manner in [Manner::Rolling, Manner::Fleet] {
            let (mut fleet, now, worker) = one_of_two_fails(0, 1, succession);
            let actions = fleet.handle(now, Event::ReloadAsked(manner, Workers::Same));
            assert_eq!(actions[1], Action::Kill { worker, because: KillReason::Outdated }, "{actions:?}");
            let actions = carry_on(&mut fleet, now);
            assert!(actions.contains(&Action::ReloadDone { generation: Generation(2) }), "{manner:?}: {actions:?}");
        }
    }
}

#[test]
fn of_several_empty_slots_one_tries_the_new_generation() {
    let (mut fleet, now, w) = ready(3);
    for worker in [w[0], w[1]] {
        let next = forked(&fleet.handle(now, Event::Exited(worker, Exit::Code(1))))[0];
        fleet.handle(now, Event::Exited(next, Exit::Code(1)));
    }
    let actions = fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    let fork = |slot, worker, generation| Action::Fork {
        slot: Slot(slot),
        worker: WorkerId(worker),
        generation: Generation(generation),
    };
    assert_eq!(actions[1..], [fork(0, 6, 2), fork(1, 7, 1)]);
    // It is proven: an old worker that still starts in a slot where none serves makes room.
    let actions = is_ready(&mut fleet, now, WorkerId(6));
    assert!(actions.contains(&Action::Kill { worker: WorkerId(7), because: KillReason::Outdated }), "{actions:?}");
    assert!(actions.contains(&fork(1, 8, 2)), "{actions:?}");
}

#[test]
fn an_old_worker_that_fails_too_often_does_not_end_the_reload() {
    let (mut fleet, mut now, w) = ready(3);
    fleet.plan.max_restarts = 3;
    let canary = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
    let mut worker = w[2];
    let mut rested = false;
    for _ in 0..8 {
        let mut actions = fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
        rested |= actions.iter().any(|action| matches!(action, Action::Rest { slot: Slot(2), .. }));
        if rested {
            break;
        }
        if forked(&actions).is_empty() {
            now = fleet.wakes_at().unwrap();
            actions = fleet.handle(now, Event::Tick);
        }
        worker = forked(&actions)[0];
    }
    assert!(rested && fleet.reloading().is_some(), "the slot rests, and the canary goes on");
    // It serves: the slot gets a worker of the new generation.
    let new = forked(&is_ready(&mut fleet, now, canary));
    assert!(new.iter().any(|worker| fleet.slots()[2].occupants.iter().any(|o| o.worker == *worker)), "{new:?}");
    let actions = carry_on(&mut fleet, now);
    assert!(actions.contains(&Action::ReloadDone { generation: Generation(2) }), "{actions:?}");
}

#[test]
fn a_reload_ends_while_new_workers_of_two_slots_never_serve_at_the_same_time() {
    for manner in [Manner::Rolling, Manner::Fleet] {
        let (mut fleet, mut now, w) = ready(2);
        fleet.plan.restart_window = Duration::from_secs(1);
        // No worker serves when the reload begins, so both slots get the new generation at once.
        for worker in w {
            let next = forked(&fleet.handle(now, Event::Exited(worker, Exit::Code(1))))[0];
            fleet.handle(now, Event::Exited(next, Exit::Code(1)));
        }
        let mut new = forked(&fleet.handle(now, Event::ReloadAsked(manner, Workers::Same)));
        assert_eq!(new.len(), 2);
        let mut done = false;
        for turn in 0..100 {
            let worker = new[turn % 2];
            done |= is_ready(&mut fleet, now, worker).contains(&Action::ReloadDone { generation: Generation(2) });
            // It fails as soon as it serves, and the other one starts meanwhile.
            let mut actions = fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
            while forked(&actions).is_empty() {
                now = fleet.wakes_at().unwrap();
                actions = fleet.handle(now, Event::Tick);
            }
            new[turn % 2] = forked(&actions)[0];
        }
        assert!(done, "{manner:?}");
    }
}

#[test]
fn a_new_generation_that_fails_slowly_and_leaves_no_gap_for_the_others_is_given_up() {
    let (mut fleet, mut now, w) = ready(3);
    (fleet.plan.max_surge, fleet.plan.max_unavailable, fleet.plan.max_restarts) = (0, 1, 5);
    fleet.plan.restart_window = Duration::from_secs(1);
    for worker in [w[0], w[1]] {
        let next = forked(&fleet.handle(now, Event::Exited(worker, Exit::Code(1))))[0];
        fleet.handle(now, Event::Exited(next, Exit::Code(1)));
    }
    // The first two slots serve only for a moment, and never both; the third one still has its old worker.
    fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    for _ in 0..100 {
        let starting = fleet.slots().iter().flat_map(|state| &state.occupants).find(|o| o.is_starting());
        if let Some(worker) = starting.map(|o| o.worker) {
            fleet.handle(now, Event::Ready(worker));
            fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
        } else {
            now = fleet.wakes_at().unwrap();
            fleet.handle(now, Event::Tick);
        }
    }
    assert_eq!(fleet.reloading(), None);
    assert!(fleet.is_wanted(w[2]));
}

#[test]
fn a_new_worker_that_ends_while_it_waits_for_its_generation_ends_the_reload() {
    let (mut fleet, now, _) = ready(2);
    let new = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Fleet, Workers::Same)));
    assert_eq!(is_ready(&mut fleet, now, new[0]), []);
    let actions = fleet.handle(now, Event::Exited(new[0], Exit::Code(1)));
    let because = AbortReason::Waiting(new[0]);
    assert!(actions.contains(&Action::ReloadAborted { generation: Generation(2), because }), "{actions:?}");
}

/// A reload whose configuration asks for this many workers.
fn reload_to(workers: u32) -> Event {
    Event::ReloadAsked(Manner::Rolling, Workers::Configured(workers))
}

#[test]
fn a_reload_that_asks_for_more_adds_them_when_its_first_worker_serves() {
    let (mut fleet, now, _) = ready(2);
    let canary = forked(&fleet.handle(now, reload_to(4)));
    assert_eq!((canary.len(), fleet.wanted()), (1, 2));
    let actions = is_ready(&mut fleet, now, canary[0]);
    assert!(actions.contains(&Action::Resized { workers: 4 }), "{actions:?}");
    let actions = carry_on(&mut fleet, now);
    assert!(actions.contains(&Action::ReloadDone { generation: Generation(2) }), "{actions:?}");
    assert_eq!((fleet.wanted(), fleet.all_ready(), fleet.generations().len()), (4, true, 1));
}

#[test]
fn a_reload_that_asks_for_fewer_ends_them_when_it_is_done() {
    let (mut fleet, now, w) = ready(3);
    let canary = forked(&fleet.handle(now, reload_to(1)));
    assert_eq!(fleet.wanted(), 3);
    let actions = is_ready(&mut fleet, now, canary[0]);
    let end = [
        Action::ReloadDone { generation: Generation(2) },
        Action::Withdraw { worker: w[1] },
        Action::Withdraw { worker: w[2] },
    ];
    assert!(end.iter().all(|action| actions.contains(action)), "{actions:?}");
    assert_eq!((forked(&actions), fleet.wanted()), (vec![], 1));
}

#[test]
fn a_reload_that_is_given_up_leaves_the_number_of_workers() {
    // Before its first worker serves, and after it has added slots.
    for (asked, proven) in [(4, 0), (4, 1), (1, 0)] {
        let (mut fleet, now, w) = ready(2);
        let mut new = forked(&fleet.handle(now, reload_to(asked)));
        for _ in 0..proven {
            new = forked(&is_ready(&mut fleet, now, new[0]));
        }
        let actions = fleet.handle(now, Event::Exited(new[0], Exit::Code(1)));
        assert!(actions.iter().any(|a| matches!(a, Action::ReloadAborted { .. })), "{actions:?}");
        assert_eq!(fleet.wanted(), 2);
        carry_on(&mut fleet, now);
        assert_eq!((fleet.slots().len(), fleet.all_ready()), (2, true));
        assert_eq!(fleet.generations().into_iter().collect::<Vec<_>>(), [Generation(1)], "{asked} {proven}");
        assert_eq!(fleet.is_wanted(w[0]), proven == 0);
        // The next reload that asks for the same number still has to change something.
        let actions = [fleet.handle(now, reload_to(asked)), carry_on(&mut fleet, now)].concat();
        assert!(actions.contains(&Action::Resized { workers: asked }), "{actions:?}");
    }
}

#[test]
fn a_number_chosen_by_hand_outlives_reloads_that_ask_for_no_other() {
    let (mut fleet, now, _) = ready(2);
    fleet.handle(now, Event::Resize(Resize::To(3)));
    carry_on(&mut fleet, now);
    fleet.handle(now, reload_to(2));
    carry_on(&mut fleet, now);
    assert_eq!((fleet.generation(), fleet.wanted()), (Generation(2), 3));
    // The same holds for a choice made while a reload adds slots.
    let canary = forked(&fleet.handle(now, reload_to(5)))[0];
    let next = forked(&is_ready(&mut fleet, now, canary))[0];
    fleet.handle(now, Event::Resize(Resize::To(4)));
    fleet.handle(now, Event::Exited(next, Exit::Code(1)));
    assert_eq!((fleet.reloading(), fleet.wanted()), (None, 4));
}

/// Lets each worker that starts in a slot fail until the slot rests.
fn until_it_rests(fleet: &mut Fleet, mut now: Moment, slot: usize) -> Moment {
    for _ in 0..100 {
        let starting = fleet.slots()[slot].occupants.iter().find(|o| o.is_starting()).map(|o| o.worker);
        if let Some(worker) = starting {
            fleet.handle(now, Event::Exited(worker, Exit::Code(1)));
        }
        if fleet.slots()[slot].rests() {
            return now;
        }
        now = fleet.wakes_at().unwrap_or(now).max(now);
        fleet.handle(now, Event::Tick);
    }
    panic!("it never rests: {:?}", fleet.slots()[slot]);
}

#[test]
fn who_served_on_while_its_replacements_failed_is_followed_when_it_ends() {
    // A worker that reached a limit, and one of a generation that was given up.
    for given_up in [false, true] {
        let (mut fleet, now, w) = ready(2);
        fleet.plan.max_restarts = 3;
        let mut serves = w[0];
        if given_up {
            serves = forked(&fleet.handle(now, reload_to(2)))[0];
            let next = forked(&is_ready(&mut fleet, now, serves))[0];
            fleet.handle(now, Event::Exited(next, Exit::Code(1)));
        } else {
            fleet.handle(now, Event::Recycle(serves));
        }
        let now = until_it_rests(&mut fleet, now, 0);
        assert_eq!(fleet.slots()[0].serving().map(|o| o.worker), Some(serves));
        let ends = [
            Event::Exited(serves, Exit::Code(1)),
            Event::Condemned(serves, KillReason::Watchdog),
            Event::Daemonized(serves),
        ];
        for end in ends {
            let mut fleet = fleet.clone();
            let what = format!("{given_up} {end:?}");
            let mut follows = forked(&fleet.handle(now, end));
            let mut now = now;
            if follows.is_empty() {
                now = fleet.wakes_at().unwrap();
                follows = forked(&fleet.handle(now, Event::Tick));
            }
            assert_eq!(follows.len(), 1, "{what}");
            is_ready(&mut fleet, now, follows[0]);
            assert!(fleet.slots()[0].serving().is_some() && fleet.resting().next().is_none());
        }
    }
}

#[test]
fn a_reload_that_waits_is_dropped_at_a_stop_and_said_to_wait_for_old_generations() {
    let (mut fleet, now, _) = ready(1);
    for _ in 1..GENERATIONS_MAX {
        let new = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
        is_ready(&mut fleet, now, new);
    }
    let actions = fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    assert_eq!(actions, [Action::ReloadWaits { because: WaitReason::OldGenerations }]);
    let actions = fleet.handle(now, Event::StopAsked(Stop::Graceful));
    assert!(actions.contains(&Action::ReloadDropped), "{actions:?}");
    // It is answered once.
    assert!(!fleet.handle(now, Event::Tick).contains(&Action::ReloadDropped));
}

#[test]
fn a_slot_of_the_old_generation_that_fails_too_often_gets_the_new_one_and_no_rest() {
    let (mut fleet, now, old) = ready(3);
    fleet.plan.max_restarts = 0;
    let canary = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same)))[0];
    is_ready(&mut fleet, now, canary);
    let actions = fleet.handle(now, Event::Exited(old[2], Exit::Code(1)));
    let replaced = |a: &Action| matches!(a, Action::Fork { slot: Slot(2), generation: Generation(2), .. });
    assert!(actions.iter().any(replaced), "{actions:?}");
    assert_eq!(fleet.resting().next(), None);
}

#[test]
fn a_worker_serves_before_its_generation_only_where_nobody_else_serves() {
    let (mut fleet, now, old) = ready(3);
    let new = forked(&fleet.handle(now, Event::ReloadAsked(Manner::Fleet, Workers::Same)));
    assert_eq!(is_ready(&mut fleet, now, new[0]), []);
    let actions = fleet.handle(now, Event::Exited(old[0], Exit::Code(1)));
    let serves = [Action::Admit { worker: new[0] }, Action::CanaryServes { generation: Generation(2) }];
    assert_eq!(actions[..2], serves);
    assert_eq!(is_ready(&mut fleet, now, new[1]), []);
    assert!(fleet.occupant(new[1]).is_some_and(Occupant::waits) && fleet.is_wanted(old[1]));
}

#[test]
fn a_number_that_was_already_chosen_by_hand_is_not_said_again() {
    let (mut fleet, now, _) = ready(2);
    let third = forked(&fleet.handle(now, Event::Resize(Resize::To(3))))[0];
    is_ready(&mut fleet, now, third);
    let mut actions = fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Configured(3)));
    actions.extend(carry_on(&mut fleet, now));
    assert!(actions.contains(&Action::ReloadDone { generation: Generation(2) }), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Resized { .. })), "{actions:?}");
}

#[test]
fn a_slot_that_waited_for_the_new_generation_gets_the_old_one_when_the_reload_is_given_up() {
    let (mut fleet, now, old) = ready(2);
    (fleet.plan.max_surge, fleet.plan.max_unavailable, fleet.plan.max_restarts) = (0, 1, 0);
    fleet.plan.succession = Succession::AfterEnd;
    fleet.handle(now, Event::ReloadAsked(Manner::Rolling, Workers::Same));
    let canary = forked(&fleet.handle(now, Event::Exited(old[0], Exit::Code(0))))[0];
    let actions = is_ready(&mut fleet, now, canary);
    assert!(actions.contains(&Action::Withdraw { worker: old[1] }), "{actions:?}");
    let actions = fleet.handle(now, Event::Exited(canary, Exit::Code(1)));
    let because = AbortReason::Again(canary);
    assert!(actions.contains(&Action::ReloadAborted { generation: Generation(2), because }), "{actions:?}");
    let actions = fleet.handle(now, Event::Exited(old[1], Exit::Code(0)));
    assert!(matches!(actions[..], [Action::Fork { slot: Slot(1), generation: Generation(1), .. }]), "{actions:?}");
}
