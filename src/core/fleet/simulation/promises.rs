//! What a fleet promises in all circumstances, checked against what the simulated world has seen of it.

use super::super::reload::GENERATIONS_MAX;
use super::*;

/// The state of the fleet before an event, needed to judge its reaction.
struct Before {
    serving: BTreeSet<usize>,
    surge: usize,
    unavailable: u32,
    stopping: bool,
    paused: bool,
}

impl World {
    pub(super) fn tell(&mut self, event: Event) {
        let before = Before {
            serving: self.serving_slots(),
            surge: self.most_surging(),
            unavailable: self.most_unavailable(),
            stopping: self.fleet.is_about_to_stop(),
            paused: matches!(self.fleet.wanted, Wanted::Paused(_)),
        };
        let (mut excused, mut served) = (BTreeSet::new(), None);
        match event {
            Event::Exited(worker, _) | Event::ForkFailed(worker) | Event::Daemonized(worker) => {
                let process = self.alive.remove(&worker).unwrap();
                served = process.serves().then_some(process.slot);
                excused.insert(process.slot);
                self.backlog += process.waiting;
                if process.withdrawn.is_none() {
                    self.failures.entry(process.slot).or_default().push(self.now);
                }
            }
            Event::ReloadAsked(_, workers) if !before.stopping => {
                self.waiters.0 += 1;
                self.asked_workers = match workers {
                    Workers::Same => None,
                    Workers::Configured(workers) => Some(workers),
                };
            }
            Event::Stalled(worker, sign) if self.fleet.occupant(worker).is_some_and(Occupant::is_ready) => {
                self.alive.get_mut(&worker).unwrap().signs.insert(sign.name());
            }
            Event::Recovered(worker, sign) => {
                self.alive.get_mut(&worker).map(|process| process.signs.remove(sign.name()));
            }
            _ => {}
        }
        let actions = self.fleet.handle(self.now, event.clone());
        if let (Event::Resize(_), Some(&Action::Resized { workers })) = (&event, actions.first()) {
            self.number = workers;
            self.reload = self.reload.map(|reload| Running { workers: None, ..reload });
        }
        let (mut begun, mut surged) = (false, false);
        for action in &actions {
            begun |= matches!(action, Action::ReloadBegun { .. });
            if let Action::Fork { slot, .. } = action {
                surged |= self.alive.values().any(|p| p.slot == slot.index() && p.serves());
            }
            self.carry_out(action, &event, &mut excused);
        }
        // Before that the fleet could not know.
        let turns = |a: &Action| matches!(a, Action::ReloadBegun { .. } | Action::CanaryServes { .. });
        let since = &actions[actions.iter().rposition(turns).unwrap_or(0)..];
        let forked = |worker| since.iter().any(|a| matches!(a, Action::Fork { worker: w, .. } if *w == worker));
        let in_vain = |action: &Action| match action {
            Action::Kill { worker, because: KillReason::Outdated } => forked(*worker),
            _ => false,
        };
        self.must(!actions.iter().any(in_vain), "forked only to be killed");
        if surged {
            let bound = before.surge.max(self.most_surging());
            self.must(self.surging() <= bound, "more workers surge than may");
        }
        let rests = served.and_then(|slot| self.fleet.slots().get(slot)).is_some_and(SlotState::rests);
        let rested = actions.iter().any(|action| matches!(action, Action::Rest { .. }));
        self.must(!rests || rested || before.stopping, "nobody follows one that served");
        let runs = matches!(self.fleet.wanted, Wanted::Running(_));
        if runs && !begun && !before.paused && self.reload.is_none() {
            self.must(self.fleet.wanted() == self.number, "another number of workers than was asked for");
        }
        // When one event makes the fleet smaller and then larger again, the added slots cannot be served yet.
        let resized =
            actions.iter().filter_map(|a| if let Action::Resized { workers } = a { Some(*workers) } else { None });
        let least = resized.fold(self.fleet.wanted(), u32::min) as usize;
        let unavailable = before.unavailable.max(self.most_unavailable()) as usize;
        self.check(&event, &before.serving, (&excused, least), unavailable);
    }

    /// Slots in which one worker serves and another one is about to.
    fn surging(&self) -> usize {
        let surges = |slot: usize| {
            let here = || self.alive.values().filter(move |p| p.slot == slot);
            here().any(Process::serves) && here().any(|p| !p.admitted && p.withdrawn.is_none())
        };
        (0..self.fleet.wanted() as usize).filter(|slot| surges(*slot)).count()
    }

    fn most_surging(&self) -> usize {
        match self.reload.map(|reload| reload.manner) {
            Some(Manner::Fleet) => self.fleet.wanted() as usize,
            Some(Manner::Restart) => 0,
            Some(Manner::Rolling) | None => self.fleet.plan.max_surge as usize,
        }
    }

    /// Slots that the fleet may leave without a worker.
    fn most_unavailable(&self) -> u32 {
        let restarts = self.reload.is_some_and(|reload| reload.manner == Manner::Restart);
        self.fleet.plan.max_unavailable.max(u32::from(restarts))
    }

