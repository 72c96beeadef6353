//! What the master does around a reload: it reads the configuration again, keeps that of each generation, and answers
//! the clients that wait.

use crate::config::Config;
use crate::control::{done, refusal};
use crate::core::fleet::{self, AbortReason, Fleet, Manner};
use crate::core::ids::Generation;
use crate::workers::start::{StartError, Starter};
use std::rc::Rc;
use tokio::sync::oneshot;
use tracing::{info, warn};

/// Clients that may wait for the end of a reload at once; one more is refused.
const WAITERS_MAX: usize = 64;

/// A client that waits for the end of the reload that it asked for.
#[derive(Debug)]
pub struct Waiter {
    /// Known when the reload has begun.
    generation: Option<Generation>,
    answer: oneshot::Sender<String>,
}

/// The configurations of the generations, and the clients that wait for the next.
#[derive(Debug)]
pub struct Reloads {
    /// The most workers that the descriptors allow.
    pub max_workers: u32,
    /// The text of the configuration file at the start, with the options that cannot change.
    pub base_text: Option<String>,
    /// What each generation is started with.
    pub of: std::collections::BTreeMap<Generation, Rc<Config>>,
    /// The configuration of the next generation.
    pub next: Option<Rc<Config>>,
    pub waiters: Vec<Waiter>,
    /// How the last reload ended, for `status`.
    pub last: Option<String>,
}

impl Reloads {
    /// No reload yet.
    #[must_use]
    pub fn new(max_workers: u32, base_text: Option<String>) -> Reloads {
        let (of, waiters) = (std::collections::BTreeMap::new(), Vec::new());
        Reloads { max_workers, base_text, of, next: None, waiters, last: None }
    }

