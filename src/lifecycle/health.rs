//! Looks after workers that serve: whether they take what waits for them, whether they answer questions, and whether
//! they have had their time. The fleet decides what follows.

use super::drain::Drains;
use super::groups::Groups;
use super::{Event, Events};
use crate::activity::BEAT;
use crate::adapt::Chosen;
use crate::clock;
use crate::config::life::{Life, Probing};
use crate::config::{Config, Mode};
use crate::core::fleet::{self, Fleet, KillReason, Occupant, Sign};
use crate::core::health::{Facts, Limits, Verdict, stood_still};
use crate::core::ids::WorkerId;
use crate::core::jitter;
use crate::core::moment::{Moment, millis};
use crate::core::probes::{Answer, Condition, Probes};
use crate::front::accounts::Front;
use crate::kernel::shares::Counted;
use crate::reports::Reports;
use crate::sys::process;
use crate::sys::process::Usage;
use crate::sys::socket::{listen, own_pair};
use crate::sys::taken::Taken;
use crate::wire::packet::ToWorker;
use crate::workers::pool::Pool;
use crate::workers::probe::{self, Found};
use crate::workers::worker::Worker;
use nix::unistd::Pid;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{info, warn};

/// The shortest and the longest time between two looks at the workers. In between, there are four looks in the time
/// after which a worker is stalled, and as many as there are questions to a worker how it is.
const LOOK_AT_MOST: Duration = Duration::from_millis(10);
const LOOK_AT_LEAST: Duration = Duration::from_millis(250);
/// For this long, a worker that is passed over is looked at as often as the others.
const LOOK_FOR_RECOVERY: Duration = Duration::from_secs(10);
/// How often the master looks at the memory of the workers, which means reading `/proc`.
const LOOK_AT_MEMORY: Duration = Duration::from_secs(2);

/// How often the master looks at the workers.
#[must_use]
pub fn rhythm(life: &Life) -> Duration {
    let stall = life.stall.map(|stall| stall / 4);
    // Workers are asked during a look: with fewer looks than questions every worker would seem late.
    [stall, life.heartbeat].into_iter().flatten().min().unwrap_or(LOOK_AT_LEAST).clamp(LOOK_AT_MOST, LOOK_AT_LEAST)
}

/// What the master checks again and again: whether workers that serve are well, and what draining workers have open.
#[derive(Debug)]
pub struct Checks {
    /// How often the master looks at workers.
    pub rhythm: Rc<Cell<Duration>>,
    /// When it last looked.
    pub looked_at: Moment,
    /// Whether nothing was going on then, so that the next look is late.
    pub looked_at_rest: bool,
    /// When it last looked at their memory.
    pub memory_looked_at: Moment,
    /// The workers that drain.
    pub drains: Rc<Drains>,
    /// The groups of leaving workers whose first process has ended.
    pub groups: Rc<Groups>,
    /// Where findings are reported.
    pub events: Events,
}

impl Checks {
    /// The first look comes after a while.
    #[must_use]
    pub fn new(config: &Config, events: Events) -> Checks {
        let now = clock::now();
        let rhythm = Rc::new(Cell::new(rhythm(&config.life)));
        Checks {
            rhythm,
            looked_at: now,
            looked_at_rest: false,
            memory_looked_at: now,
            drains: Rc::default(),
            groups: Rc::default(),
            events,
        }
    }

    /// Begins to look after the workers.
    pub fn begin(&self, front: &Front) {
        let (common, rhythm, events) = (Rc::clone(&front.common), Rc::clone(&self.rhythm), self.events.clone());
        tokio::task::spawn_local(async move {
            loop {
                common.activity.changed().await;
                if !common.activity.is_quiet() {
                    sleep(rhythm.get()).await;
                }
                if events.send(Event::LookAfter).await.is_err() {
                    return;
                }
            }
        });
    }

    /// A worker begins to serve.
    pub fn begin_with(&self, id: WorkerId, workers: &mut Pool, fleet: &Fleet, front: &Front) {
        let Some(base) = workers.get(id).map(|worker| counted_by_others(worker, workers, front)) else { return };
        if let Some(worker) = workers.get_mut(id) {
            let now = clock::now();
            (worker.health.moved, worker.health.serves_since) = (now, now);
            worker.health.base = base;
            self.probe_if_asked(worker, fleet);
        }
    }

