//! `maitred up`: the apps of a file run together under one process, which starts again what fails and follows changes of
//! the file. It decides nothing itself ([`crate::core::apps`]) and has no connection and no worker: should it be killed,
//! the masters stop as they do at `TERM`.

mod child;
pub mod record;
mod signals;

use super::earlier;
use super::plan::{Change, Planned, changes};
use crate::clock;
use crate::config::workers::usable_cores;
use crate::control::client::{self, Patience};
use crate::control::{Done, Request, Size, Until};
use crate::core::apps::{Action, Apps, Ending, Outcome, Wait};
use crate::core::chance;
use crate::core::fleet::{Manner, SAME_REQUEST};
use crate::core::moment::{Moment, millis};
use crate::sys::process::reap;
use child::{Child, Serves, ending};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use record::Record;
use signals::Asked;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{spawn_blocking, spawn_local};
use tracing::{debug, error, info, warn};

/// Events that may wait for the loop.
const EVENTS_MAX: usize = 64;

/// What is run, and how.
pub struct Together {
    /// The file, as an absolute path.
    pub file: PathBuf,
    /// What it says.
    pub plan: Plan,
    /// Reads it again.
    pub again: Box<dyn Fn() -> Result<Plan, String>>,
    /// The executable of a master.
    pub executable: PathBuf,
    /// Whom `--dry-run` and `down` ask, if it could be written.
    pub record: Option<Record>,
    /// Tells the service manager what goes on.
    pub tell: Box<dyn Fn(Milestone)>,
}

/// What a file says.
pub struct Plan {
    /// The apps that are wanted, each after those that it depends on.
    pub apps: Vec<Planned>,
    /// Its text: a master that is started again gets what was applied, and not what is being edited.
    pub text: String,
}

/// What a service manager wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// Each app serves, for the first time or after a change.
    Serves,
    /// A changed file is applied.
    Reloads,
    /// All stop.
    Stops,
}

enum Event {
    Asked(Asked),
    /// Nothing keeps an app from being started any more.
    Free(String),
    /// Something does.
    NotFree(String, String),
    Serves(String, Pid),
    Ended(String, io::Result<ExitStatus>),
    /// What a running master answered, and what was in force before if it refused.
    Told(String, Result<String, String>, BTreeMap<String, String>),
}

struct Up {
    together: Together,
    apps: Apps,
    children: HashMap<String, Rc<Child>>,
    /// Those that wait for an earlier master of their name.
    pending: HashSet<String>,
    events: mpsc::Sender<Event>,
    /// Whether the service manager waits to hear that all serve.
    awaited: bool,
    /// What was asked for at a stop, and when.
    stop: Option<(Signal, Moment)>,
}

/// Runs them until all have ended.
///
/// # Errors
/// When no signal can be received.
pub async fn run(together: Together) -> io::Result<Outcome> {
    let (events, mut incoming) = mpsc::channel(EVENTS_MAX);
    signals::forward(&events)?;
    let starting_max = (2 * usable_cores() as usize).max(4);
    let mut apps = Apps::new(starting_max);
    together.plan.apps.iter().for_each(|app| apps.want(&app.name, &app.depends_on));
    let (children, pending) = (HashMap::new(), HashSet::new());
    let mut up = Up { together, apps, children, pending, events, awaited: true, stop: None };
    info!(file = %up.together.file.display(), apps = up.together.plan.apps.len(), "starting the apps");
    // Each has its handler now.
    SigSet::all().thread_unblock()?;
    loop {
        up.advance();
        if let Some(outcome) = up.apps.outcome() {
            match outcome {
                Outcome::Stopped => info!("all apps have stopped"),
                Outcome::NotStarted | Outcome::Misused => error!("no app could be started; see above"),
            }
            return Ok(outcome);
        }
        let wake = up.apps.wakes_at();
        let left = wake.map_or(Duration::ZERO, |at: Moment| at.since(clock::now()));
        tokio::select! {
            event = incoming.recv() => if let Some(event) = event { up.handle(event) },
            () = tokio::time::sleep(left), if wake.is_some() => {}
        }
    }
}

