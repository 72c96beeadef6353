//! The log: one line per decision, to standard error.
//!
//! Control characters in text from outside are made visible here, for every field of every line.

use super::scribe::Scribe;
use crate::core::visible;
use crate::logs::Sink;
use clap::{Args, ValueEnum};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;
use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Refines the level, in the words of `tracing_subscriber`'s `Targets`. It is not `RUST_LOG`, which servers written in
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

/// The options of the log, for each command that has one.
#[derive(Clone, Debug, Args)]
pub struct LogOptions {
    /// Format of log lines
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// Log more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Log less; twice for errors only
    #[arg(short, long, action = clap::ArgAction::Count)]
    quiet: u8,
}

/// The log of this program, once it is started.
static LOG: OnceLock<Scribe> = OnceLock::new();

/// Writes the waiting lines, unless standard error is not being read.
pub fn flush() {
    if let Some(scribe) = LOG.get() {
        scribe.flush(FLUSH_TIMEOUT);
    }
}

/// Starts the log, which goes to `to`, with `before` before each line. `MAITRED_LOG` refines the level.
///
/// # Errors
/// When no thread can be created.
pub fn start(options: &LogOptions, to: Sink, before: Option<String>) -> io::Result<()> {
    let (format, level) = (options.log_format, level(options.verbose, options.quiet));
    let to_error = !to.is_file();
    let scribe = Scribe::start(to)?;
    let scribe = LOG.get_or_init(|| scribe);
    let asked = std::env::var(LEVELS).unwrap_or_default();
    let (filter, refused) = match levels(&asked, level) {
        Ok(levels) => (levels, None),
        Err(error) => (Targets::new().with_default(level), Some(error)),
    };
    let reader = if to_error && is_journal(io::stderr().as_fd()) { Reader::Journal } else { Reader::Other };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(Writers { scribe, format, reader, before: before.unwrap_or_default() })
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let fields = debug_fn(field).delimited(" ");
    match (format, reader) {
        (LogFormat::Text, Reader::Other) => {
            registry.with(log.with_ansi(to_error && may_colour()).fmt_fields(fields)).init();
        }
        (LogFormat::Text, Reader::Journal) => {
            registry.with(log.without_time().with_ansi(false).fmt_fields(fields)).init()
        }
        (LogFormat::Json, _) => registry.with(log.json().flatten_event(true)).init(),
    }
    if let Some(error) = refused {
        tracing::warn!(%error, value = %asked, "{LEVELS} is not understood; write a level, or maitred=LEVEL");
    }
    Ok(())
}

/// The level, and what the environment asks of it.
fn levels(asked: &str, level: Level) -> Result<Targets, ParseError> {
    let asked: Targets = if asked.is_empty() { Targets::new() } else { asked.parse()? };
    let default = asked.default_level().unwrap_or_else(|| level.into());
    Ok(asked.with_default(default))
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

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// The journal of systemd, which adds the time, and takes the level from the beginning of a line (`sd-daemon(3)`).
    Journal,
    /// Anybody else.
    Other,
}

/// Whether this descriptor is the one that systemd connected to its journal (`JOURNAL_STREAM`, `systemd.exec(5)`).
fn is_journal(fd: BorrowedFd<'_>) -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(found) = nix::sys::stat::fstat(fd) else { return false };
    named == format!("{}:{}", found.st_dev, found.st_ino)
}

/// What a line begins with for the journal (`sd-daemon(3)`, the levels of `syslog(3)`).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Makes a writer for each line.
struct Writers {
    scribe: &'static Scribe,
    format: LogFormat,
    reader: Reader,
    before: String,
}

impl<'a> MakeWriter<'a> for Writers {
    type Writer = Lines<'a>;

    fn make_writer(&'a self) -> Lines<'a> {
        Lines { scribe: self.scribe, format: self.format, priority: "", before: &self.before }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Lines<'a> {
        let for_journal = self.reader == Reader::Journal && self.format == LogFormat::Text;
        let priority = if for_journal { priority(*meta.level()) } else { "" };
        Lines { priority, ..self.make_writer() }
    }
}

/// Receives the lines of the log, one in each call.
struct Lines<'a> {
    scribe: &'a Scribe,
    format: LogFormat,
    priority: &'static str,
    before: &'a str,
}

impl Write for Lines<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let clean = match (self.format, std::str::from_utf8(line)) {
            (LogFormat::Json, Ok(text)) => visible::json(text).into_owned().into_bytes(),
            _ => [self.priority.as_bytes(), self.before.as_bytes(), line].concat(),
        };
        self.scribe.put(clean);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The level for this many `-v` and `-q`.
fn level(verbose: u8, quiet: u8) -> Level {
    match i16::from(verbose) - i16::from(quiet) {
        ..=-2 => Level::ERROR,
        -1 => Level::WARN,
        0 => Level::INFO,
        1 => Level::DEBUG,
        2.. => Level::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::levels;
    use tracing::Level;

    #[test]
    fn the_environment_refines_the_level() {
        let shown = |asked: &str| {
            let levels = levels(asked, Level::INFO).unwrap();
            [Level::INFO, Level::DEBUG, Level::TRACE].map(|level| levels.would_enable("maitred::front", &level))
        };
        assert_eq!(shown(""), [true, false, false]);
        assert_eq!(shown("debug"), [true, true, false]);
        assert_eq!(shown("off"), [false, false, false]);
        assert_eq!(shown("maitred=trace"), [true, true, true]);
        assert_eq!(shown("maitred::kernel=trace"), [true, false, false]);
        assert!(levels("maitred=loud", Level::INFO).is_err());
    }
}
