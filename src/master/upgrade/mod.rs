//! Replacing the master's own binary: the process, its children, and every open descriptor stay; the new
//! program goes on where the old one was. Workers and connections notice nothing.
//!
//! First a trial of the new binary shows whether it understands the state. Only then the old program ends. Whatever
//! goes wrong before that leaves everything as it was. What goes wrong after that, before the new program's loop
//! begins, leads back to the old one.

mod check;
mod fallback;
mod resume;
pub mod state;
mod write;

pub use check::{HANDSHAKE, handshake};
pub use fallback::{Fallback, Prepared, failed};

#[cfg(fuzzing)]
pub(crate) fn is_state(bytes: &[u8]) -> bool {
    // What is understood can also be written down.
    state::understand(bytes).is_ok_and(|state| serde_json::to_vec(&state).is_ok())
}

use super::event::Event;
use super::hook::Hook;
use super::program::{Identity, Stage, Upgrade};
use super::run::Master;
use super::signals::Heed;
use crate::adapt::elf;
use crate::control::{done, refusal};
use crate::core::{fleet, visible};
use crate::sys::dispose;
use crate::sys::exec::Passing;
use crate::sys::memfd;
use crate::wire::environment;
use crate::workers::output::Stream;
use crate::workers::worker::Executes;
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

/// How long to wait for what would be cut off: clients of the control socket, processes of workers that ask for an
/// address, connections that a worker returned.
const QUIET_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two looks at them.
const QUIET_PAUSE: Duration = Duration::from_millis(2);
/// How many looks in a row must find no event.
const QUIET_LOOKS: u32 = 3;

impl Master {
    /// `USR2`, or `maitred upgrade`.
    pub(super) fn upgrade_asked(&mut self, client: Option<OwnedFd>) {
        let refused = if self.fleet.is_stopping() {
            Some("this maitred is stopping")
        } else if self.program.upgrade.is_some() {
            Some("an upgrade is under way already")
        } else {
            None
        };
        if let Some(why) = refused {
            warn!(why, "no upgrade");
            return tell(client.as_ref(), &refusal(why));
        }
        if self.fleet.reloading().is_some() {
            info!("the upgrade waits until the reload is done");
        }
        self.program.upgrade = Some(Upgrade { client, stage: Stage::Waits });
    }

    /// Our own processes that are no workers: the trial of a new binary, and the command that is told of events.
    pub(super) fn helpers(&self) -> Vec<Pid> {
        self.checking().into_iter().chain(self.program.hook.as_ref().and_then(Hook::process)).collect()
    }

    fn checking(&self) -> Option<Pid> {
        match self.program.upgrade.as_ref()?.stage {
            Stage::Checking(pid, _) => Some(pid),
            Stage::Waits | Stage::Checked(_) => None,
        }
    }

    /// The trial of the new binary is done.
    pub(super) fn upgrade_checked(&mut self, result: Result<String, String>) {
        let Some(upgrade) = &mut self.program.upgrade else { return };
        match (result, &upgrade.stage) {
            (Ok(_), Stage::Checking(_, identity)) => upgrade.stage = Stage::Checked(*identity),
            (Ok(_), Stage::Waits | Stage::Checked(_)) => {}
            (Err(why), _) => self.give_upgrade_up(&why),
        }
    }

    fn give_upgrade_up(&mut self, why: &str) {
        error!(why, "no upgrade; this binary goes on");
        if let Some(upgrade) = self.program.upgrade.take() {
            tell(upgrade.client.as_ref(), &refusal(&format!("{why}; the running binary goes on")));
        }
    }

