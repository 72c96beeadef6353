//! The master's loop: one event at a time in, the fleet's actions out.

use super::end::End;
use super::error::RunError;
use super::event::{Event, Events};
use super::program::Host;
use super::program::Program;
use super::service::Manager;
use super::sizing::Sizing;
use super::status::View;
use crate::clock;
use crate::config::{Config, Mode};
use crate::control;
use crate::core::fleet::{self, Action, Fleet, Resize, WaitReason};
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::core::moment::millis;
use crate::front;
use crate::front::accounts::Front;
use crate::kernel::shares::Shares;
use crate::lifecycle::failures::Failures;
use crate::lifecycle::guard::look_after_guard;
use crate::lifecycle::health::Checks;
use crate::lifecycle::reload::Reloads;
use crate::lifecycle::{ending, health, ready};
use crate::sys::process::reap;
use crate::wire::packet::ToWorker;
use crate::workers;
use crate::workers::pool::Pool;
use crate::workers::start::StartError;
use crate::workers::worker::{MayProbe, Worker};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// How long workers may take to listen before the log warns.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// Runs until the fleet has ended.
///
/// # Errors
/// [`RunError`]; nothing is left running then.
pub async fn run(config: Config, mut host: Host) -> Result<(), RunError> {
    let (mut master, mut events) = match host.resume.take() {
        Some(state) => Master::resume(config, host, *state)?,
        None => Master::prepare(config, host)?,
    };
    (master.program.host.goes_on)();
    if let Err(error) = master.workers.starter.guard.confirm() {
        warn!(%error, "the guard of the old version cannot be sent away");
    }
    master.handle_fleet(fleet::Event::Begin).await;
    master.checks.begin(&master.front);
    tokio::task::spawn_local(look_after_guard(Rc::clone(&master.workers.starter.guard)));
    master.sizing.begin(master.config.range);
    master.shares.begin(&master.config);
    let later = master.events.clone();
    tokio::task::spawn_local(async move {
        sleep(LOOK_AROUND).await;
        let _ = later.send(Event::LookAround).await;
    });
    while !master.end.finished {
        let manager = master.program.manager.as_ref().and_then(Manager::wakes_at);
        let wake = [master.fleet.wakes_at(), manager].into_iter().flatten().min();
        let left = wake.map_or(Duration::ZERO, |at| at.since(clock::now()));
        let event = tokio::select! {
            event = events.recv() => event,
            () = async { sleep(left).await }, if wake.is_some() => None,
        };
        match event {
            Some(event) => master.handle(event).await,
            None => master.handle_fleet(fleet::Event::Tick).await,
        }
        master.program.report_start(&master.fleet);
        master.tell_manager();
        master.steer();
        master.go_on_with_upgrade(&mut events).await;
    }
    master.tell_of_the_end(&mut events).await;
    master.failures.failure.map_or(Ok(()), |failure| Err(failure.into()))
}

pub(super) struct Master {
    /// The configuration in force.
    pub(super) config: Rc<Config>,
    /// The configurations of the generations, and what waits for the next one.
    pub(super) reloads: Reloads,
    /// Which workers should run.
    pub(super) fleet: Fleet,
    /// The workers that run.
    pub(super) workers: Pool,
    /// The addresses, and the connections that came there.
    pub(super) front: Front,
    /// In kernel mode, what is known of the workers' loads.
    pub(super) shares: Shares,
    /// How many workers there should be.
    pub(super) sizing: Sizing,
    /// The recurring checks.
    pub(super) checks: Checks,
    /// Why workers failed, and why the master does.
    pub(super) failures: Failures,
    /// The program that this process executes, and what is around it.
    pub(super) program: Program,
    /// Where everything that happens is reported.
    pub(super) events: Events,
    pub(super) end: End,
}

