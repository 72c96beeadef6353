//! What the master does around a reload: reading the configuration again, keeping that of each
//! generation, and answering those who wait.

use super::health::rhythm;
use super::run::Master;
use crate::config::Config;
use crate::control::{Done, Size, Until};
use crate::core::fleet::{self, AbortReason, Manner};
use crate::core::ids::Generation;
use crate::workers::start::StartError;
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

/// The configurations of the generations, and who waits for the next.
#[derive(Debug)]
pub struct Reloads {
    /// The most workers that descriptors allow.
    pub max_workers: u32,
    /// The text of the configuration file at the start, with the options that cannot change.
    pub base_text: Option<String>,
    /// What each generation is started with.
    pub of: std::collections::BTreeMap<Generation, Rc<Config>>,
    /// That of the next one.
    pub next: Option<Rc<Config>>,
    pub waiters: Vec<Waiter>,
    /// How the last reload ended, for `status`.
    pub last: Option<String>,
}

impl Reloads {
    /// None yet.
    #[must_use]
    pub fn new(max_workers: u32, base_text: Option<String>) -> Reloads {
        let (of, waiters) = (std::collections::BTreeMap::new(), Vec::new());
        Reloads { max_workers, base_text, of, next: None, waiters, last: None }
    }
}

/// Why a reload was not begun.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is not good.
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

/// An answer in words.
pub fn done(text: &str) -> String {
    serde_json::to_string(&Done { done: text.to_owned() }).unwrap_or_default()
}

impl Master {
    /// Reads the configuration again and begins a reload. What is wrong is known before anything is
    /// touched.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    async fn begin_reload(&mut self, manner: Manner) -> Result<(), ReloadError> {
        if self.fleet.is_stopping() {
            return Err(ReloadError::Stopping);
        }
        let mut config = self.config.again().map_err(ReloadError::Config)?;
        config.is_possible().map_err(ReloadError::Config)?;
        let kept = config.keep_from(&self.config);
        if !kept.is_empty() {
            warn!(?kept, "these options cannot change while maitred runs; the old values stay");
        }
        let config = Rc::new(config);
        self.workers.starter.look(&config)?;
        let workers = config.workers;
        self.fleet.size_after(fleet::Resize::To(workers))?;
        self.reloads.next = Some(config);
        self.handle_fleet(fleet::Event::ReloadAsked(manner, fleet::Workers::Configured(workers))).await;
        Ok(())
    }

    /// `HUP`.
    pub(super) async fn reload_by_signal(&mut self) {
        if let Err(error) = self.begin_reload(Manner::Rolling).await {
            warn!(%error, "cannot reload; the running workers serve on");
        }
    }

    /// `maitred reload` and `restart`.
    pub(super) async fn reload_asked(&mut self, manner: Manner, until: Until, answer: oneshot::Sender<String>) {
        let begun = match until {
            Until::Done if self.waiters() >= WAITERS_MAX => Err(ReloadError::Crowded),
            Until::Done | Until::Accepted => self.begin_reload(manner).await,
        };
        let text = match (begun, until) {
            (Err(error), _) => {
                warn!(%error, "cannot reload; the running workers serve on");
                super::run::refusal(&format!("{error}; the running workers serve on"))
            }
            (Ok(()), Until::Accepted) => match self.fleet.reloading() {
                Some(generation) => done(&format!("reloading: generation {generation} starts")),
                None => done("the reload waits for its turn"),
            },
            (Ok(()), Until::Done) => {
                self.reloads.waiters.push(Waiter { generation: None, answer });
                return self.give_waiters_their_generation();
            }
        };
        // A client that is gone needs no answer.
        let _ = answer.send(text);
    }

    /// Clients that still wait for a reload.
    pub(super) fn waiters(&mut self) -> usize {
        self.reloads.waiters.retain(|waiter| !waiter.answer.is_closed());
        self.reloads.waiters.len()
    }

    /// The reload that was asked for will not come.
    pub(super) fn reload_dropped(&mut self) {
        let text = super::run::refusal("the reload was dropped, because the workers are being stopped");
        let waiters = self.reloads.waiters.extract_if(.., |waiter| waiter.generation.is_none());
        waiters.for_each(|waiter| drop(waiter.answer.send(text.clone())));
        self.reloads.next = None;
    }

    /// Whoever waits for the next reload waits for this one, when it has begun.
    fn give_waiters_their_generation(&mut self) {
        if self.reloads.next.is_none() && self.fleet.reloading().is_some() {
            let begun = self.fleet.reloading();
            self.reloads.waiters.iter_mut().for_each(|waiter| waiter.generation = waiter.generation.or(begun));
        }
    }

    /// A reload begins.
    pub(super) fn reload_begun(&mut self, generation: Generation, manner: Manner) {
        info!(generation = generation.0, ?manner, "reload begins");
        let config = self.reloads.next.take().unwrap_or_else(|| Rc::clone(&self.config));
        // Its own limits hold for the reload that brings it.
        self.fleet.replan(config.plan(self.reloads.max_workers));
        self.reloads.of.insert(generation, config);
        self.failures.failed_because = None;
        self.reloads.waiters.iter_mut().for_each(|waiter| waiter.generation = waiter.generation.or(Some(generation)));
    }

    /// The new generation serves.
    pub(super) fn reload_done(&mut self, generation: Generation) {
        info!(generation = generation.0, "reload done: the new generation serves");
        if let Some(config) = self.reloads.of.get(&generation) {
            self.config = Rc::clone(config);
            self.workers.starter.config = Rc::clone(config);
            self.fleet.replan(config.plan(self.reloads.max_workers));
            self.checks.rhythm.set(rhythm(&config.life));
        }
        self.forget_configurations();
        self.reloads.last = Some(format!("generation {generation} serves"));
        self.tell_waiters(generation, &done(&format!("generation {generation} serves")));
    }

    /// The new generation was given up.
    pub(super) fn reload_aborted(&mut self, generation: Generation, because: AbortReason) {
        let why = match because {
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
        };
        let why = self.failures.failed_because.take().map_or(why.clone(), |more| format!("{why}: {more}"));
        warn!(generation = generation.0, why, "reload given up; the old configuration stays in force");
        self.fleet.replan(self.config.plan(self.reloads.max_workers));
        self.forget_configurations();
        self.reloads.last = Some(format!("generation {generation} was given up: {why}"));
        let text = format!("generation {generation} was given up: {why}; the old workers serve on");
        self.tell_waiters(generation, &super::run::refusal(&text));
    }

    /// Forgets the configurations of generations of which nobody lives or comes back.
    fn forget_configurations(&mut self) {
        let (alive, settled) = (self.fleet.generations(), self.fleet.generation());
        self.reloads.of.retain(|generation, _| *generation == settled || alive.contains(generation));
    }

    fn tell_waiters(&mut self, generation: Generation, text: &str) {
        let waiters = self.reloads.waiters.extract_if(.., |waiter| waiter.generation == Some(generation));
        waiters.for_each(|waiter| drop(waiter.answer.send(text.to_owned())));
    }

    /// `maitred scale`.
    pub(super) async fn scale_asked(&mut self, size: Size, answer: oneshot::Sender<String>) {
        let before = self.fleet.wanted();
        let text = match self.fleet.size_after(size.into()) {
            Ok(workers) => {
                self.handle_fleet(fleet::Event::Resize(size.into())).await;
                done(&format!("{before} workers become {workers}"))
            }
            Err(refused) => super::run::refusal(&refused.to_string()),
        };
        let _ = answer.send(text);
    }
}
