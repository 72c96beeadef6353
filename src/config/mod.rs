//! One validated configuration: everything in it can be carried out, as far as that can be known in advance.

pub mod admin;
pub mod admission;
pub mod bind;
pub mod choice;
pub mod env_file;
pub mod file;
pub mod found;
pub mod layers;
pub mod life;
pub mod name;
pub mod options;
pub mod preset;
pub mod private;
pub mod process;
pub mod triggers;
pub mod workers;

use crate::core::fleet::{Plan, Succession};
use crate::core::scaling::Range;
use crate::sys::process::trusted::Access;
use admin::Admin;
use admission::Admission;
use bind::Bind;
use choice::{Policy, Weights};
use life::Life;
use nix::sys::signal::Signal;
use preset::Preset;
use private::Private;
use process::Process;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use triggers::Triggers;

/// The most slots that a master can have; the figure is generous for 128 cores and keeps a typing error from
/// exhausting the machine.
pub const WORKERS_MAX: u32 = 1024;
/// Descriptors that one worker costs the master: pidfd, channel, its notification socket, two ends of a hand-off
/// socket, the pipe that tells which processes hold that socket, two pipes for its output; when it is supervised, also
/// the descriptor that reports its calls and a watch on the hand-off socket.
pub const DESCRIPTORS_PER_WORKER: u64 = 10;
/// Descriptors that the master needs for itself.
pub const DESCRIPTORS_OF_MASTER: u64 = 24;
/// The default of `--depth`: large enough that a worker is rarely skipped because of a short delay, so the spread
/// stays exact, and small enough that a stopped worker holds few connections.
pub const DEPTH_DEFAULT: u32 = 64;
/// The largest depth that an ordinary user's socket buffer (twice `net.core.wmem_max`, 212992 bytes by default) can
/// hold at 768 bytes a connection. Above a quarter of that, the kernel reports a full worker as writable only when it
/// has taken that many (`unix_writable` in net/unix/af_unix.c).
pub const DEPTH_MAX: u32 = 512;

/// What decides which worker gets a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The master accepts and hands each connection to the worker whose turn it is.
    Handoff,
    /// All workers accept on one listening socket; the kernel decides which one it wakes.
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

/// How an unmodified worker is made to take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Adapter {
    /// By looking at the executable.
    Auto,
    /// A shim that the dynamic loader puts before libc.
    Preload,
    /// Its `bind`, `listen` and, in hand-off mode, `accept` calls are supervised: for static binaries.
    Seccomp,
    /// Listening descriptors at 3 and above, as for `sd_listen_fds(3)` (shared and kernel mode with --bind).
    Inherit,
    /// The worker speaks maitred's protocol itself.
    Native,
}

/// When lines of workers' output are prefixed with the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Prefix {
    /// When standard output is a terminal.
    Auto,
    /// Always.
    Always,
    /// Never: on a terminal the worker writes where the master writes.
    Never,
    /// With the name before the slot, and before lines of the log: `web.3| line`.
    Name,
}

/// The form of lines of workers' output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WorkerLog {
    /// As they are.
    Text,
    /// An object in each line: time, slot, stream, line.
    Json,
}

/// The owner of a port that the kernel chose for a worker that bound port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortZero {
    /// The process that bound it, unless `--bind ADDR:0` names the address.
    Private,
    /// All workers, as in Node's cluster (`--share-port-zero`).
    Shared,
}

/// The origin of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// `--name`: exactly this one.
    ByOperator,
    /// The command's name: another one is used if it is taken.
    ByCommand,
}

/// The place of the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The usual place; if the socket cannot be created there, the master runs without one.
    Usual(PathBuf),
    /// The operator's choice; if the socket cannot be created there, the master does not run.
    Explicit(PathBuf),
}

