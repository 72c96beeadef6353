//! The master's loop: one event at a time in, the fleet's actions out.

use super::bind::{bind_all, bind_control};
use super::door::Door;
use super::error::RunError;
use super::event::{EVENTS_MAX, Event};
use super::group::Group;
use super::handoff::{Counters, Depth};
use super::listener::{House, Listener, Origin};
use super::listeners::Listeners;
use super::output::{Output, Prefixed};
use super::signals::forward_signals;
use super::start::{StartError, Starter};
use super::status::{View, add_usage};
use super::worker::Worker;
use crate::adapt::Chosen;
use crate::adapt::preload::Shim;
use crate::config::{Config, DESCRIPTORS_OF_MASTER, DESCRIPTORS_PER_WORKER, Mode, Prefix, WORKERS_MAX};
use crate::control::server::ControlSocket;
use crate::control::{self, Refusal};
use crate::core::fleet::{self, Action, Exit, Fleet, Plan, Stop};
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::sys::guard::Guard;
use crate::sys::taken::Taken;
use crate::sys::{fd, limits, process, reap, spawn};
use crate::wire::packet::ToWorker;
use nix::sys::signal::Signal;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, error, info, warn};

/// How long workers may take to listen before the log wonders.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// How long a worker with inherited sockets must live to count as ready (einhorn's default too).
const SETTLES: Duration = Duration::from_secs(1);

/// Runs until the fleet has ended.
///
/// # Errors
/// [`RunError`]; nothing is left running then.
pub async fn run(config: Config) -> Result<(), RunError> {
    let (mut master, mut events) = Master::prepare(config)?;
    master.handle_fleet(fleet::Event::Begin).await;
    let later = master.house.events.clone();
    tokio::task::spawn_local(async move {
        sleep(LOOK_AROUND).await;
        let _ = later.send(Event::LookAround).await;
    });
    while !master.finished {
        let wake = master.fleet.wakes_at();
        let event = tokio::select! {
            event = events.recv() => event,
            () = async { sleep_until(wake.unwrap_or_else(Instant::now).into()).await }, if wake.is_some() => None,
        };
        match event {
            Some(event) => master.handle(event).await,
            None => master.handle_fleet(fleet::Event::Tick).await,
        }
        master.steer();
    }
    master.failure.map_or(Ok(()), Err)
}

pub(super) struct Master {
    pub(super) config: Rc<Config>,
    pub(super) since: Instant,
    pub(super) starter: Starter,
    pub(super) house: Rc<House>,
    pub(super) listeners: Listeners,
    /// Connections accepted on listeners that are closed by now.
    pub(super) accepted_before: u64,
    /// Listeners that were told to close and have not reported yet.
    pub(super) closing: usize,
    pub(super) fleet: Fleet,
    pub(super) workers: HashMap<WorkerId, Worker>,
    pub(super) counters: Vec<Rc<Counters>>,
    pub(super) finished: bool,
    /// Why the master will end with an error.
    pub(super) failure: Option<RunError>,
    /// Why the last worker did not come up, in case none ever does.
    pub(super) boot_failure: Option<RunError>,
    _control: Option<ControlSocket>,
}

