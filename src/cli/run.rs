//! `maitred run`: turns the command line into a [`Config`], then runs the master's loop.

use super::admission::AdmissionArgs;
use super::life::LifeArgs;
use super::logging::{self, LogFormat};
use super::say::{self, complain};
use super::workers::WorkerArgs;
use super::{CANNOT_START, FAILED, USAGE, panic, words};
use crate::adapt::inspect;
use crate::config::bind::Bind;
use crate::config::life::{Ready, duration};
use crate::config::private::Private;
use crate::config::{Config, Control, Mode, Named, PortZero, Prefix, Source, file};
use crate::master::error::RunError;
use crate::master::program::Host;
use crate::master::signals::hold_signals;
use crate::master::upgrade::state::{self, State};
use crate::master::upgrade::{self, Fallback, Prepared, Task};
use crate::sys::process::{directory, needs};
use crate::sys::socket::inherited::{Inherited, NotInherited};
use crate::{control, master};
use clap::{Args, Parser};
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tracing::{debug, error};

#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct RunArgs {
    #[command(flatten)]
    workers: WorkerArgs,

    /// Take options and the command from this TOML file, which a reload reads again
    ///
    /// Its keys are the long options' names; `command` is a list, `env` a table. The command line takes precedence.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

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
    #[arg(long, value_parser = name)]
    name: Option<String>,

    /// Path of the control socket
    ///
    /// By default NAME.sock in the first of $RUNTIME_DIRECTORY (a systemd unit with RuntimeDirectory=), else in
    /// $XDG_RUNTIME_DIR/maitred, for root in /run/maitred.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// How long a worker may take to finish its connections and end before it is killed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    grace: Duration,

    /// When lines of the workers' output are prefixed with the slot; auto means on a terminal
    #[arg(long, value_enum, default_value = "auto")]
    prefix: Prefix,

    /// Format of log lines
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,

    /// Log more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Log less; twice for errors only
    #[arg(short, long, action = clap::ArgAction::Count)]
    quiet: u8,

    #[command(flatten)]
    admission: AdmissionArgs,

    #[command(flatten)]
    life: LifeArgs,

    /// The server and its arguments; {slot}, {worker}, {generation}, {port} and {fd} are replaced
    #[arg(required_unless_present = "config", trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl RunArgs {
    /// The server and its arguments, as typed.
    #[cfg(test)]
    pub(super) fn command(&self) -> &[OsString] {
        &self.command
    }
}

/// A premature end: the last message, and the exit code.
struct Failure {
    said: String,
    code: u8,
}

impl Failure {
    fn new(said: impl Display, code: u8) -> Failure {
        Failure { said: said.to_string(), code }
    }

    fn usage(said: impl Display) -> Failure {
        Failure::new(said, USAGE)
    }

    /// Something that the master needs is missing.
    fn cannot_start(said: impl Display) -> Failure {
        Failure::new(said, CANNOT_START)
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
    ended.unwrap_or_else(|failure| {
        complain(&failure.said);
        ExitCode::from(failure.code)
    })
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
    begin_to_log(&log)?;
    if let Some(error) = no_way_back {
        debug!(%error, "should this binary fail now, the old one will not go on");
    }
    // Its sockets come with the state.
    run(&log, config, Inherited::default(), Some(Box::new(state)), goes_on)
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
    let is_program = |word: &OsStr| inspect::find(word, std::env::var_os("PATH").as_deref(), None).is_ok();
    if let Some(meant) = words::is_misunderstood(&words, &args.command, is_program) {
        return Err(Failure::usage(meant));
    }
    let (log, config) = load(args, &typed(), None).map_err(Failure::usage)?;
    config.is_possible().map_err(Failure::usage)?;
    panic::end_at_once();
    // Before anything is opened that stays open: until here each open number was inherited.
    let inherited = Inherited::take(&config.inherited()).map_err(|error| match error {
        NotInherited::Twice(_) => Failure::usage(error),
        _ => Failure::cannot_start(error),
    })?;
    // Before the event loop is created, whose errors would not name what is missing.
    needs::all_there().map_err(|missing| Failure::cannot_start(format_args!("cannot start: {missing}")))?;
    begin_to_log(&log)?;
    run(&log, config, inherited, None, Box::new(|| {}))
}

fn begin_to_log(log: &LogArgs) -> Result<(), Failure> {
    logging::start(log.log_format, logging::level(log.verbose, log.quiet))
        .map_err(|source| Failure::cannot_start(RunError::Needs { what: "the thread that writes the log", source }))
}

fn run(
    log: &LogArgs,
    config: Config,
    inherited: Inherited,
    resume: Option<Box<State>>,
    goes_on: Box<dyn Fn()>,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        let advice = needs::advice(&error);
        Failure::cannot_start(format_args!(
            "cannot start: no event loop (epoll_create1(2), eventfd2(2)): {error}{advice}"
        ))
    })?;
    let settle_log = Box::new(logging::flush);
    let host = Host { executable: upgrade::executable(), settle_log, inherited, resume, goes_on };
    let ended = tokio::task::LocalSet::new().block_on(&runtime, master::run::run(config, host));
    // Who reads text has the last message there; who collects JSON has it in the log, too.
    if let Err(failure) = &ended
        && log.log_format == LogFormat::Json
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

