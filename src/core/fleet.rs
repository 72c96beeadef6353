//! The lives of the workers: what happened comes in as an [`Event`], what to do goes out as
//! [`Action`]s. [`crate::master`] carries them out and reports back.
//!
//! What is wanted (how many slots, stopping or not) and what is seen (each slot's [`State`]) are
//! kept apart; after every event `reconcile` closes the gap. The law of use: one event,
//! carry out all actions, next event; call with [`Event::Tick`] when [`Fleet::wakes_at`] is due.

use super::backoff;
use super::ids::{Generation, Slot, WorkerId};
use std::time::{Duration, Instant};

/// Failures to boot in a row, of one slot of a first generation in which nobody was ever ready,
/// before the master gives up.
pub const BOOT_ATTEMPTS: u32 = 3;

/// A second request to stop that comes sooner than this is the same one: wrappers forward a signal
/// that the whole group gets anyway (`timeout(1)` does).
pub const SAME_REQUEST: Duration = Duration::from_millis(500);

/// What the fleet is told to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many workers are wanted at the start.
    pub workers: u32,
    /// The most that can be asked for later.
    pub max_workers: u32,
    /// How long a worker may take to end after its stop signal.
    pub grace: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `exit(code)`.
    Code(i32),
    /// Killed by a signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// How the fleet is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Within the grace time (`TERM`, `INT`).
    Graceful,
    /// However long it takes (`QUIT`).
    Patient,
    /// At once (a second `TERM` or `INT`).
    Immediate,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The master runs.
    Begin,
    /// The worker accepts connections, or said `READY=1`.
    Ready(WorkerId),
    /// Everything that waited in the kernel's accept queues was handed over, and the listeners are
    /// closed.
    ListenersClosed,
    /// Nothing that was handed to this draining worker waits untaken any more.
    Emptied(WorkerId),
    /// The worker's process ended.
    Exited(WorkerId, Exit),
    /// The worker could not be forked or its command not be executed.
    ForkFailed(WorkerId),
    /// Stop the fleet.
    StopAsked(Stop),
    /// One worker more (`TTIN`).
    More,
    /// One worker less (`TTOU`).
    Fewer,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fork a worker into a slot.
    Fork { slot: Slot, worker: WorkerId, generation: Generation },
    /// Hand nothing more to this worker, give what it has not taken to others, and report
    /// [`Event::Emptied`].
    Withdraw { worker: WorkerId },
    /// Take what waits in the kernel's accept queues, then close the listeners.
    CloseListeners,
    /// Send the stop signal to the worker's process group.
    Terminate { worker: WorkerId },
    /// Kill the worker's process group.
    Kill { worker: WorkerId, because: KillReason },
    /// A slot waits before the next attempt.
    Wait { slot: Slot, failures: u32, delay: Duration },
    /// No worker came up: the fleet stops, and the master's exit code will be 3.
    GiveUp { slot: Slot, worker: WorkerId, attempts: u32 },
    /// All workers are gone, as asked or given up; end the master.
    Finish,
    /// The second request to stop: whoever still runs is killed.
    StopAtOnce,
    /// The asked size was refused.
    SizeRefused { workers: u32 },
    /// The wanted size changed.
    Resized { workers: u32 },
}

/// Why a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// It did not end within the grace time.
    GraceOver,
    /// Asked to stop at once.
    Immediate,
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Forked, and not accepting yet.
    Starting { worker: WorkerId, since: Instant },
    /// Serving.
    Ready { worker: WorkerId, since: Instant },
    /// Gets nothing new; ends when it is empty, when told, or when its time is over.
    Draining { worker: WorkerId, phase: Drain, deadline: Option<Instant> },
    /// Between two attempts.
    Backoff { until: Instant },
    /// Empty, and not wanted or not yet filled.
    Stopped,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Waits until nothing that was handed over is untaken.
    Emptying,
    /// The stop signal was sent.
    Stopping,
    /// Killed; only its end is awaited.
    Killed,
}

