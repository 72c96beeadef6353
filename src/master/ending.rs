//! How workers end, and the master: asked, killed, reaped, and what is left of them followed to its end.

use super::error::RunError;
use super::event::Event;
use super::run::Master;
use crate::adapt::daemons;
use crate::core::fleet::{self, Exit, KillReason};
use crate::core::ids::WorkerId;
use crate::sys::descent::{self, Kin, left_its_group};
use crate::sys::guard::{Detached, Guard};
use crate::sys::sweep::Patience;
use crate::sys::{fd, reap, watch};
use crate::workers;
use crate::workers::leftovers::{self, Dead, Left, Scene, TIME_TO_DIE, TIME_TO_END};
use crate::workers::worker::{Executes, Worker};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

/// A worker that listened, whose first process ends with 0 this soon while others have its sockets, went into
/// the background: that takes a server some milliseconds. One that served longer may have had its reasons.
const BACKGROUND_WITHIN: Duration = Duration::from_secs(10);
/// From one attempt to replace a guard that ended to the next, doubled each time.
const GUARD_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];
/// The end of everything is waited for this much longer than it may take; a thread that hangs in the kernel,
/// where a process does whose files it reads, must not keep the master.
const OVERDUE: Duration = Duration::from_secs(2);

impl Master {
    /// Asks a worker to end.
    pub(super) fn terminate(&self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let signal = worker.config.stop_signal;
        info!(slot = worker.slot.0, worker = id.0, pid = worker.pid.as_raw(), %signal, "asking a worker to end");
        // One that is stopped could not hear it.
        for signal in [signal, Signal::SIGCONT] {
            let _ = reap::signal_group(worker.pid, signal);
            // Twice would mean something else to many.
            if left_its_group(worker.pid) {
                let _ = reap::signal_process(worker.pidfd.get_ref().as_fd(), signal);
            }
        }
    }

    /// Kills a worker, and comes back when it should be dead.
    pub(super) fn kill(&mut self, id: WorkerId, because: KillReason) {
        if let Some(worker) = self.workers.get(id) {
            warn!(slot = worker.slot.0, worker = id.0, pid = worker.pid.as_raw(), ?because, "killing a worker");
            // It may have left the group that bears its number.
            let _ = reap::signal_group(worker.pid, Signal::SIGKILL);
            let _ = reap::signal_process(worker.pidfd.get_ref().as_fd(), Signal::SIGKILL);
            self.look_again_at_killed(id);
        }
        self.remember_kill(id, because);
    }

