//! The master's loop: one event at a time in, the fleet's actions out.

use super::door::Door;
use super::event::{EVENTS_MAX, Event, FromWorker};
use super::handoff::{Counters, Depth, Handoff, count};
use super::listener::{House, Key, Listener, Origin};
use super::listeners::Listeners;
use super::output::{Output, Prefixed};
use super::start::{StartError, Starter};
use super::status::{View, add_usage};
use super::worker::{REQUESTS_MAX, Request, Worker, name_of};
use super::{channel, returned};
use crate::adapt::preload::Shim;
use crate::config::bind::Bind;
use crate::config::{Config, Control, DESCRIPTORS_OF_MASTER, DESCRIPTORS_PER_WORKER, Mode, Prefix, WORKERS_MAX};
use crate::control::server::{ControlError, ControlSocket};
use crate::control::{self, Refusal};
use crate::core::fleet::{self, Action, Exit, Fleet, Plan, Stop};
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::sys::{fd, limits, listen, process, reap, spawn};
use crate::wire::address::Address;
use crate::wire::packet::{self, AnswerTo, Listen, RequestId, ToWorker, Via};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::{debug, error, info, warn};

/// Backlog of addresses that are bound before any worker says one; the kernel cuts it to
/// `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// Why the master did not get going, or did not get on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address of `--bind` cannot be had.
    #[error("cannot bind {address}: {source}{}", advice(address, source))]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A worker cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The control socket cannot be had.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// More workers than the limit of descriptors allows.
    #[error(
        "cannot run {workers} workers: they need about {needed} descriptors and the limit is {limit}; raise it with \
         ulimit -n, or start fewer workers"
    )]
    Descriptors {
        /// `--workers`.
        workers: u32,
        /// What they need.
        needed: u64,
        /// What there is.
        limit: u64,
    },
    /// The first generation never came up.
    #[error("{0}")]
    GaveUp(String),
    /// Something that the master cannot do without.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A listener broke while running.
    #[error("cannot go on accepting on {address}: {source}")]
    Listener {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

impl RunError {
    /// The exit code that goes with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Listener { .. } => 1,
            _ => 3,
        }
    }
}

/// What to do about an address that cannot be bound.
fn advice(address: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let port = address.rsplit(':').next().unwrap_or_default();
            match address.starts_with("unix:") {
                true => "; another server listens there".to_owned(),
                false => format!("; find its owner with ss -ltnp 'sport = :{port}', or choose another port"),
            }
        }
        Some(libc::EACCES) if address.starts_with("unix:") => "; the directory must be writable".to_owned(),
        Some(libc::EACCES) => "; use a port above 1023, or grant CAP_NET_BIND_SERVICE".to_owned(),
        Some(libc::EADDRNOTAVAIL) => "; no interface of this machine has that address".to_owned(),
        Some(libc::EBADF) => "; no such descriptor was passed to maitred".to_owned(),
        _ if error.kind() == io::ErrorKind::AlreadyExists => "; there is a file that is no socket".to_owned(),
        _ => String::new(),
    }
}

/// Runs until the fleet has ended.
///
/// # Errors
/// [`RunError`]; nothing is left running then.
pub async fn run(config: Config) -> Result<(), RunError> {
    let (mut master, mut events) = Master::prepare(config)?;
    master.handle_fleet(fleet::Event::Begin).await;
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
    }
    master.failure.map_or(Ok(()), Err)
}

struct Master {
    config: Rc<Config>,
    since: Instant,
    starter: Starter,
    house: Rc<House>,
    listeners: Listeners,
    /// Connections accepted on listeners that are closed by now.
    accepted_before: u64,
    /// Listeners that were told to close and have not reported yet.
    closing: usize,
    fleet: Fleet,
    workers: HashMap<WorkerId, Worker>,
    counters: Vec<Rc<Counters>>,
    finished: bool,
    /// Why the master will end with an error.
    failure: Option<RunError>,
    /// Why the last worker did not come up, in case none ever does.
    boot_failure: Option<RunError>,
    _control: Option<ControlSocket>,
}

