//! Why workers failed, in words: their own last output, for the log, for `status` and for clients that asked.

use crate::core::fleet::{Exit, Fleet, KillReason, Occupant};
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::sys::process::reap;
use crate::sys::process::spawn::SpawnError;
use crate::sys::seccomp::Notifier;
use crate::workers::pool::Pool;
use crate::workers::start::StartError;
use crate::workers::worker::{Executes, Worker};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use tracing::error;

/// Why workers failed, and why the master will end with an error, if it does.
#[derive(Debug, Default)]
pub struct Failures {
    /// What a failed worker of each slot said last.
    pub last_words: HashMap<Slot, String>,
    /// What that worker wrote last.
    pub written: HashMap<Slot, String>,
    /// Why a worker of the new generation failed.
    pub failed_because: Option<String>,
    /// Why the master will end with an error.
    pub failure: Option<Failure>,
    /// Why the last worker did not come up, in case none ever does.
    pub boot_failure: Option<Failure>,
}

/// Why a master fails when its workers do not come up, or do not stay.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An address is not available.
    #[error("cannot bind {address}: {source}{}", advice(address, source))]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A worker cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The first generation never came up.
    #[error("{0}")]
    GaveUp(String),
    /// Every slot failed too often.
    #[error("every worker failed too often within --restart-window, nobody is left to serve\n{0}")]
    NobodyLeft(String),
    /// Some slots failed too often; the others served to the end.
    #[error("stopped, but not all had served: slots failed too often within --restart-window\n{0}")]
    SlotsRest(String),
    /// Not everything that came from the master has ended.
    #[error(
        "stopped, but some processes that workers left behind cannot be killed: {0}; they hang in the kernel, or \
         belong to another user: see ps -o pid,user,stat,wchan"
    )]
    LeftRunning(String),
    /// A listener broke while running.
    #[error("cannot go on accepting on {address}: {source}")]
    Listener {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Failure {
    /// The exit code that goes with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Listener { .. } | Failure::NobodyLeft(_) | Failure::SlotsRest(_) | Failure::LeftRunning(_) => 1,
            Failure::Bind { .. } | Failure::Start(_) | Failure::GaveUp(_) => 3,
        }
    }
}

impl Failures {
    /// What failed workers said under the program before this one.
    #[must_use]
    pub fn remembered(last_words: Vec<(Slot, String)>) -> Failures {
        Failures { last_words: last_words.into_iter().collect(), ..Failures::default() }
    }

    /// Keeps why a worker could not be started.
    pub fn cannot_start(&mut self, fleet: &Fleet, slot: Slot, id: WorkerId, generation: Generation, error: StartError) {
        error!(slot = slot.0, worker = id.0, %error, "cannot start a worker");
        if fleet.reloading() == Some(generation) {
            self.failed_because = Some(error.to_string());
        }
        self.last_words.insert(slot, error.to_string());
        self.boot_failure = Some(Failure::Start(error));
    }

