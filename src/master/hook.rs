//! Tells a command of the operator's what happens (`--on-event`): for pagers and chat. One runs at a time and for a
//! limited time, and none holds up the master: what happens meanwhile waits in the journal, and what is not kept there
//! any more is counted.

use crate::control::journal::{Happened, Journal};
use crate::sys::process::attributes::Attributes;
use crate::sys::process::spawn::{self, Child, Program, SpawnError, Stream};
use crate::sys::process::{limits, reap};
use crate::sys::watch;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

/// How long a command may take before it is killed.
const RUNS_WITHIN: Duration = Duration::from_secs(10);
/// What a pipe has room for at least, where a user has used up what pipes may have (`pipe(7)`). An event is longer only
/// when a worker said very much before it ended.
const PIPE_ROOM: usize = 4096;
/// The shell that reads the command (`sh(1)`).
const SHELL: &str = "/bin/sh";

/// The command, while the master runs.
#[derive(Clone, Debug, Default)]
pub struct Hook(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The process that is told something now.
    running: Cell<Option<Pid>>,
    /// The number of the last event that was told.
    told: Cell<u64>,
    has_told: Notify,
    /// Whether nothing more is told for now.
    rests: Cell<bool>,
    goes_on: Notify,
    failed: Cell<u64>,
}

impl Hook {
    /// Tells the command of each event after this one, from now on.
    #[must_use]
    pub fn begin(command: String, name: String, journal: Journal, told: u64) -> Hook {
        let hook = Hook::default();
        hook.0.told.set(told);
        tokio::task::spawn_local(hook.clone().run(command, name, journal));
        hook
    }

    /// The process that is told something now. The master ends it only with itself.
    #[must_use]
    pub fn process(&self) -> Option<Pid> {
        self.0.running.get()
    }

    /// Tells nothing more while the master ends whatever descends from it.
    pub fn rest(&self) {
        self.0.rests.set(true);
    }

    /// Ends what is told now: this program is about to be replaced, and the next one tells it again.
    pub fn abandon(&self) {
        // If it is gone, nothing needs to be done.
        let _ = self.process().map(|pid| reap::signal_group(pid, Signal::SIGKILL));
    }

    /// The number of the last event that was told.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.0.told.get()
    }

    /// Waits until everything was told.
    pub async fn tells_all(&self, journal: &Journal) {
        self.0.rests.set(false);
        self.0.goes_on.notify_one();
        while self.told() < journal.last() {
            self.0.has_told.notified().await;
        }
    }

    async fn run(self, command: String, name: String, journal: Journal) {
        loop {
            let new = journal.peek(journal.id(), self.told());
            if new.events.is_empty() {
                journal.grows().await;
                continue;
            }
            let mut missed = new.missed;
            for event in &new.events {
                while self.0.rests.get() {
                    self.0.goes_on.notified().await;
                }
                if let Err(why) = self.tell(&command, &name, event, std::mem::take(&mut missed)).await {
                    self.0.failed.set(self.0.failed.get() + 1);
                    let failed = self.0.failed.get();
                    if failed.is_power_of_two() {
                        warn!(why, failed, "the command of --on-event failed");
                    }
                }
                self.0.told.set(event.number);
                self.0.has_told.notify_one();
            }
        }
    }

    async fn tell(&self, command: &str, name: &str, event: &Happened, missed: u64) -> Result<(), String> {
        let child = start(command, name, event, missed).map_err(|error| error.to_string())?;
        self.0.running.set(Some(child.pid));
        let pid = child.pid;
        let ended = timeout(RUNS_WITHIN, ends(child)).await;
        if ended.is_err() {
            let _ = reap::signal_group(pid, Signal::SIGKILL);
        }
        self.0.running.set(None);
        match ended {
            Ok(ended) => ended,
            Err(_) => Err(format!("it had not ended after {} and was killed", humantime::format_duration(RUNS_WITHIN))),
        }
    }
}

/// Waits for the end of the command.
async fn ends(child: Child) -> Result<(), String> {
    let pidfd = watch::readable(child.pidfd).map_err(|error| error.to_string())?;
    loop {
        let mut ready = pidfd.readable().await.map_err(|error| error.to_string())?;
        match reap::reap(pidfd.get_ref().as_fd()) {
            Ok(Some(exit)) if exit.success() => return Ok(()),
            Ok(Some(exit)) => return Err(format!("it ended with {}", crate::core::fleet::Exit::from(exit))),
            Ok(None) => ready.clear_ready(),
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn start(command: &str, name: &str, event: &Happened, missed: u64) -> Result<Child, SpawnError> {
    let call = |call| move |source| SpawnError::Call { call, source };
    let line = serde_json::to_string(event).unwrap_or_default();
    let stdin = filled(format!("{line}\n").as_bytes()).map_err(call("pipe2(2)"))?;
    let value = serde_json::to_value(event).unwrap_or_default();
    let said = |key: &str| match value.get(key) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(number) => number.to_string(),
        None => String::new(),
    };
    let mut env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let keys = ["event", "number", "time", "slot", "worker", "pid", "generation", "address", "workers", "why", "words"];
    let variable = |key: &str| match key {
        "event" => "MAITRED_EVENT".to_owned(),
        key => format!("MAITRED_EVENT_{}", key.to_uppercase()),
    };
    env.extend(keys.map(|key| (variable(key).into(), said(key).replace('\0', "").into())));
    env.push(("MAITRED_NAME".into(), name.into()));
    env.push(("MAITRED_EVENTS_MISSED".into(), missed.to_string().into()));
    spawn::spawn(&Program {
        path: PathBuf::from(SHELL),
        args: ["sh", "-c", command].map(OsString::from).to_vec(),
        env,
        cwd: None,
        stdin: Some(stdin),
        stdout: Stream::Inherit,
        stderr: Stream::Inherit,
        keep: Vec::new(),
        listen_fds: Vec::new(),
        placed: Vec::new(),
        descriptors: limits::descriptor_limit().map_or(1024, |limit| limit.soft),
        watched: None,
        attributes: Attributes::default(),
    })
}

/// A pipe from which these bytes come, and nothing else.
fn filled(bytes: &[u8]) -> io::Result<OwnedFd> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // Nobody reads yet, so what has no room would be waited for.
    let fits = bytes.get(..PIPE_ROOM).unwrap_or(bytes);
    nix::unistd::write(&write, fits)?;
    Ok(read)
}
