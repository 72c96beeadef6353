//! Workers' standard output and error: passed on line by line, with the slot before each line if
//! wanted, and the last lines of error output remembered for the report of a failure.
//!
//! A thread of its own does the blocking writes: a terminal or pipe that does not read must never
//! hold up the master's loop. When it does not read, the workers' pipes fill and the workers wait,
//! as they would have without us.

use super::form::Form;
use crate::core::ids::{Slot, WorkerId};
use crate::core::visible;
use crate::logs::Sink;
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::fd;
use crate::sys::process::spawn;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What the pipes of all workers together may hold. Beyond `pipe-user-pages-soft` (pipe(7)), 64 MiB by default, an
/// ordinary user's next pipes would hold two pages each: a few maitreds, and some generations of each, have room.
const PIPES_HOLD: usize = 8 << 20;
/// What one pipe may hold at least and at most: the kernel's default, and `pipe-max-size` by default.
const PIPE_HOLDS: (usize, usize) = (64 << 10, 1 << 20);
/// What is read from a pipe at once.
const CHUNK: usize = 64 << 10;
/// Lines of error output that are remembered for each worker.
pub const LAST_WORDS: usize = 10;
/// A longer line is passed on in pieces.
const LINE_MAX: usize = 8192;
/// How long to wait for the rest of the output when the master ends.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// Enough for one chunk and a few calls.
const STACK: usize = 256 * 1024;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The last lines that a worker wrote to its standard error.
#[derive(Debug, Default)]
pub struct LastWords {
    lines: Mutex<VecDeque<String>>,
    /// Woken when the stream ended.
    ended: Notify,
}

impl LastWords {
    /// The lines, once the stream has ended or it took too long to end.
    pub async fn wait(&self) -> Vec<String> {
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.ended.notified()).await;
        self.now()
    }

    /// Lines that were remembered before.
    #[must_use]
    pub fn again(lines: Vec<String>) -> LastWords {
        LastWords { lines: Mutex::new(lines.into()), ended: Notify::new() }
    }

    /// The lines so far.
    #[must_use]
    pub fn now(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, line: &[u8]) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_WORDS {
            lines.pop_front();
        }
        lines.push_back(visible::line(String::from_utf8_lossy(line).trim_end()).into_owned());
    }
}

/// One stream of one worker.
#[derive(Debug)]
pub struct Stream {
    /// The slot that it belongs to.
    pub slot: Slot,
    /// Which of the two streams it is.
    pub kind: Kind,
    /// The reading end, not blocking.
    pub pipe: OwnedFd,
    /// How to pass it on.
    pub form: Form,
    /// Where its last lines are remembered.
    pub last_words: Option<Arc<LastWords>>,
    /// The beginning of a line whose end has not come.
    pub partial: Vec<u8>,
}

/// A stream as it is passed on to the next program of this process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    slot: Slot,
    kind: Kind,
    pipe: Number,
    partial: Vec<u8>,
    /// The worker that the last words belong to.
    worker: Option<WorkerId>,
}

impl Stream {
    /// Passes it on. `whose` tells which worker's last words are remembered there.
    pub fn pass(&self, passing: &Passing, whose: impl Fn(&Arc<LastWords>) -> Option<WorkerId>) -> Passed {
        Passed {
            slot: self.slot,
            kind: self.kind,
            pipe: passing.pass(&self.pipe),
            partial: self.partial.clone(),
            worker: self.last_words.as_ref().and_then(whose),
        }
    }

    /// Takes over a stream that was passed on.
    ///
    /// # Errors
    /// When the descriptor is missing.
    pub fn take(
        passed: Passed,
        taking: &Taking,
        form: Form,
        last_words: impl Fn(WorkerId) -> Option<Arc<LastWords>>,
    ) -> io::Result<Stream> {
        let last_words = passed.worker.and_then(last_words);
        let (slot, kind, pipe, partial) = (passed.slot, passed.kind, taking.take(passed.pipe)?, passed.partial);
        Ok(Stream { slot, kind, pipe, form, last_words, partial })
    }
}

/// A pipe for a worker's output; the reading end does not block. A program whose writes do not block either (Node)
/// loses at its exit what the pipe has no room for, so it holds as much as is allowed.
///
/// # Errors
/// When no descriptor is free.
pub fn pipe(workers: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = spawn::output_pipe()?;
    let (least, most) = PIPE_HOLDS;
    let mut holds = (PIPES_HOLD / (2 * workers.max(1) as usize)).clamp(least, most);
    // The kernel refuses what is more than this user may have.
    while holds > least && fd::enlarge_pipe(write.as_fd(), holds).is_err() {
        holds /= 2;
    }
    Ok((read, write))
}

/// What the thread is told.
#[derive(Debug)]
enum Command {
    /// Pass one more stream on.
    Add(Stream),
    /// Give all streams back, and do nothing until they come again.
    GiveBack(mpsc::Sender<Vec<Stream>>),
}

/// The thread that passes output on.
#[derive(Debug)]
pub struct Output {
    commands: Option<mpsc::Sender<Command>>,
    /// Where workers' standard output goes.
    out: Sink,
    wake: Arc<EventFd>,
    /// Closed when the thread has ended.
    finished: mpsc::Receiver<()>,
}

impl Output {
    /// Starts the thread, which passes standard output on to `out` and error output to `err`.
    ///
    /// # Errors
    /// When no thread or descriptor is available.
    pub fn start(out: Sink, err: Sink) -> io::Result<Output> {
        let (commands, incoming) = mpsc::channel();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let woken = Arc::clone(&wake);
        let (ending, finished) = mpsc::channel();
        let sinks = Sinks { out: out.clone(), err };
        let pump = move || {
            Pump { incoming, woken, open: Vec::new(), sinks }.run();
            drop(ending);
        };
        std::thread::Builder::new().name("output".into()).stack_size(STACK).spawn(pump)?;
        Ok(Output { commands: Some(commands), out, wake, finished })
    }