impl Up {
    fn advance(&mut self) {
        let actions = self.apps.advance(clock::now());
        for action in actions {
            match action {
                Action::Start(name) => self.begin(name),
                Action::Stop(name) => {
                    info!(app = name, "stopping");
                    let signal = self.stop.map_or(Signal::SIGTERM, |(signal, _)| signal);
                    if let Some(child) = self.children.get(&name) {
                        child.signal(signal);
                    } else if self.pending.remove(&name) {
                        self.ended(&name, Ending::Stopped);
                    }
                }
            }
        }
        if self.awaited
            && let Some((serving, others)) = self.apps.settled()
        {
            self.awaited = false;
            match others {
                0 => info!("all apps serve"),
                others => warn!(serving, others, "the others do not serve"),
            }
            (self.together.tell)(Milestone::Serves);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Asked(asked) => self.asked(asked),
            Event::Free(name) | Event::NotFree(name, _) if !self.pending.remove(&name) => {
                debug!(app = name, "it was stopped meanwhile");
            }
            Event::Free(name) => self.start(name),
            Event::NotFree(name, because) => {
                error!(app = name, because, "cannot start an app");
                self.ended(&name, Ending::NotStarted);
            }
            Event::Serves(name, pid) => {
                if self.children.get(&name).is_some_and(|child| child.pid == pid) {
                    info!(app = name, "an app serves");
                    self.apps.serves(&name);
                }
            }
            Event::Ended(name, Ok(status)) => {
                self.children.remove(&name);
                match ending(status) {
                    Ending::Stopped => info!(app = name, "an app has stopped"),
                    _ => warn!(app = name, %status, "an app has ended"),
                }
                self.ended(&name, ending(status));
            }
            Event::Ended(name, Err(error)) => {
                error!(app = name, %error, "cannot wait for an app");
                self.children.remove(&name);
                self.ended(&name, Ending::Failed);
            }
            Event::Told(name, Ok(said), _) => info!(app = name, said),
            Event::Told(name, Err(because), before) => {
                warn!(app = name, because, "an app is not changed; another HUP tries again");
                if let Some(app) = self.together.plan.apps.iter_mut().find(|app| app.name == name) {
                    app.settings = before;
                }
                self.write_down();
            }
        }
    }

    fn ended(&mut self, name: &str, ending: Ending) {
        let random =
            (chance::mix(u64::from(std::process::id()) ^ millis(clock::now().since(Moment::default()))) >> 32) as u32;
        if let Some(Wait { failures, delay }) = self.apps.ended(name, ending, clock::now(), random) {
            warn!(app = name, failures, delay_ms = millis(delay), "an app waits before it is started again");
        }
        self.write_down();
    }

    fn asked(&mut self, asked: Asked) {
        match asked {
            Asked::Stop(signal) if self.stop.is_none() => {
                info!(%signal, "stopping all apps");
                (self.together.tell)(Milestone::Stops);
                self.stop = Some((signal, clock::now()));
                self.apps.stop();
            }
            // As with a terminal or timeout(1), which tell the process and its group.
            Asked::Stop(again)
                if self.stop.is_some_and(|(signal, at)| again == signal && clock::now().since(at) < SAME_REQUEST) => {}
            Asked::Stop(signal) => {
                warn!(%signal, "asked to stop a second time; the apps end at once");
                self.children.values().for_each(|child| at_once(child, signal));
            }
            Asked::Apply => self.apply(),
            Asked::Reopen => self.children.values().for_each(|child| child.signal(Signal::SIGUSR1)),
            Asked::Nothing(instead) => warn!(instead, "signal without effect"),
            Asked::Reap => {
                let children: Vec<Pid> = self.children.values().map(|child| child.pid).collect();
                let strangers = reap::reap_strangers(|pid| children.contains(&pid));
                if strangers > 0 {
                    debug!(strangers, "reaped processes that others left behind");
                }
            }
        }
    }

    /// Looks first whether an earlier master of that name is still about to end; that takes as long as it takes.
    fn begin(&mut self, name: String) {
        let Some(app) = self.together.plan.apps.iter().find(|app| app.name == name) else { return };
        let (control, events) = (app.control.clone(), self.events.clone());
        self.pending.insert(name.clone());
        spawn_local(async move {
            let waited = spawn_blocking({
                let name = name.clone();
                move || earlier::wait(&name, &control)
            });
            let event = match waited.await {
                Ok(Ok(())) => Event::Free(name),
                Ok(Err(not_free)) => Event::NotFree(name, not_free.to_string()),
                Err(broke_off) => Event::NotFree(name, broke_off.to_string()),
            };
            let _ = events.send(event).await;
        });
    }