impl Master {
    /// Takes everything that can be refused, before the first worker is forked.
    fn prepare(config: Config) -> Result<(Master, mpsc::Receiver<Event>), RunError> {
        let config = Rc::new(config);
        let limit = limits::raise_descriptor_limit()?;
        let needed = u64::from(config.workers) * DESCRIPTORS_PER_WORKER + DESCRIPTORS_OF_MASTER;
        if needed > limit.hard {
            return Err(RunError::Descriptors { workers: config.workers, needed, limit: limit.hard });
        }
        let spare = limit.hard.saturating_sub(DESCRIPTORS_OF_MASTER) / DESCRIPTORS_PER_WORKER;
        limits::become_subreaper()?;
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
        let starter = Starter {
            config: Rc::clone(&config),
            shim: Shim::new()?,
            door: Door::open()?,
            output: Output::start()?,
            prefixed,
            descriptors: limit.soft,
            events: sender.clone(),
        };
        let (executable, adapter, reason) = starter.look()?;
        info!(command = %executable.path.display(), adapter = adapter.name(), reason, "chose the adapter");
        let mut control = bind_control(&config)?;
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
        info!(name, pid, workers, mode = ?config.mode, depth = config.depth, "starting");
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
            Event::WorkerEnded { worker, exit } => self.ended(worker, exit).await,
            Event::HandoffEmptied { worker } => self.emptied(worker).await,
            Event::ListenerClosed => self.listener_closed().await,
            Event::ListenerFailed { address, error } => {
                error!(address, %error, "cannot go on accepting, stopping");
                self.failure.get_or_insert(RunError::Listener { address, source: error });
                self.closing = self.closing.saturating_sub(1);
                self.handle_fleet(fleet::Event::StopAsked(Stop::Graceful)).await;
            }
            Event::ChildEnded => self.reap_strangers(),
            Event::Asked { request, answer } => self.answer(&request, answer),
            Event::Stop(stop) => {
                info!(?stop, "stopping");
                self.handle_fleet(fleet::Event::StopAsked(stop)).await;
            }
            Event::More => self.handle_fleet(fleet::Event::More).await,
            Event::Fewer => self.handle_fleet(fleet::Event::Fewer).await,
            Event::Unheeded { signal, because } => warn!(signal, because, "signal without effect"),
        }
    }

    /// Tells the fleet and carries out what it decides. A failed fork is an event again.
    async fn handle_fleet(&mut self, event: fleet::Event) {
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
            Action::SizeRefused { workers } => warn!(workers, "the number of workers cannot change that way"),
            Action::Resized { workers } => info!(workers, "the number of workers changes"),
        }
        None
    }

    fn fork(&mut self, slot: Slot, id: WorkerId, generation: Generation) -> Option<fleet::Event> {
        while self.counters.len() <= slot.index() {
            self.counters.push(Rc::default());
        }
        match self.starter.start(slot, id, generation, &self.listeners) {
            Ok(worker) => {
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
        let message = format!("no worker came up: `{command}` ended with {exit} before it listened; {said}");
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
        self.house.lost.set(self.house.lost.get() + untaken + held);
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

    /// A worker said something.
    async fn heard(&mut self, from: FromWorker) {
        let FromWorker { worker: id, packet, mut fds, door } = from;
        for said in packet.says {
            if !self.workers.contains_key(&id) {
                return;
            }
            debug!(worker = id.0, said = name_of(&said), "heard");
            match said {
                packet::FromWorker::Listen(listen) => self.listen(id, listen, std::mem::take(&mut fds), door.as_ref()),
                packet::FromWorker::Accepting { id: request, backlog } => self.accepting(id, request, backlog).await,
                packet::FromWorker::Close { id: request } => self.close(id, request),
                packet::FromWorker::Truncated { .. } => self.truncated(id),
                packet::FromWorker::Ready => self.handle_fleet(fleet::Event::Ready(id)).await,
                packet::FromWorker::Stopping => info!(worker = id.0, "the worker is about to end"),
                packet::FromWorker::Status(text) => info!(worker = id.0, text, "the worker says"),
                packet::FromWorker::Watchdog | packet::FromWorker::Pong(_) => {}
                packet::FromWorker::Ping(n) => {
                    if let Some(worker) = self.workers.get(&id) {
                        worker.tell(&ToWorker::Pong(n));
                    }
                }
            }
        }
    }

    fn malformed(&mut self, id: WorkerId, what: &str) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.malformed += 1;
        // The first tells what is wrong; a flood of them must not fill the log.
        if worker.malformed.is_power_of_two() {
            warn!(
                slot = worker.slot.0,
                worker = id.0,
                malformed = worker.malformed,
                what,
                "a worker sent a packet that makes no sense"
            );
        }
    }

    fn truncated(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        if let Some(counters) = self.counters.get(worker.slot.index()) {
            count(&counters.truncated);
            if counters.truncated.get().is_power_of_two() {
                let (slot, truncated) = (worker.slot.0, counters.truncated.get());
                warn!(
                    slot,
                    worker = id.0,
                    truncated,
                    "a worker without a free descriptor lost a connection; raise its ulimit -n"
                );
            }
        }
    }

    /// `LISTEN`: finds or makes the listener and sends the worker its socket.
    fn listen(&mut self, id: WorkerId, listen: Listen, fds: Vec<OwnedFd>, door: Option<&OwnedFd>) {
        let mut fds = fds.into_iter();
        let (own, reply) = match listen.answer {
            AnswerTo::AttachedSocket => {
                let (first, second) = (fds.next(), fds.next());
                if second.is_some() { (first, second) } else { (None, first) }
            }
            AnswerTo::Sender => (fds.next(), None),
        };
        let request = listen.id;
        let (answer, socket) = match self.serve_request(id, &listen, own) {
            Ok((answer, socket)) => (answer, Some(socket)),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                let address = listen.address.to_string();
                warn!(worker = id.0, %address, %error, "a worker cannot have the address{}", advice(&address, &error));
                if self.fleet.was_never_ready() && errno == libc::EADDRINUSE {
                    let shown = address.trim_start_matches("tcp:").to_owned();
                    self.boot_failure = Some(RunError::Bind { address: shown, source: error });
                }
                (ToWorker::Error { errno, id: request }, None)
            }
        };
        let Some(worker) = self.workers.get(&id) else { return };
        let to = reply.as_ref().or(door).map_or(worker.channel.get_ref().as_fd(), AsFd::as_fd);
        if let Err(error) = channel::tell(to, &answer, socket.as_ref().map(AsFd::as_fd)) {
            warn!(slot = worker.slot.0, worker = id.0, %error, "cannot answer a worker");
            self.close(id, request);
        }
    }

    fn serve_request(
        &mut self,
        id: WorkerId,
        listen: &Listen,
        own: Option<OwnedFd>,
    ) -> io::Result<(ToWorker, OwnedFd)> {
        // The same name again means that the old socket is gone, with the program that had it.
        self.close(id, listen.id);
        let worker = self.workers.get_mut(&id).ok_or(Errno::ESRCH)?;
        if worker.requests.len() >= REQUESTS_MAX {
            return Err(Errno::EMFILE.into());
        }
        let found = self.listeners.find_or_bind(&listen.address, own, |listener| worker.holds(listener))?;
        let listener = found.listener;
        listener.given_up.set(false);
        let (via, handoff, socket) = match self.config.mode {
            Mode::Handoff => {
                let counters = Rc::clone(&self.counters[worker.slot.index()]);
                let (handoff, socket) = Handoff::new(id, worker.slot, listen.id, counters, self.house.depth)?;
                (Via::Handoff, Some(Rc::new(handoff)), socket)
            }
            Mode::Shared => {
                let socket = listener.socket().ok_or(Errno::ESHUTDOWN)?;
                (Via::Shared, None, socket.as_fd().try_clone_to_owned()?)
            }
        };
        if let Some(handoff) = &handoff {
            tokio::task::spawn_local(returned::serve(Rc::clone(&listener), Rc::clone(handoff)));
        }
        let address = listener.address.clone();
        debug!(slot = worker.slot.0, worker = id.0, asked = %listen.address, %address, ownership = ?found.ownership, "serving a worker's address");
        worker.requests.push(Request { id: listen.id, listener, handoff, own: found.own });
        Ok((ToWorker::Listening { address, id: listen.id, via, ownership: found.ownership }, socket))
    }

    /// `ACCEPTING`: the worker takes part from now on.
    async fn accepting(&mut self, id: WorkerId, request: RequestId, backlog: Option<u32>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (slot, uptime_ms) = (worker.slot.0, worker.since.elapsed().as_millis());
        let Some(request) = worker.requests.iter_mut().find(|r| r.id == request) else {
            debug!(worker = id.0, "a worker accepts on an address that it did not ask for");
            return;
        };
        let listener = Rc::clone(&request.listener);
        if let Some(own) = request.own.take() {
            listener.style_after(&own);
        }
        let backlog = backlog.unwrap_or(BACKLOG).max(1);
        let grows = backlog > listener.backlog.get();
        let seated = match (&request.handoff, grows) {
            (Some(handoff), true) => listener.listen(backlog).and_then(|()| listener.seat(handoff)),
            (Some(handoff), false) => listener.seat(handoff),
            (None, _) => {
                listener.backlog.set(backlog.max(listener.backlog.get()));
                Ok(())
            }
        };
        if let Err(error) = seated {
            warn!(slot, worker = id.0, %error, "a worker cannot take part");
            return;
        }
        self.listeners.serve(&listener);
        let draining = self.fleet.is_stopping() || !self.fleet.is_wanted(id);
        if draining {
            listener.seats.retire(id, None);
            return;
        }
        info!(slot, worker = id.0, address = %listener.address, uptime_ms, "worker ready");
        self.handle_fleet(fleet::Event::Ready(id)).await;
    }

    /// `CLOSE`: the worker listens there no more; what it has not taken goes to others.
    fn close(&mut self, id: WorkerId, request: RequestId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(request) = worker.take_request(request) else { return };
        debug!(slot = worker.slot.0, worker = id.0, address = %request.listener.address, "a worker stopped listening");
        let listener = request.listener;
        if let Some(handoff) = request.handoff {
            listener.seats.retire(id, Some(request.id));
            handoff.finish();
        }
        listener.changed.notify_one();
        if !self.workers.values().any(|worker| worker.holds(&listener)) {
            listener.given_up.set(true);
        }
        self.drop_unused_listeners();
    }

    /// Closes addresses that workers asked for and gave up. While a worker is missing or starting
    /// they stay: it may come back and ask for them.
    fn drop_unused_listeners(&mut self) {
        if self.fleet.is_stopping() || !self.fleet.all_ready() {
            return;
        }
        let in_use = |listener: &Listener| self.workers.values().any(|worker| worker.holds(listener));
        for accepted in self.listeners.drop_unused(in_use) {
            self.accepted_before += accepted;
        }
    }

    fn view(&self) -> View<'_> {
        View {
            config: &self.config,
            since: self.since,
            fleet: &self.fleet,
            listeners: &self.listeners,
            workers: &self.workers,
            counters: &self.counters,
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

fn bind_control(config: &Config) -> Result<Option<ControlSocket>, RunError> {
    let (path, usual) = match &config.control {
        Control::Usual(path) => (path, true),
        Control::Asked(path) => (path, false),
    };
    match ControlSocket::bind(&config.name, path) {
        Ok(socket) => Ok(Some(socket)),
        Err(error @ ControlError::Io { .. }) if usual => {
            warn!(path = %path.display(), %error, "no control socket; status and other commands will not reach this maitred");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Binds what `--bind` asks for and what a service manager passed.
fn bind_all(
    config: &Config,
    inherited: Vec<OwnedFd>,
    listeners: &mut Listeners,
    house: &Rc<House>,
) -> Result<(), RunError> {
    let mut inherited: Vec<Option<OwnedFd>> = inherited.into_iter().map(Some).collect();
    let mut add = |address: &Address, made: io::Result<socket2::Socket>, file: FileOf| {
        let shown = address.to_string().trim_start_matches("tcp:").to_owned();
        let fail = |source| RunError::Bind { address: shown.clone(), source };
        let socket = made.map_err(fail)?;
        let index = listeners.iter().filter(|l| l.key.asked == *address).count();
        let key = Key { asked: address.clone(), index };
        let mut listener = Listener::new(key, socket, Origin::Operator, Rc::clone(house)).map_err(fail)?;
        if file == FileOf::Master {
            listener.own_path();
        }
        listener.listen(BACKLOG).map_err(fail)?;
        let listener = listeners.add_bound(listener);
        info!(address = %listener.address, "listening");
        Ok::<(), RunError>(())
    };
    for bind in &config.bind {
        match bind {
            Bind::Any(port) => {
                let (v6, v4) = (([0u16; 8], *port).into(), ([0u8; 4], *port).into());
                let made = listen::bind(&Address::Tcp(v6));
                match made {
                    // A machine without IPv6.
                    Err(e)
                        if e.raw_os_error() == Some(libc::EAFNOSUPPORT)
                            || e.raw_os_error() == Some(libc::EADDRNOTAVAIL) =>
                    {
                        add(&Address::Tcp(v4), listen::bind(&Address::Tcp(v4)), FileOf::Nobody)?;
                    }
                    made => add(&Address::Tcp(v6), made, FileOf::Nobody)?,
                }
            }
            Bind::Tcp(addresses) => {
                for &address in addresses {
                    add(&Address::Tcp(address), listen::bind(&Address::Tcp(address)), FileOf::Nobody)?;
                }
            }
            Bind::Unix { path, mode } => {
                add(&Address::Unix(path.clone()), listen::bind_unix(path, *mode), FileOf::Master)?;
            }
            Bind::Abstract(name) => {
                let address = Address::Abstract(name.clone());
                add(&address, listen::bind(&address), FileOf::Nobody)?;
            }
            Bind::Inherited(number) => {
                let passed = usize::try_from(number - 3).ok().and_then(|i| inherited.get_mut(i)?.take());
                let fd = match passed {
                    Some(fd) => Ok(fd),
                    None => fd::inherited(*number),
                };
                let fd = fd.map_err(|source| RunError::Bind { address: format!("fd://{number}"), source })?;
                let (address, socket) = inherited_address(fd, *number)?;
                add(&address, Ok(socket), FileOf::Nobody)?;
            }
        }
    }
    for (index, fd) in inherited.into_iter().enumerate() {
        if let Some(fd) = fd {
            let (address, socket) = inherited_address(fd, 3 + index as i32)?;
            add(&address, Ok(socket), FileOf::Nobody)?;
        }
    }
    Ok(())
}

/// Who made the file of a Unix socket, and so removes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileOf {
    Master,
    Nobody,
}

fn inherited_address(fd: OwnedFd, number: i32) -> Result<(Address, socket2::Socket), RunError> {
    let fail = |source| RunError::Bind { address: format!("fd://{number}"), source };
    let socket = socket2::Socket::from(fd);
    if socket.r#type().map_err(fail)? != socket2::Type::STREAM {
        return Err(fail(io::Error::other("it is no stream socket")));
    }
    Ok((listen::local_address(&socket).map_err(fail)?, socket))
}

/// Turns signals into events.
fn forward_signals(events: &mpsc::Sender<Event>) -> io::Result<()> {
    const LATER: &str = "this version does not know it";
    let table: [(SignalKind, fn() -> Event); 9] = [
        (SignalKind::terminate(), || Event::Stop(Stop::Graceful)),
        (SignalKind::interrupt(), || Event::Stop(Stop::Graceful)),
        (SignalKind::quit(), || Event::Stop(Stop::Patient)),
        (SignalKind::child(), || Event::ChildEnded),
        (SignalKind::from_raw(libc::SIGTTIN), || Event::More),
        (SignalKind::from_raw(libc::SIGTTOU), || Event::Fewer),
        (SignalKind::hangup(), || Event::Unheeded { signal: "HUP", because: LATER }),
        (SignalKind::user_defined1(), || Event::Unheeded {
            signal: "USR1",
            because: "there are no log files to reopen",
        }),
        (SignalKind::user_defined2(), || Event::Unheeded { signal: "USR2", because: LATER }),
    ];
    for (kind, event) in table {
        let mut stream = signal(kind)?;
        let events = events.clone();
        tokio::task::spawn_local(async move {
            while stream.recv().await.is_some() {
                if events.send(event()).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}
