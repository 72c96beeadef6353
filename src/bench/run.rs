//! Measures one subject once, and records the result.

use super::agree::count_workers;
use super::command::{self, Around, Ran};
use super::disturb::disturb;
use super::error::BenchError;
use super::load::board::Board;
use super::load::tally::Ending;
use super::load::{Arrival, Load, Outcome, TurnedAway, Volume, drive};
use super::machine::Machine;
use super::observe::{Costs, Open, SeenBy, Snapshot, sample_open, watch_board};
use super::plan::Plan;
use super::record::{CountedBy, Latency, Run};
use super::sources::Sources;
use super::stop::Stop;
use super::subject::Running;
use crate::control::status::Status;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Connections made before anything counts: a tenth of the whole, but within this range. They warm up caches, code
/// paths and interpreters.
const WARM_UP: std::ops::RangeInclusive<u64> = 500..=10_000;
/// The longest warm-up.
const WARM_UP_MAX: Duration = Duration::from_secs(2);

/// Measures a subject that serves; `None` if `stop` came before there was anything to measure.
///
/// # Errors
/// [`BenchError`] when the very first request is not answered, or when the lab itself fails.
pub fn measure(
    plan: &Plan,
    round: u32,
    running: &Running,
    stop: &Stop,
    ended: &AtomicU64,
) -> Result<Option<Run>, BenchError> {
    let lab = |source| BenchError::Own { what: "run clients", source };
    let load = fitting(&plan.load, running, front_status(running)?.as_ref())?;
    probe(&load, running, stop).map_err(|error| error.unwrap_or_else(lab))?;
    uncounted(&warm_up(&load), running, stop).map_err(lab)?;
    if stop.is_set() {
        return Ok(None);
    }
    let before = front_status(running)?;
    let written = running.written();
    let Observed { outcome, costs, open, board, done, machine } =
        observed(plan, &load, running, stop, ended).map_err(lab)?;
    let after = front_status(running)?;
    let mut run = record(round, running, &outcome, stop);
    run.costs = costs;
    run.open = Open::of(&open, SeenBy::Kernel, load.seed);
    if let Some(known) = Open::of(&board, SeenBy::Clients, load.seed) {
        run.open_by_kernel = run.open.replace(known);
    }
    run.sources = load.sources.map(|_| Sources::of(&outcome.tally.by_source));
    run.disturbances = done.signals + done.commands.times;
    run.commands = done.commands;
    run.stderr_bytes = running.written() - written;
    (run.stolen, run.strangers) = machine.shares(&costs.unwrap_or_default(), &outcome.cost);
    count_workers(plan, running.workers as usize, &mut run, &outcome.tally, before.zip(after));
    Ok(Some(run))
}

