//! Writes down what happens: each event and each action of the fleet comes by here, and becomes an entry of the journal
//! and a number of the metrics.

use crate::clock;
use crate::control::journal::{About, Events, Journal, What};
use crate::control::status::Counts;
use crate::core::fleet::{self, Action, Exit, Fleet, KillReason, Occupant, Sign};
use crate::core::histogram::Histogram;
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::core::moment::Moment;
use crate::core::visible;
use crate::workers::worker::Worker;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Bounds of how long reloads take, in seconds.
const RELOAD_BOUNDS_S: [f64; 8] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The journal, the numbers, and what tells why something happens.
#[derive(Debug)]
pub struct Recorder {
    /// What happened.
    pub journal: Journal,
    /// How often.
    pub counts: Counts,
    /// Why the number of workers is about to change, if nobody asked for it.
    pub why_scaled: Option<&'static str>,
    workers: HashMap<WorkerId, Known>,
    /// Why the last worker of each slot ended.
    ended: HashMap<Slot, &'static str>,
    reload_begun: Option<Moment>,
    limited: bool,
}

/// A worker that runs.
#[derive(Clone, Copy, Debug)]
struct Known {
    slot: Slot,
    pid: i32,
    generation: Generation,
    killed: Option<KillReason>,
}

/// What the next program must know.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Passed {
    journal: Events,
    counts: Counts,
    /// The last event that the command of `--on-event` was told.
    #[serde(default)]
    pub told: u64,
}

impl Recorder {
    /// Nothing has happened.
    #[must_use]
    pub fn begin() -> Recorder {
        Recorder::of(Journal::begin(), Counts::default())
    }

