//! Lines that running masters keep in memory.

use super::{LOOK_EVERY, LogsArgs};
use crate::cli::say::{self, complain};
use crate::cli::tell::One;
use crate::control::Request;
use crate::control::client::{self, ClientError, Patience};
use crate::logs::kept::{Line, Lines, Wanted};
use crate::sys::outlet;
use serde::Serialize;
use std::fmt::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;

/// A line with the app that it is of.
#[derive(Serialize)]
struct OfApp<'a> {
    app: &'a str,
    #[serde(flatten)]
    line: &'a Line,
}

/// Prints the lines.
pub fn show(args: &LogsArgs, masters: &[One]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    // Which memory, and the next line of it.
    let mut places = vec![(0, 0); masters.len()];
    let mut wanted = Wanted { streams: args.streams(), slot: args.slot, since: args.since, from: 0, last: last(args) };
    for (one, place) in masters.iter().zip(&mut places) {
        match ask(one, &wanted) {
            Ok(Lines { kept_bytes: 0, .. }) => {
                let name = &one.name;
                complain(&format_args!("{name} keeps no lines (--log-buffer 0), and writes to no files of its own"));
                code = ExitCode::FAILURE;
            }
            Ok(found) => {
                *place = (found.memory, found.next);
                let text = text(args, masters, one, &found.lines);
                if !text.is_empty() && print(args, &text) != ExitCode::SUCCESS {
                    return ExitCode::FAILURE;
                }
            }
            Err(error) => {
                complain(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    if !args.follow || code != ExitCode::SUCCESS {
        return code;
    }
    (wanted.since, wanted.last) = (None, None);
    while outlet::is_read(std::io::stdout().as_fd(), LOOK_EVERY) {
        for (one, place) in masters.iter().zip(&mut places) {
            wanted.from = place.1;
            // One that has ended may come again.
            let Ok(mut found) = ask(one, &wanted) else { continue };
            if found.memory != place.0 {
                wanted.from = 0;
                let Ok(anew) = ask(one, &wanted) else { continue };
                found = anew;
            }
            *place = (found.memory, found.next);
            let text = text(args, masters, one, &found.lines);
            if !text.is_empty() && print(args, &text) != ExitCode::SUCCESS {
                return ExitCode::SUCCESS;
            }
        }
    }
    ExitCode::SUCCESS
}

/// How many lines of each stream are shown: with a time, all since then.
fn last(args: &LogsArgs) -> Option<usize> {
    args.lines.or(if args.since.is_some() { None } else { Some(super::LINES) })
}

fn ask(one: &One, wanted: &Wanted) -> Result<Lines, ClientError> {
    let request = Request::Lines { wanted: wanted.clone() };
    let answer = client::ask(&one.name, &one.path, &request, Patience::Short)?;
    serde_json::from_str(&answer).map_err(ClientError::Answer)
}

fn text(args: &LogsArgs, masters: &[One], one: &One, lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        if args.json {
            text += &serde_json::to_string(&OfApp { app: &one.name, line }).unwrap_or_default();
            text.push('\n');
            continue;
        }
        if masters.len() > 1 {
            let _ = write!(text, "{} ", one.name);
        }
        let slot = line.slot.map_or_else(String::new, |slot| format!(" {slot}"));
        let _ = writeln!(text, "{}{slot}| {}", line.stream.name(), line.line);
    }
    text
}

fn print(args: &LogsArgs, text: &str) -> ExitCode {
    if args.json { say::json(text, ExitCode::SUCCESS) } else { say::lines(text, ExitCode::SUCCESS) }
}
