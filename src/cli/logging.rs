//! The log: one line per decision, to standard error, written by a thread of its own so that a slow
//! terminal never holds up a connection.

use clap::ValueEnum;
use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written; more are dropped rather than waited for.
const LINES_MAX: usize = 4096;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log of this program. What waits to be written is written when it is settled or dropped.
#[derive(Clone)]
pub struct Log(Rc<RefCell<Option<WorkerGuard>>>);

/// From then on every line is written at once.
static SETTLED: AtomicBool = AtomicBool::new(false);

impl Log {
    /// Writes what waits, and from now on each line at once.
    pub fn settle(&self) {
        SETTLED.store(true, Relaxed);
        drop(self.0.borrow_mut().take());
    }
}

/// Starts the log. `RUST_LOG` refines the level.
pub fn start(format: LogFormat, level: Level) -> Log {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).lossy(true).finish(std::io::stderr());
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let writer = move || -> Box<dyn io::Write> {
        if SETTLED.load(Relaxed) { Box::new(io::stderr()) } else { Box::new(writer.clone()) }
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Log(Rc::new(RefCell::new(Some(guard))))
}

/// The level that so many `-v` and `-q` ask for.
#[must_use]
pub fn level(verbose: u8, quiet: u8) -> Level {
    match i16::from(verbose) - i16::from(quiet) {
        ..=-2 => Level::ERROR,
        -1 => Level::WARN,
        0 => Level::INFO,
        1 => Level::DEBUG,
        2.. => Level::TRACE,
    }
}
