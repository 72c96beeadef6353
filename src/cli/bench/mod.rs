//! `maitred bench`: turns the command line into a [`Plan`], runs the measurement, and writes its table and its files.

mod bar;
mod interrupted;
mod outputs;
mod subjects;

use super::USAGE;
use super::say::{self, complain};
use super::workers::WorkerArgs;
use crate::bench::command::Command;
use crate::bench::load::Protocol;
use crate::bench::plan::{Options, Plan, REPEAT_DEFAULT, SOURCES_MAX, Subject, load};
use crate::bench::report::{self, Report, comparison};
use crate::bench::session::{self, Finish};
use crate::bench::verdict::verdicts;
use crate::bench::worker;
use crate::bench::workload::Workload;
use crate::config::Mode;
use crate::config::life::duration;
use crate::config::workers::usable_cores;
use crate::sys::process::limits;
use bar::Bar;
use clap::{Args, ValueEnum};
use interrupted::Interrupted;
use outputs::Outputs;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use subjects::{Modes, address, modes, peer, target, variant};

/// Cores for each client thread: the rest is for what is measured.
const CORES_PER_CLIENT: u32 = 4;
/// The most client threads.
const THREADS_MAX: u64 = 256;

#[derive(Debug, Args)]
#[command(after_help = "Without COMMAND a built-in worker serves. Compare your own server: \
    maitred bench -w 4 -- node server.js")]
pub struct BenchArgs {
    /// Modes to compare, separated by commas; all, or none
    #[arg(long, value_name = "MODES", value_parser = modes)]
    modes: Option<Modes>,

    /// Also measure maitred with these options of `maitred run`, as NAME=OPTIONS; may be given several times
    ///
    /// In hand-off mode, unless OPTIONS say otherwise. They come after all others, and if an option is given twice the
    /// later one counts. For example: --variant 'least=--policy least-connections'
    #[arg(long, value_name = "NAME=OPTIONS", value_parser = variant)]
    variant: Vec<Subject>,

    #[command(flatten)]
    workers: WorkerArgs,

    /// Connections in each run; the workload decides if neither this nor --duration is given
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    connections: Option<u64>,

    /// Length of each run
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// Clients in a closed loop: each connects again when its connection has ended
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    concurrency: Option<usize>,

    /// Connections per second in an open loop: latency counts from when each was due
    #[arg(long, value_name = "R")]
    rate: Option<f64>,

    /// What the clients do and what happens to the workers
    #[arg(long, value_enum, default_value = "cheap", hide_possible_values = false)]
    workload: Workload,

    /// What is sent on a connection; the workload decides if not given
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,

    /// Requests on each connection, with --protocol keep-alive or echo
    #[arg(long, value_name = "K")]
    requests: Option<u32>,

    /// Path to request; if given several times, each request picks one at random
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,

    /// How long an answer may take before the connection counts as hung
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Rounds; in each round every mode has its turn
    #[arg(long, value_name = "N", default_value_t = REPEAT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,

    /// Client threads; one for every four cores by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    threads: Option<u64>,

