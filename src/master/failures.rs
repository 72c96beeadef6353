//! Why workers failed, in words: their own last ones, for the log, for `status` and for who asked.

use super::error::RunError;
use super::run::Master;
use crate::core::fleet::{self, Exit, KillReason};
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::sys::reap;
use crate::sys::seccomp::Notifier;
use crate::sys::spawn::SpawnError;
use crate::workers::start::StartError;
use crate::workers::worker::{Executes, Worker};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use tracing::error;

/// Why workers failed, and why the master will end with an error, if it does.
#[derive(Debug, Default)]
pub struct Failures {
    /// What a failed worker of each slot said last.
    pub last_words: HashMap<Slot, String>,
    /// Why a worker of the new generation failed.
    pub failed_because: Option<String>,
    /// Why the master will end with an error.
    pub failure: Option<RunError>,
    /// Why the last worker did not come up, in case none ever does.
    pub boot_failure: Option<RunError>,
}

impl Failures {
    /// What failed workers said under the program before this one.
    #[must_use]
    pub fn remembered(last_words: Vec<(Slot, String)>) -> Failures {
        Failures { last_words: last_words.into_iter().collect(), ..Failures::default() }
    }
}

impl Master {
    /// Keeps why a worker could not be started.
    pub(super) fn cannot_start(&mut self, slot: Slot, id: WorkerId, generation: Generation, error: StartError) {
        error!(slot = slot.0, worker = id.0, %error, "cannot start a worker");
        if self.fleet.reloading() == Some(generation) {
            self.failures.failed_because = Some(error.to_string());
        }
        self.failures.last_words.insert(slot, error.to_string());
        self.failures.boot_failure = Some(RunError::Start(error));
    }

    /// A worker's process executes its program, or says what keeps it from that. It ends then.
    pub(super) fn executed(&mut self, id: WorkerId, result: Result<Option<Notifier>, SpawnError>) {
        let Some((worker, starter)) = self.workers.get_with_starter(id) else { return };
        worker.executes = Executes::Yes;
        let supervised = match result {
            Ok(None) => return,
            Ok(Some(notifier)) => starter.supervise(worker, notifier).map_err(StartError::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = supervised {
            worker.executes = Executes::Never;
            let (slot, generation) = (worker.slot, worker.generation);
            // Where the report was lost on our side it would wait for ever.
            let _ = reap::signal_group(worker.pid, Signal::SIGKILL);
            self.cannot_start(slot, id, generation, error);
        }
    }

    /// Keeps what a worker said before it failed, for those who ask why; with advice if it went into the
    /// background, and if another worker has the address for itself.
    pub(super) fn remember_words(&mut self, id: WorkerId, exit: Exit, background: Option<&str>, bypass: Option<&str>) {
        let Some(worker) = self.workers.get(id) else { return };
        // One that went into the background never served.
        let starting = background.is_some() || self.fleet.occupant(id).is_some_and(fleet::Occupant::is_starting);
        if worker.executes == Executes::Never {
            // What kept it from that is known.
            return;
        }
        let said = said(&worker.last_words.now());
        let ended = match background {
            None => format!("`{}` ended with {exit}", command_of(worker)),
            Some(advice) => format!("`{}` went into the background, which ends it here: {advice}", command_of(worker)),
        };
        self.failures.last_words.insert(worker.slot, format!("{ended}; {said}"));
        if starting && self.fleet.reloading() == Some(worker.generation) {
            self.failures.failed_because = Some(format!("{ended}; {said}"));
        }
        if starting && (background.is_some() || self.fleet.was_never_ready()) {
            let bypass = bypass.map(|found| format!("\n{found}")).unwrap_or_default();
            let message = match background {
                None => format!("no worker came up: {ended} before it listened; {said}{bypass}"),
                Some(_) => format!("no worker came up: {ended}; {said}{bypass}"),
            };
            // That an address was refused explains more than what the worker made of it.
            if !matches!(self.failures.boot_failure, Some(RunError::Bind { .. })) {
                self.failures.boot_failure = Some(RunError::GaveUp(message));
            }
        }
    }

    /// The same for one that is killed because it failed.
    pub(super) fn remember_kill(&mut self, id: WorkerId, because: KillReason) {
        let Some(worker) = self.workers.get(id) else { return };
        let why = match because {
            KillReason::BootTimeout => "was not ready within --boot-timeout",
            KillReason::Stalled => "was stalled for longer than --stall-kill",
            KillReason::Watchdog => "missed its watchdog",
            KillReason::GraceOver
            | KillReason::Immediate
            | KillReason::Elsewhere
            | KillReason::Aborted
            | KillReason::Outdated => return,
        };
        let failed = format!("`{}` {why} and was killed; {}", command_of(worker), said(&worker.last_words.now()));
        let late = because == KillReason::BootTimeout;
        if late && worker.generation != self.fleet.generation() {
            self.failures.failed_because = Some(failed.clone());
        }
        if late && self.fleet.was_never_ready() {
            self.failures.boot_failure = Some(RunError::GaveUp(format!("no worker came up: {failed}")));
        }
        self.failures.last_words.insert(worker.slot, failed);
    }

    /// A slot is left alone.
    pub(super) fn rest(&mut self, slot: Slot, failures: u32) {
        let words = self.failures.last_words.get(&slot).cloned().unwrap_or_default();
        let window = humantime::format_duration(self.config.life.restart_window).to_string();
        error!(
            slot = slot.0,
            failures, window, words, "a slot failed too often and rests; reload or scale brings it back"
        );
    }

    /// All slots are left alone: somebody else must know.
    pub(super) fn nobody_left(&mut self) {
        self.failures.failure.get_or_insert(RunError::NobodyLeft(self.why_slots_rest()));
    }

    pub(super) fn why_slots_rest(&self) -> String {
        let why =
            |slot: Slot| format!("slot {slot}: {}", self.failures.last_words.get(&slot).map_or("", |words| words));
        self.fleet.resting().map(why).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn give_up(&mut self, slot: Slot, attempts: u32) {
        error!(slot = slot.0, attempts, "no worker came up, giving up");
        let why = self.failures.boot_failure.take();
        self.failures.failure = Some(why.unwrap_or_else(|| RunError::GaveUp("no worker came up".to_owned())));
    }
}

/// The command of a worker, as it was given.
fn command_of(worker: &Worker) -> String {
    worker.config.command.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// What a worker wrote last, in words.
fn said(words: &[String]) -> String {
    match words.is_empty() {
        true => "it wrote nothing to its standard error".to_owned(),
        false => format!("its last words:\n  {}", words.join("\n  ")),
    }
}
