//! Real servers, unmodified: each with each adapter that suits it, in each mode. Every connection is
//! answered, and where the mode promises it the spread over the slots is exact. The table in the manual
//! is made of these runs.
//!
//! A test whose program is missing fails under `CI` with the install hint. Elsewhere it is shown as
//! ignored, with the hint, and can be asked for by name with `--ignored`.

mod commands;
mod dns;
mod fastcgi;
mod nightly;
mod table;

#[path = "../support/mod.rs"]
mod support;

use commands::{Case, Effort};
use libtest_mimic::{Arguments, Trial};
use std::sync::{Arc, Mutex};
use support::*;
use table::{Cell, Results};

/// Connections of one trial, and clients that make them, in hand-off mode.
const HANDED: (u64, usize) = (400, 16);
/// The same where clients wait in the server's own queue: fewer at a time than the shortest backlog of
/// these servers, so that nobody asks the kernel twice.
const QUEUED: (u64, usize) = (120, 4);
const WORKERS: usize = 4;

fn main() {
    if std::env::var_os("MAITRED_NIGHTLY").is_some() {
        return run(nightly::all(), table::NIGHTLY, Vec::new());
    }
    let mut trials = Vec::new();
    trials.extend(commands::on_demand().into_iter().map(|(name, needs, command)| {
        needing(needs, format!("{name}_on_a_port_of_its_own_choice"), move || serve_on_demand(&command()))
    }));
    for (name, needs, command) in dns::SERVERS {
        for mode in ["handoff", "shared", "kernel"] {
            let name = format!("{name}_over_UDP_and_TCP_{mode}");
            trials.push(needing(needs, name, move || dns::serve(mode, command)));
        }
    }
    run(commands::all(), table::OFTEN, trials);
}

/// Runs the servers and the other trials, and compares the table of the manual.
fn run(cases: Vec<Case>, begin: &'static str, others: Vec<Trial>) {
    let results = Arc::new(Mutex::new(Results::new(begin)));
    let mut trials = Vec::new();
    for case in cases {
        let case = Arc::new(case);
        for mode in case.modes.clone() {
            let (case, results) = (Arc::clone(&case), Arc::clone(&results));
            results.lock().unwrap().expect(&case, &mode);
            trials.push(trial(case, mode, results));
        }
    }
    trials.extend(others);
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    if !conclusion.has_failed()
        && let Err(why) = results.lock().unwrap().compare_with_manual()
    {
        eprintln!("{why}");
        std::process::exit(101);
    }
    conclusion.exit();
}

fn trial(case: Arc<Case>, mode: String, results: Arc<Mutex<Results>>) -> Trial {
    let name = format!("{} {} {mode}", case.server, case.adapter).replace(' ', "_");
    needing(&case.needs.clone(), name, move || {
        let cell = serve(&case, &mode);
        results.lock().unwrap().record(&case, &mode, cell);
    })
}

/// A trial that fails where a program is missing; outside of CI it is ignored instead.
fn needing(needs: &[(&'static str, &'static str)], name: String, run: impl FnOnce() + Send + 'static) -> Trial {
    let missing = needs.iter().find(|(program, _)| !has(program)).copied();
    let in_ci = std::env::var_os("CI").is_some();
    let kind = missing.map_or(String::new(), |(program, how)| format!("no {program}: {how}"));
    Trial::test(name, move || {
        if let Some((program, how)) = missing {
            return Err(format!("{program} is missing; install it with: {how}").into());
        }
        run();
        Ok(())
    })
    .with_kind(kind)
    .with_ignored_flag(missing.is_some() && !in_ci)
}

/// The server binds what the kernel chooses, without `--bind`.
fn serve_on_demand(command: &[String]) {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let maitred = Maitred::start(&[&["-w", "4", "--"], &words[..]].concat()).ready(WORKERS);
    check_exact_spread(&maitred, HANDED.0, HANDED.1);
    maitred.stop();
}

/// Runs the server and asks it; tells how evenly its connections were spread.
fn serve(case: &Case, mode: &str) -> Cell {
    let workers = WORKERS.to_string();
    let mut args = vec!["--mode", mode, "-w", &workers, "-b", "127.0.0.1:0"];
    match case.adapter.strip_prefix("inherit ") {
        Some(preset) => args.extend(["--preset", preset]),
        None => args.extend(["--adapter", &case.adapter]),
    }
    if case.effort == Effort::Light {
        // Some do not end by themselves.
        args.extend(["--grace", "5s"]);
    }
    args.push("--");
    let command = (case.command)();
    args.extend(command.iter().map(String::as_str));
    let maitred = Maitred::start(&args);
    maitred.wait_for("worker forked", WORKERS);
    let ready =
        |status: &serde_json::Value| status["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready");
    maitred.status_until(ready);
    let address = maitred.address();
    let full = case.effort == Effort::Full;
    let (connections, clients) = if mode == "handoff" && full { HANDED } else { QUEUED };
    let exact = mode == "handoff" || full && mode == "kernel" && maitred.status()["policy"] == "round-robin";
    if exact {
        check_exact_spread_with(&maitred, connections, clients, &|| (case.ask)(address));
    } else {
        let tally = load_with(connections, clients, &|| (case.ask)(address));
        assert_eq!((tally.answered, tally.hung), (connections, 0), "{:?}", tally.failed);
    }
    assert_eq!(maitred.status()["totals"]["lost"], 0);
    maitred.stop();
    match (exact, mode) {
        (true, _) => Cell::Exact,
        (false, "kernel") if full => Cell::Drawn,
        (false, _) => Cell::Served,
    }
}
