//! `maitred bench`: from what was typed to a [`Plan`], then the measurement, its table and its files.

use super::workers::WorkerArgs;
use super::{USAGE, complain};
use crate::bench::command::Command;
use crate::bench::load::Protocol;
use crate::bench::plan::{Asked, Plan, REPEAT_DEFAULT, Subject, load};
use crate::bench::report::{self, Report};
use crate::bench::run::Run;
use crate::bench::session::{self, Finish, Progress};
use crate::bench::stop::Stop;
use crate::bench::worker;
use crate::bench::workload::Workload;
use crate::config::Mode;
use crate::config::life::duration;
use crate::config::workers::usable_cores;
use crate::sys::limits;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// One client thread for so many cores: the rest is for what is measured.
const CORES_PER_CLIENT: u32 = 4;
/// Time between two steps of the progress bar.
const STEP: Duration = Duration::from_millis(100);
/// The most client threads.
const THREADS_MAX: u64 = 256;

#[derive(Debug, Args)]
#[command(after_help = "Without COMMAND a built-in worker serves. Compare your own server: \
    maitred bench -w 4 -- node server.js")]
pub struct BenchArgs {
    /// Modes to compare, separated by commas; all, or none
    #[arg(long, value_name = "MODES", value_parser = modes)]
    modes: Option<Modes>,

    #[command(flatten)]
    workers: WorkerArgs,

    /// Connections in each run; the workload says how many if neither this nor --duration is given
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    connections: Option<u64>,

    /// Length of each run
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// Clients in a closed loop: each connects again when its connection ended
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    concurrency: Option<usize>,

    /// Connections a second in an open loop: latency counts from when each was due
    #[arg(long, value_name = "R")]
    rate: Option<f64>,

    /// What the clients do and what happens to the workers
    #[arg(long, value_enum, default_value = "cheap", hide_possible_values = false)]
    workload: Workload,

    /// What is said on a connection; the workload decides if not given
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,

    /// Requests on each connection, with --protocol keep-alive or echo
    #[arg(long, value_name = "K")]
    requests: Option<u32>,

    /// What to ask for; given several times, one of them by lot each time
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,

    /// How long an answer may take before the connection counts as hung
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Rounds; in each, every mode has its turn
    #[arg(long, value_name = "N", default_value_t = REPEAT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,

    /// Client threads; one for every four cores by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    threads: Option<u64>,

    /// Seed of all lots: paths, pauses, and what chance would give
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Which of several addresses that the workers listen on
    #[arg(long, value_name = "ADDR", value_parser = address)]
    address: Option<SocketAddr>,

    /// Measure something that runs already, as ADDR or NAME=ADDR; may be given several times
    #[arg(long, value_name = "ADDR", value_parser = target)]
    target: Vec<Subject>,

    /// Measure another way to serve, as NAME=COMMAND; may be given several times
    ///
    /// The command runs in a shell, serves on 127.0.0.1 at $PORT, which is also put in for {port},
    /// and has {workers} replaced by the number of workers. It is ended after each turn.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = peer)]
    peer: Vec<Subject>,

    /// Run this shell command again and again while the clients are at work
    ///
    /// It finds in its environment: MAITRED_SUBJECT, the name of what is measured; MAITRED_PORT, its
    /// port; MAITRED_PID, its first process; MAITRED_CONTROL, its control socket if it is a mode of
    /// maitred; MAITRED_TIME, how often the command ran before. For example:
    /// --disturb 'maitred reload --wait --control "$MAITRED_CONTROL"'
    #[arg(long, value_name = "COMMAND")]
    disturb: Option<String>,

    /// Pause before each such command
    #[arg(long, value_name = "DURATION", requires = "disturb", default_value = "1s", value_parser = duration)]
    disturb_every: Duration,

    /// Run it so many times in each run and no more
    #[arg(long, value_name = "N", requires = "disturb")]
    disturb_times: Option<u64>,

    /// Options for `maitred run`, as in --run-args '--stall 500ms --grace 5s'
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    run_args: Option<String>,