impl State {
    /// The worker in the slot, if there is one.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerId> {
        match *self {
            State::Starting { worker, .. } | State::Ready { worker, .. } | State::Draining { worker, .. } => {
                Some(worker)
            }
            State::Backoff { .. } | State::Stopped => None,
        }
    }

    /// The state's name in `status`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            State::Starting { .. } => "starting",
            State::Ready { .. } => "ready",
            State::Draining { .. } => "draining",
            State::Backoff { .. } => "backoff",
            State::Stopped => "stopped",
        }
    }
}

/// One slot as seen.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Where it is in its life.
    pub state: State,
    /// Failures in a row.
    pub failures: u32,
    /// How often its worker was forked again.
    pub restarts: u64,
    /// The id of its last worker, for `status` when it is empty.
    pub last_worker: Option<WorkerId>,
}

/// What the fleet is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// This many workers.
    Running(u32),
    /// None, and how.
    Stopped(Stop),
}

/// The time in which the listeners take their last connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Closing {
    /// When it is over in any case; never for a patient stop.
    until: Option<Instant>,
}

/// All slots, and what is wanted of them.
#[derive(Debug)]
pub struct Fleet {
    plan: Plan,
    wanted: Wanted,
    seats: Vec<Seat>,
    generation: Generation,
    next_worker: u64,
    random: u64,
    /// While the fleet stops: until when workers still get what waited in the accept queues.
    closing: Option<Closing>,
    /// When the last request to stop came that was not the same again.
    stop_asked: Option<Instant>,
    /// Whether any worker was ever ready: from then on nothing makes the master give up.
    was_ready: bool,
    /// Whether the end was announced by [`Action::Finish`].
    ended: bool,
}

impl Fleet {
    /// A fleet of empty slots; [`Event::Begin`] fills them.
    #[must_use]
    pub fn new(plan: Plan) -> Fleet {
        Fleet {
            plan,
            wanted: Wanted::Running(plan.workers),
            seats: Vec::new(),
            generation: Generation(1),
            next_worker: 1,
            // Xorshift must not start at zero.
            random: plan.seed | 1,
            closing: None,
            stop_asked: None,
            was_ready: false,
            ended: false,
        }
    }

    /// The slots, by number.
    #[must_use]
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The generation that is forked now.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether no worker was ready ever since the start.
    #[must_use]
    pub fn was_never_ready(&self) -> bool {
        !self.was_ready
    }