    fn process(&mut self, worker: WorkerId, event: &Event) -> &mut Process {
        let seed = self.seed;
        self.alive.get_mut(&worker).unwrap_or_else(|| panic!("history {seed}: {event:?} touches a dead worker"))
    }

    fn carry_out(&mut self, action: &Action, event: &Event, excused: &mut BTreeSet<usize>) {
        match *action {
            Action::Fork { worker, slot, generation } => self.forked(worker, slot, generation),
            Action::Admit { worker } => {
                let process = self.process(worker, event);
                let fits = !process.admitted && process.withdrawn.is_none();
                process.admitted = true;
                self.must(fits, "admitted twice, or too late");
            }
            Action::Withdraw { worker } => {
                let now = self.now;
                let process = self.process(worker, event);
                let twice = process.withdrawn.replace(now).is_some();
                let rescued = std::mem::take(&mut process.waiting);
                self.backlog += rescued;
                self.must(!twice, "withdrawn twice");
            }
            Action::Exclude { worker } => {
                let process = self.process(worker, event);
                let fits = !std::mem::replace(&mut process.excluded, true) && !process.signs.is_empty();
                let rescued = std::mem::take(&mut process.waiting);
                self.backlog += rescued;
                self.must(fits, "excluded twice, or for nothing");
            }
            Action::Readmit { worker } => {
                let was = std::mem::replace(&mut self.process(worker, event).excluded, false);
                self.must(was, "readmitted for nothing");
            }
            Action::Terminate { worker } => self.terminated(worker, event),
            Action::Kill { worker, because } => {
                if matches!(because, KillReason::Stalled | KillReason::Watchdog | KillReason::Immediate) {
                    excused.insert(self.process(worker, event).slot);
                }
                self.killed(worker, because, event);
            }
            Action::Rest { slot, .. } => {
                let window = self.fleet.plan.restart_window;
                let failures = self.failures.remove(&slot.index()).unwrap_or_default();
                let recent = failures.iter().filter(|at| self.now.since(**at) <= window).count();
                self.must(recent > self.fleet.plan.max_restarts as usize, "a slot rests that failed less than it may");
            }
            Action::ReloadBegun { generation, manner } => {
                self.must(self.reload.is_none(), "two reloads");
                self.must(self.waiters.0 > 0, "a reload that nobody asked for");
                let configured = self.asked_workers.take();
                let workers = configured.filter(|workers| *workers != self.configured);
                let leaving = self.alive.values().filter(|p| p.withdrawn.is_some()).map(|p| p.generation);
                let few = leaving.collect::<BTreeSet<_>>().len() < GENERATIONS_MAX - 1 || manner == Manner::Restart;
                self.must(few, "a reload begins while too many old generations are leaving");
                let proven = !self.alive.values().any(Process::serves);
                self.reload = Some(Running { generation, manner, proven, configured, workers });
                self.waiters = (0, self.waiters.0);
            }
            Action::CanaryServes { .. } => {
                if let Some(reload) = &mut self.reload {
                    reload.proven = true;
                }
            }
            Action::ReloadDone { generation } => {
                let ended = self.reload_ended(generation);
                self.last_reload = Some(generation);
                self.configured = ended.configured.unwrap_or(self.configured);
                self.number = ended.workers.unwrap_or(self.number);
            }
            Action::ReloadAborted { generation, .. } => {
                self.reload_ended(generation);
                self.last_reload = None;
            }
            Action::ReloadDropped => {
                self.must(self.waiters.0 > 0, "a reload is dropped that nobody waits for");
                self.waiters.0 = 0;
            }
            Action::Finish => {
                let twice = std::mem::replace(&mut self.done, true);
                self.must(!twice, "ended twice");
            }
            Action::GiveUp { .. }
            | Action::NobodyLeft
            | Action::ReloadWaits { .. }
            | Action::CloseListeners
            | Action::Wait { .. }
            | Action::StopAtOnce
            | Action::StopDelayed { .. }
            | Action::SizeRefused(_) => {}
            Action::Resized { workers } => excused.extend(workers as usize..self.fleet.plan.max_workers as usize),
        }
    }

    fn forked(&mut self, worker: WorkerId, slot: Slot, generation: Generation) {
        self.must(!self.fleet.is_stopping(), "fork while stopping");
        let alone = self
            .reload
            .is_some_and(|reload| reload.manner != Manner::Fleet && !reload.proven && reload.generation == generation);
        let others = self.alive.values().any(|p| p.generation == generation && p.withdrawn.is_none());
        let old_first = match self.reload.map(|reload| reload.manner) {
            Some(Manner::Restart) => true,
            Some(Manner::Rolling) | None => self.fleet.plan.max_surge == 0,
            Some(Manner::Fleet) => false,
        };
        let beside = self.alive.values().any(|p| p.slot == slot.index());
        self.must(!old_first || !beside, "a worker starts while the one before it is still there");
        self.must(!alone || !others, "the first worker of a new generation is not alone");
        let new = self.used.insert(worker);
        self.must(new, "an id used twice");
        self.alive.insert(worker, Process::new(slot.index(), generation));
    }