/// Everything `maitred run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Slots.
    pub workers: u32,
    /// How many there may be, if that is not fixed.
    pub range: Option<Range>,
    /// Addresses bound before the first worker starts.
    pub bind: Vec<Bind>,
    /// What decides which worker gets a connection.
    pub mode: Mode,
    /// Which worker is next.
    pub policy: Policy,
    /// Each slot's share.
    pub weights: Weights,
    /// Which connections are admitted.
    pub admission: Admission,
    /// How workers are made to take part.
    pub adapter: Adapter,
    /// The program that receives its listening sockets in its own way.
    pub preset: Option<Preset>,
    /// Untaken connections per worker before it is skipped.
    pub depth: u32,
    /// Name in the control socket, logs and metrics.
    pub name: String,
    /// The origin of the name.
    pub named: Named,
    /// The control socket.
    pub control: Control,
    /// Who else may connect to it, and ask for the status.
    pub access: Access,
    /// The file with the master's number.
    pub pid_file: Option<PathBuf>,
    /// Addresses that each worker has for itself.
    pub private: Vec<Private>,
    /// The owner of a port that the kernel chose.
    pub port_zero: PortZero,
    /// Additions to the workers' environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory of the workers.
    pub cwd: Option<PathBuf>,
    /// The signal that asks a worker to end.
    pub stop_signal: Signal,
    /// How long it may take to end.
    pub grace: Duration,
    /// When workers' lines are prefixed with the slot.
    pub prefix: Prefix,
    /// The form of workers' lines.
    pub worker_log: WorkerLog,
    /// What asks for a reload by itself.
    pub triggers: Triggers,
    /// What is seen from outside.
    pub admin: Admin,
    /// What the workers' processes get.
    pub process: Process,
    /// Settings for the lifecycle of the workers.
    pub life: Life,
    /// The command and its arguments; never empty.
    pub command: Vec<OsString>,
    /// The source of this configuration.
    pub source: Source,
}

/// What a configuration was made from, and how to make it again.
#[derive(Clone)]
pub struct Source {
    /// The text of the configuration file, if there is one.
    pub text: Option<String>,
    /// Makes the configuration again: from the file in its current state, or from this text of it.
    pub make: Rc<dyn Fn(Option<String>) -> Result<Config, String>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("text", &self.text).finish_non_exhaustive()
    }
}

impl Config {
    /// Whether workers could be started with it, as far as the file system shows.
    ///
    /// # Errors
    /// What is missing.
    pub fn is_possible(&self) -> Result<(), String> {
        self.process.is_possible()?;
        if let Some(root) = self.process.root() {
            let inside = |dir: &Path| root.join(dir.strip_prefix("/").unwrap_or(dir));
            return match self.directory().filter(|dir| !inside(dir).is_dir()) {
                Some(dir) => Err(format!(
                    "cannot run workers in {}: {} has no such directory; check --cwd",
                    dir.display(),
                    root.display()
                )),
                None => Ok(()),
            };
        }
        match self.directory().filter(|dir| !dir.is_dir()) {
            Some(dir) => Err(format!("cannot run workers in {}: it is no directory; check --cwd", dir.display())),
            None => Ok(()),
        }
    }