    fn look_again_at_killed(&self, worker: WorkerId) {
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            sleep(TIME_TO_DIE).await;
            let _ = events.send(Event::Unkillable { worker }).await;
        });
    }

    /// A worker was killed and had its time to die. It hangs in the kernel, or has another user; at the end it
    /// is left behind rather than waited for.
    pub(super) async fn unkillable(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        if !matches!(reap::how_it_ended(worker.pidfd.get_ref().as_fd()), Ok(None)) {
            // Its end is on the way to us.
            return;
        }
        if !self.fleet.is_stopping() {
            return self.look_again_at_killed(id);
        }
        let (slot, pid) = (worker.slot.0, worker.pid.as_raw());
        error!(slot, worker = id.0, pid, "a worker cannot be killed; going on without it");
        self.part_with(id);
        self.bury(id, Exit::Signal(Signal::SIGKILL as i32), None, None).await;
    }

    /// The first process of a worker ended, and nobody has its number yet.
    pub(super) async fn ended(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        // Somebody else reaped it; how it ended is not to be known.
        let seen = reap::how_it_ended(worker.pidfd.get_ref().as_fd()).ok().flatten().map(Exit::from);
        let exit = seen.unwrap_or(Exit::Code(0));
        let (slot, pid, uptime_ms) = (worker.slot.0, worker.pid.as_raw(), worker.age().as_millis());
        let untaken: u64 = self.front.listeners.iter().map(|l| l.seats.queued_of(id)).sum();
        let state = self.fleet.occupant(id).map_or("", |o| o.name());
        if state == "draining" {
            info!(slot, worker = id.0, pid, %exit, uptime_ms, "worker ended");
        } else {
            warn!(slot, worker = id.0, pid, %exit, uptime_ms, state, untaken, "worker ended");
        }
        let young = state == "starting" || worker.age() < BACKGROUND_WITHIN;
        let may_be_daemon = seen == Some(Exit::Code(0)) && young && state != "draining" && !self.fleet.is_stopping();
        let dead = dead(worker);
        self.part_with(id);
        match may_be_daemon {
            // The group is left alone until then: who is in there goes into the background perhaps.
            true => self.workers.starter.leftovers.look(id, dead, self.scene(Some(id))),
            false => self.bury_when_heard(id, exit, None).await,
        }
    }

    /// Gives a worker nothing more and hears nothing more from it.
    fn part_with(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        worker.forget();
        self.front.house.opens.forget(id);
        self.front.house.provoked.forget(id);
        self.workers.starter.rendezvous.forget(id, &worker.token);
        self.front.listeners.retire(id);
    }

    /// A worker's first process ended with 0, and this is who goes on without it.
    pub(super) async fn left_behind(&mut self, id: WorkerId, found: Vec<Left>) {
        let starting = self.fleet.occupant(id).is_some_and(fleet::Occupant::is_starting);
        // Before it listens nobody knows who of them is the server.
        let daemons: Vec<Kin> = found.into_iter().filter(|left| left.holds || starting).map(|left| left.kin).collect();
        self.bury_when_heard(id, Exit::Code(0), Some(daemons).filter(|daemons| !daemons.is_empty())).await;
    }

    /// The same, after what a worker that never served wrote to its standard error has been read: another process
    /// may have that, too, and not close it for long.
    async fn bury_when_heard(&mut self, id: WorkerId, exit: Exit, daemons: Option<Vec<Kin>>) {
        let Some(worker) = self.workers.get(id) else { return };
        let starting = daemons.is_some() || self.fleet.occupant(id).is_some_and(fleet::Occupant::is_starting);
        if !starting || worker.executes == Executes::Never {
            return self.bury(id, exit, daemons, None).await;
        }
        let bypass = self.fleet.was_never_ready().then(|| self.bypass());
        let (last_words, events) = (Arc::clone(&worker.last_words), self.events.clone());
        tokio::task::spawn_local(async move {
            last_words.wait().await;
            let bypass = match bypass {
                Some(bypass) => bypass.await,
                None => None,
            };
            let _ = events.send(Event::WordsHeard { worker: id, exit, daemons, bypass }).await;
        });
    }

    /// Reaps a worker's first process, ends what is left of it, and tells the fleet.
    pub(super) async fn bury(&mut self, id: WorkerId, exit: Exit, daemons: Option<Vec<Kin>>, bypass: Option<&str>) {
        let Some(worker) = self.workers.get(id) else { return };
        let (slot, dead, grace) = (worker.slot, dead(worker), worker.config.grace);
        // While the dead process still holds the group's number.
        let _ = reap::signal_group(worker.pid, Signal::SIGKILL);
        self.workers.starter.guard.remove(worker.pid);
        let _ = reap::reap(worker.pidfd.get_ref().as_fd());
        let advice = daemons.is_some().then(|| daemons::advice(&worker.config.command));
        let (state, killed) = match self.fleet.occupant(id) {
            Some(occupant) => (occupant.name(), self.fleet.is_killed(id)),
            None => ("", true),
        };
        if state != "draining" {
            self.remember_words(id, exit, advice.as_deref(), bypass);
        }
        if let (Some(daemons), Some(advice)) = (&daemons, &advice) {
            let processes = leftovers::names(daemons.iter());
            error!(
                slot = slot.0,
                worker = id.0,
                processes,
                "a worker went into the background, where nobody can look after it: its first process ended and others go on; {advice}"
            );
        }
        let at_once = killed || self.fleet.stops_at_once();
        let to_end = if at_once { Duration::ZERO } else { TIME_TO_END.min(grace) };
        // Its own sockets are known as long as it is.
        let scene = self.scene(Some(id));
        let worker = self.workers.remove(id);
        let executes = worker.as_ref().map_or(Executes::Yes, |worker| worker.executes);
        self.workers.starter.leftovers.clean(Some(dead), scene, Patience { to_end, to_die: TIME_TO_DIE });
        if let Some(worker) = worker.filter(|_| state == "draining") {
            self.give_up_addresses(&worker);
        }
        self.reap_strangers();
        self.handle_fleet(match daemons {
            Some(_) => fleet::Event::Daemonized(id),
            None if executes == Executes::Never => fleet::Event::ForkFailed(id),
            None => fleet::Event::Exited(id, exit),
        })
        .await;
        self.drop_unused_listeners();
    }

    /// All workers are gone: so must be what they left behind.
    pub(super) fn begin_end(&mut self) {
        let to_end = if self.fleet.stops_at_once() { Duration::ZERO } else { TIME_TO_END.min(self.config.grace) };
        let patience = Patience { to_end, to_die: TIME_TO_DIE };
        self.workers.starter.leftovers.end(self.config.life.detached, self.scene(None), patience);
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            sleep(patience.to_end + patience.to_die + OVERDUE).await;
            warn!("looking for what workers left behind takes too long; ending without, and the guard goes on");
            let _ = events.send(Event::Worker(workers::Event::NobodyLeft { but: Vec::new() })).await;
        });
    }

    /// Nothing runs any more that came from here.
    pub(super) fn nobody_left_running(&mut self, but: &[Kin]) {
        if self.end.finished {
            return;
        }
        if !but.is_empty() {
            let processes = leftovers::names(but.iter());
            error!(processes, "what workers left behind cannot be killed; ending without");
            self.failures.failure.get_or_insert(RunError::LeftRunning(processes));
        }
        self.finish();
        self.workers.starter.guard.dismiss();
    }

    /// Ends what workers left behind that ended under the program before this one.
    pub(super) fn clean_up_after_upgrade(&self) {
        let patience = Patience { to_end: TIME_TO_END, to_die: TIME_TO_DIE };
        self.workers.starter.leftovers.clean(None, self.scene(None), patience);
    }

    /// What there is to know for who looks for leftovers; `of` is about to be forgotten.
    fn scene(&self, of: Option<WorkerId>) -> Scene {
        let firsts = self.workers.values().filter(|worker| worker.runs()).map(|worker| worker.pid);
        // What this process had before it was maitred, as the log reader of a start script, is not ours to end.
        let earlier = descent::still_there(&self.workers.starter.earlier);
        let newest = self.workers.newest();
        Scene {
            family: self.workers.starter.guard.family(),
            without: firsts
                .chain([self.workers.starter.guard.process()])
                .chain(self.checking())
                .chain(earlier)
                .collect(),
            living: self.workers.ids().filter(|id| Some(*id) != of).collect(),
            newest,
            sockets: self.our_sockets().union(&self.end.sockets).copied().collect(),
        }
    }

    /// Where detached jobs stay, the guard must know who is none.
    pub(super) fn tell_guard_of_sockets(&self) {
        if self.config.life.detached == Detached::Stay {
            self.workers.starter.guard.know_sockets(&self.our_sockets());
        }
    }

    /// The inodes of all sockets by which somebody could take connections of ours.
    pub(super) fn our_sockets(&self) -> HashSet<u64> {
        let listening = self.front.listeners.iter().flat_map(|listener| listener.sockets());
        let listening = listening.filter_map(|socket| fd::inode(socket.as_fd()).ok());
        let requests = self.workers.values().flat_map(|worker| &worker.requests);
        let handoffs = requests.filter_map(|request| request.handoff.as_ref());
        listening.chain(handoffs.filter_map(|handoff| fd::inode(handoff.receiver()).ok())).collect()
    }
}

fn dead(worker: &Worker) -> Dead {
    Dead { pid: worker.pid, channel: worker.channel_inode }
}

/// Starts a new guard whenever one has ended, which somebody must have killed.
pub(super) async fn look_after_guard(guard: Rc<Guard>) {
    let [shortest, longest] = GUARD_PAUSES;
    let mut pause = shortest;
    loop {
        let ended = match guard.watched().and_then(watch::readable) {
            Ok(pidfd) => pidfd.readable().await.is_ok(),
            Err(error) => {
                debug!(%error, "the guard cannot be watched");
                false
            }
        };
        let process = guard.process();
        if !ended && nix::sys::signal::kill(process, None).is_ok() {
            // It is there, but nothing will tell when it ends.
            sleep(longest).await;
            continue;
        }
        match guard.replace() {
            Ok(()) => {
                let (ended, pid) = (process.as_raw(), guard.process().as_raw());
                warn!(
                    ended,
                    pid, "the guard that ends workers should this master be killed was killed itself; started another"
                );
                pause = shortest;
            }
            Err(error) => {
                if pause == shortest {
                    warn!(%error, "the guard that ends workers should this master be killed was killed itself, and no other can be had; trying again");
                }
                sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}
