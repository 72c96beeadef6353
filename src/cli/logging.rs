//! The log: one line per decision, to standard error.
//!
//! Control characters in text from outside are made visible here, for every field of every line.

use super::scribe::Scribe;
use crate::core::visible;
use clap::ValueEnum;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;
use tracing::Level;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Refines the level, in the words of `tracing_subscriber`'s `EnvFilter`. It is not `RUST_LOG`, which servers written in
/// Rust read for themselves.
const LEVELS: &str = "MAITRED_LOG";
/// How long the log is still written when the program ends, or when another program takes its place.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The log of this program, once it is started.
static LOG: OnceLock<Scribe> = OnceLock::new();

/// Writes the waiting lines, unless standard error is not being read.
pub fn flush() {
    if let Some(scribe) = LOG.get() {
        scribe.flush(FLUSH_TIMEOUT);
    }
}

/// Starts the log. `MAITRED_LOG` refines the level.
///
/// # Errors
/// When no thread can be created.
pub fn start(format: LogFormat, level: Level) -> io::Result<()> {
    let scribe = Scribe::start()?;
    let scribe = LOG.get_or_init(|| scribe);
    let filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var(LEVELS).from_env_lossy();
    let lines = move || Lines { scribe, format };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_target(false);
    match format {
        LogFormat::Text => {
            let fields = debug_fn(field).delimited(" ");
            log.with_ansi(may_colour()).fmt_fields(fields).init();
        }
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Colours are for terminals, unless `NO_COLOR` is set and not empty (<https://no-color.org>).
fn may_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes one field as text: the message as it is, other fields as `name=value`.
fn field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = visible::line(&value);
    match (field.name(), to.has_ansi_escapes()) {
        ("message", _) => to.write_str(&value),
        (name, true) => write!(to, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
        (name, false) => write!(to, "{name}={value}"),
    }
}

/// Receives the lines of the log, one in each call.
struct Lines<'a> {
    scribe: &'a Scribe,
    format: LogFormat,
}

impl Write for Lines<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let clean = match (self.format, std::str::from_utf8(line)) {
            (LogFormat::Json, Ok(text)) => visible::json(text).into_owned().into_bytes(),
            _ => line.to_vec(),
        };
        self.scribe.put(clean);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The level for this many `-v` and `-q`.
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