    /// Seed of all random choices: paths, pauses, and the results that chance would give
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Let each client come from one of this many loopback addresses at random, from 127.0.0.2 on, and report how many
    /// of them more than one slot answered
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SOURCES_MAX)))]
    sources: Option<u32>,

    /// The address to use if the workers listen on several
    #[arg(long, value_name = "ADDR", value_parser = address)]
    address: Option<SocketAddr>,

    /// Measure something that already runs, as ADDR or NAME=ADDR; may be given several times
    #[arg(long, value_name = "ADDR", value_parser = target)]
    target: Vec<Subject>,

    /// Measure another way to serve, as NAME=COMMAND; may be given several times
    ///
    /// The command runs in a shell and serves on 127.0.0.1 at $PORT, which also replaces {port}; {workers} is replaced
    /// by the number of workers. It is ended after each turn.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = peer)]
    peer: Vec<Subject>,

    /// Run this shell command again and again while the clients are at work
    ///
    /// Its environment has: MAITRED_SUBJECT, the name of what is measured; MAITRED_PORT, its port; MAITRED_PID, its
    /// first process; MAITRED_CONTROL, its control socket if it is a mode of maitred; MAITRED_TIME, how often the
    /// command ran before. For example: --disturb 'maitred reload --wait --control "$MAITRED_CONTROL"'
    #[arg(long, value_name = "COMMAND")]
    disturb: Option<String>,

    /// Pause before each such command
    #[arg(long, value_name = "DURATION", requires = "disturb", default_value = "1s", value_parser = duration)]
    disturb_every: Duration,

    /// Run it at most this many times in each run
    #[arg(long, value_name = "N", requires = "disturb")]
    disturb_times: Option<u64>,

    /// Options for `maitred run`, as in --run-args '--stall 500ms --grace 5s'
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    run_args: Option<String>,

    /// Measure nothing: show the contents of this JSON file of an earlier measurement, and write the other files
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "command", "target", "peer", "variant", "modes"])]
    from: Option<PathBuf>,

    /// Measure nothing: say what changed from one JSON file to a later one; ends with 1 if something is slower
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], conflicts_with_all = ["from", "json", "command", "target", "peer", "variant", "modes"])]
    compare: Option<Vec<PathBuf>>,

    /// Write everything that was measured to this file, as JSON; - is standard output, without the tables then
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write one line for each run to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Write a page with plots to this file; it needs nothing from the network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write the tables and the verdict to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Write the plots into this directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,

    /// The server to measure, as for `maitred run`
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Measures and reports the results.
pub fn main(args: BenchArgs) -> ExitCode {
    if let Some(file) = &args.from {
        return again(file, &Outputs::of(&args));
    }
    if let Some([before, after]) = args.compare.as_deref() {
        return compare(before, after);
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

/// Reads an earlier measurement. Those of earlier versions have no verdict yet.
fn read(file: &Path) -> Result<Report, String> {
    let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let report = read.and_then(|text| serde_json::from_str::<Report>(&text).map_err(|error| error.to_string()));
    let mut report = report.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    report.verdicts = verdicts(&report.summaries, &report.runs);
    Ok(report)
}

/// Says what changed between two measurements.
fn compare(before: &Path, after: &Path) -> ExitCode {
    let compared = read(before).and_then(|before| comparison::compare(&before, &read(after)?));
    match compared {
        Ok(compared) => {
            let code = if compared.is_worse { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            say::lines(&compared.text, code)
        }
        Err(error) => usage(&error),
    }
}

/// Shows an earlier measurement.
fn again(file: &Path, outputs: &Outputs) -> ExitCode {
    match read(file) {
        Ok(report) => {
            let shown = say::lines(&report::table::text(&report), ExitCode::SUCCESS);
            match outputs.check().and_then(|()| outputs.write(&report)) {
                Ok(()) => shown,
                Err(error) => usage(&error),
            }
        }
        Err(error) => usage(&error),
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
    let (mut shown, mut written) = (ExitCode::SUCCESS, Ok(()));
    if !report.runs.is_empty() {
        if !outputs.to_standard_output() {
            shown = say::lines(&report::table::text(report), shown);
        }
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
        Finish::Complete => shown,
    }
}

fn usage(error: &str) -> ExitCode {
    complain(&error);
    ExitCode::from(USAGE)
}

fn plan(args: BenchArgs) -> Result<Plan, String> {
    let modes = match args.modes {
        Some(Modes(modes)) => modes,
        // With a target that already runs, only that target is of interest.
        None if !args.target.is_empty() && args.command.is_empty() => Vec::new(),
        None => Mode::value_variants().to_vec(),
    };
    let ours = !modes.is_empty() || !args.variant.is_empty();
    if !ours && args.target.is_empty() && args.peer.is_empty() {
        return Err("--modes none leaves nothing to measure; give --variant, --peer or --target".to_owned());
    }
    if !ours && !args.command.is_empty() {
        return Err("a COMMAND is measured in modes; give --modes or --variant".to_owned());
    }
    let asked = Options {
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
        sources: args.sources,
        own_server: !args.command.is_empty() || !args.target.is_empty() || !args.peer.is_empty(),
    };
    let choices = Mode::value_variants().iter().map(|mode| (*mode, args.workers.choice(*mode))).collect();
    let mut run_options = args.workers.words();
    if let Some(text) = &args.run_args {
        let words = shlex::split(text).ok_or_else(|| format!("--run-args {text:?} has a quote that is not closed"))?;
        run_options.extend(words.into_iter().map(OsString::from));
    }
    let (every, times) = (args.disturb_every, args.disturb_times);
    let disturb = args.disturb.map(|command| Command { command, every, times });
    let modes = modes.into_iter().map(Subject::Mode);
    Ok(Plan {
        subjects: modes.chain(args.variant).chain(args.peer).chain(args.target).collect(),
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
