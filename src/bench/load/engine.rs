//! One thread's clients: an epoll loop that opens connections when they are due, sends requests, reads, and counts. It
//! shares the machine with the subject, so the usual connection costs it one event, one write and one read besides
//! opening and closing, and no allocation.

mod answers;
mod connection;

use super::answer::{Garbled, Progress};
use super::board::Board;
use super::connect::Route;
use super::schedule::{Next, Schedule};
use super::tally::{Ending, Tally};
use super::{Load, Protocol, TurnedAway};
use crate::bench::stop::Stop;
use connection::{Connection, Phase, echo, ending_of, interest, request};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Events taken from the kernel in one call.
const EVENTS: usize = 256;
/// Connections begun in a row before answers are processed: a loop that is behind schedule must not make its open
/// connections wait.
const BATCH: usize = 64;
/// Bytes read in one call.
const READ: usize = 64 * 1024;
/// The longest sleep of the loop; it limits how late a hung connection is noticed.
const TICK: Duration = Duration::from_millis(100);
/// With this many hung connections, or this many unanswered for any reason, and more of them than answered ones, the
/// rest is not tried: each would cost its timeout, and the result is known.
const HOPELESS_HUNG: u64 = 20;
/// See [`HOPELESS_HUNG`].
const HOPELESS: u64 = 1000;
/// No pause between two exchanges is longer than this many times the mean.
const PAUSE_TIMES_MAX: f64 = 8.0;

/// Tokens of descriptors that are not connections.
const STOP: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// One thread's clients.
pub struct Engine<'a> {
    load: &'a Load,
    stop: &'a Stop,
    board: &'a Board,
    route: Route,
    /// The requests: for each path, one for a connection that continues and one for a connection that ends with it.
    questions: Vec<[Vec<u8>; 2]>,
    set: Epoll,
    timer: TimerFd,
    /// The instant that the timer is set to.
    armed: Option<Instant>,
    connections: Vec<Connection>,
    free: Vec<usize>,
    /// When each exchange under way counts as hung, in order; exchanges that ended in time are still included.
    deadlines: VecDeque<(Instant, usize, u64)>,
    /// Connections that pause, by the time at which they continue.
    pausing: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    /// Grows with every exchange and pause, so that an old deadline can be recognized.
    serial: u64,
    random: SmallRng,
    buffer: Vec<u8>,
    tally: Tally,
    stopped: bool,
}