impl Master {
    pub(super) async fn handle(&mut self, event: Event) {
        match event {
            Event::Worker(event) => self.handle_worker(event).await,
            Event::Front(front::Event::HandoffEmptied { worker }) => self.emptied(worker),
            Event::Front(front::Event::ListenerClosed) => self.listener_closed().await,
            Event::Front(front::Event::ListenerFailed { address, error }) => {
                self.listener_failed(address, error).await;
            }
            Event::Lifecycle(event) => self.handle_lifecycle(event).await,
            Event::Request(event) => self.handle_request(event).await,
            Event::Shares(event) => self.handle_shares(event),
            Event::ChildEnded => self.reap_strangers(),
            Event::Control(control::Event::Requested { request, answer }) => self.answer(request, answer).await,
            Event::Control(control::Event::UpgradeAsked { client }) => self.upgrade_asked(Some(client)),
            Event::Stop(stop) => {
                info!(how = stop.name(), "stopping");
                self.handle_fleet(fleet::Event::StopAsked(stop)).await;
            }
            Event::More => self.handle_fleet(fleet::Event::Resize(Resize::By(1))).await,
            Event::Fewer => self.handle_fleet(fleet::Event::Resize(Resize::By(-1))).await,
            Event::Reload => self.reload_by_signal().await,
            Event::Sizing(event) => self.handle_sizing(event).await,
            Event::Trigger(event) => self.reload_by_itself(event).await,
            Event::Pause => {
                info!("draining all workers; HUP or TTIN brings them back");
                self.handle_fleet(fleet::Event::Pause).await;
            }
            Event::ReopenLogs => match self.program.host.logs.reopen() {
                true => info!("opening the log files again"),
                false => warn!(signal = "USR1", because = "there are no log files to reopen", "signal without effect"),
            },
            Event::Upgrade => self.upgrade_asked(None),
            Event::Checked { result } => self.upgrade_checked(result),
            Event::LookAround => self.look_around(),
            Event::Unheeded { signal, because } => warn!(signal, because, "signal without effect"),
        }
    }

    async fn handle_worker(&mut self, event: workers::Event) {
        match event {
            workers::Event::Packet(packet) => {
                self.heard(packet).await;
                self.tell_guard_of_sockets();
            }
            workers::Event::Malformed { worker, what } => self.malformed(worker, &what.to_string()),
            workers::Event::Called { worker, call } => {
                self.called(worker, call).await;
                self.tell_guard_of_sockets();
            }
            workers::Event::LookAt { worker } => self.look_at(worker),
            workers::Event::LookForClosed { worker } => self.look_for_closed(worker),
            workers::Event::LetGo { worker, request } => self.let_go(worker, request),
            workers::Event::Signalled { worker } => self.hear_signals_first(worker),
            workers::Event::Ended { worker } => self.ended(worker).await,
            workers::Event::Executed { worker, result } => {
                if result.is_ok() {
                    self.program.recorder.online(worker);
                }
                self.failures.executed(worker, result, &mut self.workers, &self.fleet);
            }
            workers::Event::LeftBehind { worker, found } => {
                self.died(ending::left_behind(worker, found, &self.workers, &self.fleet)).await;
            }
            workers::Event::NobodyLeft { but } => self.nobody_left_running(&but),
        }
    }