    fn terminated(&mut self, worker: WorkerId, event: &Event) {
        let (now, grace) = (self.now, self.fleet.plan.grace);
        let stop = self.fleet.stop_asked.filter(|_| self.fleet.is_stopping());
        let process = self.process(worker, event);
        let twice = process.told.replace(now).is_some();
        let early = match process.withdrawn {
            Some(since) => {
                process.open > 0 && now < stop.map_or(since, |stop| stop.min(since)) + (grace - time_to_stop(grace))
            }
            None => true,
        };
        self.must(!twice, "told twice");
        self.must(!early, "a worker is told to end before its connections had their time");
    }

    fn killed(&mut self, worker: WorkerId, because: KillReason, event: &Event) {
        let (now, plan) = (self.now, self.fleet.plan);
        let process = self.process(worker, event);
        let twice = std::mem::replace(&mut process.killed, true);
        let (served, told, slot) = (process.admitted, process.told, process.slot);
        let failed = process.withdrawn.is_none();
        process.withdrawn.get_or_insert(now);
        let rescued = std::mem::take(&mut process.waiting);
        self.backlog += rescued;
        if failed && !matches!(because, KillReason::Outdated | KillReason::Aborted | KillReason::Immediate) {
            self.failures.entry(slot).or_default().push(now);
        }
        self.must(!twice, "killed twice");
        let fits = match because {
            KillReason::GraceOver => {
                told.is_some_and(|at| now.since(at) >= time_to_stop(plan.grace).min(now.since(at)))
            }
            KillReason::BootTimeout | KillReason::Aborted | KillReason::Outdated => !served,
            KillReason::Stalled => plan.stall_kill.is_some(),
            KillReason::Watchdog | KillReason::Elsewhere => matches!(event, Event::Condemned(..)),
            KillReason::Immediate => self.fleet.stops_at_once(),
        };
        self.must(fits, &format!("{because:?}: killed without being told first, or without a reason"));
    }

    fn reload_ended(&mut self, generation: Generation) -> Running {
        self.waiters.1 = 0;
        match self.reload.take() {
            Some(reload) if reload.generation == generation => reload,
            other => panic!("history {}: {generation:?} ended, and {other:?} ran", self.seed),
        }
    }

    fn serving_slots(&self) -> BTreeSet<usize> {
        let wanted = self.fleet.wanted() as usize;
        (0..self.fleet.slots().len().min(wanted)).filter(|&i| self.fleet.slots()[i].serving().is_some()).collect()
    }

    fn check(
        &self,
        event: &Event,
        before: &BTreeSet<usize>,
        (excused, least): (&BTreeSet<usize>, usize),
        unavailable: usize,
    ) {
        let (seed, slots, wanted) = (self.seed, self.fleet.slots(), self.fleet.wanted() as usize);
        let placed: BTreeSet<WorkerId> = slots.iter().flat_map(|s| &s.occupants).map(|o| o.worker).collect();
        let alive: BTreeSet<WorkerId> = self.alive.keys().copied().collect();
        assert_eq!(placed, alive, "history {seed}: every living worker has one state");
        for state in slots {
            let count = |is: fn(&Occupant) -> bool| state.occupants.iter().filter(|o| is(o)).count();
            self.must(state.occupants.len() <= OCCUPANTS_MAX, "processes of a slot are bounded");
            self.must(count(Occupant::is_starting) <= 1, "one starts at a time in a slot");
            self.must(count(Occupant::serves) <= 1, "one serves in a slot");
        }
        for (id, process) in &self.alive {
            let serves = self.fleet.occupant(*id).is_some_and(Occupant::serves);
            self.must(process.serves() == serves, "who serves is admitted and not withdrawn");
        }
        // No worker leaves for the fleet's own reasons before its replacement is there, except for an allowed gap.
        let now_serving = self.serving_slots();
        let gaps: Vec<_> =
            before.iter().filter(|s| **s < wanted && !now_serving.contains(s) && !excused.contains(s)).collect();
        let missing = (0..least.min(slots.len())).filter(|slot| !now_serving.contains(slot)).count();
        if !gaps.is_empty() {
            assert!(missing <= unavailable, "history {seed}: {event:?} left slots {gaps:?} without a worker");
        }
        self.nobody_starves();
        self.must(slots.len() <= 8, "slots are bounded");
        let wakes = self.fleet.wakes_at();
        self.must(wakes.is_none_or(|at| at > self.now), "a deadline in the past would spin");
        if self.random.clone().below(64) == 0 {
            let copy: Fleet = serde_json::from_str(&serde_json::to_string(&self.fleet).unwrap()).unwrap();
            assert_eq!(format!("{copy:?}"), format!("{:?}", self.fleet), "history {seed}: written down and read again");
        }
    }

    /// While any worker serves, at least one gets connections: a healthy one, if there is one.
    fn nobody_starves(&self) {
        let serving = || self.alive.values().filter(|process| process.serves());
        let gets = serving().any(|process| !process.excluded);
        self.must(gets || serving().next().is_none(), "all are excluded");
        let well = serving().all(|process| !process.signs.is_empty() || !process.excluded);
        self.must(well, "one that is well gets nothing");
    }
}