/// The settings of the log, which do not change while the master runs.
struct LogArgs {
    log_format: LogFormat,
    verbose: u8,
    quiet: u8,
}

/// `run` alone, to parse the words again with those of a file before them.
#[derive(Debug, Parser)]
#[command(name = "maitred run", no_binary_name = true)]
struct Again {
    #[command(flatten)]
    args: RunArgs,
}

/// Turns the command line, and the file that it names, into settings. `text` takes the place of the file's text if the
/// file should not be read again.
fn load(args: RunArgs, typed: &[OsString], text: Option<String>) -> Result<(LogArgs, Config), String> {
    let Some(path) = args.config.clone() else {
        let source = Source { text: None, make: maker(typed.to_vec()) };
        return meant(args, source);
    };
    let text = match text {
        Some(text) => text,
        None => file::read(&path).map_err(|error| error.to_string())?,
    };
    let words = file::words(&text, &path).map_err(|error| error.to_string())?;
    let all = words.options.iter().chain(typed);
    let again = Again::try_parse_from(all).map_err(|error| {
        let what = error.to_string();
        let first = what.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("{}: {first}", path.display())
    })?;
    let mut args = again.args;
    if args.command.is_empty() {
        args.command = words.command;
    }
    if args.command.is_empty() {
        return Err(format!("{}: there is no command; add command = [\"node\", \"server.js\"]", path.display()));
    }
    meant(args, Source { text: Some(text), make: maker(typed.to_vec()) })
}

/// Makes the configuration again from the same words.
fn maker(typed: Vec<OsString>) -> Rc<dyn Fn(Option<String>) -> Result<Config, String>> {
    Rc::new(move |text| {
        let again = Again::try_parse_from(&typed).map_err(|error| error.to_string())?;
        load(again.args, &typed, text).map(|(_, config)| config)
    })
}

/// What a file's text means; the same code runs at the start and at every reload.
#[cfg(fuzzing)]
pub(crate) fn meaning_of_file(text: &str) -> Result<(), String> {
    maker(vec!["--config".into(), "maitred.toml".into()])(Some(text.to_owned())).map(drop)
}

fn meant(args: RunArgs, source: Source) -> Result<(LogArgs, Config), String> {
    let (name, named) = match args.name {
        Some(name) => (name, Named::ByOperator),
        None => (base_name(args.command.first().map_or(OsStr::new(""), OsString::as_os_str)), Named::ByCommand),
    };
    let control = match args.control {
        Some(path) => Control::Explicit(path),
        None => Control::Usual(control::socket_path(&name)),
    };
    let life = args.life.meant()?;
    if args.mode != Mode::Handoff && (life.probing.is_some() || matches!(life.ready, Ready::Http(_))) {
        let mode = args.mode.name();
        return Err(format!(
            "--probe and --ready http: need --mode handoff: in {mode} mode nobody can choose who gets the connection"
        ));
    }
    let admission = args.admission.meant()?;
    args.workers.policy.fits(args.mode, &args.workers.weights)?;
    admission.fits(args.mode)?;
    let log = LogArgs { log_format: args.log_format, verbose: args.verbose, quiet: args.quiet };
    let config = Config {
        workers: args.workers.count(),
        bind: args.bind,
        mode: args.mode,
        policy: args.workers.policy,
        weights: args.workers.weights,
        admission,
        adapter: args.workers.adapter,
        preset: args.workers.preset,
        private: args.private,
        port_zero: if args.share_port_zero { PortZero::Shared } else { PortZero::Private },
        depth: args.workers.depth,
        name,
        named,
        control,
        env: args.workers.env,
        // The link is followed anew for each worker.
        cwd: args.workers.cwd.or_else(directory::named),
        stop_signal: args.workers.stop_signal,
        grace: args.grace,
        prefix: args.prefix,
        life,
        command: args.command,
        source,
    };
    Ok((log, config))
}

/// The command's file name; characters that are invalid in a file name or would hide the file are replaced.
fn base_name(command: &OsStr) -> String {
    let file = Path::new(command).file_name().unwrap_or(command).to_string_lossy();
    let clean: String = file.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    match clean.trim_start_matches('.') {
        "" => "maitred".to_owned(),
        clean => clean.to_owned(),
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 64 && !text.starts_with('.');
    match fits && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 letters, digits, '-', '_' or '.', and does not begin with '.'".to_owned()),
    }
}

#[cfg(test)]
mod tests;
