//! What the master does about what happens to workers: [`crate::lifecycle`] says what that means, the fleet decides.

use super::event::Event;
use super::hook::Hook;
use super::requests::event::Deferred;
use super::run::Master;
use crate::config::Mode;
use crate::core::fleet::{self, KillReason};
use crate::core::ids::WorkerId;
use crate::front::listener::{Listener, Origin};
use crate::lifecycle::ending::Death;
use crate::lifecycle::failures::Failure;
use crate::lifecycle::ready::{Readiness, Signal};
use crate::lifecycle::{self, deaf, ending, health, look, ready};
use crate::sys::process::descent::Kin;
use crate::workers;
use crate::workers::leftovers::{self, Scene};
use crate::workers::pool::Pool;
use crate::workers::worker::Worker;
use std::rc::Rc;
use tracing::{error, warn};

/// Turns of the loop from a signal that was taken to its event: the reactor sees it, its task wakes, and one to spare.
const TURNS: u32 = 3;

impl Master {
    pub(super) async fn handle_lifecycle(&mut self, event: lifecycle::Event) {
        use lifecycle::Event;
        let followed = match event {
            Event::Ready { worker, signal } => return self.readiness(worker, signal).await,
            Event::Deaf { worker } => {
                self.workers.get(worker).and_then(|worker| deaf::deaf(worker, &self.fleet, &mut self.failures))
            }
            Event::Drained { worker } => Some(fleet::Event::Emptied(worker)),
            Event::Probed { worker, now } => self.workers.get(worker).map(|worker| health::probed(worker, now)),
            Event::LookAfter => {
                self.program.recorder.limits(self.front.listeners.iter().any(|listener| listener.is_full()));
                self.give_up_unheld_datagrams();
                self.look_at_those_who_wait().await;
                let found = self.checks.look(&mut self.workers, &self.fleet, &self.front);
                return self.handle_all(found).await;
            }
            Event::Memory { usage } => {
                let found = health::memory(&usage, &mut self.workers, &self.fleet);
                return self.handle_all(found).await;
            }
            Event::LookedAt { worker, seen } => {
                if let Some(worker) = self.workers.get_mut(worker) {
                    look::looked_at(worker, &seen, &self.fleet, self.config.port_zero);
                }
                None
            }
            Event::GroupEnded { worker } => return self.ended(worker).await,
            Event::WordsHeard(death) => return self.bury(death).await,
            Event::Unkillable { worker } => {
                let death = ending::unkillable(worker, &self.workers, &self.fleet, &self.front, &self.checks.events);
                match death {
                    Some(death) => return self.bury(death).await,
                    None => None,
                }
            }
            Event::EndOverdue => {
                self.nobody_left_running(&[]);
                None
            }
        };
        self.handle_all(followed).await;
    }

    /// Passes events to the fleet, one after the other.
    pub(super) async fn handle_all(&mut self, events: impl IntoIterator<Item = fleet::Event>) {
        for event in events {
            self.handle_fleet(event).await;
        }
    }

    /// Something happened that may count as readiness.
    pub(super) async fn readiness(&mut self, id: WorkerId, signal: Signal) {
        match ready::counts(id, signal, &mut self.workers, &self.fleet, &self.checks.events) {
            Readiness::NotYet => return,
            Readiness::LookFirst => return self.look_first(id, Deferred::Ready(signal)),
            Readiness::Ready => {}
        }
        if signal == Signal::Waited {
            self.forget_closed(id);
        }
        if ready::may_serve(id, signal, &mut self.workers, &self.fleet, &self.checks.events) {
            self.handle_fleet(fleet::Event::Ready(id)).await;
            self.drop_unused_listeners();
        }
    }

    /// A worker that listens elsewhere than those whose place it takes may serve when these are gone.
    async fn look_at_those_who_wait(&mut self) {
        let waits = |worker: &&Worker| worker.awaits_addresses && !worker.leaves;
        let waiting: Vec<WorkerId> = self.workers.values().filter(waits).map(|worker| worker.id).collect();
        for id in waiting {
            self.readiness(id, Signal::Listens).await;
        }
    }

    /// It is time to check whether a worker takes part as it should.
    pub(super) fn look_at(&mut self, id: WorkerId) {
        self.look_at_unwatched(id);
        self.give_up_abandoned();
        self.look_at_supervised(id);
        if let Some(worker) = self.workers.get(id) {
            look::look_at(worker, &self.fleet, &self.front, &self.checks.events);
        }
    }