    /// Goes on where another program stopped; these workers run.
    pub fn go_on<'a>(passed: Option<Passed>, workers: impl Iterator<Item = &'a Worker>) -> Recorder {
        let Some(Passed { journal, counts, .. }) = passed else { return Recorder::begin() };
        let mut recorder = Recorder::of(Journal::go_on(journal), counts);
        workers.for_each(|worker| recorder.know(worker));
        recorder
    }

    fn of(journal: Journal, mut counts: Counts) -> Recorder {
        for reloads in [&mut counts.reloads_done, &mut counts.reloads_given_up] {
            if reloads.counts.is_empty() {
                *reloads = Histogram::new(&RELOAD_BOUNDS_S);
            }
        }
        Recorder {
            journal,
            counts,
            why_scaled: None,
            workers: HashMap::new(),
            ended: HashMap::new(),
            reload_begun: None,
            limited: false,
        }
    }

    /// For the next program.
    #[must_use]
    pub fn pass(&self, told: u64) -> Passed {
        Passed { journal: self.journal.peek(0, 0), counts: self.counts.clone(), told }
    }

    /// A worker was forked.
    pub fn forked(&mut self, worker: &Worker, fleet: &Fleet) {
        self.know(worker);
        self.note_of(What::Forked, worker.id, None);
        let last = self.ended.remove(&worker.slot);
        let again = fleet.slots().get(worker.slot.index()).is_some_and(|state| state.restarts > 0);
        if again {
            let reloads = fleet.reloading() == Some(worker.generation);
            let reason = if reloads { "reload" } else { last.unwrap_or("replaced") };
            count(&mut self.counts.restarts, reason);
        }
    }

    fn know(&mut self, worker: &Worker) {
        let (slot, pid, generation) = (worker.slot, worker.pid.as_raw(), worker.generation);
        self.workers.insert(worker.id, Known { slot, pid, generation, killed: None });
    }

    /// A worker's command was executed.
    pub fn online(&self, worker: WorkerId) {
        self.note_of(What::Online, worker, None);
    }

    /// A worker listens on an address.
    pub fn listening(&self, worker: WorkerId, address: String) {
        let about = About { address: Some(address), ..self.about(worker) };
        self.journal.note(What::Listening, about);
    }

    /// Another binary goes on.
    pub fn upgraded(&self, from: &str, to: &str) {
        self.journal.note(What::Upgraded, because(format!("{from} to {to}")));
    }

    /// Whether limits hold connections back now.
    pub fn limits(&mut self, limited: bool) {
        if std::mem::replace(&mut self.limited, limited) != limited {
            self.journal.note(if limited { What::AdmissionOn } else { What::AdmissionOff }, About::default());
        }
    }

    /// Something is about to reach the fleet. `words` are those that each slot's last worker that
    /// failed wrote.
    pub fn event(&mut self, event: &fleet::Event, fleet: &Fleet, words: &HashMap<Slot, String>) {
        let shows = |worker, sign| fleet.occupant(worker).is_none_or(|occupant| occupant.signs.has(sign));
        match event {
            fleet::Event::Exited(worker, exit) => self.ended(*worker, Some(*exit), fleet, words),
            fleet::Event::Daemonized(worker) | fleet::Event::ForkFailed(worker) => {
                self.ended(*worker, None, fleet, words);
            }
            fleet::Event::Stalled(worker, sign) if !shows(*worker, *sign) => {
                count(&mut self.counts.stalls, sign_of(*sign));
                self.note_of(What::Stalled, *worker, Some(sign.name().to_owned()));
            }
            fleet::Event::Recovered(worker, sign) if shows(*worker, *sign) => {
                self.note_of(What::Recovered, *worker, Some(sign.name().to_owned()));
            }
            fleet::Event::StopAsked(stop) if !fleet.is_stopping() => {
                self.journal.note(What::Stopping, because(stop.name()));
            }
            fleet::Event::Pause => self.journal.note(What::Paused, About::default()),
            _ => {}
        }
    }

    fn ended(&mut self, id: WorkerId, exit: Option<Exit>, fleet: &Fleet, words: &HashMap<Slot, String>) {
        let about = self.about(id);
        let Some(known) = self.workers.remove(&id) else { return };
        let leaving = fleet.occupant(id).is_none_or(Occupant::is_leaving);
        let reason = match (known.killed, exit) {
            (Some(because), _) => reason_of(because),
            (None, _) if leaving => "asked",
            (None, Some(Exit::Code(_))) => "exit",
            (None, Some(Exit::Signal(_))) => "signal",
            (None, None) => "not-started",
        };
        count(&mut self.counts.exits, reason);
        self.ended.insert(known.slot, reason);
        let how = exit.map_or_else(|| "it did not start".to_owned(), |exit| exit.to_string());
        let why = match known.killed {
            Some(_) => format!("{how}, killed: {reason}"),
            None if leaving => format!("{how}, as it was asked to end"),
            None => how,
        };
        let words = words.get(&known.slot).filter(|words| !leaving && !words.is_empty());
        let words = words.map(|words| visible::lines(words).into_owned());
        self.journal.note(What::Exited, About { why: Some(why), words, ..about });
    }

    /// The fleet decided on this, and it is done.
    pub fn action(&mut self, action: &Action) {
        match action {
            Action::Admit { worker } => self.note_of(What::Ready, *worker, None),
            Action::Withdraw { worker } => self.note_of(What::Draining, *worker, None),
            Action::Kill { worker, because } => {
                self.workers.get_mut(worker).into_iter().for_each(|known| known.killed = Some(*because));
            }
            Action::Wait { slot, failures, delay } => {
                let delay = humantime::format_duration(*delay);
                let why = format!("failure {failures} in a row, the next worker comes in {delay}");
                self.journal.note(What::Backoff, About { slot: Some(slot.0), ..because(why) });
            }
            Action::Rest { slot, failures, .. } => {
                let why = format!("{failures} failures within --restart-window");
                self.journal.note(What::Rests, About { slot: Some(slot.0), ..because(why) });
            }
            Action::NobodyLeft => self.journal.note(What::GaveUp, because("every worker failed too often")),
            Action::GiveUp { slot, .. } => {
                self.journal.note(What::GaveUp, About { slot: Some(slot.0), ..because("no worker came up") });
            }
            Action::Resized { workers } => {
                let why = self.why_scaled.take().map(str::to_owned);
                self.journal.note(What::Scaled, About { workers: Some(*workers), why, ..About::default() });
            }
            Action::ReloadBegun { generation, manner } => {
                self.reload_begun = Some(clock::now());
                self.reload(What::ReloadBegun, *generation, Some(manner.name().to_owned()));
            }
            Action::CanaryServes { generation } => self.reload(What::Canary, *generation, None),
            Action::ReloadDone { generation } => {
                let took = self.reload_begun.take().map(|begun| clock::now().since(begun));
                took.into_iter().for_each(|took| self.counts.reloads_done.count(took));
                self.reload(What::ReloadDone, *generation, None);
            }
            _ => {}
        }
    }

    /// A reload was given up, for this reason.
    pub fn given_up(&mut self, generation: Generation, why: Option<String>) {
        let took = self.reload_begun.take().map(|begun| clock::now().since(begun));
        took.into_iter().for_each(|took| self.counts.reloads_given_up.count(took));
        self.reload(What::ReloadGivenUp, generation, why);
    }

    fn reload(&self, what: What, generation: Generation, why: Option<String>) {
        self.journal.note(what, About { generation: Some(generation.0), why, ..About::default() });
    }

    fn note_of(&self, what: What, worker: WorkerId, why: Option<String>) {
        self.journal.note(what, About { why, ..self.about(worker) });
    }

    fn about(&self, worker: WorkerId) -> About {
        let known = self.workers.get(&worker);
        About {
            worker: Some(worker.0),
            slot: known.map(|known| known.slot.0),
            pid: known.map(|known| known.pid),
            generation: known.map(|known| known.generation.0),
            ..About::default()
        }
    }
}

fn because(why: impl Into<String>) -> About {
    About { why: Some(why.into()), ..About::default() }
}

fn count(counts: &mut BTreeMap<String, u64>, reason: &str) {
    *counts.entry(reason.to_owned()).or_default() += 1;
}

/// The sign as a label of metrics.
fn sign_of(sign: Sign) -> &'static str {
    match sign {
        Sign::Untaken => "untaken",
        Sign::Probe => "probe",
        Sign::Heartbeat => "heartbeat",
        Sign::Deaf => "deaf",
    }
}

/// The reason as a label of metrics.
fn reason_of(because: KillReason) -> &'static str {
    match because {
        KillReason::GraceOver => "grace-over",
        KillReason::Immediate => "stopped-at-once",
        KillReason::BootTimeout => "boot-timeout",
        KillReason::Stalled => "stalled",
        KillReason::Watchdog => "watchdog",
        KillReason::Elsewhere => "listens-elsewhere",
        KillReason::Aborted => "reload-given-up",
        KillReason::Outdated => "outdated",
    }
}