impl Master {
    /// Takes everything that can be refused, before the first worker is forked.
    fn prepare(mut config: Config) -> Result<(Master, mpsc::Receiver<Event>), RunError> {
        let limit = limits::raise_descriptor_limit()?;
        let needed = u64::from(config.workers) * DESCRIPTORS_PER_WORKER + DESCRIPTORS_OF_MASTER;
        if needed > limit.hard {
            return Err(RunError::Descriptors { workers: config.workers, needed, limit: limit.hard });
        }
        let mut control = bind_control(&mut config)?;
        let config = Rc::new(config);
        let spare = limit.hard.saturating_sub(DESCRIPTORS_OF_MASTER) / DESCRIPTORS_PER_WORKER;
        limits::become_subreaper()?;
        let guard = Rc::new(Guard::start()?);
        let output = Output::start()?;
        // After the threads were started, which keep the ordinary policy.
        if let Err(error) = limits::wake_without_preempting() {
            debug!(%error, "the master preempts its workers");
        }
        let inherited = spawn::take_listen_fds()?;

        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let depth = Depth { connections: config.depth, packet_cost: fd::packet_cost()? };
        let house = Rc::new(House { depth, reserve: RefCell::new(None), lost: Cell::new(0), events: sender.clone() });
        house.refill_reserve();
        let prefixed = match config.prefix {
            Prefix::Always => Prefixed::WithSlot,
            Prefix::Auto if io::stdout().is_terminal() => Prefixed::WithSlot,
            Prefix::Auto | Prefix::Never => Prefixed::Plain,
        };
        // Without them nothing is counted, and all else goes on.
        let taken = matches!(config.mode, Mode::Shared | Mode::Kernel).then(Taken::new).and_then(Result::ok);
        let starter = Starter {
            config: Rc::clone(&config),
            guard,
            shim: Shim::new()?,
            door: Door::open()?,
            output,
            prefixed,
            descriptors: limit.soft,
            taken,
            house: Rc::clone(&house),
        };
        let (executable, adapter, reason) = starter.look()?;
        info!(command = %executable.path.display(), adapter = adapter.name(), reason, "chose the adapter");
        let mut listeners = Listeners::new(config.mode, Rc::clone(&house));
        bind_all(&config, inherited, &mut listeners, &house)?;
        if let Some(control) = &mut control {
            control.serve(sender.clone());
        }
        starter.door.serve(sender.clone())?;
        forward_signals(&sender)?;
        let fleet = Fleet::new(Plan {
            workers: config.workers,
            max_workers: WORKERS_MAX.min(u32::try_from(spare).unwrap_or(WORKERS_MAX)),
            grace: config.grace,
            seed: u64::from(std::process::id()) << 20 | 1,
        });
        let (name, workers, pid) = (&config.name, config.workers, std::process::id());
        info!(name, pid, workers, mode = config.mode.name(), depth = config.depth, "starting");
        let master = Master {
            since: Instant::now(),
            starter,
            house,
            listeners,
            accepted_before: 0,
            closing: 0,
            fleet,
            workers: HashMap::new(),
            counters: Vec::new(),
            finished: false,
            failure: None,
            boot_failure: None,
            _control: control,
            config,
        };
        Ok((master, events))
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Packet(said) => self.heard(said).await,
            Event::Malformed { worker, what } => self.malformed(worker, &what.to_string()),
            Event::Called { worker, call } => self.called(worker, call).await,
            Event::LookAt { worker } => self.look_at(worker),
            Event::LookForClosed { worker } => self.look_for_closed(worker),
            Event::WorkerEnded { worker, exit } => self.ended(worker, exit).await,
            Event::HandoffEmptied { worker } => self.emptied(worker).await,
            Event::Settled { worker } => self.counts_as_ready(worker).await,
            Event::ListenerClosed => self.listener_closed().await,
            Event::ListenerFailed { address, error } => {
                error!(address, %error, "cannot go on accepting, stopping");
                self.failure.get_or_insert(RunError::Listener { address, source: error });
                match self.fleet.is_stopping() {
                    true => self.listener_closed().await,
                    false => self.handle_fleet(fleet::Event::StopAsked(Stop::Graceful)).await,
                }
            }
            Event::ChildEnded => self.reap_strangers(),
            Event::Asked { request, answer } => self.answer(&request, answer),
            Event::Stop(stop) => {
                info!(?stop, "stopping");
                self.handle_fleet(fleet::Event::StopAsked(stop)).await;
            }
            Event::More => self.handle_fleet(fleet::Event::More).await,
            Event::Fewer => self.handle_fleet(fleet::Event::Fewer).await,
            Event::LookAround => self.look_around(),
            Event::Unheeded { signal, because } => warn!(signal, because, "signal without effect"),
        }
    }

    /// Says what an operator would otherwise only wonder about: addresses that nobody serves.
    fn look_around(&self) {
        if self.config.mode == Mode::Handoff {
            let served = |l: &&Rc<Listener>| !l.seats.is_empty();
            let elsewhere: Vec<_> = self.listeners.iter().filter(served).map(|l| l.address.to_string()).collect();
            for listener in self.listeners.iter().filter(|l| l.origin == Origin::Operator && l.seats.is_empty()) {
                let address = &listener.address;
                warn!(%address, workers_listen_on = ?elsewhere, "no worker serves this address of --bind; clients there wait");
            }
        }
    }

    /// Tells the fleet and carries out what it decides. A failed fork is an event again.
    pub(super) async fn handle_fleet(&mut self, event: fleet::Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.fleet.handle(Instant::now(), event) {
                if let Some(consequence) = self.carry_out(action).await {
                    events.push(consequence);
                }
            }
        }
    }

    async fn carry_out(&mut self, action: Action) -> Option<fleet::Event> {
        match action {
            Action::Fork { slot, worker, generation } => return self.fork(slot, worker, generation),
            Action::CloseListeners => {
                self.closing = self.listeners.close_all();
                if self.closing == 0 {
                    return Some(fleet::Event::ListenersClosed);
                }
            }
            Action::Withdraw { worker } => {
                self.listeners.retire(worker);
                if self.config.mode == Mode::Kernel {
                    self.steer();
                    self.watch_drain(worker);
                    return None;
                }
                if !self.has_untaken(worker) {
                    return Some(fleet::Event::Emptied(worker));
                }
            }
            Action::Terminate { worker } => {
                if let Some(worker) = self.workers.get(&worker) {
                    let signal = self.config.stop_signal;
                    info!(slot = worker.slot.0, worker = worker.id.0, pid = worker.pid.as_raw(), %signal, "asking a worker to end");
                    worker.tell(&ToWorker::Stop);
                    let _ = reap::signal_group(worker.pid, signal);
                    // One that is stopped could not hear it.
                    let _ = reap::signal_group(worker.pid, Signal::SIGCONT);
                }
            }
            Action::Kill { worker, because } => {
                if let Some(worker) = self.workers.get(&worker) {
                    warn!(
                        slot = worker.slot.0,
                        worker = worker.id.0,
                        pid = worker.pid.as_raw(),
                        ?because,
                        "killing a worker"
                    );
                    let _ = reap::signal_group(worker.pid, Signal::SIGKILL);
                }
            }
            Action::Wait { slot, failures, delay } => {
                warn!(
                    slot = slot.0,
                    failures,
                    delay_ms = delay.as_millis(),
                    "a slot waits before its worker is forked again"
                );
            }
            Action::GiveUp { slot, attempts, .. } => self.give_up(slot, attempts),
            Action::Finish => self.finish(),
            Action::StopAtOnce => warn!("asked to stop a second time, killing what still runs"),
            Action::SizeRefused { workers } => {
                warn!(workers, "the number of workers stays: one is the least, and descriptors set the most");
            }
            Action::Resized { workers } => info!(workers, "the number of workers changes"),
        }
        None
    }

    fn fork(&mut self, slot: Slot, id: WorkerId, generation: Generation) -> Option<fleet::Event> {
        while self.counters.len() <= slot.index() {
            self.counters.push(Rc::default());
        }
        let started = self.prepare_slot(slot).map_err(StartError::from);
        match started.and_then(|()| self.starter.start(slot, id, generation, &self.listeners)) {
            Ok(mut worker) => {
                if worker.adapter == Chosen::Inherit {
                    let events = self.house.events.clone();
                    worker.tasks.push(tokio::task::spawn_local(async move {
                        sleep(SETTLES).await;
                        let _ = events.send(Event::Settled { worker: id }).await;
                    }));
                }
                info!(
                    slot = slot.0,
                    worker = id.0,
                    pid = worker.pid.as_raw(),
                    generation = generation.0,
                    "worker forked"
                );
                self.workers.insert(id, worker);
                None
            }
            Err(error) => {
                error!(slot = slot.0, worker = id.0, %error, "cannot start a worker");
                self.boot_failure = Some(RunError::Start(error));
                Some(fleet::Event::ForkFailed(id))
            }
        }
    }

    async fn ended(&mut self, id: WorkerId, exit: Exit) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (slot, pid, uptime_ms) = (worker.slot.0, worker.pid.as_raw(), worker.since.elapsed().as_millis());
        let untaken: u64 = self.listeners.iter().map(|l| l.seats.queued_of(id)).sum();
        let state = self.fleet.seats().get(worker.slot.index()).map_or("", |seat| seat.state.name());
        if state == "draining" {
            info!(slot, worker = id.0, pid, %exit, uptime_ms, "worker ended");
        } else {
            warn!(slot, worker = id.0, pid, %exit, uptime_ms, state, untaken, "worker ended");
        }
        worker.forget();
        self.starter.door.tokens.borrow_mut().remove(&worker.token);
        self.listeners.retire(id);
        if state == "starting" && self.fleet.was_never_ready() {
            self.remember_words(id, exit).await;
        }
        self.workers.remove(&id);
        self.reap_strangers();
        self.handle_fleet(fleet::Event::Exited(id, exit)).await;
    }

    /// Keeps what a worker said before it failed to boot, for the case that the master gives up.
    async fn remember_words(&mut self, id: WorkerId, exit: Exit) {
        let Some(worker) = self.workers.get(&id) else { return };
        let words = worker.last_words.wait().await;
        let said = match words.is_empty() {
            true => "it wrote nothing to its standard error".to_owned(),
            false => format!("its last words:\n  {}", words.join("\n  ")),
        };
        let command = self.config.command.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let bypass = self.bypass_found().map(|found| format!("\n{found}")).unwrap_or_default();
        let message = format!("no worker came up: `{command}` ended with {exit} before it listened; {said}{bypass}");
        // That an address was refused explains more than what the worker made of it.
        if !matches!(self.boot_failure, Some(RunError::Bind { .. })) {
            self.boot_failure = Some(RunError::GaveUp(message));
        }
    }

    fn give_up(&mut self, slot: Slot, attempts: u32) {
        error!(slot = slot.0, attempts, "no worker came up, giving up");
        let why = self.boot_failure.take();
        self.failure = Some(why.unwrap_or_else(|| RunError::GaveUp("no worker came up".to_owned())));
    }

    fn finish(&mut self) {
        let untaken: u64 = self.listeners.iter().map(|listener| listener.seats.queued()).sum();
        let held = self.listeners.iter().filter(|l| l.held.borrow().is_some()).count() as u64;
        let at_slots: u64 = self.listeners.iter().filter_map(|l| l.group.as_ref()).map(Group::queued).sum();
        self.house.lost.set(self.house.lost.get() + untaken + held + at_slots);
        self.listeners.iter().for_each(|listener| listener.close());
        let totals = self.view().status().totals;
        let (accepted, handed, rescued, lost) = (totals.accepted, totals.handed, totals.rescued, totals.lost);
        info!(accepted, handed, rescued, lost, uptime_s = self.since.elapsed().as_secs(), "stopped");
        self.finished = true;
    }

    fn has_untaken(&self, worker: WorkerId) -> bool {
        self.listeners.iter().any(|listener| listener.seats.knows(worker))
    }

    async fn emptied(&mut self, worker: WorkerId) {
        self.drop_unused_listeners();
        if !self.has_untaken(worker) {
            self.handle_fleet(fleet::Event::Emptied(worker)).await;
        }
    }

    async fn listener_closed(&mut self) {
        self.closing = self.closing.saturating_sub(1);
        if self.closing == 0 {
            self.handle_fleet(fleet::Event::ListenersClosed).await;
        }
    }

    fn reap_strangers(&self) {
        let strangers = reap::reap_strangers(|pid| self.workers.values().any(|worker| worker.pid == pid));
        if strangers > 0 {
            debug!(strangers, "reaped processes that workers left behind");
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            config: &self.config,
            since: self.since,
            fleet: &self.fleet,
            listeners: &self.listeners,
            workers: &self.workers,
            counters: &self.counters,
            taken: self.starter.taken.as_ref(),
            accepted_before: self.accepted_before,
            lost: self.house.lost.get(),
        }
    }

    /// Answers a request of the control socket. What `/proc` tells takes a while and is read aside.
    fn answer(&self, request: &control::Request, answer: oneshot::Sender<String>) {
        match request {
            control::Request::Status => {
                let view = self.view();
                let (mut status, groups, ports) = (view.status(), view.groups(), view.ports());
                tokio::task::spawn_blocking(move || {
                    add_usage(&mut status, &process::usage(&groups, &ports));
                    let text = serde_json::to_string(&status).unwrap_or_else(|error| refusal(&error.to_string()));
                    // A client that is gone needs no answer.
                    let _ = answer.send(text);
                });
            }
        }
    }
}

fn refusal(why: &str) -> String {
    serde_json::to_string(&Refusal { error: why.to_owned() }).unwrap_or_default()
}
