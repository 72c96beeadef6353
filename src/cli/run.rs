//! `maitred run`: turns the command line into a [`Config`], then runs the master's loop.

use super::admin::{AdminArgs, OnEventArgs};
use super::admission::AdmissionArgs;
use super::failure::{self, Failure};
use super::files::FileArgs;
use super::life::LifeArgs;
use super::logging::{self, LogFormat, LogOptions};
use super::process::ProcessArgs;
use super::say;
use super::workers::WorkerArgs;
use super::{FAILED, panic, words};
use crate::config::bind::Bind;
use crate::config::life::duration;
use crate::config::private::Private;
use crate::config::{Config, Mode, Prefix, WorkerLog};
use crate::master;
use crate::master::error::RunError;
use crate::master::program::{Host, Logs};
use crate::master::signals::hold_signals;
use crate::master::upgrade::state::{self, State};
use crate::master::upgrade::{self, Fallback, Prepared, Task};
use crate::sys::fd;
use crate::sys::process::{directory, needs};
use crate::sys::socket::inherited::{Inherited, NotInherited};
use clap::Args;
use meaning::{LogArgs, is_program, load};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tracing::{debug, error};

pub mod as_file;
pub mod meaning;

#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct RunArgs {
    #[command(flatten)]
    workers: WorkerArgs,

    /// Take options and the command from this TOML file, which a reload reads again
    ///
    /// Its keys are the long options' names; `command` is a list, `env` a table. The command line takes precedence.
    /// Without a command it may be left out: then it is maitred.toml here or in a directory above.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The same for a file that was found and not named
    #[arg(long, value_name = "FILE", hide = true)]
    found: Option<PathBuf>,

    /// Which app of the file is meant, if it has several: [app.NAME]
    #[arg(long, value_name = "NAME", value_parser = crate::config::name::parse)]
    app: Option<String>,

    /// Which layer of the file is laid over it: [profile.P], [profile.P.app.NAME]
    #[arg(long, value_name = "P")]
    profile: Option<String>,

    /// Add the variables of this file to the workers' environment: NAME=value in each line; --env has precedence
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Bind this address before the first worker starts, so that early clients wait
    ///
    /// `:80` (IPv4 and IPv6), `127.0.0.1:80`, `[::1]:80`, `localhost:80`, `unix:/path?mode=660`, `unix:@name`,
    /// `fd://3`. Port 0 lets the kernel choose. May be given several times. Without it, any address that a worker
    /// listens on is bound on demand and shared.
    #[arg(short, long, value_name = "ADDR")]
    bind: Vec<Bind>,

    /// Leave this address to each worker for itself: it is not shared, as if maitred were not there
    ///
    /// `127.0.0.1:9229`, `:9229`, `:40000-40100`, `unix:/path`; may be given several times. For what a worker opens
    /// for one client or for its own children: debuggers, data connections of FTP, admin ports.
    #[arg(long, value_name = "ADDR")]
    private: Vec<Private>,

    /// Share a port that the kernel chose (port 0) among all workers, as Node's cluster does
    ///
    /// Otherwise each process has its own port, unless --bind ADDR:0 names the address.
    #[arg(long)]
    share_port_zero: bool,

    /// What decides which worker gets a connection
    #[arg(long, value_enum, default_value = "handoff")]
    mode: Mode,

    /// Name in the control socket and in logs; the command's base name by default
    #[arg(long, value_parser = crate::config::name::parse)]
    name: Option<String>,

    /// Path of the control socket
    ///
    /// By default NAME.sock in the first of $RUNTIME_DIRECTORY (a systemd unit with RuntimeDirectory=), else in
    /// $XDG_RUNTIME_DIR/maitred, for root in /run/maitred.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// Let others connect to the control socket, as in 660: they may ask for the status, and for nothing else
    #[arg(long, value_name = "MODE", value_parser = socket_mode)]
    control_mode: Option<u32>,

    /// The group of the control socket, by name or number
    #[arg(long, value_name = "GROUP")]
    control_group: Option<String>,

    /// Write the master's pid into this file, and remove it at the end
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,

    /// How long a worker may take to finish its connections and end before it is killed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    grace: Duration,

    /// When lines of the workers' output are prefixed with the slot; auto means on a terminal; name: with the name, too,
    /// as in web.3|
    #[arg(long, value_enum, default_value = "auto")]
    prefix: Prefix,

    /// Form of the lines of the workers' output: as they are, or an object of JSON with time, slot and stream
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    worker_log: WorkerLog,

    #[command(flatten)]
    log: LogOptions,

    #[command(flatten)]
    files: FileArgs,

    #[command(flatten)]
    admission: AdmissionArgs,

    #[command(flatten)]
    life: LifeArgs,

    #[command(flatten)]
    process: ProcessArgs,

    #[command(flatten)]
    admin: AdminArgs,

    #[command(flatten)]
    on_event: OnEventArgs,

    /// The server and its arguments; {slot}, {worker}, {generation}, {port} and {fd} are replaced
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl RunArgs {
    /// The server and its arguments, as typed.
    #[cfg(test)]
    pub(super) fn command(&self) -> &[OsString] {
        &self.command
    }
}

