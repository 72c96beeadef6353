//! One validated configuration: whatever is in it can be carried out, as far as that can be known
//! before trying.

pub mod admission;
pub mod bind;
pub mod choice;
pub mod file;
pub mod life;
pub mod private;
pub mod workers;

use crate::adapt::preset::Preset;
use crate::core::fleet::{Plan, Succession};
use admission::Admission;
use bind::Bind;
use choice::{Policy, Weights};
use life::Life;
use nix::sys::signal::Signal;
use private::Private;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// The most slots that a master can have; the figure is generous for 128 cores and keeps a slip of
/// the finger from eating the machine.
pub const WORKERS_MAX: u32 = 1024;
/// Descriptors that one worker costs the master: pidfd, channel, its notification socket, two ends of a
/// hand-off socket, the pipe of who has that, two pipes for its output; when it is supervised, where its calls are reported and a
/// watch on the hand-off socket.
pub const DESCRIPTORS_PER_WORKER: u64 = 10;
/// Descriptors that the master needs for itself.
pub const DESCRIPTORS_OF_MASTER: u64 = 24;
/// The default of `--depth`: enough that a worker is rarely passed over at a moment's delay, so the
/// spread stays exact, and little enough that one that stops holds few connections.
pub const DEPTH_DEFAULT: u32 = 64;
/// The largest depth that an ordinary user's socket buffer (twice `net.core.wmem_max`, 212992 bytes by
/// default) can hold at 768 bytes a connection. Above a quarter of that a full worker is heard of
/// only when it has taken that many (`unix_writable` in net/unix/af_unix.c).
pub const DEPTH_MAX: u32 = 512;

/// Who gives a connection its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The master accepts and hands each connection to the worker whose turn it is.
    Handoff,
    /// All workers accept on one listening socket; the kernel wakes whom it likes.
    Shared,
    /// Each worker has a listening socket, and a program in the kernel takes turns among them.
    Kernel,
}

impl Mode {
    /// Its name on the command line and in the status.
    #[must_use]
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// How an unmodified worker is brought to take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Adapter {
    /// By looking at the executable.
    Auto,
    /// A shim that the dynamic loader puts before libc.
    Preload,
    /// Its `bind`, `listen` and, in hand-off mode, `accept` calls are supervised: for static binaries.
    Seccomp,
    /// Listening descriptors at 3 and above, as `sd_listen_fds(3)` has it (shared and kernel mode with --bind).
    Inherit,
    /// The worker speaks maitred's protocol itself.
    Native,
}

/// When lines of workers' output get the slot before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Prefix {
    /// When standard output is a terminal.
    Auto,
    /// Always.
    Always,
    /// Never: the worker writes where the master writes.
    Never,
}

/// Who has a port that the kernel chose for a worker which bound port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortZero {
    /// The process that bound it, unless `--bind ADDR:0` names the address.
    Private,
    /// All workers, as in Node's cluster (`--share-port-zero`).
    Shared,
}

/// Where the name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// `--name`: exactly this one.
    ByOperator,
    /// The command's: another one will do if it is taken.
    ByCommand,
}

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// In the usual place; a master that cannot have it there runs without.
    Usual(PathBuf),
    /// Where the operator said; a master that cannot have it there does not run.
    Asked(PathBuf),
}

/// Everything `maitred run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Slots.
    pub workers: u32,
    /// Addresses bound before the first worker starts.
    pub bind: Vec<Bind>,
    /// Who gives a connection its worker.
    pub mode: Mode,
    /// Which worker is next.
    pub policy: Policy,
    /// What each slot's share is.
    pub weights: Weights,
    /// Who is let in.
    pub admission: Admission,
    /// How workers are brought to take part.
    pub adapter: Adapter,
    /// The program that gets its listening sockets in its own way.
    pub preset: Option<Preset>,
    /// Untaken connections per worker before it is passed over.
    pub depth: u32,
    /// Name in the control socket, logs and metrics.
    pub name: String,
    /// Where the name comes from.
    pub named: Named,
    /// The control socket.
    pub control: Control,
    /// Addresses that each worker has for itself.
    pub private: Vec<Private>,
    /// Who has a port that the kernel chose.
    pub port_zero: PortZero,
    /// Additions to the workers' environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory of the workers.
    pub cwd: Option<PathBuf>,
    /// What asks a worker to end.
    pub stop_signal: Signal,
    /// How long it may take.
    pub grace: Duration,
    /// When workers' lines get the slot before them.
    pub prefix: Prefix,
    /// How the lives of the workers are looked after.
    pub life: Life,
    /// The command and its arguments; never empty.
    pub command: Vec<OsString>,
    /// What all of this was made from.
    pub source: Source,
}

