//! How workers end: the master asks them, kills them, reaps them, and follows what is left of them to its end.

use super::failures::Failures;
use super::groups::Groups;
use super::{Event, Events, look};
use crate::adapt::daemons;
use crate::clock;
use crate::config::life::KillMode;
use crate::config::{Config, PortZero};
use crate::core::fleet::{self, Exit, Fleet, KillReason, Occupant};
use crate::core::ids::WorkerId;
use crate::core::moment::millis;
use crate::front::accounts::Front;
use crate::sys::fd;
use crate::sys::process::descent::{self, Kin, left_its_group};
use crate::sys::process::guard::Detached;
use crate::sys::process::reap;
use crate::sys::process::sweep::Patience;
use crate::workers::leftovers::{self, Dead, Left, Rest, Scene, TIME_TO_DIE, TIME_TO_END};
use crate::workers::pool::Pool;
use crate::workers::worker::{Executes, Worker};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{error, info, warn};

/// A worker that listened, whose first process ends with 0 this soon while other processes have its sockets, may have
/// gone into the background. A worker that served longer had other reasons.
const BACKGROUND_WITHIN: Duration = Duration::from_secs(10);
/// What goes into the background forks the process that stays before it serves, or ends this soon after it forked it:
/// that takes a server some milliseconds. A server that replaces itself (`USR2` to gunicorn, unicorn) forks later, and
/// its old process stays until the new one serves.
const BACKGROUND_TAKES: Duration = Duration::from_millis(200);
/// How much longer than allowed the master waits for the end of everything. A thread that reads the files of a process
/// that hangs in the kernel hangs there, too; it must not keep the master.
const OVERDUE: Duration = Duration::from_secs(2);

/// The end of a worker's first process.
#[derive(Debug)]
pub struct Death {
    /// The worker.
    pub worker: WorkerId,
    /// How it ended.
    pub exit: Exit,
    /// The processes that went on in the background, if it did.
    pub daemons: Option<Vec<Kin>>,
    /// Another worker that has the address for itself, in words.
    pub bypass: Option<String>,
}

impl Death {
    /// Nothing but how it ended.
    #[must_use]
    pub fn by(worker: WorkerId, exit: Exit) -> Death {
        Death { worker, exit, daemons: None, bypass: None }
    }
}

/// Asks a worker to end.
pub fn terminate(worker: &Worker) {
    let stop_signal = worker.config.stop_signal;
    info!(slot = worker.slot.0, worker = worker.id.0, pid = worker.pid.as_raw(), signal = %stop_signal, "asking a worker to end");
    // A stopped worker could not receive it.
    for signal in [stop_signal, Signal::SIGCONT] {
        send(worker, signal);
    }
}

/// Sends a worker a signal that its operator chose.
pub fn signal(worker: &Worker, signal: Signal) {
    info!(slot = worker.slot.0, worker = worker.id.0, pid = worker.pid.as_raw(), %signal, "sending a worker a signal");
    send(worker, signal);
}

/// Sends a signal to those processes of a worker that `--kill-mode` says.
fn send(worker: &Worker, signal: Signal) {
    let whole_group = worker.config.life.kill_mode == KillMode::Group;
    if whole_group {
        let _ = reap::signal_group(worker.pid, signal);
    }
    // Only once per process: a second signal means something else to many programs.
    if !whole_group || left_its_group(worker.pid) {
        let _ = reap::signal_process(worker.pidfd.get_ref().as_fd(), signal);
    }
}

/// Kills a worker, and checks again when it should be dead.
pub fn kill(worker: &Worker, because: KillReason, events: &Events) {
    warn!(slot = worker.slot.0, worker = worker.id.0, pid = worker.pid.as_raw(), ?because, "killing a worker");
    if worker.config.life.kill_mode != KillMode::Process {
        let _ = reap::signal_group(worker.pid, Signal::SIGKILL);
    }
    // It may have left the group that has its number.
    let _ = reap::signal_process(worker.pidfd.get_ref().as_fd(), Signal::SIGKILL);
    look_again_at_killed(worker.id, events);
}

fn look_again_at_killed(worker: WorkerId, events: &Events) {
    let events = events.clone();
    tokio::task::spawn_local(async move {
        sleep(TIME_TO_DIE).await;
        let _ = events.send(Event::Unkillable { worker }).await;
    });
}