/// The mode of the control socket: its owner can always write there.
fn socket_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err("expected an octal mode from 600 to 777 that lets the owner write, as in 660".to_owned()),
    }
}

/// Runs the master.
pub fn main(args: RunArgs) -> ExitCode {
    let ended = match (hold_signals(), upgrade::task()) {
        (Err(error), _) => Err(Failure::cannot_start(format_args!("cannot start: {error}"))),
        (Ok(()), Some(Task::Check(state))) => check(args, state),
        (Ok(()), Some(Task::Resume(state))) => resume(args, state),
        (Ok(()), None) => start(args),
    };
    failure::ended(ended)
}

/// Says whether this binary understands the state of a running master.
fn check(args: RunArgs, state: i32) -> Result<ExitCode, Failure> {
    let state = state::read(state).map_err(Failure::cannot_start)?;
    directory::remember(state.directory.clone());
    let (_, config) = load(args, &typed(), state.text.clone()).map_err(Failure::usage)?;
    state.is_here().and_then(|()| state.is_understood(&config)).map_err(Failure::cannot_start)?;
    Ok(say::lines(&format!("{}\n", upgrade::handshake()), ExitCode::SUCCESS))
}

/// Continues where another binary stopped; if that is impossible, the other binary continues itself.
fn resume(args: RunArgs, state: i32) -> Result<ExitCode, Failure> {
    let fallback = match Fallback::prepare(state) {
        Prepared::Ready(fallback) => fallback,
        Prepared::Now(fallback, error) => return go_back(&fallback, Failure::cannot_start(error)),
        Prepared::Impossible(error) => {
            panic::end_at_once();
            return go_on(args, state, Box::new(|| {}), Some(&error));
        }
    };
    let fallback = Rc::new(fallback);
    let going_on = Rc::clone(&fallback);
    let goes_on = Box::new(move || {
        going_on.forget();
        panic::end_at_once();
    });
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| go_on(args, state, goes_on, None)));
    match ended.unwrap_or_else(|_| Err(Failure::new("an internal error", FAILED))) {
        Ok(code) => Ok(code),
        Err(failure) => go_back(&fallback, failure),
    }
}

fn go_on(
    args: RunArgs,
    state: i32,
    goes_on: Box<dyn Fn()>,
    no_way_back: Option<&io::Error>,
) -> Result<ExitCode, Failure> {
    let state = state::read(state).map_err(Failure::cannot_start)?;
    directory::remember(state.directory.clone());
    let (log, config) = load(args, &typed(), state.text.clone()).map_err(Failure::usage)?;
    let logs = begin_to_log(&log)?;
    if let Some(error) = no_way_back {
        debug!(%error, "should this binary fail now, the old one will not go on");
    }
    // Its sockets come with the state.
    let host = host(logs, Inherited::default(), Some(Box::new(state)), goes_on);
    run(&log, config, host)
}