    /// A worker's process executes its program, or reports what prevents that. It ends then.
    pub fn executed(
        &mut self,
        id: WorkerId,
        result: Result<Option<Notifier>, SpawnError>,
        workers: &mut Pool,
        fleet: &Fleet,
    ) {
        let Some((worker, starter)) = workers.get_with_starter(id) else { return };
        worker.executes = Executes::Yes;
        let supervised = match result {
            Ok(None) => return,
            Ok(Some(notifier)) => starter.supervise(worker, notifier).map_err(StartError::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = supervised {
            worker.executes = Executes::Never;
            let (slot, generation) = (worker.slot, worker.generation);
            // If the report was lost on the master's side, the process would wait forever.
            let _ = reap::signal_group(worker.pid, Signal::SIGKILL);
            self.cannot_start(fleet, slot, id, generation, error);
        }
    }

    /// Keeps what a worker said before it failed, for later questions. Adds advice if it went into the background, and
    /// if another worker has the address for itself.
    pub fn remember_words(
        &mut self,
        worker: &Worker,
        fleet: &Fleet,
        exit: Exit,
        background: Option<&str>,
        bypass: Option<&str>,
    ) {
        // A worker that went into the background never served.
        let starting = background.is_some() || fleet.occupant(worker.id).is_some_and(Occupant::is_starting);
        if worker.executes == Executes::Never {
            // What prevented that is known already.
            return;
        }
        let said = said(worker);
        let ended = match background {
            None => format!("`{}` ended with {exit}", command_of(worker)),
            Some(advice) => format!("`{}` went into the background, which ends it here: {advice}", command_of(worker)),
        };
        self.last_words.insert(worker.slot, format!("{ended}; {said}"));
        let lines = [worker.last_words.now(), worker.last_out.now()].concat();
        self.written.insert(worker.slot, lines.join("\n"));
        if starting && fleet.reloading() == Some(worker.generation) {
            let advice = if fleet.is_old_first() { "" } else { old_first_advice(worker) };
            self.failed_because = Some(format!("{ended}; {said}{advice}"));
        }
        if starting && (background.is_some() || fleet.was_never_ready()) {
            let bypass = bypass.map(|found| format!("\n{found}")).unwrap_or_default();
            let message = match background {
                None => format!("no worker came up: {ended} before it listened; {said}{bypass}"),
                Some(_) => format!("no worker came up: {ended}; {said}{bypass}"),
            };
            // The refusal of an address explains more than what the worker wrote about it.
            if !matches!(self.boot_failure, Some(Failure::Bind { .. })) {
                self.boot_failure = Some(Failure::GaveUp(message));
            }
        }
    }

    /// The same for a worker that is killed because it failed.
    pub fn remember_kill(&mut self, worker: &Worker, fleet: &Fleet, because: KillReason, elsewhere: Option<String>) {
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
        let failed = format!("`{}` {why} and was killed; {}", command_of(worker), said(worker));
        let late = because == KillReason::BootTimeout;
        if late && worker.generation != fleet.generation() {
            self.failed_because = Some(elsewhere.unwrap_or_else(|| failed.clone()));
        }
        if late && fleet.was_never_ready() {
            self.boot_failure = Some(Failure::GaveUp(format!("no worker came up: {failed}")));
        }
        self.last_words.insert(worker.slot, failed);
    }

    /// A slot is left alone.
    pub fn rest(&self, slot: Slot, failures: u32, window: Duration) {
        let words = self.last_words.get(&slot).cloned().unwrap_or_default();
        let window = humantime::format_duration(window).to_string();
        error!(
            slot = slot.0,
            failures, window, words, "a slot failed too often and rests; reload or scale brings it back"
        );
    }

    /// All slots are left alone, so the master will end with an error.
    pub fn nobody_left(&mut self, fleet: &Fleet) {
        self.failure.get_or_insert(Failure::NobodyLeft(self.why_slots_rest(fleet)));
    }

    #[must_use]
    pub fn why_slots_rest(&self, fleet: &Fleet) -> String {
        let why = |slot: Slot| format!("slot {slot}: {}", self.last_words.get(&slot).map_or("", |words| words));
        fleet.resting().map(why).collect::<Vec<_>>().join("\n")
    }

    pub fn give_up(&mut self, slot: Slot, attempts: u32) {
        error!(slot = slot.0, attempts, "no worker came up, giving up");
        let why = self.boot_failure.take();
        self.failure = Some(why.unwrap_or_else(|| Failure::GaveUp("no worker came up".to_owned())));
    }
}

/// The command of a worker, as it was given.
fn command_of(worker: &Worker) -> String {
    worker.config.command.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// What a worker wrote last, in words.
fn said(worker: &Worker) -> String {
    let (words, out) = (worker.last_words.now(), worker.last_out.now());
    match (words.is_empty(), out.is_empty()) {
        (true, true) => "it wrote nothing to its standard error".to_owned(),
        (false, true) => format!("its last words:\n  {}", words.join("\n  ")),
        (true, false) => format!("its last words, on its standard output:\n  {}", out.join("\n  ")),
        (false, false) => {
            format!("its last words:\n  {}\non its standard output:\n  {}", words.join("\n  "), out.join("\n  "))
        }
    }
}

/// Words by which servers say that another of their kind runs, or has their lock or pid file.
const ONE_AT_A_TIME: [&str; 7] =
    ["already running", "another instance", "lock", "locked", "lockfile", "pid", "pidfile"];

/// What to do if the old and the new worker cannot run at the same time.
fn old_first_advice(worker: &Worker) -> &'static str {
    let words = worker.last_words.now().into_iter().chain(worker.last_out.now());
    match words.into_iter().any(|line| says_one_at_a_time(&line)) {
        true => {
            "\nif two of it cannot run at once, let the old one leave first: `maitred restart`, or start maitred with --max-surge 0 --max-unavailable 1"
        }
        false => "",
    }
}

fn says_one_at_a_time(line: &str) -> bool {
    let line = line.to_lowercase();
    let words = || line.split(|c: char| !c.is_alphanumeric());
    ONE_AT_A_TIME
        .iter()
        .any(|known| if known.contains(' ') { line.contains(known) } else { words().any(|w| w == *known) })
}

/// What to do about an address that cannot be bound.
pub fn advice(address: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let port = address.rsplit(':').next().unwrap_or_default();
            match address.starts_with("unix:") {
                true => "; another server listens there".to_owned(),
                false => format!("; find its owner with ss -ltnp 'sport = :{port}', or choose another port"),
            }
        }
        Some(libc::ENOENT) if address.starts_with("unix:") => "; create its directory first".to_owned(),
        Some(libc::EACCES) if address.starts_with("unix:") => "; the directory must be writable".to_owned(),
        Some(libc::EACCES) => "; use a port above 1023, or grant CAP_NET_BIND_SERVICE".to_owned(),
        Some(libc::EADDRNOTAVAIL) => "; no interface of this machine has that address".to_owned(),
        Some(libc::EBADF) => "; no such descriptor was passed to maitred".to_owned(),
        _ if error.kind() == io::ErrorKind::AlreadyExists => "; there is a file that is no socket".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_when_another_one_runs_is_known() {
        for line in [
            "httpd (pid 12) already running",
            "unable to open /run/x.pid: File exists",
            "Can't acquire lock on data directory",
            "FATAL: Another instance of this program runs",
            "/var/lib/x is locked",
        ] {
            assert!(says_one_at_a_time(line), "{line}");
        }
        for line in ["the block is too rapid", "clock skew", "cannot open configuration"] {
            assert!(!says_one_at_a_time(line), "{line}");
        }
    }
}