/// A worker was killed and had its time to die. It hangs in the kernel, or belongs to another user. When the fleet
/// stops, the master does not wait for it any longer, and this returns its death.
pub fn unkillable(id: WorkerId, workers: &Pool, fleet: &Fleet, front: &Front, events: &Events) -> Option<Death> {
    let worker = workers.get(id)?;
    let has_ended = !matches!(reap::how_it_ended(worker.pidfd.get_ref().as_fd()), Ok(None));
    if has_ended && !worker.outlived {
        // The report of its end is on the way.
        return None;
    }
    if !fleet.is_stopping() {
        look_again_at_killed(id, events);
        return None;
    }
    let (slot, pid) = (worker.slot.0, worker.pid.as_raw());
    error!(slot, worker = id.0, pid, "a worker cannot be killed; going on without it");
    part_with(worker, workers, front);
    Some(Death::by(id, Exit::Signal(Signal::SIGKILL as i32)))
}

/// The first process of a worker ended, and its number is not reused yet. If it was told to leave, the rest of its group
/// may still be at work: [`Event::GroupEnded`] reports the end of all. If it may have gone into the background, the
/// master looks for the processes that go on without it ([`crate::workers::Event::LeftBehind`]). Else this returns its
/// death.
pub fn ended(
    id: WorkerId,
    workers: &mut Pool,
    fleet: &Fleet,
    front: &Front,
    scene: impl FnOnce(&Pool) -> Scene,
    groups: &Rc<Groups>,
    events: &Events,
) -> Option<Death> {
    let leaves = fleet.occupant(id).is_some_and(Occupant::is_leaving) && !fleet.is_killed(id);
    let worker = workers.get_mut(id)?;
    if leaves && worker.config.life.kill_mode == KillMode::Group && !std::mem::replace(&mut worker.outlived, true) {
        groups.wait(worker.pid, id, worker.slot, &front.common, events);
        return None;
    }
    worker.ended = Some(clock::now());
    let worker = workers.get(id)?;
    // It was reaped elsewhere, so how it ended is unknown.
    let seen = reap::how_it_ended(worker.pidfd.get_ref().as_fd()).ok().flatten().map(Exit::from);
    let exit = seen.unwrap_or(Exit::Code(0));
    let (slot, pid, uptime_ms) = (worker.slot.0, worker.pid.as_raw(), millis(worker.age()));
    let untaken: u64 = front.listeners.iter().map(|l| l.workers.queued_of(id)).sum();
    let state = fleet.occupant(id).map_or("", |o| o.name());
    if state == "draining" {
        info!(slot, worker = id.0, pid, %exit, uptime_ms, "worker ended");
    } else {
        warn!(slot, worker = id.0, pid, %exit, uptime_ms, state, untaken, "worker ended");
    }
    let young = state == "starting" || worker.age() < BACKGROUND_WITHIN;
    let may_be_daemon = seen == Some(Exit::Code(0)) && young && state != "draining" && !fleet.is_stopping();
    part_with(worker, workers, front);
    if may_be_daemon {
        // The group is left alone until then: a process in it may be going into the background.
        workers.starter.leftovers.look(id, dead(worker), scene(workers));
        return None;
    }
    Some(Death::by(id, exit))
}

/// Gives a worker nothing more and hears nothing more from it.
fn part_with(worker: &Worker, workers: &Pool, front: &Front) {
    worker.forget();
    front.common.opens.forget(worker.id);
    front.common.provoked.forget(worker.id);
    workers.starter.rendezvous.forget(worker.id, &worker.token);
    front.listeners.retire(worker.id);
}

