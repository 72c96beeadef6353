//! Starting one worker: its environment, its descriptors, its process, and the tasks that watch it.

use super::Events;
use super::channel;
use super::environment::{arguments, how, is_scrubbed, lookup, of_user, replaced, unix_paths};
use super::form::Form;
use super::leftovers::Leftovers;
use super::looks::Looks;
use super::notify;
use super::output::{self, Kind, LastWords, Output, Stream};
use super::rendezvous::Rendezvous;
use super::supervised::Supervised;
use super::unclaimed::Unclaimed;
use super::watching::{look_at, look_for_closed, watch};
use super::worker::{Executes, Worker};
use crate::adapt::inspect::Executable;
use crate::adapt::preload::Shim;
use crate::adapt::preset::{self, Input, Offered};
use crate::adapt::{self, Chosen};
use crate::clock;
use crate::config::life::Ready;
use crate::config::{Config, Mode};
use crate::core::health::Health;
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::front::common::Common;
use crate::front::listener::Origin;
use crate::front::listeners::Listeners;
use crate::sys::dispose::Foreign;
use crate::sys::process::attributes::under;
use crate::sys::process::descent::Kin;
use crate::sys::process::guard::Guard;
use crate::sys::process::spawn;
use crate::sys::process::spawn::Report;
use crate::sys::seccomp::{Notifier, Watched};
use crate::sys::secret::secret;
use crate::sys::taken::Taken;
use crate::sys::{fd, watch};
use crate::wire::environment as env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// The channel's number in the worker; high, so that a worker's own low numbers stay dense.
const CHANNEL_FD: i32 = 100;
/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command is not there any more, or cannot be executed.
    #[error(transparent)]
    NotExecutable(#[from] adapt::inspect::NotExecutable),
    /// The command cannot take part.
    #[error(transparent)]
    Adapt(#[from] adapt::AdaptError),
    /// The command cannot be looked for.
    #[error("cannot look for the command under --chroot {}: {source}; it needs root, or CAP_SYS_CHROOT", root.display())]
    Root {
        /// The root directory.
        root: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Descriptors or memory ran out.
    #[error("cannot prepare a worker: {}{}", .0, crate::sys::process::needs::advice(.0))]
    Prepare(#[from] io::Error),
    /// The process could not be made.
    #[error(transparent)]
    Spawn(#[from] spawn::SpawnError),
}

/// The shim of an older version.
#[derive(Debug)]
pub struct OldShim {
    /// Its file.
    pub file: OwnedFd,
    /// The last worker that was started with it.
    pub newest: WorkerId,
}

/// What every worker is started with.
#[derive(Debug)]
pub struct Starter {
    /// The configuration.
    pub config: Rc<Config>,
    /// Kills what is left of the workers if the master is killed.
    pub guard: Rc<Guard>,
    /// The thread that ends what workers leave behind.
    pub leftovers: Leftovers,
    /// Children that this process had before it was maitred.
    pub earlier: Vec<Kin>,
    /// The shim, as a file for the loader.
    pub shim: Shim,
    /// Shims of older versions, which workers that live still have.
    pub old_shims: Vec<OldShim>,
    /// The other way to the master.
    pub rendezvous: Rendezvous,
    /// The thread that passes output on.
    pub output: Output,
    /// Whether lines get the slot before them.
    pub form: Form,
    /// Soft limit of descriptors that workers start with.
    pub descriptors: u64,
    /// Where what workers accept by themselves is counted.
    pub taken: Option<Taken>,
    /// What all of the master shares.
    pub common: Rc<Common>,
    /// Where the events of the worker are reported.
    pub events: Events,
}

impl Starter {
    /// Looks at the command and chooses the adapter.
    ///
    /// # Errors
    /// [`StartError::NotExecutable`] or [`StartError::Adapt`].
    pub fn look(&self, config: &Config) -> Result<(Executable, Chosen, String), StartError> {
        let path = lookup(config, OsStr::new("PATH"));
        let (command, directory) = (&config.command, config.directory());
        let inspect = || adapt::inspect::inspect(command, path.as_deref(), directory);
        let executable = match config.process.root() {
            None => inspect()?,
            Some(root) => {
                under(root, inspect).map_err(|source| StartError::Root { root: root.to_owned(), source })??
            }
        };
        let (chosen, reason) = adapt::choose(config.into(), &executable)?;
        Ok((executable, chosen, reason))
    }

    /// Forks a worker into a slot.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        &self,
        slot: Slot,
        id: WorkerId,
        generation: Generation,
        config: &Rc<Config>,
        listeners: &Listeners,
    ) -> Result<Worker, StartError> {
        let (executable, adapter, _) = self.look(config)?;
        let (ours, theirs) = fd::pair()?;
        // The master does what is asked for on the channel with the rights of the process that asks. This comes before
        // there is a worker: what is sent earlier has no sender (`maybe_add_creds` in net/unix/af_unix.c).
        socket2::SockRef::from(&ours).set_passcred(true)?;
        let theirs = fd::duplicate_above(theirs.as_fd(), CHANNEL_FD)?;
        let channel_inode = fd::inode(theirs.as_fd())?;
        let token = secret()?;
        let (notify_name, notify_socket) = notify::open()?;
        let (last_words, last_out) = (Arc::new(LastWords::default()), Arc::new(LastWords::default()));
        let (inherited, offered) = match config.mode {
            Mode::Shared | Mode::Kernel => operator_sockets(listeners, slot)?,
            Mode::Handoff => (Vec::new(), Vec::new()),
        };
        let input = match (adapter, config.preset) {
            (Chosen::Inherit, Some(preset)) => preset.input(),
            (Chosen::Inherit, None) => Input::Listener,
            (Chosen::Preload | Chosen::Seccomp | Chosen::Native, _) => Input::Null,
        };
        let input = inherited.first().filter(|_| input == Input::Listener).map(OwnedFd::try_clone).transpose()?;
        let additions = config.preset.map(|preset| preset.additions(&offered)).unwrap_or_default();
        if additions.nonblocking {
            inherited.iter().try_for_each(|socket| fd::set_nonblocking(socket.as_fd()))?;
        }
        let (error_read, error_write) = output::pipe(config.workers)?;
        let (out_read, out_write) = if self.form != Form::Plain || self.output.takes_all() {
            output::pipe(config.workers).map(|(r, w)| (Some(r), spawn::Stream::Pipe(w)))?
        } else {
            (None, spawn::Stream::Inherit)
        };

        let identity =
            [("{slot}", slot.to_string()), ("{worker}", id.to_string()), ("{generation}", generation.to_string())];
        let own = [
            (env::SLOT, slot.to_string()),
            (env::WORKER, id.to_string()),
            (env::GENERATION, generation.to_string()),
            (env::CHANNEL, theirs.as_raw_fd().to_string()),
            (env::CHANNEL_INODE, channel_inode.to_string()),
            (env::FAMILY, self.guard.family()),
            (env::RENDEZVOUS, format!("{} {token}", self.rendezvous.name())),
            (env::MASTER, std::process::id().to_string()),
            (env::UNIX_PATHS, unix_paths(listeners)),
            (env::NODE_APP_INSTANCE, slot.to_string()),
            (env::HOW, how(config, listeners)),
            (env::NOTIFY_SOCKET, notify_name),
        ];
        let count = self.taken.as_ref().filter(|_| !offered.is_empty());
        let count = count.map(|taken| (env::COUNT, format!("{} {}", Taken::place(slot.index()), taken.path())));
        let mut variables: Vec<(OsString, OsString)> =
            std::env::vars_os().filter(|(name, _)| !is_scrubbed(name)).collect();
        let mut set = |name: &OsStr, value: OsString| {
            variables.retain(|(n, _)| n != name);
            variables.push((name.to_owned(), value));
        };
        for (name, value) in own.into_iter().chain(count) {
            set(OsStr::new(name), value.into());
        }
        let attributes = config.process.of(slot);
        for (name, value) in of_user(&attributes) {
            set(OsStr::new(name), value);
        }
        if let Some(limit) = config.life.watchdog {
            set(OsStr::new(env::WATCHDOG_USEC), limit.as_micros().to_string().into());
        }
        if let Some(directory) = config.directory().filter(|directory| directory.is_absolute()) {
            set(OsStr::new(env::PWD), directory.into());
        }
        let first_free = spawn::FIRST_LISTEN_FD + inherited.len() as RawFd;
        let (notification, placed) = match config.life.ready {
            Ready::Fd(number) => {
                let (read, write) = spawn::output_pipe()?;
                let number = number.unwrap_or(first_free).max(first_free);
                set(OsStr::new(env::READY_FD), number.to_string().into());
                (Some(read), vec![(write, number)])
            }
            Ready::Listen | Ready::ListenOn(_) | Ready::Notify | Ready::Http(_) | Ready::Delay(_) => (None, Vec::new()),
        };
        if adapter == Chosen::Preload {
            let present = lookup(config, OsStr::new(env::PRELOAD));
            set(OsStr::new(env::PRELOAD), self.shim.preload(present.as_deref())?);
        }
        let passed = inherited.len() as u32;
        let conventions = preset::conventions(&offered, slot.0, generation.0, std::process::id());
        for (name, value) in conventions.into_iter().filter(|(name, _)| !additions.without.contains(&&**name)) {
            set(OsStr::new(&name), value.into());
        }
        for (name, value) in additions.variables {
            set(OsStr::new(name), value.into());
        }
        for (name, value) in &config.env {
            if name != env::PRELOAD {
                set(name, replaced(value, &identity));
            }
        }

        let keep = [theirs.as_raw_fd()].into_iter().chain(self.shim.inherited()).collect();
        let program = spawn::Program {
            path: executable.path,
            args: arguments(config, &identity, listeners)
                .into_iter()
                .chain(additions.words.into_iter().map(Into::into))
                .collect(),
            env: variables,
            cwd: config.directory().map(std::path::Path::to_owned),
            stdin: input,
            stdout: out_write,
            stderr: spawn::Stream::Pipe(error_write),
            keep,
            listen_fds: inherited,
            placed,
            descriptors: self.descriptors,
            watched: watched(adapter, config.mode),
            attributes,
        };
        let child = spawn::spawn(&program)?;
        self.guard.add(child.pid, Some(channel_inode));
        let unclaimed = Unclaimed::new(child.pid, &self.guard);
        drop((program, theirs));

        let form = &self.form;
        let stream =
            |kind, pipe, last_words| Stream { slot, kind, pipe, form: form.clone(), last_words, partial: Vec::new() };
        self.output.add(stream(Kind::Err, error_read, Some(Arc::clone(&last_words))));
        if let Some(pipe) = out_read {
            self.output.add(stream(Kind::Out, pipe, Some(Arc::clone(&last_out))));
        }
        fd::set_nonblocking(ours.as_fd())?;
        let channel = Rc::new(watch::readable(Foreign::from(ours))?);
        let pidfd = Rc::new(watch::readable(child.pidfd)?);
        let notification = notification.map(watch::readable).transpose()?.map(Rc::new);
        let mut worker = Worker {
            id,
            slot,
            generation,
            config: Rc::clone(config),
            pid: child.pid,
            adapter,
            since: clock::now(),
            token,
            channel_inode,
            channel,
            last_words,
            last_out,
            pidfd,
            notify: Arc::new(Foreign::from(notify_socket)),
            notification,
            requests: Vec::new(),
            datagrams: Vec::new(),
            deaf_moment: None,
            looks: Looks::default(),
            outlived: false,
            ended: None,
            listened: false,
            tasks: Vec::new(),
            supervised: None,
            executes: Executes::NotYet,
            uses_inherited: adapter == Chosen::Inherit,
            passed,
            reported: false,
            ready: false,
            awaits_addresses: false,
            asked: false,
            admitted: false,
            leaves: false,
            target: Rc::default(),
            health: Health::default(),
        };
        unclaimed.claim();
        self.attend(&mut worker, Some(child.report))?;
        Ok(worker)
    }

    /// Supervises a worker's calls from now on.
    ///
    /// # Errors
    /// When the kernel cannot watch one descriptor more.
    pub fn supervise(&self, worker: &mut Worker, notifier: Notifier) -> io::Result<()> {
        worker.supervised = Some(Supervised::new(worker.id, notifier, Rc::clone(&self.common))?);
        self.attend_calls(worker);
        Ok(())
    }

    fn attend_calls(&self, worker: &mut Worker) {
        let Some(supervised) = &worker.supervised else { return };
        let (id, events) = (worker.id, &self.events);
        worker.tasks.push(tokio::task::spawn_local(Rc::clone(supervised).serve(events.clone())));
        worker.tasks.push(tokio::task::spawn_local(look_for_closed(id, Rc::clone(&self.common), self.events.clone())));
    }

    /// Begins to read from a worker and to watch it; first, whether it executes its program, if that is not known.
    ///
    /// # Errors
    /// When the kernel cannot watch one socket more.
    pub fn attend(&self, worker: &mut Worker, report: Option<Report>) -> io::Result<()> {
        let (id, events) = (worker.id, &self.events);
        self.rendezvous.hear(id, &worker.token, &worker.notify, worker.pid)?;
        self.guard.add(worker.pid, Some(worker.channel_inode).filter(|inode| *inode > 0));
        worker.tasks.extend([
            tokio::task::spawn_local(channel::serve(Rc::clone(&worker.channel), id, events.clone())),
            tokio::task::spawn_local(look_at(id, events.clone())),
            tokio::task::spawn_local(watch(report, Rc::clone(&worker.pidfd), id, events.clone())),
        ]);
        self.attend_calls(worker);
        Ok(())
    }
}

/// Which system calls of a worker are supervised.
fn watched(adapter: Chosen, mode: Mode) -> Option<Watched> {
    match (adapter, mode) {
        (Chosen::Seccomp, Mode::Handoff) => Some(Watched::Accepting),
        (Chosen::Seccomp, Mode::Shared | Mode::Kernel) => Some(Watched::Listening),
        (Chosen::Preload | Chosen::Inherit | Chosen::Native, _) => None,
    }
}

/// Copies of the sockets that `--bind` made, in its order, and where the worker will find them; in
/// kernel mode those of the slot.
fn operator_sockets(listeners: &Listeners, slot: Slot) -> io::Result<(Vec<OwnedFd>, Vec<Offered>)> {
    let socket = |listener: &Rc<crate::front::listener::Listener>| match &listener.group {
        Some(group) => group.socket_of(slot).map(Some),
        None => Ok(listener.socket()),
    };
    let (mut sockets, mut offered) = (Vec::new(), Vec::new());
    for listener in listeners.iter().filter(|l| l.origin == Origin::Operator) {
        if let Some(socket) = socket(listener)? {
            let number = spawn::FIRST_LISTEN_FD + sockets.len() as i32;
            offered.push(Offered { number, address: listener.address.clone() });
            sockets.push(socket.as_fd().try_clone_to_owned()?);
        }
    }
    Ok((sockets, offered))
}