/// The load adapted to a subject: if the front turns connections away as configured, that is not an error.
fn fitting(load: &Load, running: &Running, front: Option<&Status>) -> Result<Load, BenchError> {
    let mut load = load.clone();
    if front.is_some_and(|status| status.admission.limits()) {
        load.turned_away = TurnedAway::AsTold;
    }
    let loopback = matches!(running.address.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if load.sources.is_some() && !loopback {
        return Err(BenchError::Sources { name: running.name.clone(), address: running.address });
    }
    Ok(load)
}

/// Runs clients whose connections do not count.
fn uncounted(load: &Load, running: &Running, stop: &Stop) -> std::io::Result<Outcome> {
    drive(load, running.address, stop, &AtomicU64::new(0), &Board::new(0))
}

/// Sends one request, to find out at once what is wrong with a server that does not answer.
fn probe(load: &Load, running: &Running, stop: &Stop) -> Result<(), Result<BenchError, std::io::Error>> {
    let mut load = load.clone();
    (load.arrival, load.volume, load.pause) = (Arrival::Closed { clients: 1 }, Volume::Connections(1), None);
    let outcome = uncounted(&load, running, stop).map_err(Err)?;
    match outcome.tally.example {
        Some(ending) => {
            Err(Ok(BenchError::Unanswered { name: running.name.clone(), address: running.address, ending }))
        }
        None => Ok(()),
    }
}

fn warm_up(load: &Load) -> Load {
    let mut warm = load.clone();
    warm.volume = match load.volume {
        Volume::Connections(all) => Volume::Connections((all / 10).clamp(*WARM_UP.start(), *WARM_UP.end()).min(all)),
        Volume::Duration(duration) => Volume::Duration((duration / 10).min(WARM_UP_MAX)),
    };
    // Staying connected takes the most time and warms up the least.
    warm.pause = None;
    warm
}

fn front_status(running: &Running) -> Result<Option<Status>, BenchError> {
    running.control().map(|_| running.status()).transpose()
}

/// The disturbances of the subject during the run.
#[derive(Default)]
struct Done {
    signals: u64,
    commands: Ran,
}

/// What was observed and done while the clients were at work.
struct Observed {
    outcome: Outcome,
    costs: Option<Costs>,
    /// Samples of the open connections of each slot, from the kernel …
    open: Vec<Vec<u64>>,
    /// … and from the clients.
    board: Vec<Vec<u64>>,
    done: Done,
    machine: Machine,
}

/// Runs the clients, and meanwhile all observers and disturbances.
fn observed(plan: &Plan, load: &Load, running: &Running, stop: &Stop, ended: &AtomicU64) -> std::io::Result<Observed> {
    let over = Stop::new()?;
    let board = Board::new(running.workers as usize);
    let root = running.root();
    std::thread::scope(|scope| {
        let sampler = root.map(|root| {
            let (port, workers, over) = (running.address.port(), running.workers as usize, &over);
            scope.spawn(move || sample_open(root, port, workers, over))
        });
        // Only if connections stay open do clients know for long enough which worker has them.
        let watcher = load.pause.map(|_| {
            let (board, over) = (&board, &over);
            scope.spawn(move || watch_board(board, over))
        });
        let disturber = running.control().map(|control| {
            let (kind, over) = (plan.workload.disturbance(), &over);
            scope.spawn(move || disturb(kind, control, over))
        });
        let commander = plan.disturb.as_ref().map(|wanted| {
            let (subject, control) = (running.name.clone(), running.control().map(ToOwned::to_owned));
            let around = Around { subject, port: running.address.port(), pid: root, control };
            let over = &over;
            scope.spawn(move || command::run(wanted, &around, over))
        });
        let begun = root.map(Snapshot::take);
        let machine = Machine::now();
        let outcome = drive(load, running.address, stop, ended, &board);
        let machine = machine.until(&Machine::now());
        let ended = root.map(Snapshot::take);
        over.set();
        let costs = root.zip(begun.zip(ended)).map(|(root, (begun, ended))| begun.until(&ended, root));
        let samples = |thread: std::thread::ScopedJoinHandle<'_, Vec<Vec<u64>>>| thread.join().unwrap_or_default();
        let open = sampler.map(samples).unwrap_or_default();
        let board = watcher.map(samples).unwrap_or_default();
        let done = Done {
            signals: disturber.map_or(0, |thread| thread.join().unwrap_or_default()),
            commands: commander.map(|thread| thread.join().unwrap_or_default()).unwrap_or_default(),
        };
        Ok(Observed { outcome: outcome?, costs, open, board, done, machine })
    })
}

fn record(round: u32, running: &Running, outcome: &Outcome, stop: &Stop) -> Run {
    let Outcome { tally, took, cost } = outcome;
    let seconds = took.as_secs_f64().max(1e-9);
    let mut invalid = Vec::new();
    if tally.endings.answered == 0 {
        invalid.push("no connection was answered".to_owned());
    } else if tally.gave_up {
        invalid.push("most connections were not answered, so the rest was not tried".to_owned());
    }
    if tally.mixed > 0 {
        invalid.push(format!("on {} connections answers came from different workers", tally.mixed));
    }
    Run {
        subject: running.name.clone(),
        round,
        took_s: seconds,
        connections_per_s: tally.endings.answered as f64 / seconds,
        requests_per_s: tally.requests as f64 / seconds,
        endings: tally.endings,
        example: tally.example.map(Ending::reason),
        requests: tally.requests,
        latency_us: Latency::of(&tally.latency),
        per_worker: Vec::new(),
        counted_by: CountedBy::Nobody,
        spread: None,
        open: None,
        open_by_kernel: None,
        sources: None,
        costs: None,
        client: *cost,
        late_p99_us: tally.late.value_at_quantile(0.99),
        held_back: tally.held_back,
        disturbances: 0,
        commands: Ran::default(),
        front: None,
        stderr_bytes: 0,
        stolen: 0.0,
        strangers: 0.0,
        invalid,
        cut_short: stop.is_set(),
        latencies: tally.latency.clone(),
    }
}