    /// Passes an event to the fleet and carries out what it decides. A failed fork is another event.
    pub(super) async fn handle_fleet(&mut self, event: fleet::Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.program.recorder.event(&event, &self.fleet, &self.failures.written);
            for action in self.fleet.handle(clock::now(), event) {
                self.program.recorder.action(&action);
                let forks = matches!(action, Action::Fork { .. });
                let consequence = self.carry_out(action).await;
                if forks {
                    // Many forks at once take time, and clients come meanwhile.
                    tokio::task::yield_now().await;
                }
                if let Some(consequence) = consequence {
                    events.push(consequence);
                }
            }
        }
    }

    async fn carry_out(&mut self, action: Action) -> Option<fleet::Event> {
        match action {
            Action::Fork { slot, worker, generation } => return self.fork(slot, worker, generation),
            Action::CloseListeners => {
                self.end.sockets = ending::our_sockets(&self.workers, &self.front);
                self.front.datagrams.leave();
                self.end.closing = self.front.listeners.close_all();
                if self.end.closing == 0 {
                    return Some(fleet::Event::ListenersClosed);
                }
            }
            Action::Withdraw { worker } => {
                self.front.listeners.retire(worker);
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.admitted = false;
                    worker.leaves = true;
                    worker.choose_target(MayProbe::No);
                    worker.tell(&ToWorker::Stop);
                }
                match self.config.mode {
                    // The worker still has the listening socket, so it would never stop taking connections.
                    Mode::Shared => return Some(fleet::Event::Emptied(worker)),
                    Mode::Kernel => {
                        self.steer();
                        self.watch_drain(worker);
                    }
                    Mode::Handoff if !self.front.has_untaken(worker) => self.watch_drain(worker),
                    Mode::Handoff => {}
                }
            }
            Action::Admit { worker } => self.admit(worker),
            Action::Exclude { worker } => health::exclude(worker, &self.workers, &self.fleet, &self.front),
            Action::Readmit { worker } => health::readmit(worker, &mut self.workers, &self.front),
            Action::Terminate { worker } => self.workers.get(worker).into_iter().for_each(ending::terminate),
            Action::Kill { worker, because } => self.kill(worker, because),
            Action::Wait { slot, failures, delay } => {
                warn!(
                    slot = slot.0,
                    failures,
                    delay_ms = millis(delay),
                    "a slot waits before its worker is forked again"
                );
            }
            Action::GiveUp { slot, attempts, .. } => self.failures.give_up(slot, attempts),
            Action::Rest { slot, failures, .. } => self.failures.rest(slot, failures, self.config.life.restart_window),
            Action::NobodyLeft => self.failures.nobody_left(&self.fleet),
            Action::Finish => self.begin_end(),
            Action::StopDelayed { delay } => {
                let delay = humantime::format_duration(delay).to_string();
                info!(delay, "asked to stop; serving on for --stop-delay");
            }
            Action::StopAtOnce => warn!("asked to stop a second time, killing what still runs"),
            Action::SizeRefused(refused) => warn!(%refused, "the number of workers stays"),
            Action::ReloadBegun { generation, manner } => {
                self.reloads.begun(generation, manner, &self.config, &mut self.fleet);
                self.failures.failed_because = None;
            }
            Action::ReloadWaits { because: WaitReason::AnotherRuns } => {
                info!("a reload waits until the one under way is done");
            }
            Action::ReloadWaits { because: WaitReason::OldGenerations } => {
                let generations: Vec<u32> = self.fleet.generations().iter().map(|g| g.0).collect();
                warn!(
                    ?generations,
                    "a reload waits until workers of old generations have ended; their --grace says when that is at the latest"
                );
            }
            Action::ReloadDropped => self.reloads.dropped(),
            Action::CanaryServes { generation } => {
                info!(generation = generation.0, "the first worker of the new generation serves");
            }
            Action::ReloadDone { generation } => self.reload_done(generation),
            Action::ReloadAborted { generation, because } => {
                let more = self.failures.failed_because.take();
                self.reloads.aborted(generation, because, more, &self.config, &mut self.fleet);
                self.program.recorder.given_up(generation, self.reloads.last.clone());
            }
            Action::Resized { workers } => info!(workers, "the number of workers changes"),
        }
        None
    }

    fn fork(&mut self, slot: Slot, id: WorkerId, generation: Generation) -> Option<fleet::Event> {
        self.front.count_slot(slot);
        let config = Rc::clone(self.reloads.of.get(&generation).unwrap_or(&self.config));
        let started = self.prepare_slot(slot).map_err(StartError::from);
        match started.and_then(|()| self.workers.starter.start(slot, id, generation, &config, &self.front.listeners)) {
            Ok(worker) => {
                info!(
                    slot = slot.0,
                    worker = id.0,
                    pid = worker.pid.as_raw(),
                    generation = generation.0,
                    "worker forked"
                );
                self.program.recorder.forked(&worker, &self.fleet);
                self.workers.insert(worker);
                if let Some(worker) = self.workers.get_mut(id) {
                    ready::await_readiness(worker, &self.checks.events);
                }
                None
            }
            Err(error) => {
                self.failures.cannot_start(&self.fleet, slot, id, generation, error);
                Some(fleet::Event::ForkFailed(id))
            }
        }
    }

    /// A worker left because it was told to. Where no other worker listens, none is about to come back.
    pub(super) fn give_up_addresses(&self, left: &Worker) {
        for request in &left.requests {
            let held = self.workers.values().any(|worker| worker.holds(&request.listener));
            request.listener.given_up.set(request.listener.given_up.get() || !held);
        }
    }

    /// Lets a worker have connections.
    fn admit(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.admitted = true;
        for request in worker.requests.iter().filter(|r| r.accepting) {
            let Some(handoff) = &request.handoff else { continue };
            if let Err(error) = request.listener.admit(handoff) {
                warn!(slot = worker.slot.0, worker = id.0, %error, "a worker cannot have connections; raise the limit with ulimit -n");
            }
        }
        self.checks.begin_with(id, &mut self.workers, &self.fleet, &self.front);
    }

    fn emptied(&mut self, worker: WorkerId) {
        self.drop_unused_listeners();
        if !self.front.has_untaken(worker) && self.fleet.occupant(worker).is_some_and(fleet::Occupant::is_leaving) {
            self.watch_drain(worker);
        }
    }

    pub(super) fn reap_strangers(&self) {
        let helpers = self.helpers();
        let ours = |pid| self.workers.values().any(|worker| worker.pid == pid) || helpers.contains(&pid);
        let strangers = reap::reap_strangers(ours);
        if strangers > 0 {
            debug!(strangers, "reaped processes that workers left behind");
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            config: &self.config,
            since: self.program.since,
            fleet: &self.fleet,
            workers: &self.workers,
            front: &self.front,
            reloads: &self.reloads,
            last_words: &self.failures.last_words,
            program: &self.program,
            sizing: &self.sizing,
        }
    }
}