    /// The next step of an upgrade, if there is one and it is time. Does not return when it succeeds.
    pub(super) async fn go_on_with_upgrade(&mut self, events: &mut mpsc::Receiver<Event>) {
        let Some(upgrade) = self.program.upgrade.as_ref().filter(|_| self.fleet.reloading().is_none()) else { return };
        if self.fleet.is_stopping() {
            return self.give_upgrade_up("this maitred is stopping");
        }
        match upgrade.stage {
            Stage::Waits => {
                if let Err(error) = self.begin_check() {
                    let path = self.program.host.executable.display().to_string();
                    self.give_upgrade_up(&format!("cannot try {path}: {error}"));
                }
            }
            Stage::Checking(..) => {}
            Stage::Checked(identity) => {
                if let Err(why) = self.replace_program(identity, events).await {
                    self.give_upgrade_up(&why);
                }
            }
        }
    }

    fn begin_check(&mut self) -> io::Result<()> {
        let identity = Identity::of(&self.program.host.executable)?;
        if !elf::is_whole(&std::fs::File::open(&self.program.host.executable)?)? {
            return Err(io::Error::other("the file is not complete"));
        }
        let passing = Passing::default();
        let state = self.state(&passing, &[])?;
        let file = memfd::sealed(c"maitred-state", &state)?;
        let checked = check::run(&self.program.host.executable, &file, &passing, self.workers.starter.descriptors)
            .map_err(io::Error::other)?;
        if let Some(upgrade) = &mut self.program.upgrade {
            upgrade.stage = Stage::Checking(checked.pid, identity);
        }
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let result = checked.wait().await;
            let _ = events.send(Event::Checked { result }).await;
        });
        Ok(())
    }

    /// Waits until nothing would be cut off, and executes the new binary.
    async fn replace_program(&mut self, identity: Identity, events: &mut mpsc::Receiver<Event>) -> Result<(), String> {
        // Signals that come from here on wait for the next program.
        self.program.signals.heed(Heed::Later);
        let mut streams = None;
        let replaced = match self.become_quiet(events, &mut streams).await {
            Ok(()) => self.replace_now(identity, streams.as_deref().unwrap_or_default()),
            Err(why) => Err(why),
        };
        for stream in streams.into_iter().flatten() {
            self.workers.starter.output.add(stream);
        }
        self.workers.starter.rendezvous.go_on();
        self.program.signals.heed(Heed::Now);
        replaced
    }

    fn replace_now(&mut self, identity: Identity, streams: &[Stream]) -> Result<(), String> {
        if self.fleet.reloading().is_some() || self.fleet.is_stopping() || self.end.finished {
            // Something began meanwhile. The upgrade is tried again later.
            return Ok(());
        }
        self.program.hook.iter().for_each(Hook::abandon);
        let path = self.program.host.executable.clone();
        if Identity::of(&path).ok() != Some(identity) {
            return Err(format!("{} changed while it was tried", path.display()));
        }
        let passing = Passing::default();
        let replaced = self.state(&passing, streams).and_then(|state| {
            let file = memfd::sealed(c"maitred-state", &state)?;
            let old = OwnedFd::from(std::fs::File::open("/proc/self/exe")?);
            let set = [
                (environment::UPGRADE.into(), format!("resume {}", file.as_raw_fd()).into()),
                (environment::UPGRADE_BACK.into(), old.as_raw_fd().to_string().into()),
            ];
            passing.pass(&file);
            passing.pass(&old);
            info!(executable = %path.display(), "executing the new binary");
            (self.program.host.settle_log)();
            passing.replace(&path, std::env::args_os().collect(), fallback::environment_with(&set))
        });
        let Err(error) = replaced;
        Err(format!("cannot execute {}: {error}", path.display()))
    }

    /// Handles all events, waits for what would be cut off, and takes the workers' output streams back. When it
    /// returns, no event is left, and none can come before the next `await`.
    async fn become_quiet(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        streams: &mut Option<Vec<Stream>>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + QUIET_TIMEOUT;
        let (mut quiet, mut giving_back) = (0, None);
        loop {
            while let Ok(event) = events.try_recv() {
                quiet = 0;
                self.handle(event).await;
                self.steer();
            }
            let in_hands = self.front.common.in_hands.get() > 0;
            let deferred = self.front.common.deferred.get() > 0 || self.front.common.unsent.get() > 0;
            let asking = self.workers.starter.rendezvous.is_busy();
            let clients = self.program.control.as_ref().is_some_and(|control| control.is_busy());
            // What starting workers report comes on a descriptor that only this program reads.
            let starting = self.workers.values().any(|worker| worker.executes == Executes::NotYet);
            // The call that executes the new program would close what is still to be closed.
            let busy = in_hands || deferred || starting || asking || clients || dispose::is_busy();
            let late = busy && Instant::now() >= deadline;
            if late {
                if in_hands {
                    return Err("connections that workers sent back find no other worker".to_owned());
                }
                if starting {
                    return Err("a worker's process does not come to execute its program".to_owned());
                }
                if streams.is_some() {
                    warn!(asking, clients, "an upgrade cuts somebody off who asked this maitred something");
                    return Ok(());
                }
            }
            if (late || !busy && quiet >= QUIET_LOOKS) && streams.is_none() {
                let coming = giving_back.get_or_insert_with(|| self.workers.starter.output.give_back());
                *streams = coming.poll().map_err(|_| {
                    "nobody reads the output of this maitred, so workers' lines would be lost".to_owned()
                })?;
                if streams.is_none() {
                    sleep(QUIET_PAUSE).await;
                }
                continue;
            }
            if !busy && quiet >= QUIET_LOOKS && self.workers.starter.rendezvous.pause() {
                if events.is_empty() {
                    return Ok(());
                }
                self.workers.starter.rendezvous.go_on();
                continue;
            }
            if busy {
                quiet = 0;
                sleep(QUIET_PAUSE).await;
                self.handle_fleet(fleet::Event::Tick).await;
            } else {
                quiet += 1;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Tells the client that asked for the upgrade. The program that goes on does this.
    pub(super) fn upgrade_done(&self, client: Option<&OwnedFd>, from: &str, failed: Option<&str>) {
        if let Some(why) = failed {
            error!(why, "the new binary could not go on; this one does again");
            return tell(client, &refusal(&format!("the new binary could not go on: {why}; the old one goes on")));
        }
        let to = env!("CARGO_PKG_VERSION");
        info!(from, to, upgrades = self.program.upgrades, "the new binary goes on");
        self.program.recorder.upgraded(from, to);
        tell(client, &done(&format!("version {to} goes on in the place of {from}")));
    }
}

/// Answers a client of the control socket.
fn tell(client: Option<&OwnedFd>, answer: &str) {
    if let Some(client) = client {
        // It fits into the socket's buffer; a client that is gone needs no answer.
        let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL | nix::sys::socket::MsgFlags::MSG_DONTWAIT;
        let _ = nix::sys::socket::send(client.as_raw_fd(), format!("{}\n", visible::json(answer)).as_bytes(), flags);
    }
}

/// What another master ordered this program to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Say whether the state at this descriptor is understood.
    Check(i32),
    /// Go on from there.
    Resume(i32),
}

/// The order of another master, if there is one.
#[must_use]
pub fn task() -> Option<Task> {
    let text = std::env::var(environment::UPGRADE).ok()?;
    let (what, number) = text.split_once(' ')?;
    let number = number.parse().ok()?;
    match what {
        "check" => Some(Task::Check(number)),
        "resume" => Some(Task::Resume(number)),
        _ => None,
    }
}

/// The executable as it was called: the next version will be found there, even if the name is a link that is changed.
#[must_use]
pub fn executable() -> PathBuf {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let found = match called.components().count() {
        0 => None,
        1 if !called.has_root() => std::env::var_os("PATH")
            .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join(&called)).find(|file| file.is_file())),
        _ => std::path::absolute(&called).ok().filter(|file| file.is_file()),
    };
    found.or_else(|| std::env::current_exe().ok()).unwrap_or(called)
}