    /// The directory that workers enter, if not the master's own. A link in `PWD` that leads nowhere any more does not
    /// count.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        if self.process.root().is_some() {
            return self.cwd.as_deref();
        }
        let named = crate::sys::process::directory::named();
        self.cwd.as_deref().filter(|dir| dir.is_dir() || named.as_deref() != Some(*dir))
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

    /// The configuration according to the current state of its file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn again(&self) -> Result<Config, String> {
        (self.source.make)(None)
    }

    /// Keeps the old values of options that cannot change while the master runs; returns the names of those that would
    /// have changed.
    pub fn keep_from(&mut self, old: &Config) -> Vec<&'static str> {
        let mut kept = Vec::new();
        for option in options::OPTIONS {
            if let options::Reload::Stays { same, keep } = option.reload {
                if !same(self, old) {
                    kept.push(option.name);
                }
                keep(self, old);
            }
        }
        kept
    }

    /// The settings for the fleet.
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
            min_ready: life.min_ready,
            stop_delay: life.stop_delay,
            stall_kill: life.stall_kill,
            expected: life.exit_codes,
            seed: u64::from(std::process::id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bind::Bind;
    use std::time::Duration;

    /// About the same as `maitred -w 2 -- true`.
    fn sample() -> Config {
        Config {
            workers: 2,
            range: None,
            bind: vec![Bind::Inherited(3), Bind::Any(80), Bind::Inherited(5)],
            mode: Mode::Handoff,
            policy: Policy::RoundRobin,
            weights: Weights::default(),
            admission: Admission::default(),
            adapter: Adapter::Auto,
            preset: None,
            depth: DEPTH_DEFAULT,
            name: "true".to_owned(),
            named: Named::ByOperator,
            control: Control::Usual("/run/maitred/true.sock".into()),
            access: Access::default(),
            pid_file: None,
            admin: Admin::default(),
            private: Vec::new(),
            port_zero: PortZero::Private,
            env: Vec::new(),
            cwd: None,
            stop_signal: Signal::SIGTERM,
            grace: Duration::from_secs(7),
            prefix: Prefix::Auto,
            worker_log: WorkerLog::Text,
            triggers: Triggers::default(),
            process: Process::default(),
            life: Life {
                ready: life::Ready::Listen,
                boot_timeout: Duration::from_secs(60),
                max_surge: 3,
                max_unavailable: 0,
                stall: None,
                stall_kill: None,
                probing: None,
                heartbeat: None,
                watchdog: None,
                max_connections: None,
                max_age: None,
                max_rss: None,
                max_restarts: 5,
                restart_window: Duration::from_secs(60),
                min_ready: Duration::from_millis(500),
                stop_delay: Duration::ZERO,
                kill_mode: Default::default(),
                idle_after: None,
                stop_first: Default::default(),
                exit_codes: Default::default(),
                detached: Default::default(),
            },
            command: vec!["true".into()],
            source: Source { text: Some("workers = 2".to_owned()), make: Rc::new(|_| Err("not here".to_owned())) },
        }
    }

    #[test]
    fn a_mode_has_the_name_that_its_option_has() {
        assert_eq!([Mode::Handoff, Mode::Shared, Mode::Kernel].map(Mode::name), ["handoff", "shared", "kernel"]);
    }

    #[test]
    fn what_it_was_made_from_is_shown_without_the_maker() {
        assert_eq!(format!("{:?}", sample().source), "Source { text: Some(\"workers = 2\"), .. }");
        assert_eq!(sample().again().unwrap_err(), "not here");
    }

    #[test]
    fn workers_need_a_directory_to_run_in() {
        let mut config = sample();
        assert_eq!(config.is_possible(), Ok(()));
        config.cwd = Some("/".into());
        assert_eq!(config.is_possible(), Ok(()));
        for cwd in ["/no/such/place", "/dev/null"] {
            config.cwd = Some(cwd.into());
            assert!(config.is_possible().is_err_and(|why| why.contains(cwd) && why.contains("--cwd")));
        }
    }

    #[test]
    fn descriptors_that_bind_names_are_known() {
        assert_eq!(sample().inherited(), [3, 5]);
    }

    /// Makes one change, and expects the old value to be kept and the option to be named.
    fn check_kept(name: &str, change: impl Fn(&mut Config)) {
        let (old, mut new) = (sample(), sample());
        change(&mut new);
        assert_eq!(new.keep_from(&old), [name]);
        let kept = |config: &Config| {
            let admission = (config.weights.clone(), config.admission.clone(), config.depth, config.prefix);
            let name = (config.name.clone(), config.named, config.control.clone());
            (config.bind.clone(), config.mode, config.policy, admission, config.life.detached, name)
        };
        assert_eq!(kept(&new), kept(&old), "{name}");
    }

    #[test]
    fn what_cannot_change_while_it_runs_stays_and_is_named() {
        let mut same = sample();
        assert!(same.keep_from(&sample()).is_empty());
        check_kept("bind", |new| new.bind.clear());
        check_kept("mode", |new| new.mode = Mode::Kernel);
        check_kept("policy", |new| new.policy = Policy::RandomTwo);
        check_kept("weights", |new| new.weights = "2,1".parse().unwrap());
        check_kept("max-open", |new| new.admission.max_open = Some(1));
        check_kept("defer", |new| new.admission.defer = Some(Duration::from_secs(1)));
        check_kept("depth", |new| new.depth += 1);
        check_kept("prefix", |new| new.prefix = Prefix::Always);
        check_kept("leave-children", |new| new.life.detached = crate::sys::process::guard::Detached::Stay);
        check_kept("name", |new| new.name = "false".to_owned());
        // The command's name was taken and replaced by another one.
        let mut by_command = Config { name: "true-2".to_owned(), named: Named::ByCommand, ..sample() };
        assert!(by_command.keep_from(&sample()).is_empty());
        // Everything else is as in the new one.
        let mut new = Config { workers: 9, command: vec!["false".into()], ..sample() };
        assert!(new.keep_from(&sample()).is_empty());
        assert_eq!((new.workers, &new.command[..]), (9, &["false".into()][..]));
    }

    #[test]
    fn in_kernel_mode_a_slots_old_worker_goes_before_the_new_one_comes() {
        let mut config = sample();
        let plan = config.plan(8);
        assert_eq!((plan.workers, plan.max_workers, plan.grace), (2, 8, Duration::from_secs(7)));
        assert_eq!((plan.max_surge, plan.max_unavailable, plan.succession), (3, 0, Succession::Overlapping));
        config.mode = Mode::Kernel;
        let plan = config.plan(8);
        assert_eq!((plan.max_surge, plan.max_unavailable, plan.succession), (0, 1, Succession::AfterEnd));
        config.life.max_unavailable = 2;
        assert_eq!(config.plan(8).max_unavailable, 2);
    }

    #[test]
    fn two_masters_draw_differently() {
        assert_eq!(sample().plan(8).seed, u64::from(std::process::id()));
    }
}