impl<'a> Engine<'a> {
    /// Clients that will put `load` on `address`.
    ///
    /// # Errors
    /// When the kernel has no descriptor for the epoll set or the timer.
    pub fn new(load: &'a Load, address: SocketAddr, stop: &'a Stop, board: &'a Board) -> io::Result<Engine<'a>> {
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        set.add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        set.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let questions = match load.protocol {
            Protocol::Echo => vec![[echo(), echo()]],
            Protocol::Http | Protocol::KeepAlive => {
                let host = address.to_string();
                let both = |path: &String| [request(path, &host, "keep-alive"), request(path, &host, "close")];
                load.paths.iter().map(both).collect()
            }
        };
        Ok(Engine {
            load,
            stop,
            board,
            route: Route::new(address, load.sources, load.seed),
            questions,
            set,
            timer,
            armed: None,
            connections: Vec::new(),
            free: Vec::new(),
            deadlines: VecDeque::new(),
            pausing: BinaryHeap::new(),
            serial: 0,
            random: SmallRng::seed_from_u64(load.seed),
            buffer: vec![0; READ],
            tally: Tally::default(),
            stopped: false,
        })
    }

    /// Runs until the load is complete or the stop comes; returns the planned idle time.
    ///
    /// # Errors
    /// Those of epoll.
    pub fn run(&mut self, ended: &AtomicU64) -> io::Result<Duration> {
        let mut schedule = Schedule::new(self.load.arrival, self.load.volume, self.load.open_max, Instant::now());
        let mut told = 0;
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let now = Instant::now();
            self.expire(now)?;
            self.resume(now)?;
            let due = self.begin_what_is_due(&mut schedule)?;
            let over = due == Next::Over || self.stopped || self.tally.gave_up;
            if over {
                self.board.last_has_begun();
            }
            if over && (self.open() == 0 || self.stopped || self.tally.gave_up) {
                self.abandon_rest();
            }
            ended.fetch_add(self.tally.endings.all() - told, Relaxed);
            told = self.tally.endings.all();
            if over && self.open() == 0 {
                self.tally.held_back = schedule.held_back();
                return Ok(schedule.idle());
            }
            self.arm(due)?;
            let timeout = EpollTimeout::try_from(TICK).unwrap_or(EpollTimeout::ZERO);
            let ready = match self.set.wait(&mut events, timeout) {
                Err(nix::errno::Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..ready] {
                match event.data() {
                    STOP => self.stopped = self.stop.is_set(),
                    // Only wakes the loop up.
                    TIMER => self.armed = None,
                    key => self.go_on(key as usize, event.events())?,
                }
            }
        }
    }

    /// The counts.
    #[must_use]
    pub fn into_tally(self) -> Tally {
        self.tally
    }

    fn open(&self) -> usize {
        self.connections.len() - self.free.len()
    }

    /// Begins what is due, and returns when the next is due.
    fn begin_what_is_due(&mut self, schedule: &mut Schedule) -> io::Result<Next> {
        if self.stopped || self.tally.gave_up {
            return Ok(Next::Over);
        }
        for _ in 0..BATCH {
            let now = Instant::now();
            let next = schedule.next(now, self.open());
            let Next::Start(since) = next else { return Ok(next) };
            // After the limit of open connections held one back, the server causes the delay, not the client.
            if schedule.held_back() == 0 {
                self.tally.late.saturating_record((now - since).as_micros() as u64);
            }
            self.begin(now, since)?;
            if self.tally.gave_up {
                return Ok(Next::Over);
            }
        }
        // More may be due already; waiting answers come first.
        Ok(Next::At(Instant::now()))
    }

    /// Opens a connection and sends a request on it.
    fn begin(&mut self, now: Instant, since: Instant) -> io::Result<()> {
        let (socket, source) = match self.route.open() {
            Ok(opened) => opened,
            Err(error) => {
                self.count(ending_of(&error));
                return Ok(());
            }
        };
        let key = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection::default());
            self.connections.len() - 1
        });
        let connection = &mut self.connections[key];
        (connection.socket, connection.source) = (Some(socket), source);
        connection.left = self.load.exchanges - 1;
        (connection.slot, connection.mixed, connection.watches_room) = (None, false, false);
        self.ask(key, now, since);
        let Connection { socket: Some(socket), watches_room, .. } = &self.connections[key] else { return Ok(()) };
        self.set.add(socket, EpollEvent::new(interest(*watches_room), key as u64))?;
        Ok(())
    }

    /// Begins an exchange.
    fn ask(&mut self, key: usize, now: Instant, since: Instant) {
        self.serial += 1;
        let connection = &mut self.connections[key];
        match self.load.protocol {
            Protocol::Echo => connection.reader.expect_echo(),
            Protocol::Http | Protocol::KeepAlive => connection.reader.expect_http(),
        }
        connection.since = Some(since);
        connection.phase = Phase::Asked(self.serial);
        connection.sent = 0;
        connection.path = if self.questions.len() > 1 { self.random.random_range(0..self.questions.len()) } else { 0 };
        self.deadlines.push_back((now + self.load.timeout, key, self.serial));
        if let Err(ending) = self.send(key) {
            self.close(key, ending);
        }
    }

    /// Sends the pending bytes, as far as there is room.
    fn send(&mut self, key: usize) -> Result<(), Ending> {
        let connection = &mut self.connections[key];
        let question = &self.questions[connection.path][usize::from(connection.left == 0)];
        let Some(socket) = &connection.socket else { return Ok(()) };
        while connection.sent < question.len() {
            match (&mut &*socket).write(&question[connection.sent..]) {
                Ok(n) => connection.sent += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.watches_room = true;
                    return Ok(());
                }
                Err(error) => return Err(ending_of(&error)),
            }
        }
        Ok(())
    }

    /// Handles events of a connection.
    fn go_on(&mut self, key: usize, events: EpollFlags) -> io::Result<()> {
        if self.connections[key].watches_room && events.contains(EpollFlags::EPOLLOUT) {
            self.connections[key].watches_room = false;
            if let Err(ending) = self.send(key) {
                self.close(key, ending);
                return Ok(());
            }
            self.watch(key)?;
        }
        if events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.read(key)?;
        }
        Ok(())
    }

    fn watch(&self, key: usize) -> io::Result<()> {
        let Connection { socket: Some(socket), watches_room, .. } = &self.connections[key] else { return Ok(()) };
        Ok(self.set.modify(socket, &mut EpollEvent::new(interest(*watches_room), key as u64))?)
    }

    /// Continues connections whose pause is over.
    fn resume(&mut self, now: Instant) -> io::Result<()> {
        while let Some(&Reverse((at, key, pause))) = self.pausing.peek() {
            if at > now {
                break;
            }
            self.pausing.pop();
            // The entry may belong to another connection by now.
            if self.connections[key].phase == Phase::Pausing(pause) {
                self.ask_again(key, now)?;
            }
        }
        Ok(())
    }

    /// Ends exchanges that took too long.
    fn expire(&mut self, now: Instant) -> io::Result<()> {
        while let Some(&(at, key, exchange)) = self.deadlines.front() {
            let current = self.connections[key].phase == Phase::Asked(exchange);
            if current && at > now {
                break;
            }
            self.deadlines.pop_front();
            if current {
                self.close(key, Ending::Hung);
            }
        }
        Ok(())
    }

    fn abandon_rest(&mut self) {
        for key in 0..self.connections.len() {
            if self.connections[key].socket.is_some() {
                self.close(key, Ending::Abandoned);
            }
        }
    }

    fn close(&mut self, key: usize, ending: Ending) {
        let connection = &mut self.connections[key];
        if connection.socket.take().is_none() {
            return;
        }
        connection.phase = Phase::Free;
        if let Some(slot) = connection.slot {
            self.board.leave(slot);
        }
        self.tally.mixed += u64::from(connection.mixed);
        self.free.push(key);
        self.count(ending);
    }

    fn count(&mut self, ending: Ending) {
        self.tally.end(ending);
        let endings = &self.tally.endings;
        // Connections turned away as configured cost no timeout, and say nothing about the rest.
        let bad = match self.load.turned_away {
            TurnedAway::Wrong => endings.unanswered(),
            TurnedAway::AsTold => endings.unanswered() - endings.turned_away(),
        };
        let hopeless = endings.hung >= HOPELESS_HUNG || bad >= HOPELESS;
        self.tally.gave_up |= hopeless && bad > endings.answered;
    }

    /// Sets the timer to the time when something is due, unless it is already set to that.
    fn arm(&mut self, due: Next) -> io::Result<()> {
        let next = match due {
            Next::At(at) => Some(at),
            Next::Start(_) | Next::AfterAnEnd | Next::Over => None,
        };
        let pause = self.pausing.peek().map(|&Reverse((at, ..))| at);
        let Some(at) = next.into_iter().chain(pause).min() else { return Ok(()) };
        if self.armed == Some(at) {
            return Ok(());
        }
        let wait = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(wait)), TimerSetTimeFlags::empty())?;
        self.armed = Some(at);
        Ok(())
    }
}