    /// Goes on with the probes of a worker that serves.
    pub fn probe_if_asked(&self, worker: &mut Worker, fleet: &Fleet) {
        if let Some(probing) = worker.config.life.probing.clone().filter(|_| worker.admitted) {
            self.probe_again_and_again(worker, fleet, probing);
        }
    }

    /// One look at all workers that serve.
    pub fn look(&mut self, workers: &mut Pool, fleet: &Fleet, front: &Front) -> Vec<fleet::Event> {
        let now = clock::now();
        let gap = now.since(std::mem::replace(&mut self.looked_at, now));
        let quiet = std::mem::take(&mut self.looked_at_rest);
        if stood_still(gap, self.rhythm.get(), if quiet { BEAT } else { Duration::ZERO }) {
            let gap_ms = millis(gap);
            warn!(gap_ms, "maitred itself was stopped for a while");
            workers.values_mut().for_each(|worker| worker.health.excuse(gap));
            return Vec::new();
        }
        if quiet {
            let lately = Moment::at(now.since(Moment::default()).saturating_sub(self.rhythm.get()));
            let well = |id| fleet.occupant(id).is_some_and(|o| !o.excluded);
            for worker in workers.values_mut().filter(|worker| well(worker.id)) {
                worker.health.had_none_until(lately);
            }
        }
        let serving = fleet.slots().iter().filter_map(|s| s.serving());
        let events = serving.flat_map(|occupant| look_at(occupant, now, workers, front)).collect();
        if may_rest(now, workers, fleet, front) {
            front.common.activity.end();
            self.looked_at_rest = true;
        } else {
            // Where the master hands nothing over, nothing else reports activity.
            front.common.activity.begin();
        }
        let memory_due = now.since(self.memory_looked_at) >= LOOK_AT_MEMORY;
        if memory_due && workers.values().any(|worker| worker.config.life.max_rss.is_some()) {
            self.memory_looked_at = now;
            measure(workers, front, HashSet::new(), self.events.clone(), |usage| Event::Memory { usage });
        }
        events
    }

    fn probe_again_and_again(&self, worker: &mut Worker, fleet: &Fleet, probing: Probing) {
        let events = self.events.clone();
        // The program before this one may have found it unwell.
        let id = worker.id;
        let unwell = fleet.occupant(id).is_some_and(|o| o.signs.has(Sign::Probe));
        let condition = if unwell { Condition::Unwell } else { Condition::Well };
        let mut probes = Probes::of(condition, probing.rise, probing.fall);
        let first = probing.interval.mul_f64(10.0 * (1.0 - jitter::share(id, 0)));
        let (slot, target) = (worker.slot.0, Rc::clone(&worker.target));
        worker.tasks.push(tokio::task::spawn_local(async move {
            sleep(first).await;
            loop {
                let was = probes.condition();
                let changed = match probe::ask(&target, &probing.probe, probing.timeout).await {
                    Found::Well => probes.heard(Answer::Good),
                    Found::NotAsked => probes.heard(Answer::NotAsked),
                    Found::Unwell(why) => {
                        let changed = probes.heard(Answer::Bad);
                        if was == Condition::Well {
                            let (bad, fall) = (probes.bad(), probing.fall);
                            warn!(slot, worker = id.0, %why, bad, fall, "a worker failed its probe");
                        }
                        changed
                    }
                };
                if let Some(now) = changed {
                    let _ = events.send(Event::Probed { worker: id, now }).await;
                }
                sleep(probing.interval).await;
            }
        }));
    }
}

/// The limits for this worker.
fn limits(id: WorkerId, life: &Life) -> Limits {
    Limits {
        stall: life.stall,
        heartbeat: life.heartbeat,
        watchdog: life.watchdog,
        max_connections: life.max_connections,
        max_age: life.max_age,
        max_rss: life.max_rss,
        share: jitter::share(id, u64::from(std::process::id())),
    }
}

