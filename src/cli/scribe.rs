//! The thread that writes the log, so that a slow terminal never holds up a connection.
//!
//! Lines wait in a queue of the thread's own. When the queue is full, a line is left out and counted; the log reports
//! the count as soon as it is read again.

use crate::logs::Sink;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;

/// Lines that may wait to be written.
const LINES_MAX: usize = 4096;
/// Total bytes of these lines.
const BYTES_MAX: usize = 4 << 20;

/// A handle to the thread.
#[derive(Clone, Debug)]
pub struct Scribe(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// A line was put into the queue.
    filled: Condvar,
    /// A line was written or given up.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Total lines that were put, and that were dealt with.
    put: u64,
    done: u64,
    /// Lines left out since the last report, and in total.
    left_out: u64,
    left_out_total: u64,
}

impl Queue {
    fn leave_out(&mut self) {
        self.left_out += 1;
        self.left_out_total += 1;
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scribe {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be created.
    pub fn start(to: Sink) -> io::Result<Scribe> {
        let shared = Arc::new(Shared::default());
        let scribe = Scribe(Arc::clone(&shared));
        std::thread::Builder::new().name("log".into()).spawn(move || write_on(&shared, &to))?;
        Ok(scribe)
    }

    /// Takes a line, to be written soon; never blocks.
    pub fn put(&self, line: Vec<u8>) {
        let mut queue = self.0.queue();
        if queue.lines.len() >= LINES_MAX || queue.bytes + line.len() > BYTES_MAX {
            queue.leave_out();
            return;
        }
        queue.bytes += line.len();
        queue.put += 1;
        queue.lines.push_back(line);
        self.0.filled.notify_one();
    }

    /// Waits until all lines so far are written, but no longer than this.
    pub fn flush(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let mut queue = self.0.queue();
        let until = queue.put;
        while queue.done < until {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.0.done.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The main loop of the thread.
fn write_on(shared: &Shared, to: &Sink) {
    loop {
        let mut queue = shared.queue();
        let line = loop {
            match queue.lines.pop_front() {
                Some(line) => break line,
                None => queue = shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        };
        queue.bytes -= line.len();
        drop(queue);
        to.keep(None, &anstream::adapter::strip_bytes(&line).into_vec());
        let written = to.write(&line);
        let mut queue = shared.queue();
        queue.done += 1;
        let left_out = match written {
            Ok(()) => std::mem::take(&mut queue.left_out),
            Err(_) => {
                queue.leave_out();
                0
            }
        };
        let total = queue.left_out_total;
        shared.done.notify_all();
        drop(queue);
        if left_out > 0 {
            warn!(left_out, total, "log lines were left out: nobody read them, or they could not be written");
        }
    }
}