    fn start(&mut self, name: String) {
        let app = self.together.plan.apps.iter().find(|app| app.name == name);
        let (Some(app), None) = (app, self.stop) else { return self.ended(&name, Ending::Stopped) };
        let (child, serves) = match child::start(&self.together.executable, app, &self.together.plan.text) {
            Ok(started) => started,
            Err(error) => {
                error!(app = name, %error, "cannot start an app");
                return self.ended(&name, Ending::Failed);
            }
        };
        info!(app = name, pid = child.pid.as_raw(), "an app starts");
        let child = Rc::new(child);
        self.watch(name.clone(), Rc::clone(&child), serves);
        if self.apps.is_told(&name) {
            child.signal(Signal::SIGTERM);
        }
        self.children.insert(name, child);
        self.write_down();
    }

    fn watch(&self, name: String, child: Rc<Child>, serves: Serves) {
        let events = self.events.clone();
        spawn_local(async move {
            let pid = child.pid;
            if serves.wait().await {
                let _ = events.send(Event::Serves(name.clone(), pid)).await;
            }
            let _ = events.send(Event::Ended(name, child.end().await)).await;
        });
    }

    /// Does what the changed file asks, and touches nothing else.
    fn apply(&mut self) {
        if self.stop.is_some() {
            return;
        }
        (self.together.tell)(Milestone::Reloads);
        self.awaited = true;
        let new = match (self.together.again)() {
            Ok(new) => new,
            Err(because) => return error!(because, "cannot apply the file; everything stays as it is"),
        };
        let old = self.alive();
        let changes = changes(&old, &new.apps);
        if changes.is_empty() {
            info!("the file asks for no change");
        }
        self.together.plan = new;
        for app in &self.together.plan.apps {
            self.apps.want(&app.name, &app.depends_on);
        }
        for (name, change) in changes {
            info!(app = name, %change, "the file has changed");
            let before = old.iter().find(|app| app.name == name).map(|app| app.settings.clone()).unwrap_or_default();
            match change {
                // It is wanted now.
                Change::Start => {}
                Change::Stop => self.apps.forget(&name),
                Change::Restart(_) => self.apps.restart(&name),
                // What starts only now gets the new text.
                _ if !self.children.contains_key(&name) => {}
                Change::Reload(_) => {
                    self.ask(name, Request::Reload { manner: Manner::Rolling, until: Until::Done }, before);
                }
                Change::Scale(workers) => self.ask(name, Request::Scale { to: Size::To(workers) }, before),
            }
        }
        self.write_down();
    }

    /// Asks a running master. Where it refuses, what was in force before still is.
    fn ask(&self, name: String, request: Request, before: BTreeMap<String, String>) {
        let Some(app) = self.together.plan.apps.iter().find(|app| app.name == name) else { return };
        let (control, events) = (app.control.clone(), self.events.clone());
        spawn_local(async move {
            let asked = spawn_blocking({
                let name = name.clone();
                move || client::ask(&name, &control, &request, Patience::Endless)
            });
            let said = match asked.await {
                Ok(Ok(answer)) => {
                    serde_json::from_str(&answer).map(|Done { done }| done).map_err(|error| error.to_string())
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(broke_off) => Err(broke_off.to_string()),
            };
            let _ = events.send(Event::Told(name, said, before)).await;
        });
    }

    /// The apps that run or will run again.
    fn alive(&self) -> Vec<Planned> {
        let alive: Vec<&str> = self.apps.alive().collect();
        self.together.plan.apps.iter().filter(|app| alive.contains(&app.name.as_str())).cloned().collect()
    }

    fn write_down(&mut self) {
        let Some(record) = &self.together.record else { return };
        if let Err(error) = record.write(&self.alive()) {
            warn!(%error, "cannot write down what runs; maitred up --dry-run and maitred down will not know");
            self.together.record = None;
        }
    }
}

/// Ends a master at once, whether it was told before or not: the second of two signals does, if it is not taken for the
/// same request.
fn at_once(child: &Rc<Child>, signal: Signal) {
    child.signal(signal);
    let child = Rc::clone(child);
    spawn_local(async move {
        tokio::time::sleep(SAME_REQUEST).await;
        child.signal(signal);
    });
}