    /// Whether standard output has to come through this thread, also where nothing is added to its lines: a file is
    /// written here, and lines are kept here. A terminal that was not to be changed is the worker's own.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.out.is_file() || self.out.kept().keeps() && !io::stdout().is_terminal()
    }

    /// Passes one more stream on.
    pub fn add(&self, stream: Stream) {
        self.command(Command::Add(stream));
    }

    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // The thread ends only after this sender is gone.
            let _ = commands.send(command);
            let _ = self.wake.write(1);
        }
    }

    /// Asks for all streams back, between two lines that are written.
    pub fn give_back(&self) -> GivingBack {
        let (sender, streams) = mpsc::channel();
        self.command(Command::GiveBack(sender));
        GivingBack { streams, until: Instant::now() + FLUSH_TIMEOUT }
    }
}

/// Streams that are about to come back. If this is dropped before they do, they stay where they are.
#[derive(Debug)]
pub struct GivingBack {
    streams: mpsc::Receiver<Vec<Stream>>,
    until: Instant,
}

/// The reader of our output does not read in time.
#[derive(Debug)]
pub struct NobodyReads;

impl GivingBack {
    /// The streams, once they are there; never waits.
    ///
    /// # Errors
    /// When they should have come by now.
    pub fn poll(&self) -> Result<Option<Vec<Stream>>, NobodyReads> {
        match self.streams.try_recv() {
            Ok(streams) => Ok(Some(streams)),
            Err(_) if Instant::now() >= self.until => Err(NobodyReads),
            Err(_) => Ok(None),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.wake.write(1);
        // A reader that no longer reads must not keep the master from ending, so the thread is left alone when it takes
        // too long.
        let _ = self.finished.recv_timeout(FLUSH_TIMEOUT * 2);
    }
}

struct Pump {
    incoming: mpsc::Receiver<Command>,
    woken: Arc<EventFd>,
    open: Vec<Open>,
    sinks: Sinks,
}

/// Where the two streams go.
struct Sinks {
    out: Sink,
    err: Sink,
}

struct Open(Stream);

impl Pump {
    fn run(mut self) {
        let mut end: Option<Instant> = None;
        loop {
            loop {
                match self.incoming.try_recv() {
                    Ok(Command::Add(stream)) => self.open.push(Open(stream)),
                    Ok(Command::GiveBack(to)) => {
                        let streams: Vec<Stream> = self.open.drain(..).map(|Open(stream)| stream).collect();
                        if let Err(mpsc::SendError(streams)) = to.send(streams) {
                            // Too late, so they stay.
                            self.open.extend(streams.into_iter().map(Open));
                        }
                    }
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => {
                        end.get_or_insert_with(|| Instant::now() + FLUSH_TIMEOUT);
                        break;
                    }
                }
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero() || self.open.is_empty()) {
                return;
            }
            self.wait(left);
        }
    }

    /// Waits for output and passes it on.
    fn wait(&mut self, at_most: Option<Duration>) {
        let timeout = at_most.and_then(|t| PollTimeout::try_from(t).ok()).unwrap_or(PollTimeout::NONE);
        let mut watched: Vec<_> =
            self.open.iter().map(|open| PollFd::new(open.0.pipe.as_fd(), PollFlags::POLLIN)).collect();
        watched.push(PollFd::new(self.woken.as_fd(), PollFlags::POLLIN));
        if poll(&mut watched, timeout).is_err() {
            return;
        }
        let readable: Vec<bool> = watched.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(watched);
        if readable.last() == Some(&true) {
            let _ = self.woken.read();
        }
        let mut readable = readable.into_iter();
        self.open.retain_mut(|open| !readable.next().unwrap_or(false) || open.pass_on(&self.sinks));
    }
}

impl Open {
    /// Passes on what is there; false when the stream has ended.
    fn pass_on(&mut self, sinks: &Sinks) -> bool {
        let mut buffer = [0; CHUNK];
        let read = match nix::unistd::read(&self.0.pipe, &mut buffer) {
            Ok(0) => None,
            Ok(n) => buffer.get(..n),
            Err(Errno::EAGAIN | Errno::EINTR) => return true,
            Err(_) => None,
        };
        let sink = match self.0.kind {
            Kind::Out => &sinks.out,
            Kind::Err => &sinks.err,
        };
        let mut lines = Vec::new();
        let mut rest = read.unwrap_or(b"");
        while let Some((line, after)) =
            rest.iter().position(|&b| b == b'\n').and_then(|end| rest.split_at_checked(end + 1))
        {
            self.0.partial.extend_from_slice(line);
            self.line(&mut lines, sink);
            rest = after;
        }
        self.0.partial.extend_from_slice(rest);
        if self.0.partial.len() >= LINE_MAX || (read.is_none() && !self.0.partial.is_empty()) {
            self.0.partial.push(b'\n');
            self.line(&mut lines, sink);
        }
        // If this fails, our output has no reader any more, or the disk is full: the worker must go on.
        let _ = sink.write(&lines);
        if let (None, Some(last_words)) = (read, &self.0.last_words) {
            last_words.ended.notify_one();
        }
        read.is_some()
    }

    /// Moves the collected line to what is written.
    fn line(&mut self, lines: &mut Vec<u8>, sink: &Sink) {
        let Stream { slot, kind, form, last_words, partial, .. } = &mut self.0;
        if let Some(last_words) = last_words {
            last_words.add(partial);
        }
        sink.keep(Some(slot.0), partial);
        form.add(lines, *slot, *kind, partial);
        partial.clear();
    }
}