/// A worker's first process ended with 0, and these processes go on without it.
#[must_use]
pub fn left_behind(id: WorkerId, found: Vec<Left>, workers: &Pool, fleet: &Fleet) -> Death {
    let starting = fleet.occupant(id).is_some_and(Occupant::is_starting);
    let now = clock::now();
    let ended = workers.get(id).and_then(|worker| worker.ended).unwrap_or(now);
    let served = fleet.occupant(id).map_or(Duration::ZERO, |occupant| ended.since(occupant.since()));
    // Before the worker listens, it is unknown which of them is the server.
    let stay: Vec<Kin> = found.into_iter().filter(|left| left.holds || starting).map(|left| left.kin).collect();
    // Its own children are younger.
    let oldest = stay.iter().map(Kin::age).max().unwrap_or_default().saturating_sub(now.since(ended));
    let daemons = Some(stay).filter(|stay| !stay.is_empty());
    if let Some(heirs) = daemons.as_ref().filter(|_| !starting && !went_into_the_background(oldest, served)) {
        let (worker, processes) = (id.0, leftovers::names(heirs.iter()));
        warn!(
            worker,
            processes,
            "a worker replaced itself, and its first process ended: that ends the worker, and another one follows. \
             Use `maitred reload` in place of the server's own upgrade"
        );
        return Death::by(id, Exit::Code(0));
    }
    Death { daemons, ..Death::by(id, Exit::Code(0)) }
}

/// Whether a process of this age is what a server that was ready for this long forked to go into the background.
fn went_into_the_background(age: Duration, served: Duration) -> bool {
    age <= BACKGROUND_TAKES || age >= served
}

/// First reads what a worker that never served wrote to its standard error; [`Event::WordsHeard`] reports when. Another
/// process may have that, too, and not close it for long. Returns the death of any other worker.
pub fn hear_last_words(
    death: Death,
    workers: &Pool,
    fleet: &Fleet,
    front: &Front,
    port_zero: PortZero,
    events: &Events,
) -> Option<Death> {
    let worker = workers.get(death.worker)?;
    let starting = death.daemons.is_some() || fleet.occupant(death.worker).is_some_and(Occupant::is_starting);
    if !starting || worker.executes == Executes::Never {
        return Some(death);
    }
    let bypass = fleet.was_never_ready().then(|| look::bypass(workers, front, port_zero));
    let (last_words, events) = (Arc::clone(&worker.last_words), events.clone());
    tokio::task::spawn_local(async move {
        last_words.wait().await;
        let bypass = match bypass {
            Some(bypass) => bypass.await,
            None => None,
        };
        let _ = events.send(Event::WordsHeard(Death { bypass, ..death })).await;
    });
    None
}

/// What is left to do for a worker that is gone.
#[derive(Debug)]
pub struct Buried {
    /// What the fleet has to know.
    pub event: fleet::Event,
    /// The worker, if it left because it was told to.
    pub left: Option<Worker>,
}

/// Reaps a worker's first process and ends what is left of it.
pub fn bury(death: &Death, scene: Scene, workers: &mut Pool, fleet: &Fleet, failures: &mut Failures) -> Option<Buried> {
    let id = death.worker;
    let worker = workers.get(id)?;
    let (slot, dead, grace, executes) = (worker.slot, dead(worker), worker.config.grace, worker.executes);
    let rest = rest_of(worker.config.life.kill_mode);
    if worker.config.life.kill_mode != KillMode::Process {
        // While the dead process still holds the group's number.
        let _ = reap::signal_group(worker.pid, Signal::SIGKILL);
    }
    workers.starter.guard.remove(worker.pid);
    let _ = reap::reap(worker.pidfd.get_ref().as_fd());
    let advice = death.daemons.is_some().then(|| daemons::advice(&worker.config.command));
    let (state, killed) = match fleet.occupant(id) {
        Some(occupant) => (occupant.name(), fleet.is_killed(id)),
        None => ("", true),
    };
    let drained = state == "draining";
    if !drained {
        failures.remember_words(worker, fleet, death.exit, advice.as_deref(), death.bypass.as_deref());
    }
    if let (Some(daemons), Some(advice)) = (&death.daemons, &advice) {
        let processes = leftovers::names(daemons.iter());
        error!(
            slot = slot.0,
            worker = id.0,
            processes,
            "a worker went into the background, where nobody can look after it: its first process ended and others go on; {advice}"
        );
    }
    let at_once = killed || fleet.stops_at_once();
    let to_end = if at_once { Duration::ZERO } else { TIME_TO_END.min(grace) };
    let worker = workers.remove(id);
    workers.starter.leftovers.clean(Some(dead), rest, scene, Patience { to_end, to_die: TIME_TO_DIE });
    let event = match &death.daemons {
        Some(_) => fleet::Event::Daemonized(id),
        None if executes == Executes::Never => fleet::Event::ForkFailed(id),
        None => fleet::Event::Exited(id, death.exit),
    };
    Some(Buried { event, left: worker.filter(|_| drained) })
}

