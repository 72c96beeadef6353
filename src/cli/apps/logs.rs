//! `maitred logs`: the last lines that were written, and what follows: from the files of an app in the background, else
//! from what its master keeps in memory, which knows slots and times, too.

mod memory;

use crate::apps::select::{ALL, select};
use crate::apps::state;
use crate::apps::tail::{Tail, last_lines};
use crate::cli::say::{self, complain};
use crate::cli::tell::One;
use crate::config::life::duration;
use crate::control::client;
use crate::logs::Log;
use crate::sys::outlet;
use clap::Args;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// How often a file that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How many lines are shown, unless something else is asked for.
const LINES: usize = 15;

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Names, patterns (`web-*`) or `all`, which is meant without a name
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Show new lines as they are written, until it is interrupted
    #[arg(short, long)]
    follow: bool,

    /// How many of the last lines of each stream are shown: 15, or with --since all
    #[arg(short = 'n', long, value_name = "N", visible_alias = "tail")]
    lines: Option<usize>,

    /// Only what the workers write to standard output
    #[arg(long)]
    out: bool,

    /// Only what the workers write to standard error
    #[arg(long)]
    err: bool,

    /// Only the log of the master
    #[arg(long)]
    master: bool,

    /// Only what the workers of this slot write; from what the running master keeps
    #[arg(long, value_name = "N")]
    slot: Option<u32>,

    /// Only what is no older: 5m, or a time as in 2026-01-31T12:00:00Z or 2026-01-31 (UTC); from what the running master
    /// keeps
    #[arg(long, value_name = "T", value_parser = since)]
    since: Option<Duration>,

    /// Print an object of JSON in each line: app, time, stream, slot, line; from what the running master keeps
    #[arg(long)]
    json: bool,
}

/// How long ago.
fn since(text: &str) -> Result<Duration, String> {
    if let Ok(ago) = duration(text) {
        return Ok(ago);
    }
    let time =
        humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339_weak(&format!("{text} 00:00:00")));
    let time = time.map_err(|_| "expected a duration, as in 5m, or a time, as in 2026-01-31T12:00:00Z".to_owned())?;
    // What is still to come is no time ago.
    Ok(SystemTime::now().duration_since(time).unwrap_or_default())
}

impl LogsArgs {
    /// The streams that are meant.
    fn streams(&self) -> Vec<Log> {
        let chosen: Vec<Log> = [(self.out, Log::Out), (self.err, Log::Err), (self.master, Log::Master)]
            .into_iter()
            .filter_map(|(chosen, log)| chosen.then_some(log))
            .collect();
        if chosen.is_empty() { Log::ALL.to_vec() } else { chosen }
    }
}

/// One file that is shown.
struct Shown {
    app: String,
    log: Log,
    path: PathBuf,
}

/// What is shown.
#[derive(Default)]
struct Sources {
    files: Vec<Shown>,
    masters: Vec<One>,
}

/// Prints the lines.
pub fn main(args: &LogsArgs) -> ExitCode {
    let sources = match sources(args) {
        Ok(sources) => sources,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    match (&sources.masters[..], &sources.files[..]) {
        ([], files) => show(args, files),
        (masters, []) => memory::show(args, masters),
        (masters, files) => {
            if args.follow {
                let names = masters.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
                complain(&format_args!("these have no files, follow them on their own: {names}"));
                return show(args, files);
            }
            let of_files = show(args, files);
            let of_masters = memory::show(args, masters);
            if of_files == ExitCode::SUCCESS { of_masters } else { of_files }
        }
    }
}

fn sources(args: &LogsArgs) -> Result<Sources, String> {
    let (apps, unreadable) = state::apps().map_err(|error| error.to_string())?;
    unreadable.iter().for_each(|error| complain(error));
    let mut there: Vec<String> = apps.iter().map(|app| app.name.clone()).collect();
    let running = client::running().unwrap_or_default();
    there.extend(running.iter().cloned());
    there.sort();
    there.dedup();
    let words = if args.names.is_empty() { &[ALL.to_owned()][..] } else { &args.names };
    // Only the running master knows slots and times.
    let of_memory = args.json || args.slot.is_some() || args.since.is_some();
    let mut sources = Sources::default();
    for name in select(words, &there)? {
        match apps.iter().find(|app| app.name == name) {
            // Another master may have that name by now, one of `maitred up` say: its lines are not in these files.
            Some(app) if !of_memory && (app.runs() || !running.contains(&name)) => {
                let shown = |log: Log| Shown { app: name.clone(), log, path: log.of(app).to_owned() };
                // Streams that go to one file are shown as one.
                let mut files: Vec<Shown> = args.streams().into_iter().map(shown).collect();
                files.dedup_by(|later, earlier| later.path == earlier.path);
                sources.files.extend(files);
            }
            _ => sources.masters.push(One::named(&name).map_err(|error| error.to_string())?),
        }
    }
    Ok(sources)
}

fn show(args: &LogsArgs, files: &[Shown]) -> ExitCode {
    let mut tails = Vec::new();
    let mut code = ExitCode::SUCCESS;
    let several = files.len() > 1;
    for file in files {
        let (text, tail) = match last_lines(&file.path, args.lines.unwrap_or(LINES)) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Vec::new(), Tail::from_start(&file.path)),
            Err(error) => {
                complain(&format_args!("{}: {error}", file.path.display()));
                code = ExitCode::FAILURE;
                continue;
            }
        };
        if !text.is_empty() {
            let title = if several {
                format!("==> {} {} ({})\n", file.app, file.log.name(), file.path.display())
            } else {
                String::new()
            };
            if say::lines(&format!("{title}{}", String::from_utf8_lossy(&text)), ExitCode::SUCCESS) != ExitCode::SUCCESS
            {
                return ExitCode::FAILURE;
            }
        }
        tails.push((file, tail));
    }
    if !args.follow {
        return code;
    }
    loop {
        for (file, tail) in &mut tails {
            let before = if several { format!("{} {}| ", file.app, file.log.name()) } else { String::new() };
            let lines: String =
                tail.new_lines().iter().map(|line| format!("{before}{}\n", String::from_utf8_lossy(line))).collect();
            if !lines.is_empty() && say::shown(&lines).is_err() {
                return ExitCode::SUCCESS;
            }
        }
        if !outlet::is_read(std::io::stdout().as_fd(), LOOK_EVERY) {
            return ExitCode::SUCCESS;
        }
    }
}
