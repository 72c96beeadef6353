//! `maitred events`: what happened to a master and its workers, and what happens from now on.

use super::say::{self, complain};
use super::tell::{self, One};
use crate::control::Request;
use crate::control::client::{self, ClientError, Patience};
use crate::control::journal::{Events, Happened};
use crate::sys::outlet;
use clap::Args;
use std::fmt::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How often the master is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Name of the maitred; may be left out when only one runs
    name: Option<String>,

    /// Print an object of JSON in each line
    #[arg(long)]
    json: bool,

    /// End after the events that the master remembers, the last 1000
    #[arg(long)]
    no_follow: bool,

    /// Only so many of the events that it remembers, the last ones
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,

    /// Path of the control socket, if it is not where the name says
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

/// Prints them.
pub fn main(args: &EventsArgs) -> ExitCode {
    let found = tell::find(args.name.as_deref(), args.control.as_deref());
    let first = found.and_then(|one| {
        let events = ask(&one, 0, 0).map_err(|error| error.to_string())?;
        Ok((one, events))
    });
    let (one, mut events) = match first {
        Ok(first) => first,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    let left_out = args.last.map_or(0, |last| events.events.len().saturating_sub(last));
    events.events.drain(..left_out);
    // What was before it was asked for was not missed.
    events.missed = 0;
    loop {
        let text = if args.json { as_json(&events) } else { in_words(&events) };
        let printed = match (text.is_empty(), args.json) {
            (true, _) => Ok(()),
            (false, true) => say::shown_json(&text),
            (false, false) => say::shown(&text),
        };
        if printed.is_err() || args.no_follow || !outlet::is_read(std::io::stdout().as_fd(), ASK_EVERY) {
            return say::written(printed, ExitCode::SUCCESS);
        }
        events = match ask(&one, events.journal, events.last) {
            Ok(events) => events,
            Err(ClientError::NotRunning { .. }) => {
                complain(&format_args!("{} does not run any more", one.name));
                return ExitCode::SUCCESS;
            }
            // It is about to end, or to be another program; the next question tells.
            Err(ClientError::Io { .. }) => Events { events: Vec::new(), missed: 0, ..events },
            Err(error) => {
                complain(&error);
                return ExitCode::FAILURE;
            }
        };
    }
}

fn ask(one: &One, journal: u64, after: u64) -> Result<Events, ClientError> {
    let answer = client::ask(&one.name, &one.path, &Request::Events { journal, after }, Patience::Short)?;
    serde_json::from_str(&answer).map_err(ClientError::Answer)
}

fn as_json(events: &Events) -> String {
    let missed = (events.missed > 0).then(|| format!("{{\"missed\":{}}}\n", events.missed));
    let line = |event: &Happened| serde_json::to_string(event).map(|line| line + "\n").unwrap_or_default();
    missed.into_iter().chain(events.events.iter().map(line)).collect()
}

fn in_words(events: &Events) -> String {
    let mut text = String::new();
    if events.missed > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "({} events were missed)", events.missed);
    }
    for Happened { time, event, about, .. } in &events.events {
        let event = serde_json::to_value(event).ok();
        let event = event.as_ref().and_then(|event| event.as_str()).unwrap_or_default();
        let _ = write!(text, "{time} {event:<15}");
        let number =
            |name: &str, number: Option<i64>| number.map_or_else(String::new, |number| format!(" {name}={number}"));
        text += &number("slot", about.slot.map(Into::into));
        text += &number("worker", about.worker.and_then(|worker| i64::try_from(worker).ok()));
        text += &number("pid", about.pid.map(Into::into));
        text += &number("generation", about.generation.map(Into::into));
        text += &number("workers", about.workers.map(Into::into));
        for more in about.address.iter().chain(&about.why) {
            let _ = write!(text, " {}", more.replace('\n', " "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
