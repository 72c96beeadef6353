//! The program that this process executes, what is around it, and its replacement under way.

use super::hook::Hook;
use super::pid_file::PidFile;
use super::recorder::Recorder;
use super::service::Manager;
use super::signals::SignalThread;
use super::upgrade::state::State;
use crate::admin::{AdminError, Bound, Serving, Source, TokenFile};
use crate::clock;
use crate::config::Config;
use crate::config::admin::Admin;
use crate::config::bind::Bind;
use crate::control;
use crate::control::server::ControlSocket;
use crate::core::fleet::Fleet;
use crate::core::moment::Moment;
use crate::logs::Sink;
use crate::reports::Reports;
use crate::sys::socket::inherited::Inherited;
use nix::unistd::Pid;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where lines go.
#[derive(Clone, Debug)]
pub struct Logs {
    /// The workers' standard output.
    pub out: Sink,
    /// The workers' error output.
    pub err: Sink,
    /// The log.
    pub log: Sink,
}

impl Logs {
    /// Lines that could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        [&self.out, &self.err, &self.log].into_iter().map(Sink::lost).sum()
    }

    /// Opens the files again; says whether there are any.
    pub fn reopen(&self) -> bool {
        let files = [&self.out, &self.err, &self.log].into_iter().filter(|sink| sink.is_file());
        files.map(Sink::reopen).count() > 0
    }
}

/// The program around the master.
pub struct Host {
    /// The executable, as it was called.
    pub executable: PathBuf,
    /// Writes what is still to be logged, unless the log has no reader.
    pub settle_log: Box<dyn Fn()>,
    /// Where lines go.
    pub logs: Logs,
    /// Who started this in the background waits here for a line: the first generation serves.
    pub started: Option<OwnedFd>,
    /// Sockets that this process was started with.
    pub inherited: Inherited,
    /// The state of the program that this one replaces.
    pub resume: Option<Box<State>>,
    /// To be called when it is certain that this program goes on.
    pub goes_on: Box<dyn Fn()>,
}

/// The program that this process executes.
pub struct Program {
    /// What is around it.
    pub host: Host,
    /// The thread that signals interrupt.
    pub signals: SignalThread,
    /// When the first program of this process started.
    pub since: Moment,
    /// A replacement under way.
    pub upgrade: Option<Upgrade>,
    /// How often the program was replaced.
    pub upgrades: u32,
    /// Who started this, if that wants to hear of it.
    pub manager: Option<Manager>,
    /// The socket for commands, if it could be made.
    pub control: Option<ControlSocket>,
    /// The file with this process's number.
    pub pid_file: Option<PidFile>,
    /// Tells a command what happens.
    pub hook: Option<Hook>,
    /// Serves the admin addresses.
    pub admin: Option<Serving>,
    /// Writes down what happens.
    pub recorder: Recorder,
    /// Whether a whole generation served.
    pub has_served: bool,
}

impl Program {
    /// A program that has just started.
    #[must_use]
    pub fn new(host: Host, signals: SignalThread, manager: Option<Manager>) -> Program {
        let since = clock::now();
        Program {
            host,
            signals,
            since,
            upgrade: None,
            upgrades: 0,
            manager,
            control: None,
            pid_file: None,
            hook: None,
            admin: None,
            recorder: Recorder::begin(),
            has_served: false,
        }
    }

    /// Tells the command of `--on-event` what happens, if there is one; it knows everything up to this event.
    pub fn begin_to_tell(&mut self, config: &Config, told: u64) {
        let (name, journal) = (config.name.clone(), self.recorder.journal.clone());
        self.hook = config.admin.on_event.clone().map(|command| Hook::begin(command, name, journal, told));
    }

    /// Serves the admin addresses, if there are any, on the sockets that `bind` makes or has.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn serve_admin(
        &mut self,
        config: &Config,
        requests: Reports<control::Event>,
        bind: impl FnOnce(&[Bind], &TokenFile) -> Result<Bound, AdminError>,
    ) -> Result<(), AdminError> {
        let Admin { addresses, token_file, .. } = &config.admin;
        if !addresses.is_empty() {
            let bound = bind(addresses, &TokenFile::of(token_file.clone(), &config.name)?)?;
            let (name, journal) = (config.name.clone(), self.recorder.journal.clone());
            self.admin = Some(bound.serve(Source::Own { name, requests, journal })?);
        }
        Ok(())
    }

    /// Tells who started this in the background, once, that the first generation serves.
    pub fn report_start(&mut self, fleet: &Fleet) {
        // A slot that is left alone after too many failures comes no more.
        if self.host.started.is_some() && (fleet.all_ready() || fleet.resting().next().is_some()) {
            // If nobody waits any more, nobody needs to know.
            let _ = self.host.started.take().map(|started| nix::unistd::write(&started, b"\n"));
        }
    }
}

/// A replacement under way.
#[derive(Debug)]
pub struct Upgrade {
    /// The client that asked for it.
    pub client: Option<OwnedFd>,
    /// How far it is.
    pub stage: Stage,
}

/// How far a replacement is.
#[derive(Debug)]
pub enum Stage {
    /// A reload must be done first.
    Waits,
    /// The trial of the new binary runs.
    Checking(Pid, Identity),
    /// The new binary understands the state.
    Checked(Identity),
}

/// Which file it is, so that the file that is executed is the one that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Identity {
    /// The identity of the file at a path.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn of(path: &Path) -> io::Result<Identity> {
        let file = std::fs::metadata(path)?;
        let changed = (file.mtime(), file.mtime_nsec());
        Ok(Identity { device: file.dev(), inode: file.ino(), length: file.len(), changed })
    }
}