    /// Whether every slot has a worker that is ready.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.seats.iter().all(|seat| matches!(seat.state, State::Ready { .. }))
    }

    /// Whether this worker serves, or is about to.
    #[must_use]
    pub fn is_wanted(&self, worker: WorkerId) -> bool {
        let serves = |seat: &Seat| matches!(seat.state, State::Starting { .. } | State::Ready { .. });
        self.seats.iter().any(|seat| seat.state.worker() == Some(worker) && serves(seat))
    }

    /// Whether the fleet was asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        matches!(self.wanted, Wanted::Stopped(_))
    }

    /// When to come back with [`Event::Tick`].
    #[must_use]
    pub fn wakes_at(&self) -> Option<Instant> {
        let deadlines = self.seats.iter().filter_map(|seat| match seat.state {
            State::Backoff { until } => (!self.is_stopping()).then_some(until),
            State::Draining { deadline, phase: Drain::Emptying | Drain::Stopping, .. } => deadline,
            State::Draining { phase: Drain::Killed, .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Stopped => None,
        });
        deadlines.chain(self.closing.and_then(|closing| closing.until)).min()
    }

    /// Takes in what happened; the actions are to be carried out in order.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Begin | Event::Tick => {}
            Event::Ready(worker) => self.ready(now, worker),
            Event::ListenersClosed => self.closing = None,
            Event::Emptied(worker) => self.emptied(worker, &mut actions),
            Event::Exited(worker, _) => self.gone(now, worker, &mut actions),
            Event::ForkFailed(worker) => self.gone(now, worker, &mut actions),
            Event::StopAsked(stop) => self.stop(now, stop, &mut actions),
            Event::More => self.resize(1, &mut actions),
            Event::Fewer => self.resize(-1, &mut actions),
        }
        self.reconcile(now, &mut actions);
        actions
    }

    fn seat_of(&mut self, worker: WorkerId) -> Option<(Slot, &mut Seat)> {
        let index = self.seats.iter().position(|seat| seat.state.worker() == Some(worker))?;
        Some((Slot(index as u32), &mut self.seats[index]))
    }

    fn ready(&mut self, now: Instant, worker: WorkerId) {
        let Some((_, seat)) = self.seat_of(worker) else { return };
        match seat.state {
            State::Starting { .. } => {
                seat.state = State::Ready { worker, since: now };
                self.was_ready = true;
            }
            // It listens on a further address, or says so twice; a draining one stays so.
            State::Ready { .. } | State::Draining { .. } => {}
            State::Backoff { .. } | State::Stopped => unreachable!("an empty seat has no worker"),
        }
    }

    fn emptied(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let Some((_, seat)) = self.seat_of(worker) else { return };
        match &mut seat.state {
            State::Draining { phase: phase @ Drain::Emptying, .. } => {
                *phase = Drain::Stopping;
                actions.push(Action::Terminate { worker });
            }
            // A crash or a kill was faster.
            State::Draining { .. } | State::Starting { .. } | State::Ready { .. } => {}
            State::Backoff { .. } | State::Stopped => unreachable!("an empty seat has no worker"),
        }
    }

    /// A worker's process is no more.
    fn gone(&mut self, now: Instant, worker: WorkerId, actions: &mut Vec<Action>) {
        let first_boot = !self.was_ready;
        let random = self.random();
        let stopping = self.is_stopping();
        let Some((slot, seat)) = self.seat_of(worker) else { return };
        seat.last_worker = Some(worker);
        let booted = match seat.state {
            State::Draining { .. } => {
                seat.state = State::Stopped;
                seat.failures = 0;
                return;
            }
            State::Starting { .. } => false,
            State::Ready { since, .. } => {
                if now.duration_since(since) >= backoff::HEALTHY {
                    seat.failures = 0;
                }
                true
            }
            State::Backoff { .. } | State::Stopped => unreachable!("an empty seat has no worker"),
        };
        seat.state = State::Stopped;
        if stopping {
            return;
        }
        seat.failures += 1;
        // A worker that served and crashed for the first time is replaced at once: until then its
        // share of the work is missing. Only a repetition waits.
        let failures = if booted { seat.failures - 1 } else { seat.failures };
        if failures == 0 {
            return;
        }
        let delay = backoff::delay(failures, random);
        seat.state = State::Backoff { until: now + delay };
        if first_boot && seat.failures >= BOOT_ATTEMPTS {
            let attempts = seat.failures;
            self.wanted = Wanted::Stopped(Stop::Immediate);
            actions.push(Action::GiveUp { slot, worker, attempts });
        } else {
            actions.push(Action::Wait { slot, failures, delay });
        }
    }

    fn stop(&mut self, now: Instant, stop: Stop, actions: &mut Vec<Action>) {
        let repeated = self.stop_asked.is_some_and(|asked| now.duration_since(asked) < SAME_REQUEST);
        if self.wanted == Wanted::Stopped(Stop::Graceful) && stop == Stop::Graceful && repeated {
            return;
        }
        self.stop_asked = Some(now);
        let stop = match (self.wanted, stop) {
            (Wanted::Running(_), first) => {
                actions.push(Action::CloseListeners);
                self.closing = Some(Closing { until: None });
                first
            }
            // The second request of any kind but QUIT means now.
            (Wanted::Stopped(Stop::Graceful | Stop::Immediate), Stop::Graceful | Stop::Immediate) => {
                actions.push(Action::StopAtOnce);
                Stop::Immediate
            }
            (Wanted::Stopped(Stop::Patient), asked) => asked,
            (Wanted::Stopped(already), Stop::Patient) => already,
        };
        self.wanted = Wanted::Stopped(stop);
        self.closing = match (self.closing, stop) {
            (Some(Closing { until: None }), Stop::Graceful) => Some(Closing { until: Some(now + self.plan.grace) }),
            (_, Stop::Immediate) => None,
            (closing, _) => closing,
        };
    }

    fn resize(&mut self, by: i32, actions: &mut Vec<Action>) {
        let Wanted::Running(now) = self.wanted else { return };
        match now.checked_add_signed(by) {
            Some(workers) if (1..=self.plan.max_workers).contains(&workers) => {
                self.wanted = Wanted::Running(workers);
                actions.push(Action::Resized { workers });
            }
            _ => actions.push(Action::SizeRefused { workers: now }),
        }
    }

    /// Closes the gap between what is wanted and what is seen.
    fn reconcile(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.closing.is_some_and(|closing| closing.until.is_some_and(|until| until <= now)) {
            self.closing = None;
        }
        let (wanted, stop) = match self.wanted {
            Wanted::Running(n) => (n as usize, None),
            Wanted::Stopped(stop) => (0, Some(stop)),
        };
        if self.seats.len() < wanted {
            let empty = Seat { state: State::Stopped, failures: 0, restarts: 0, last_worker: None };
            self.seats.resize(wanted, empty);
        }
        for index in 0..self.seats.len() {
            if index < wanted {
                self.fill(now, index, actions);
            } else if self.closing.is_none() {
                self.empty(now, index, stop, actions);
            }
            self.enforce_deadline(now, index, actions);
        }
        // Slots above the wanted number disappear once they are empty; a stopped fleet keeps its
        // seats, so that the last status still shows who was there.
        while stop.is_none() && self.seats.len() > wanted {
            match self.seats.last() {
                Some(Seat { state: State::Stopped, .. }) => drop(self.seats.pop()),
                _ => break,
            }
        }
        let all_gone = self.seats.iter().all(|seat| seat.state.worker().is_none());
        if stop.is_some() && all_gone && !self.ended {
            self.ended = true;
            actions.push(Action::Finish);
        }
    }

    /// Forks into a wanted slot that is empty.
    fn fill(&mut self, now: Instant, index: usize, actions: &mut Vec<Action>) {
        let due = match self.seats[index].state {
            State::Stopped => true,
            State::Backoff { until } => until <= now,
            State::Starting { .. } | State::Ready { .. } | State::Draining { .. } => false,
        };
        if !due {
            return;
        }
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        let seat = &mut self.seats[index];
        if seat.last_worker.is_some() {
            seat.restarts += 1;
        }
        seat.state = State::Starting { worker, since: now };
        actions.push(Action::Fork { slot: Slot(index as u32), worker, generation: self.generation });
    }

    /// Drains or kills the worker of a slot that is not wanted.
    fn empty(&mut self, now: Instant, index: usize, stop: Option<Stop>, actions: &mut Vec<Action>) {
        let deadline = match stop {
            Some(Stop::Patient) => None,
            Some(Stop::Graceful) | None => Some(now + self.plan.grace),
            Some(Stop::Immediate) => Some(now),
        };
        let seat = &mut self.seats[index];
        match &mut seat.state {
            State::Starting { worker, .. } | State::Ready { worker, .. } => {
                let worker = *worker;
                if stop == Some(Stop::Immediate) {
                    seat.state = State::Draining { worker, phase: Drain::Killed, deadline: None };
                    actions.push(Action::Kill { worker, because: KillReason::Immediate });
                } else {
                    seat.state = State::Draining { worker, phase: Drain::Emptying, deadline };
                    actions.push(Action::Withdraw { worker });
                }
            }
            State::Draining { worker, phase, .. } if stop == Some(Stop::Immediate) && *phase != Drain::Killed => {
                *phase = Drain::Killed;
                actions.push(Action::Kill { worker: *worker, because: KillReason::Immediate });
            }
            // TERM after QUIT sets the limit that was not there.
            State::Draining { deadline: at @ None, phase: Drain::Emptying | Drain::Stopping, .. }
                if stop == Some(Stop::Graceful) =>
            {
                *at = deadline;
            }
            State::Backoff { .. } => seat.state = State::Stopped,
            State::Draining { .. } | State::Stopped => {}
        }
    }

    fn enforce_deadline(&mut self, now: Instant, index: usize, actions: &mut Vec<Action>) {
        if let State::Draining { worker, phase, deadline: Some(deadline) } = &mut self.seats[index].state
            && *phase != Drain::Killed
            && *deadline <= now
        {
            *phase = Drain::Killed;
            actions.push(Action::Kill { worker: *worker, because: KillReason::GraceOver });
        }
    }

    /// Xorshift32 (Marsaglia 2003): enough for jitter.
    fn random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }
}

#[cfg(test)]
mod tests;