/// Executes the old binary, unless this one has already taken over.
fn go_back(fallback: &Fallback, failure: Failure) -> Result<ExitCode, Failure> {
    let why = failure.said.lines().next().unwrap_or_default();
    let Err(error) = fallback.go_back(why) else { return Err(failure) };
    let said = format!("{}; and the old binary cannot go on either: {error}", failure.said);
    Err(Failure { said, code: failure.code })
}

/// Starts workers.
fn start(args: RunArgs) -> Result<ExitCode, Failure> {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(meant) = words::is_misunderstood(&words, &args.command, is_program) {
        return Err(Failure::usage(meant));
    }
    let text = args.files.text_fd.map(text_of).transpose().map_err(Failure::cannot_start)?;
    let (log, config) = load(args, &typed(), text).map_err(Failure::usage)?;
    config.is_possible().map_err(Failure::usage)?;
    panic::end_at_once();
    // Before anything is opened that stays open: until here each open number was inherited.
    let inherited = Inherited::take(&config.inherited()).map_err(|error| match error {
        NotInherited::Twice(_) => Failure::usage(error),
        _ => Failure::cannot_start(error),
    })?;
    // Before the event loop is created, whose errors would not name what is missing.
    needs::all_there().map_err(|missing| Failure::cannot_start(format_args!("cannot start: {missing}")))?;
    if log.files.background {
        nix::unistd::setsid().map_err(|errno| Failure::cannot_start(format_args!("no session of its own: {errno}")))?;
    }
    let started = log.files.ready_fd.map(fd::inherited).transpose().map_err(Failure::cannot_start)?;
    let logs = begin_to_log(&log)?;
    run(&log, config, Host { started, ..host(logs, inherited, None, Box::new(|| {})) })
}

/// The text behind a descriptor, which other processes have, too.
fn text_of(number: RawFd) -> io::Result<String> {
    let file = File::from(fd::inherited(number)?);
    let mut text = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut text, 0)?;
    String::from_utf8(text).map_err(io::Error::other)
}

fn begin_to_log(log: &LogArgs) -> Result<Logs, Failure> {
    let logs = log.files.open().map_err(|error| Failure::cannot_start(format_args!("cannot start: {error}")))?;
    logging::start(&log.options, logs.log.clone(), log.before.clone())
        .map_err(|source| Failure::cannot_start(RunError::Needs { what: "the thread that writes the log", source }))?;
    Ok(logs)
}

fn host(logs: Logs, inherited: Inherited, resume: Option<Box<State>>, goes_on: Box<dyn Fn()>) -> Host {
    let settle_log = Box::new(logging::flush);
    Host { executable: upgrade::executable(), settle_log, logs, started: None, inherited, resume, goes_on }
}

fn run(log: &LogArgs, config: Config, host: Host) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        let advice = needs::advice(&error);
        Failure::cannot_start(format_args!(
            "cannot start: no event loop (epoll_create1(2), eventfd2(2)): {error}{advice}"
        ))
    })?;
    let ended = tokio::task::LocalSet::new().block_on(&runtime, master::run::run(config, host));
    // Who reads text has the last message there; who collects JSON has it in the log, too.
    if let Err(failure) = &ended
        && log.options.log_format == LogFormat::Json
    {
        error!("{}", failure.to_string().lines().next().unwrap_or_default());
    }
    // Writes the log first, so that the reason is the last thing on the screen.
    logging::flush();
    ended.map(|()| ExitCode::SUCCESS).map_err(|failure| Failure::new(&failure, failure.exit_code()))
}

/// The words after `run`, as typed.
fn typed() -> Vec<OsString> {
    words::with_run(std::env::args_os().collect()).into_iter().skip(2).collect()
}

#[cfg(test)]
mod tests;
