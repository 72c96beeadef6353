//! `maitred check`: what works here, and how to get more, as tables or as JSON.

mod trial;

use super::say::{self, complain};
use crate::adapt::inspect::{Executable, NotExecutable, inspect};
use crate::check::facts::Facts;
use crate::check::notes::{Note, notes};
use crate::check::verdicts::{Named, Verdicts, Works, verdicts};
use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::json;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,

    /// Also run two copies of the command for a moment, and say what was seen
    #[arg(long = "try", requires = "command")]
    trial: bool,

    /// Working directory of the workers
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// The server and its arguments; without it, what holds for any server
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Width of the tables if the terminal does not report one.
const WIDTH: u16 = 110;

/// Prints what works; the exit code is 0 if `maitred -- COMMAND` would work.
pub fn main(args: &CheckArgs) -> ExitCode {
    let path = std::env::var_os("PATH");
    let look = || inspect(&args.command, path.as_deref(), args.cwd.as_deref());
    let executable = match (!args.command.is_empty()).then(look).transpose() {
        Ok(executable) => executable,
        Err(error) => return refuse(args, &error),
    };
    let facts = Facts::gather();
    let verdicts = verdicts(&facts, executable.as_ref());
    let notes = notes(&args.command, |name| std::env::var(name).ok());
    let seen = match args.trial.then(|| try_it(args)).transpose() {
        Ok(seen) => seen,
        Err(error) => {
            complain(&format_args!("cannot try it: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let works = verdicts.default.works && seen.as_ref().is_none_or(|seen| seen.ready && seen.exit_code == Some(0));
    let code = if works { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match args.json {
        true => say::json(&(json(&facts, executable.as_ref(), &verdicts, &notes, seen.as_ref()) + "\n"), code),
        false => {
            let mut text = tables(&facts, executable.as_ref(), &verdicts);
            notes.iter().for_each(|note| text += &format!("note: {}\n", note.text));
            text += &seen.map_or_else(String::new, |seen| seen.text());
            say::lines(&text, code)
        }
    }
}

/// Runs the command in a directory of its own for the control socket and the output.
fn try_it(args: &CheckArgs) -> io::Result<trial::Seen> {
    let dir = std::env::temp_dir().join(format!("maitred-check-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    let seen = trial::run(&args.command, args.cwd.as_deref(), &dir);
    let _ = std::fs::remove_dir_all(&dir);
    seen
}

fn refuse(args: &CheckArgs, error: &NotExecutable) -> ExitCode {
    complain(error);
    match args.json {
        true => say::json(&format!("{}\n", json!({ "error": error.to_string() })), ExitCode::FAILURE),
        false => ExitCode::FAILURE,
    }
}

fn json(
    facts: &Facts,
    executable: Option<&Executable>,
    verdicts: &Verdicts,
    notes: &[Note],
    seen: Option<&trial::Seen>,
) -> String {
    let program = executable.map(|found| {
        json!({ "path": found.path, "program": found.program, "through": found.through, "linkage": found.linkage })
    });
    let all = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "facts": facts,
        "command": program,
        "modes": verdicts.modes,
        "adapters": verdicts.adapters,
        "combinations": verdicts.combinations,
        "default": verdicts.default,
        "notes": notes,
        "tried": seen,
    });
    all.to_string()
}

fn tables(facts: &Facts, executable: Option<&Executable>, verdicts: &Verdicts) -> String {
    let capabilities = match facts.capabilities.as_slice() {
        [] => "no capabilities".to_owned(),
        some => some.join(" "),
    };
    let no_new = if facts.no_new_privs { ", no new privileges" } else { "" };
    let mut text = format!("Linux {} {}, uid {}, {capabilities}{no_new}\n", facts.kernel, facts.machine, facts.uid);
    text += &format!("up to {} descriptors", facts.descriptors);
    for (name, value) in &facts.settings {
        text += &format!(", {name}={value}");
    }
    text += "\n\n";
    text += &format!("{}\n\n{}\n\n", table("MODE", &verdicts.modes), table("ADAPTER", &verdicts.adapters));
    text += &format!("{}\n\n", matrix(verdicts));
    if let Some(found) = executable {
        let program = found.program.display();
        match found.through.as_slice() {
            [] => text += &format!("{program}\n"),
            through => text += &format!("{} runs {program} (through {})\n", found.path.display(), through.join(", ")),
        }
    }
    let default = &verdicts.default;
    text += &match (default.works, default.adapter) {
        (true, Some(adapter)) => format!("by default: {} mode, {adapter} adapter ({})\n", default.mode, default.reason),
        (_, Some(adapter)) => {
            let mode =
                verdicts.modes.iter().find(|named| named.name == default.mode && named.verdict.works == Works::No);
            let verdict = mode.or_else(|| verdicts.adapters.iter().find(|named| named.name == adapter));
            let why = verdict.map(|named| named.verdict.how.clone()).unwrap_or_default();
            format!("the default does not work: {adapter} ({}), {why}\n", default.reason)
        }
        (_, None) => format!("the default does not work: {}\n", default.reason),
    };
    text
}

fn table(first: &str, rows: &[Named]) -> Table {
    let mut table = plain(&[first, "WORKS", "HOW", "TO GET MORE"]);
    for Named { name, verdict } in rows {
        let todo = verdict.todo.clone().unwrap_or_default();
        table.add_row([name.clone(), verdict.works.word().to_owned(), verdict.how.clone(), todo]);
    }
    table
}

/// Modes across, adapters down.
fn matrix(verdicts: &Verdicts) -> Table {
    let header: Vec<&str> = std::iter::once("").chain(verdicts.modes.iter().map(|mode| &*mode.name)).collect();
    let mut table = plain(&header);
    for adapter in &verdicts.adapters {
        let works = verdicts.combinations.iter().filter(|c| c.adapter == adapter.name).map(|c| c.works.word());
        table.add_row(std::iter::once(&*adapter.name).chain(works));
    }
    table
}

fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header.to_vec());
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}