/// What a configuration was made from, and how it is made again.
#[derive(Clone)]
pub struct Source {
    /// The text of the configuration file, if there is one.
    pub text: Option<String>,
    /// Makes the configuration again: from the file as it is now, or from this text of it.
    pub make: Rc<dyn Fn(Option<String>) -> Result<Config, String>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("text", &self.text).finish_non_exhaustive()
    }
}

impl Config {
    /// Whether workers could be started with it, as far as the file system tells.
    ///
    /// # Errors
    /// What is missing.
    pub fn is_possible(&self) -> Result<(), String> {
        match self.cwd.as_ref().filter(|dir| !dir.is_dir()) {
            Some(dir) => Err(format!("cannot run workers in {}: it is no directory; check --cwd", dir.display())),
            None => Ok(()),
        }
    }

    /// The numbers of the descriptors that `--bind` names.
    #[must_use]
    pub fn inherited(&self) -> Vec<i32> {
        let number = |bind: &bind::Bind| match bind {
            bind::Bind::Inherited(number) => Some(*number),
            bind::Bind::Any(_) | bind::Bind::Tcp(_) | bind::Bind::Unix { .. } | bind::Bind::Abstract(_) => None,
        };
        self.bind.iter().filter_map(number).collect()
    }

    /// The configuration as its file says now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn again(&self) -> Result<Config, String> {
        (self.source.make)(None)
    }

    /// Takes what cannot change while the master runs from the one in force; names what would have changed.
    pub fn keep_from(&mut self, old: &Config) -> Vec<&'static str> {
        let mut kept = Vec::new();
        let mut keep = |name, same: bool| {
            if !same {
                kept.push(name);
            }
        };
        keep("bind", self.bind == old.bind);
        keep("mode", self.mode == old.mode);
        keep("policy", self.policy == old.policy);
        keep("weights", self.weights == old.weights);
        keep("limits of open connections and the like", self.admission == old.admission);
        keep("depth", self.depth == old.depth);
        keep("prefix", self.prefix == old.prefix);
        keep("leave-children", self.life.detached == old.life.detached);
        keep("name", self.named == Named::ByCommand || self.name == old.name);
        (self.bind, self.mode, self.policy) = (old.bind.clone(), old.mode, old.policy);
        (self.weights, self.admission) = (old.weights.clone(), old.admission.clone());
        self.life.detached = old.life.detached;
        (self.depth, self.prefix, self.named) = (old.depth, old.prefix, old.named);
        (self.name, self.control) = (old.name.clone(), old.control.clone());
        kept
    }

    /// What the fleet is told.
    #[must_use]
    pub fn plan(&self, max_workers: u32) -> Plan {
        let life = &self.life;
        // In kernel mode two workers of one slot would share its socket, so the old one goes first.
        let (max_surge, max_unavailable, succession) = match self.mode {
            Mode::Kernel => (0, life.max_unavailable.max(1), Succession::AfterEnd),
            Mode::Handoff | Mode::Shared => (life.max_surge, life.max_unavailable, Succession::Overlapping),
        };
        Plan {
            workers: self.workers,
            max_workers,
            grace: self.grace,
            boot_timeout: life.boot_timeout,
            max_surge,
            max_unavailable,
            succession,
            max_restarts: life.max_restarts,
            restart_window: life.restart_window,
            stall_kill: life.stall_kill,
            seed: u64::from(std::process::id()) << 20 | 1,
        }
    }
}
