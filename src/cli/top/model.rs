//! What is on the screen, and what the keys do. Nothing here knows the terminal.

use crate::cli::apps::list::{Row, Surveyed};
use crate::control::status::Status;
use crate::control::{Request, Size, Until};
use crate::core::fleet::Manner;
use crate::logs::kept::Line;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

/// How many seconds of rates are kept.
pub const HISTORY: usize = 120;

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// All apps.
    #[default]
    Apps,
    /// The workers of one.
    Workers,
    /// The last lines of one.
    Logs,
    /// The keys.
    Help,
}

/// In which order apps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    #[default]
    Name,
    Connections,
    Cpu,
    Memory,
}

impl Sort {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Connections => "connections/s",
            Sort::Cpu => "CPU",
            Sort::Memory => "memory",
        }
    }

    fn next(self) -> Sort {
        match self {
            Sort::Name => Sort::Connections,
            Sort::Connections => Sort::Cpu,
            Sort::Cpu => Sort::Memory,
            Sort::Memory => Sort::Name,
        }
    }
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The end.
    Quit,
    /// A request to a master.
    Ask {
        /// Its name.
        name: String,
        /// Its control socket.
        control: PathBuf,
        /// The request.
        request: Request,
    },
}

/// One app on the screen.
#[derive(Debug)]
pub struct Shown {
    pub row: Row,
    pub control: PathBuf,
    pub status: Option<Status>,
    /// Connections a second, the newest last.
    pub rates: VecDeque<u64>,
    /// The processor time of its workers, in percent of one processor, since the last look.
    pub cpu: f64,
    /// The same of each worker, by its id, and the connections that it took a second.
    pub workers: HashMap<u64, (f64, f64)>,
    at: Instant,
}

impl Shown {
    /// Connections a second since the last look.
    pub fn rate(&self) -> u64 {
        self.rates.back().copied().unwrap_or_default()
    }

    /// Connections that are open, and that wait for a worker.
    pub fn open_and_waiting(&self) -> (u64, u64) {
        let Some(status) = &self.status else { return (0, 0) };
        let open = status.admission.open.unwrap_or_else(|| status.workers.iter().map(|worker| worker.open).sum());
        let in_queues: u64 = status.listeners.iter().map(|listener| u64::from(listener.queued)).sum();
        let at_workers: u64 = status.workers.iter().map(|worker| worker.queued).sum();
        (open, in_queues + at_workers + status.totals.held)
    }
}

/// The screen.
#[derive(Debug, Default)]
pub struct Model {
    pub apps: Vec<Shown>,
    /// The name of the chosen app.
    chosen: Option<String>,
    pub view: View,
    /// The view that the help covers.
    before_help: View,
    pub sort: Sort,
    /// What came of the last command.
    pub message: Option<String>,
    /// The app that is to be stopped if that is confirmed.
    pub to_stop: Option<String>,
    lines: Option<(String, Vec<Line>)>,
    /// Whether the masters were asked already.
    pub asked: bool,
}

impl Model {
    /// The chosen app and its place.
    pub fn chosen(&self) -> Option<(usize, &Shown)> {
        let chosen = self.chosen.as_ref()?;
        self.apps.iter().enumerate().find(|(_, app)| app.row.name == *chosen)
    }

    /// The app whose lines are wanted.
    pub fn watched(&self) -> Option<(String, PathBuf)> {
        let (_, app) = self.chosen()?;
        app.status.as_ref().map(|_| (app.row.name.clone(), app.control.clone()))
    }

    /// The last lines of the chosen app.
    pub fn last_lines(&self) -> &[Line] {
        match (&self.lines, &self.chosen) {
            (Some((name, lines)), Some(chosen)) if name == chosen => lines,
            _ => &[],
        }
    }

    /// The masters were asked.
    pub fn surveyed(&mut self, at: Instant, surveyed: Vec<Surveyed>) {
        self.asked = true;
        let mut before: HashMap<String, Shown> = self.apps.drain(..).map(|app| (app.row.name.clone(), app)).collect();
        self.apps = surveyed.into_iter().map(|one| shown(at, before.remove(&one.row.name), one)).collect();
        self.order();
        if self.chosen().is_none() {
            self.chosen = self.apps.first().map(|app| app.row.name.clone());
        }
    }

    /// The last lines of an app came.
    pub fn lines(&mut self, name: String, lines: Vec<Line>) {
        self.lines = Some((name, lines));
    }

    /// What came of a command.
    pub fn said(&mut self, said: String) {
        self.message = Some(said);
    }