    /// Reads the configuration again, for the next generation. Errors are known before anything is touched.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn read_again(
        &mut self,
        manner: Manner,
        config: &Config,
        starter: &Starter,
        fleet: &Fleet,
    ) -> Result<fleet::Event, ReloadError> {
        if fleet.is_about_to_stop() {
            return Err(ReloadError::Stopping);
        }
        let mut next = config.again().map_err(ReloadError::Config)?;
        next.is_possible().map_err(ReloadError::Config)?;
        let kept = next.keep_from(config);
        if !kept.is_empty() {
            warn!(?kept, "these options cannot change while maitred runs; the old values stay");
        }
        starter.look(&next)?;
        // Where the number is not fixed, it is as large as it has become.
        let workers = next.range.map_or(next.workers, |range| fleet.wanted().clamp(range.min, range.max));
        fleet.size_after(fleet::Resize::To(workers))?;
        if let Some(range) = next.range.filter(|_| !fleet.is_stopping()) {
            fleet.size_after(fleet::Resize::To(range.max))?;
        }
        self.next = Some(Rc::new(next));
        Ok(fleet::Event::ReloadAsked(manner, fleet::Workers::Configured(workers)))
    }

    /// Checks now whether one more client may wait.
    ///
    /// # Errors
    /// [`ReloadError::Crowded`] when too many wait already.
    pub fn may_wait(&mut self) -> Result<(), ReloadError> {
        if self.waiters() >= WAITERS_MAX { Err(ReloadError::Crowded) } else { Ok(()) }
    }

    /// A client waits for the end of the reload that it asked for.
    pub fn wait(&mut self, answer: oneshot::Sender<String>, fleet: &Fleet) {
        self.waiters.push(Waiter { generation: None, answer });
        if self.next.is_none() {
            self.give_waiters_their_generation(fleet.reloading());
        }
    }

    /// Clients that still wait for a reload.
    fn waiters(&mut self) -> usize {
        self.waiters.retain(|waiter| !waiter.answer.is_closed());
        self.waiters.len()
    }

    /// Clients that wait for the next reload wait for this one, once it has begun.
    fn give_waiters_their_generation(&mut self, begun: Option<Generation>) {
        self.waiters.iter_mut().for_each(|waiter| waiter.generation = waiter.generation.or(begun));
    }

    /// The reload that was asked for will not come.
    pub fn dropped(&mut self) {
        let text = refusal("the reload was dropped, because the workers are being stopped");
        let waiters = self.waiters.extract_if(.., |waiter| waiter.generation.is_none());
        waiters.for_each(|waiter| drop(waiter.answer.send(text.clone())));
        self.next = None;
    }

    /// A reload begins. The limits of the new configuration hold for the reload that brings it.
    pub fn begun(&mut self, generation: Generation, manner: Manner, config: &Rc<Config>, fleet: &mut Fleet) {
        info!(generation = generation.0, manner = manner.name(), "reload begins");
        let next = self.next.take().unwrap_or_else(|| Rc::clone(config));
        fleet.replan(next.plan(self.max_workers));
        self.of.insert(generation, next);
        self.give_waiters_their_generation(Some(generation));
    }

    /// The new generation serves. Returns its configuration, which is in force from now on.
    pub fn done(&mut self, generation: Generation, fleet: &mut Fleet) -> Option<Rc<Config>> {
        info!(generation = generation.0, "reload done: the new generation serves");
        let config = self.of.get(&generation).cloned();
        if let Some(config) = &config {
            fleet.replan(config.plan(self.max_workers));
        }
        self.forget_configurations(fleet);
        self.last = Some(format!("generation {generation} serves"));
        self.tell_waiters(generation, &done(&format!("generation {generation} serves")));
        config
    }

    /// The new generation was given up. `more` says what is known of the worker that failed.
    pub fn aborted(
        &mut self,
        generation: Generation,
        because: AbortReason,
        more: Option<String>,
        config: &Config,
        fleet: &mut Fleet,
    ) {
        let why = in_words(because);
        let why = more.map_or(why.clone(), |more| format!("{why}: {more}"));
        warn!(generation = generation.0, why, "reload given up; the old configuration stays in force");
        fleet.replan(config.plan(self.max_workers));
        self.forget_configurations(fleet);
        self.last = Some(format!("generation {generation} was given up: {why}"));
        let text = format!("generation {generation} was given up: {why}; the old workers serve on");
        self.tell_waiters(generation, &refusal(&text));
    }

    /// Forgets the configurations of generations in which no worker lives or comes back.
    fn forget_configurations(&mut self, fleet: &Fleet) {
        let (alive, settled) = (fleet.generations(), fleet.generation());
        self.of.retain(|generation, _| *generation == settled || alive.contains(generation));
    }

    fn tell_waiters(&mut self, generation: Generation, text: &str) {
        let waiters = self.waiters.extract_if(.., |waiter| waiter.generation == Some(generation));
        waiters.for_each(|waiter| drop(waiter.answer.send(text.to_owned())));
    }
}

/// Why a reload was not begun.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is not valid.
    #[error("{0}")]
    Config(String),
    /// The command cannot be executed, or cannot take part.
    #[error(transparent)]
    Command(#[from] StartError),
    /// There cannot be as many workers as it asks for.
    #[error(transparent)]
    Size(#[from] fleet::SizeRefused),
    /// Too many wait already.
    #[error("{WAITERS_MAX} clients wait for a reload already; ask without --wait")]
    Crowded,
    /// The master is about to end.
    #[error("this maitred is stopping")]
    Stopping,
}

fn in_words(because: AbortReason) -> String {
    match because {
        AbortReason::Ended(worker) => format!("its worker {worker} ended before it was ready"),
        AbortReason::NotStarted(worker) => format!("its worker {worker} could not be started"),
        AbortReason::NotReady(worker) => format!("its worker {worker} was not ready in time"),
        AbortReason::Waiting(worker) => {
            format!("its worker {worker} ended before all of its generation were ready")
        }
        AbortReason::Again(worker) => {
            format!(
                "its worker {worker} failed, as those before it in its slot; --max-restarts says how often that may be"
            )
        }
        AbortReason::Deaf(worker) => format!("its worker {worker} stopped listening"),
        AbortReason::Stopping => "the workers are being stopped".to_owned(),
    }
}