/// Connections of the worker's slot that did not go through the master.
fn counted_by_others(worker: &Worker, workers: &Pool, front: &Front) -> u64 {
    match front.mode() {
        Mode::Handoff => 0,
        Mode::Shared => workers.starter.taken.as_ref().map_or(0, |taken: &Taken| taken.get(worker.slot.index())),
        Mode::Kernel => match front.steered_to(worker.slot) {
            Some(steered) => steered,
            None => counted_by_itself(worker, workers).unwrap_or(0),
        },
    }
}

/// Connections that the shim saw the slot's workers take; only the shim counts them.
fn counted_by_itself(worker: &Worker, workers: &Pool) -> Option<u64> {
    let taken = workers.starter.taken.as_ref().filter(|_| worker.adapter == Chosen::Preload)?;
    Some(taken.get(worker.slot.index()))
}

/// Looks in the background at what the workers use of the machine, and at their connections to these ports. Reports
/// nothing when too many jobs wait already: the next look does it.
pub fn measure<E: 'static>(
    workers: &Pool,
    front: &Front,
    ports: HashSet<u16>,
    reports: Reports<E>,
    report: fn(HashMap<Pid, Usage>) -> E,
) {
    let (Ok(place), groups) = (front.common.aside.place(), workers.groups()) else { return };
    tokio::task::spawn_local(async move {
        if let Ok(usage) = place.run(move || process::usage(&groups, &ports)).await {
            let _ = reports.send(report(usage)).await;
        }
    });
}

/// Whether the next look may come late: nothing waits for a worker, and no worker has to be asked or counted more
/// often.
fn may_rest(now: Moment, workers: &Pool, fleet: &Fleet, front: &Front) -> bool {
    let serves = |worker: &&Worker| fleet.occupant(worker.id).is_some_and(Occupant::serves);
    workers.values().filter(serves).all(|worker| {
        let life = &worker.config.life;
        let unseen = front.mode() != Mode::Handoff && life.max_connections.is_some();
        let asked = life.heartbeat.is_some() || life.watchdog.is_some();
        let rests = match fleet.occupant(worker.id) {
            // It gets nothing anyway, and may stay as it is forever.
            Some(o) if o.excluded => now.since(worker.health.moved) >= LOOK_FOR_RECOVERY,
            _ => waiting_and_taken(worker, workers, front).0 == 0,
        };
        rests && !asked && !unseen
    })
}

fn look_at(occupant: &Occupant, now: Moment, workers: &mut Pool, front: &Front) -> Vec<fleet::Event> {
    let (mut events, mut bait) = (Vec::new(), false);
    let (id, signs, excluded) = (occupant.worker, occupant.signs, occupant.excluded);
    let Some(worker) = workers.get(id) else { return events };
    let (waiting, taken) = waiting_and_taken(worker, workers, front);
    let counted = counted_by_others(worker, workers, front);
    let Some(worker) = workers.get_mut(id) else { return events };
    let (slot, age) = (worker.slot.0, worker.age());
    let connections = given(worker) + counted.saturating_sub(worker.health.base);
    let limits = limits(id, &worker.config.life);
    let facts = Facts { waiting, taken, connections, age, signs, excluded };
    for verdict in worker.health.look(now, &facts, &limits) {
        match verdict {
            Verdict::Stalled(sign @ Sign::Heartbeat, _) => {
                warn!(slot, worker = id.0, "a worker does not answer PING any more");
                events.push(fleet::Event::Stalled(id, sign));
            }
            Verdict::Stalled(sign, still) => {
                let for_ms = millis(still);
                warn!(slot, worker = id.0, waiting, for_ms, "a worker takes none of the connections that wait for it");
                events.push(fleet::Event::Stalled(id, sign));
            }
            Verdict::Recovered(sign @ Sign::Heartbeat) => {
                info!(slot, worker = id.0, "a worker answers PING again");
                events.push(fleet::Event::Recovered(id, sign));
            }
            Verdict::Recovered(sign) => {
                info!(slot, worker = id.0, "a stalled worker takes connections again");
                events.push(fleet::Event::Recovered(id, sign));
            }
            Verdict::Ping(number) => worker.tell(&ToWorker::Ping(number)),
            Verdict::MissedWatchdog { limit, silent } => {
                let (limit_ms, for_ms) = (millis(limit), millis(silent));
                warn!(slot, worker = id.0, limit_ms, for_ms, "a worker missed its watchdog");
                events.push(fleet::Event::Condemned(id, KillReason::Watchdog));
            }
            Verdict::Worn => {
                info!(slot, worker = id.0, connections, age_s = age.as_secs(), "a worker had its time, replacing it");
                events.push(fleet::Event::Recycle(id));
            }
            Verdict::Bait => bait = true,
        }
    }
    if bait {
        lay_bait(worker);
    }
    events
}