    /// Measure nothing: show what this JSON file of an earlier measurement has, and write the other files
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "command", "target", "peer", "modes"])]
    from: Option<PathBuf>,

    /// Write everything that was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a line for each run to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Write a page with plots to this file, which needs nothing from the network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write the plots into this directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,

    /// The server to measure, as for `maitred run`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Modes that were asked for.
#[derive(Clone, Debug, PartialEq)]
struct Modes(Vec<Mode>);

/// Measures and reports.
pub fn main(args: BenchArgs) -> ExitCode {
    if let Some(file) = &args.from {
        return again(file, &Outputs::of(&args));
    }
    let began = SystemTime::now();
    let limit = match limits::raise_descriptor_limit() {
        Ok(limit) => limit,
        Err(error) => return usage(&format!("cannot learn the limit of descriptors: {error}")),
    };
    let outputs = Outputs::of(&args);
    let plan = match plan(args).and_then(|plan| plan.check(limit.hard).map_err(|error| error.to_string())) {
        Ok(plan) => plan,
        Err(error) => return usage(&error),
    };
    if let Err(error) = outputs.check() {
        return usage(&error);
    }
    let interrupted = match Interrupted::watch() {
        Ok(interrupted) => interrupted,
        Err(error) => return usage(&format!("cannot watch for signals: {error}")),
    };
    let mut bar = Bar::new(&plan);
    let (runs, finish) = session::run(&plan, limit.soft, &interrupted.stop, &mut bar);
    drop(bar);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let invocation = format!("maitred {}", report::quoted(&words));
    let report = Report::new(plan, runs, &finish, invocation, began);
    finish_up(&report, &finish, &outputs, &interrupted)
}

/// Shows an earlier measurement.
fn again(file: &Path, outputs: &Outputs) -> ExitCode {
    let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let report = read.and_then(|text| serde_json::from_str::<Report>(&text).map_err(|error| error.to_string()));
    match report {
        Ok(report) => {
            let _ = std::io::stdout().write_all(report::table::text(&report).as_bytes());
            match outputs.check().and_then(|()| outputs.write(&report)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => usage(&error),
            }
        }
        Err(error) => usage(&format!("cannot read {}: {error}", file.display())),
    }
}

