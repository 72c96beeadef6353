//! What lines of workers' output look like when they are passed on.

use super::output::Kind;
use crate::config::{Config, Prefix, WorkerLog};
use crate::core::ids::Slot;
use crate::logs::Log;
use serde::Serialize;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::SystemTime;

/// The form of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// `line`
    Plain,
    /// `3| line`
    Slot,
    /// `web.3| line`, with this name
    Name(Arc<str>),
    /// An object of JSON: time, slot, stream, line.
    Json,
}

impl Form {
    /// The one that was asked for.
    #[must_use]
    pub fn of(config: &Config) -> Form {
        match (config.worker_log, config.prefix) {
            (WorkerLog::Json, _) => Form::Json,
            (_, Prefix::Name) => Form::Name(config.name.as_str().into()),
            (_, Prefix::Always) => Form::Slot,
            (_, Prefix::Auto) if std::io::stdout().is_terminal() => Form::Slot,
            (_, Prefix::Auto | Prefix::Never) => Form::Plain,
        }
    }
}

/// A line as an object. Scripts rely on these names: they only ever grow.
#[derive(Serialize)]
struct JsonLine<'a> {
    /// RFC 3339, UTC.
    time: String,
    slot: u32,
    stream: &'static str,
    line: &'a str,
}

impl Form {
    /// Adds a line, which has its end, to others.
    pub fn add(&self, lines: &mut Vec<u8>, slot: Slot, kind: Kind, line: &[u8]) {
        match self {
            Form::Plain => {}
            Form::Slot => lines.extend_from_slice(format!("{slot}| ").as_bytes()),
            Form::Name(name) => lines.extend_from_slice(format!("{name}.{slot}| ").as_bytes()),
            Form::Json => return lines.extend_from_slice(&json(slot, kind, line)),
        }
        lines.extend_from_slice(line);
    }
}

/// A line as an object, with its end.
fn json(slot: Slot, kind: Kind, line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let stream = match kind {
        Kind::Out => Log::Out,
        Kind::Err => Log::Err,
    };
    let line = JsonLine {
        time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        slot: slot.0,
        stream: stream.name(),
        line: text.trim_end_matches(['\n', '\r']),
    };
    let mut text = serde_json::to_vec(&line).unwrap_or_default();
    text.push(b'\n');
    text
}
