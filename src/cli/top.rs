//! `maitred top`: all apps on one screen, refreshed each second.
//!
//! Three threads report to the one that draws: keys, answers of the masters, signals. So neither a master that does not
//! answer nor a slow command holds up a key, and the terminal is left as it was however this ends.

mod draw;
mod model;

use super::FAILED;
use super::apps::list::{Count, Surveyed, survey};
use super::say::complain;
use super::stop::stop_and_remember;
use super::tell::{self, One};
use crate::apps::select::select;
use crate::control::Request;
use crate::control::client::{self, Patience};
use crate::logs::kept::{Line, Lines, Wanted};
use clap::Args;
use model::{Command, Model};
use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the masters are asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Reports that may wait to be shown.
const REPORTS_MAX: usize = 256;
/// The last lines of each stream that are shown of one app.
const LINES: usize = 100;

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Names, patterns (`web-*`) or `all`; without one, all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// What the other threads report.
enum Report {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The masters were asked.
    Surveyed(Instant, Vec<Surveyed>),
    /// The last lines of an app.
    Lines(String, Vec<Line>),
    /// What came of a command.
    Said(String),
    /// This program is to end.
    Signal(Signal),
    /// The terminal is gone.
    Gone,
}

/// The app whose lines are wanted, with its control socket.
type Watched = Arc<Mutex<Option<(String, PathBuf)>>>;

/// Shows the screen until a key ends it.
pub fn main(args: &TopArgs) -> ExitCode {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        complain(&"top needs a terminal; `maitred list` and `maitred status` are for scripts");
        return ExitCode::from(FAILED);
    }
    let (reports, incoming) = mpsc::sync_channel(REPORTS_MAX);
    let watched = Watched::default();
    if let Err(error) = watch(&reports, args.names.clone(), Arc::clone(&watched)) {
        complain(&format_args!("cannot start: {error}"));
        return ExitCode::from(FAILED);
    }
    let ended = match ratatui::try_init() {
        Ok(mut terminal) => {
            let ended = show(&mut terminal, &incoming, &reports, &watched);
            ratatui::restore();
            ended
        }
        Err(error) => Err(error),
    };
    match ended {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(signal)) => ExitCode::from(128 + u8::try_from(signal as i32).unwrap_or_default()),
        Err(error) => {
            complain(&format_args!("the terminal cannot be used: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    incoming: &Receiver<Report>,
    reports: &SyncSender<Report>,
    watched: &Watched,
) -> io::Result<Option<Signal>> {
    let mut model = Model::default();
    loop {
        terminal.draw(|frame| draw::draw(frame, &model))?;
        *watched.lock().unwrap_or_else(PoisonError::into_inner) = model.watched();
        match incoming.recv() {
            Ok(Report::Key(key)) => match model.key(key) {
                Some(Command::Quit) => return Ok(None),
                Some(Command::Ask { name, control, request }) => ask(reports.clone(), name, control, request),
                None => {}
            },
            Ok(Report::Resized) => {}
            Ok(Report::Surveyed(at, surveyed)) => model.surveyed(at, surveyed),
            Ok(Report::Lines(name, lines)) => model.lines(name, lines),
            Ok(Report::Said(said)) => model.said(said),
            Ok(Report::Signal(signal)) => return Ok(Some(signal)),
            Ok(Report::Gone) | Err(_) => return Ok(Some(Signal::SIGHUP)),
        }
    }
}

/// Starts the threads that report.
fn watch(reports: &SyncSender<Report>, names: Vec<String>, watched: Watched) -> io::Result<()> {
    // Before other threads start, or they would get the signals instead.
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
    signals.thread_block()?;
    let to = reports.clone();
    thread("top-signals", move || {
        while let Ok(signal) = signals.wait() {
            if to.send(Report::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    let to = reports.clone();
    thread("top-keys", move || {
        loop {
            let report = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Report::Key(key),
                Ok(Event::Resize(..)) => Report::Resized,
                Ok(_) => continue,
                Err(_) => Report::Gone,
            };
            let is_gone = matches!(report, Report::Gone);
            if to.send(report).is_err() || is_gone {
                return;
            }
        }
    })?;
    let to = reports.clone();
    thread("top-masters", move || {
        loop {
            let begun = Instant::now();
            let surveyed = survey(Count::Open);
            if let Err(error) = &surveyed
                && to.send(Report::Said(error.to_string())).is_err()
            {
                return;
            }
            if let Ok((all, _)) = surveyed {
                let there: Vec<String> = all.iter().map(|one| one.row.name.clone()).collect();
                let shown = if names.is_empty() { Ok(there.clone()) } else { select(&names, &there) };
                if let Err(error) = &shown
                    && to.send(Report::Said(error.clone())).is_err()
                {
                    return;
                }
                let shown = shown.unwrap_or_default();
                let all = all.into_iter().filter(|one| shown.contains(&one.row.name)).collect();
                if to.send(Report::Surveyed(begun, all)).is_err() {
                    return;
                }
            }
            let app = watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some((name, control)) = app {
                let lines = lines_of(&name, &control);
                if to.send(Report::Lines(name, lines)).is_err() {
                    return;
                }
            }
            std::thread::sleep(ASK_EVERY.saturating_sub(begun.elapsed()));
        }
    })
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

fn lines_of(name: &str, control: &std::path::Path) -> Vec<Line> {
    let request = Request::Lines { wanted: Wanted { last: Some(LINES), ..Wanted::default() } };
    let answer = client::ask(name, control, &request, Patience::Short).ok();
    answer.and_then(|answer| serde_json::from_str(&answer).ok()).map(|Lines { lines, .. }| lines).unwrap_or_default()
}

/// Carries a command out, aside.
fn ask(reports: SyncSender<Report>, name: String, control: PathBuf, request: Request) {
    let asked = move || {
        let said = match request {
            Request::Stop => {
                One::named(&name).map_err(|error| error.to_string()).and_then(|one| stop_and_remember(&one))
            }
            _ => tell::ask_there(&name, &control, &request, Patience::Short).map_err(|error| error.to_string()),
        };
        let said = said.unwrap_or_else(|error| error);
        let _ = reports.send(Report::Said(format!("{name}: {said}")));
    };
    // Without a thread nothing is done, and the screen goes on.
    let _ = thread("top-command", asked);
}