/// Serves as the built-in worker.
pub fn worker() -> ExitCode {
    match worker::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("the built-in worker cannot serve: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn finish_up(report: &Report, finish: &Finish, outputs: &Outputs, interrupted: &Interrupted) -> ExitCode {
    let mut written = Ok(());
    if !report.runs.is_empty() {
        // A reader that has seen enough closes the pipe; that is no failure.
        let _ = std::io::stdout().write_all(report::table::text(report).as_bytes());
        written = outputs.write(report);
    }
    if let Err(error) = &written {
        complain(error);
    }
    match finish {
        Finish::Failed(error) => {
            complain(error);
            ExitCode::FAILURE
        }
        Finish::Without(missing) => {
            missing.iter().for_each(|error| complain(error));
            ExitCode::FAILURE
        }
        Finish::CutShort => {
            if report.runs.is_empty() {
                complain(&"cut short before anything was measured");
            }
            ExitCode::from(128 + interrupted.signal.load(Ordering::SeqCst) as u8)
        }
        Finish::Complete if written.is_err() || !report.invalid().is_empty() => ExitCode::FAILURE,
        Finish::Complete => ExitCode::SUCCESS,
    }
}

fn usage(error: &str) -> ExitCode {
    complain(&error);
    ExitCode::from(USAGE)
}

fn plan(args: BenchArgs) -> Result<Plan, String> {
    let modes = match args.modes {
        Some(Modes(modes)) => modes,
        // Who points at something that runs wants to know about that.
        None if !args.target.is_empty() && args.command.is_empty() => Vec::new(),
        None => Mode::value_variants().to_vec(),
    };
    if modes.is_empty() && args.target.is_empty() && args.peer.is_empty() {
        return Err("--modes none leaves nothing to measure; give --peer or --target".to_owned());
    }
    if modes.is_empty() && !args.command.is_empty() {
        return Err("a COMMAND is measured in modes; give --modes".to_owned());
    }
    let asked = Asked {
        connections: args.connections,
        duration: args.duration,
        concurrency: args.concurrency,
        rate: args.rate,
        protocol: args.protocol,
        requests: args.requests,
        paths: args.path,
        timeout: args.timeout,
        threads: args.threads.map_or((usable_cores() / CORES_PER_CLIENT).max(1) as usize, |n| n as usize),
        seed: args.seed,
        own_server: !args.command.is_empty() || !args.target.is_empty() || !args.peer.is_empty(),
    };
    let choices = modes.iter().map(|mode| (*mode, args.workers.choice(*mode))).collect();
    let mut run_options = args.workers.words();
    if let Some(text) = &args.run_args {
        let words = shlex::split(text).ok_or_else(|| format!("--run-args {text:?} has a quote that is not closed"))?;
        run_options.extend(words.into_iter().map(OsString::from));
    }
    let (every, times) = (args.disturb_every, args.disturb_times);
    let disturb = args.disturb.map(|command| Command { command, every, times });
    let modes = modes.into_iter().map(Subject::Mode);
    Ok(Plan {
        subjects: modes.chain(args.peer).chain(args.target).collect(),
        workload: args.workload,
        load: load(args.workload, &asked).map_err(|error| error.to_string())?,
        workers: args.workers.count(),
        repeat: args.repeat,
        command: args.command,
        choices,
        run_options,
        address: args.address,
        disturb,
    })
}

fn modes(text: &str) -> Result<Modes, String> {
    if text == "all" {
        return Ok(Modes(Mode::value_variants().to_vec()));
    }
    if text == "none" {
        return Ok(Modes(Vec::new()));
    }
    let known = || Mode::value_variants().iter().map(|mode| mode.name()).collect::<Vec<_>>().join(", ");
    let mode = |word: &str| {
        Mode::from_str(word, false).map_err(|_| format!("{word:?} is no mode; there are {}, all and none", known()))
    };
    text.split(',').map(mode).collect::<Result<Vec<_>, _>>().map(Modes)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| format!("{error}; give HOST:PORT"))?.next();
    found.ok_or_else(|| "it has no address; give HOST:PORT".to_owned())
}

fn target(text: &str) -> Result<Subject, String> {
    let (name, place) = text.split_once('=').unwrap_or((text, text));
    Ok(Subject::Target { name: name.to_owned(), address: address(place)? })
}

fn peer(text: &str) -> Result<Subject, String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => {
            Ok(Subject::Peer { name: name.to_owned(), command: command.to_owned() })
        }
        _ => Err("expected NAME=COMMAND".to_owned()),
    }
}

/// The files that were asked for.
struct Outputs {
    json: Option<PathBuf>,
    csv: Option<PathBuf>,
    html: Option<PathBuf>,
    svg: Option<PathBuf>,
}

impl Outputs {
    fn of(args: &BenchArgs) -> Outputs {
        Outputs { json: args.json.clone(), csv: args.csv.clone(), html: args.html.clone(), svg: args.svg.clone() }
    }

    /// Finds out before minutes are spent whether the files can be written.
    fn check(&self) -> Result<(), String> {
        for file in [&self.json, &self.csv, &self.html].into_iter().flatten() {
            let existed = file.exists();
            let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
            opened.map_err(|error| cannot_write(file, &error))?;
            if !existed {
                let _ = std::fs::remove_file(file);
            }
        }
        match &self.svg {
            Some(dir) => std::fs::create_dir_all(dir).map_err(|error| cannot_write(dir, &error)),
            None => Ok(()),
        }
    }