/// Connections that wait for a worker, and how many it has taken.
#[must_use]
pub fn waiting_and_taken(worker: &Worker, workers: &Pool, front: &Front) -> (u64, u64) {
    match front.mode() {
        Mode::Shared => (0, 0),
        Mode::Handoff => {
            let handoffs = || worker.requests.iter().filter_map(|r| r.handoff.as_ref());
            (handoffs().map(|h| u64::from(h.queued())).sum(), handoffs().map(|h| h.taken()).sum())
        }
        Mode::Kernel => {
            let waiting = front.waiting_at(worker.slot);
            let steered = front.steered_to(worker.slot).map(|steered| steered.saturating_sub(waiting));
            // Where nothing counts, a busy worker cannot be told from one that stands still.
            steered.or_else(|| counted_by_itself(worker, workers)).map_or((0, 0), |taken| (waiting, taken))
        }
    }
}

/// Gives a worker that is passed over one of the master's own connections: when it takes that, it works again. No
/// client waits for it.
fn lay_bait(worker: &Worker) {
    for request in worker.requests.iter().filter(|r| r.accepting) {
        let Some(handoff) = &request.handoff else { continue };
        if let Ok(pair) = own_pair::connect(&request.listener.address) {
            // If there is no room, something waits there already.
            let _ = handoff.send_own(pair.theirs.as_fd(), listen::peer_bytes(&pair.peer));
        }
    }
}

/// Checks the memory of the workers, which is known now.
pub fn memory(usage: &HashMap<Pid, Usage>, workers: &mut Pool, fleet: &Fleet) -> Vec<fleet::Event> {
    let mut grown = Vec::new();
    for worker in workers.values_mut() {
        let Some(usage) = usage.get(&worker.pid) else { continue };
        let limits = limits(worker.id, &worker.config.life);
        let serves = fleet.occupant(worker.id).is_some_and(Occupant::serves);
        if serves && worker.health.has_grown(usage.rss_bytes, &limits) {
            let rss_bytes = usage.rss_bytes;
            info!(slot = worker.slot.0, worker = worker.id.0, rss_bytes, "a worker has grown too big, replacing it");
            grown.push(fleet::Event::Recycle(worker.id));
        }
    }
    grown
}

/// A worker's probes reached another verdict.
#[must_use]
pub fn probed(worker: &Worker, now: Condition) -> fleet::Event {
    let (id, slot) = (worker.id, worker.slot.0);
    match now {
        Condition::Well => {
            info!(slot, worker = id.0, "a worker answers its probe again");
            fleet::Event::Recovered(id, Sign::Probe)
        }
        Condition::Unwell => fleet::Event::Stalled(id, Sign::Probe),
    }
}

/// Stops handing connections to a worker, and gives what waits for it to others.
pub fn exclude(id: WorkerId, workers: &Pool, fleet: &Fleet, front: &Front) {
    for listener in front.listeners.iter() {
        listener.workers.suspend(id);
        listener.changed.notify_one();
    }
    if let Some(worker) = workers.get(id) {
        let because = fleet.occupant(id).map(|o| o.signs.names()).unwrap_or_default();
        warn!(slot = worker.slot.0, worker = id.0, because, "stalled: passing over a worker");
    }
}

/// Hands connections to it again.
pub fn readmit(id: WorkerId, workers: &mut Pool, front: &Front) {
    for listener in front.listeners.iter() {
        listener.workers.readmit(id);
        listener.changed.notify_one();
    }
    if let Some(worker) = workers.get_mut(id) {
        worker.health.serves_since = clock::now();
        info!(slot = worker.slot.0, worker = id.0, "a worker that was passed over gets connections again");
    }
}

/// Clients' connections that were given to a worker.
fn given(worker: &Worker) -> u64 {
    worker.requests.iter().filter_map(|r| r.handoff.as_ref()).map(|handoff| handoff.given()).sum()
}