    /// A worker gets nothing new: watches it drain.
    pub(super) fn watch_drain(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            self.checks.drains.watch_worker(worker, &self.front, &self.checks.events);
        }
    }

    /// The same, unless connections are still pending for the worker.
    pub(super) fn watch_drain_if_untaken_are_gone(&mut self, worker: WorkerId) {
        if self.config.mode == Mode::Kernel || !self.front.has_untaken(worker) {
            self.watch_drain(worker);
        }
    }

    pub(super) fn kill(&mut self, id: WorkerId, because: KillReason) {
        if let Some(worker) = self.workers.get(id) {
            ending::kill(worker, because, &self.checks.events);
            let elsewhere = ready::listens_elsewhere(id, &self.workers, &self.fleet);
            self.failures.remember_kill(worker, &self.fleet, because, elsewhere);
        }
    }

    /// A signal ended a worker. Who signals a whole control group tells the master, too, and before the others
    /// (`KillMode=control-group`, `systemd.kill(5)`): then it hears that it is to stop before it hears of the worker, and
    /// forks no other.
    pub(super) fn hear_signals_first(&self, worker: WorkerId) {
        self.program.signals.settle();
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            let _ = events.send(Event::Worker(workers::Event::Ended { worker })).await;
        });
    }

    /// The first process of a worker ended.
    pub(super) async fn ended(&mut self, id: WorkerId) {
        let (sockets, helpers) = (self.end.sockets.clone(), self.helpers());
        let (fleet, front, groups, events) = (&self.fleet, &self.front, &self.checks.groups, &self.checks.events);
        let scene = |workers: &Pool| ending::scene(Some(id), workers, front, &sockets, &helpers);
        if let Some(death) = ending::ended(id, &mut self.workers, fleet, front, scene, groups, events) {
            self.died(death).await;
        }
    }

    /// How the worker ended is known now.
    pub(super) async fn died(&mut self, death: Death) {
        let events = &self.checks.events;
        let port_zero = self.config.port_zero;
        if let Some(death) = ending::hear_last_words(death, &self.workers, &self.fleet, &self.front, port_zero, events)
        {
            self.bury(death).await;
        }
    }

    async fn bury(&mut self, death: Death) {
        // A worker's own sockets are known only as long as the worker is.
        let scene = self.scene(Some(death.worker));
        let buried = ending::bury(&death, scene, &mut self.workers, &self.fleet, &mut self.failures);
        let Some(buried) = buried else { return };
        if let Some(worker) = &buried.left {
            self.give_up_addresses(worker);
        }
        self.reap_strangers();
        self.handle_fleet(buried.event).await;
        self.drop_unused_listeners();
    }

    /// All workers are gone.
    pub(super) fn begin_end(&mut self) {
        self.program.hook.iter().for_each(Hook::rest);
        let scene = self.scene(None);
        ending::end(&self.workers, &self.fleet, &self.config, scene, &self.checks.events);
    }

    /// No process that came from here runs any more, except those in `but`.
    pub(super) fn nobody_left_running(&mut self, but: &[Kin]) {
        if self.end.finished {
            return;
        }
        if !but.is_empty() {
            let processes = leftovers::names(but.iter());
            error!(processes, "what workers left behind cannot be killed; ending without");
            self.failures.failure.get_or_insert(Failure::LeftRunning(processes));
        }
        self.finish();
        self.workers.starter.guard.dismiss();
    }

    pub(super) fn scene(&self, of: Option<WorkerId>) -> Scene {
        ending::scene(of, &self.workers, &self.front, &self.end.sockets, &self.helpers())
    }

    pub(super) fn tell_guard_of_sockets(&self) {
        ending::tell_guard_of_sockets(&self.workers, &self.front, self.config.life.detached);
    }

    /// Warns the operator of what is hard to notice otherwise: addresses that no worker serves.
    pub(super) fn look_around(&self) {
        if self.config.mode == Mode::Handoff {
            let served = |l: &&Rc<Listener>| !l.workers.is_empty();
            let elsewhere: Vec<_> = self.front.listeners.iter().filter(served).map(|l| l.address.to_string()).collect();
            for listener in self.front.listeners.iter().filter(|l| l.origin == Origin::Operator && l.workers.is_empty())
            {
                let address = &listener.address;
                warn!(%address, workers_listen_on = ?elsewhere, "no worker serves this address of --bind; clients there wait");
            }
        }
    }
}