    fn order(&mut self) {
        let sort = self.sort;
        self.apps.sort_by(|a, b| {
            let by_name = a.row.name.cmp(&b.row.name);
            match sort {
                Sort::Name => by_name,
                Sort::Connections => b.rate().cmp(&a.rate()).then(by_name),
                Sort::Cpu => b.cpu.total_cmp(&a.cpu).then(by_name),
                Sort::Memory => b.row.rss_bytes.cmp(&a.row.rss_bytes).then(by_name),
            }
        });
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Option<Command> {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Some(Command::Quit);
        }
        self.message = None;
        if let Some(name) = self.to_stop.take() {
            return match key.code {
                KeyCode::Char('y') => self.ask_of(&name, Request::Stop),
                _ => None,
            };
        }
        match key.code {
            KeyCode::Char('q') => return Some(Command::Quit),
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => match self.view {
                View::Help => self.view = self.before_help,
                View::Apps | View::Workers | View::Logs => self.view = View::Apps,
            },
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => {
                if self.view == View::Help {
                    self.view = self.before_help;
                } else {
                    (self.before_help, self.view) = (self.view, View::Help);
                }
            }
            KeyCode::Enter | KeyCode::Right => self.toggle(View::Workers),
            KeyCode::Char('l') => self.toggle(View::Logs),
            KeyCode::Up | KeyCode::Char('k') => self.choose(|at, _| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(|at, last| (at + 1).min(last)),
            KeyCode::Home | KeyCode::Char('g') => self.choose(|_, _| 0),
            KeyCode::End | KeyCode::Char('G') => self.choose(|_, last| last),
            KeyCode::Char('o') => {
                self.sort = self.sort.next();
                self.order();
            }
            KeyCode::Char('r') => return self.ask(reload(Manner::Rolling)),
            KeyCode::Char('R') => return self.ask(reload(Manner::Restart)),
            KeyCode::Char('+') => return self.ask(Request::Scale { to: Size::By(1) }),
            KeyCode::Char('-') => return self.ask(Request::Scale { to: Size::By(-1) }),
            KeyCode::Char('s') => self.to_stop = self.chosen.clone(),
            _ => {}
        }
        None
    }

    fn toggle(&mut self, view: View) {
        self.view = if self.view == view { View::Apps } else { view };
    }

    fn choose(&mut self, to: impl Fn(usize, usize) -> usize) {
        let at = self.chosen().map_or(0, |(at, _)| at);
        let last = self.apps.len().saturating_sub(1);
        self.chosen = self.apps.get(to(at, last)).map(|app| app.row.name.clone());
    }

    fn ask(&self, request: Request) -> Option<Command> {
        self.ask_of(&self.chosen.clone()?, request)
    }

    fn ask_of(&self, name: &str, request: Request) -> Option<Command> {
        let app = self.apps.iter().find(|app| app.row.name == name)?;
        Some(Command::Ask { name: name.to_owned(), control: app.control.clone(), request })
    }
}

fn reload(manner: Manner) -> Request {
    Request::Reload { manner, until: Until::Accepted }
}

/// An app with its rates since the last look.
fn shown(at: Instant, before: Option<Shown>, now: Surveyed) -> Shown {
    let Surveyed { row, control, status } = now;
    let mut rates = VecDeque::new();
    let mut workers = HashMap::new();
    // Another process counts anew.
    if let Some(before) = before.filter(|before| before.row.pid == row.pid) {
        let seconds = at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
        rates = before.rates;
        if rates.len() >= HISTORY {
            rates.pop_front();
        }
        let accepted = row.accepted.saturating_sub(before.row.accepted);
        rates.push_back((accepted as f64 / seconds).round() as u64);
        let earlier = before.status.iter().flat_map(|status| &status.workers);
        let earlier: HashMap<u64, (f64, u64)> =
            earlier.filter_map(|worker| Some((worker.id?, (worker.cpu_s, worker.taken)))).collect();
        for worker in status.iter().flat_map(|status| &status.workers) {
            if let Some((id, (cpu_s, taken))) = worker.id.and_then(|id| Some((id, *earlier.get(&id)?))) {
                let cpu = (worker.cpu_s - cpu_s).max(0.0) / seconds * 100.0;
                workers.insert(id, (cpu, worker.taken.saturating_sub(taken) as f64 / seconds));
            }
        }
    }
    let cpu = workers.values().fold(0.0, |sum, (cpu, _)| sum + cpu);
    Shown { row, control, status, rates, cpu, workers, at }
}