/// All workers are gone, so what they left behind must go, too. [`crate::workers::Event::NobodyLeft`] reports when it
/// is gone, or [`Event::EndOverdue`] that it takes too long.
pub fn end(workers: &Pool, fleet: &Fleet, config: &Config, scene: Scene, events: &Events) {
    let to_end = if fleet.stops_at_once() { Duration::ZERO } else { TIME_TO_END.min(config.grace) };
    let patience = Patience { to_end, to_die: TIME_TO_DIE };
    workers.starter.leftovers.end(config.life.detached, scene, patience);
    let events = events.clone();
    tokio::task::spawn_local(async move {
        sleep(patience.to_end + patience.to_die + OVERDUE).await;
        warn!("looking for what workers left behind takes too long; ending without, and the guard goes on");
        let _ = events.send(Event::EndOverdue).await;
    });
}

/// Ends what was left behind by workers that ended under the program before this one.
pub fn clean_up_after_upgrade(workers: &Pool, scene: Scene) {
    let rest = rest_of(workers.starter.config.life.kill_mode);
    workers.starter.leftovers.clean(None, rest, scene, Patience { to_end: TIME_TO_END, to_die: TIME_TO_DIE });
}

/// The facts that a search for leftovers needs. `of` is about to be forgotten, `before` are sockets that the master
/// had, and `helpers` are processes of the master that are no workers.
#[must_use]
pub fn scene(of: Option<WorkerId>, workers: &Pool, front: &Front, before: &HashSet<u64>, helpers: &[Pid]) -> Scene {
    let firsts = workers.values().filter(|worker| worker.runs()).map(|worker| worker.pid);
    // What this process had before it was maitred, such as the log reader of a start script, is not the master's to
    // end.
    let earlier = descent::still_there(&workers.starter.earlier);
    Scene {
        family: workers.starter.guard.family(),
        without: firsts
            .chain([workers.starter.guard.process()])
            .chain(helpers.iter().copied())
            .chain(earlier)
            .collect(),
        living: workers.ids().filter(|id| Some(*id) != of).collect(),
        newest: workers.newest(),
        sockets: our_sockets(workers, front).union(before).copied().collect(),
    }
}

/// Where detached jobs stay, the guard must know which processes are not detached jobs.
pub fn tell_guard_of_sockets(workers: &Pool, front: &Front, detached: Detached) {
    if detached == Detached::Stay {
        workers.starter.guard.know_sockets(&our_sockets(workers, front));
    }
}

/// The inodes of all sockets by which a process could take connections of the master.
#[must_use]
pub fn our_sockets(workers: &Pool, front: &Front) -> HashSet<u64> {
    let listening = front.listeners.iter().flat_map(|listener| listener.sockets());
    let listening = listening.filter_map(|socket| fd::inode(socket.as_fd()).ok());
    let requests = workers.values().flat_map(|worker| &worker.requests);
    let handoffs = requests.filter_map(|request| request.handoff.as_ref());
    let datagrams = front.datagrams.sockets().filter_map(|socket| fd::inode(socket.as_fd()).ok());
    listening.chain(datagrams).chain(handoffs.filter_map(|handoff| fd::inode(handoff.receiver()).ok())).collect()
}

fn dead(worker: &Worker) -> Dead {
    Dead { pid: worker.pid, channel: worker.channel_inode }
}

/// What happens to the other processes of a worker whose first process has ended.
fn rest_of(kill_mode: KillMode) -> Rest {
    match kill_mode {
        KillMode::Group | KillMode::Mixed => Rest::Ends,
        KillMode::Process => Rest::GoesOn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_replaces_itself_does_not_go_into_the_background() {
        let at = Duration::from_millis;
        // Forked when it listened, and the first process ended at once.
        assert!(went_into_the_background(at(10), at(10)));
        // Forked before it listened, and the first process ended when the other one served.
        assert!(went_into_the_background(at(3010), at(3000)));
        // Loaded its program for long after it began to listen.
        assert!(went_into_the_background(at(20), at(5000)));
        // Forked by a signal when it had served for a while.
        assert!(!went_into_the_background(at(500), at(600)));
    }
}