    fn write(&self, report: &Report) -> Result<(), String> {
        let put = |file: &Path, text: String| std::fs::write(file, text).map_err(|error| cannot_write(file, &error));
        if let Some(file) = &self.json {
            put(file, serde_json::to_string_pretty(report).map_err(|error| cannot_write(file, &error))? + "\n")?;
        }
        if let Some(file) = &self.csv {
            put(file, report::csv::text(report).map_err(|error| cannot_write(file, &error))?)?;
        }
        if let Some(file) = &self.html {
            put(file, report::html::text(report).map_err(|error| cannot_write(file, &error))?)?;
        }
        if let Some(dir) = &self.svg {
            for plot in report::plots::plots(report).map_err(|error| cannot_write(dir, &error))? {
                put(&dir.join(plot.name).with_extension("svg"), plot.svg)?;
            }
        }
        Ok(())
    }
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// Ctrl-C and its like.
struct Interrupted {
    stop: Stop,
    /// The signal that came.
    signal: Arc<AtomicI32>,
}

impl Interrupted {
    /// Watches for signals from now on. Threads that exist already would get them instead.
    fn watch() -> std::io::Result<Interrupted> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        let (stop, signal) = (Stop::new()?, Arc::new(AtomicI32::new(0)));
        let (to_stop, to_signal) = (stop.clone(), Arc::clone(&signal));
        std::thread::Builder::new().name("bench-signals".to_owned()).spawn(move || {
            while let Ok(came) = signals.wait() {
                if to_stop.is_set() {
                    // Children die with this process, and the guard sees to theirs.
                    std::process::exit(128 + came as i32);
                }
                to_signal.store(came as i32, Ordering::SeqCst);
                to_stop.set();
            }
        })?;
        Ok(Interrupted { stop, signal })
    }
}

/// What is seen on a terminal meanwhile.
struct Bar {
    bar: ProgressBar,
    rounds: u32,
    expected: Option<u64>,
    /// Ends the thread that moves the bar of the run under way.
    moving: Option<(Stop, std::thread::JoinHandle<()>)>,
}

impl Bar {
    fn new(plan: &Plan) -> Bar {
        let expected = match plan.load.volume {
            crate::bench::load::Volume::Connections(n) => Some(n),
            crate::bench::load::Volume::Duration(_) => None,
        };
        let bar = ProgressBar::new(expected.unwrap_or(0));
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = match expected {
            Some(_) => "{msg} [{bar:30}] {human_pos} of {human_len} connections, {elapsed}",
            None => "{msg} {spinner} {human_pos} connections, {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar { bar, rounds: plan.repeat, expected, moving: None }
    }

    fn rest(&mut self) {
        if let Some((stop, thread)) = self.moving.take() {
            stop.set();
            let _ = thread.join();
        }
    }
}

impl Progress for Bar {
    fn begin(&mut self, subject: &str, round: u32, ended: Arc<AtomicU64>) {
        self.rest();
        self.bar.set_message(format!("round {round} of {}, {subject}", self.rounds));
        self.bar.set_position(0);
        self.bar.reset_elapsed();
        if self.bar.is_hidden() {
            return;
        }
        let Ok(stop) = Stop::new() else { return };
        let (bar, over) = (self.bar.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("bench-progress".to_owned());
        let moving = thread.spawn(move || {
            while !over.wait(STEP) {
                bar.set_position(ended.load(Ordering::Relaxed));
                bar.tick();
            }
        });
        self.moving = moving.ok().map(|thread| (stop, thread));
    }

    fn end(&mut self, run: &Run) {
        self.rest();
        self.bar.set_position(self.expected.unwrap_or_else(|| run.endings.all()));
        if !self.bar.is_hidden() {
            let wrong = if run.invalid.is_empty() { "" } else { ", INVALID" };
            let rate = run.connections_per_s;
            self.bar.suspend(|| eprintln!("round {} {}: {rate:.0} connections/s{wrong}", run.round, run.subject));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.rest();
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_a_list_or_all() {
        assert_eq!(modes("shared,handoff"), Ok(Modes(vec![Mode::Shared, Mode::Handoff])));
        assert_eq!(modes("all").unwrap().0.len(), Mode::value_variants().len());
        assert!(modes("shared,").unwrap_err().contains("there are handoff, shared, kernel, all and none"));
    }

    #[test]
    fn a_target_may_have_a_name() {
        let named = |name: &str| Subject::Target { name: name.into(), address: ([127, 0, 0, 1], 80).into() };
        assert_eq!(target("127.0.0.1:80"), Ok(named("127.0.0.1:80")));
        assert_eq!(target("mine=127.0.0.1:80"), Ok(named("mine")));
        assert!(target("127.0.0.1").is_err());
        assert!(peer("x").is_err() && peer("=x").is_err());
    }
}
