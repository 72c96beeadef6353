//! One subject measured once, and what came of it.

use super::command::{self, Around, Ran};
use super::disturb::disturb;
use super::error::BenchError;
use super::load::tally::{Ending, Endings, Tally};
use super::load::{Arrival, ClientCost, Load, Outcome, Volume, drive};
use super::observe::{Costs, Open, Snapshot, sample_open};
use super::plan::Plan;
use super::stop::Stop;
use super::subject::Running;
use super::workload::Disturbance;
use crate::config::Mode;
use crate::control::status::Status;
use crate::core::spread::Spread;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Connections that are made before anything counts: a tenth of the whole, but at least and at
/// most so many. Caches, code paths and interpreters get warm.
const WARM_UP: std::ops::RangeInclusive<u64> = 500..=10_000;
/// And no longer than this.
const WARM_UP_MAX: Duration = Duration::from_secs(2);

/// Where a number for each worker comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountedBy {
    /// The front, which handed them over or saw them taken.
    Front,
    /// The clients, whom the server told.
    Clients,
    /// Nobody.
    Nobody,
}

/// Times to an answer, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half took no longer.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p99_9: u64,
    /// The longest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
}

impl Latency {
    /// The usual percentiles.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        Latency {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
        }
    }
}

/// What the front counted from the beginning of a run to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections sent back by workers.
    pub returned: u64,
    /// Connections taken back from workers.
    pub rescued: u64,
    /// Connections that could be given to nobody.
    pub lost: u64,
    /// Workers started in the place of others, after a crash or by a reload.
    pub restarts: u64,
}

impl Front {
    fn between(before: &Status, after: &Status) -> Front {
        let since = |of: fn(&Status) -> u64| of(after).saturating_sub(of(before));
        Front {
            accepted: since(|status| status.totals.accepted),
            returned: since(|status| status.totals.returned),
            rescued: since(|status| status.totals.rescued),
            lost: since(|status| status.totals.lost),
            restarts: since(|status| status.workers.iter().map(|worker| worker.restarts).sum()),
        }
    }

    /// Adds what was counted in another run.
    pub fn add(&mut self, more: &Front) {
        self.accepted += more.accepted;
        self.returned += more.returned;
        self.rescued += more.rescued;
        self.lost += more.lost;
        self.restarts += more.restarts;
    }
}

/// What came of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The subject.
    pub subject: String,
    /// Which round, from 1.
    pub round: u32,
    /// Seconds, without planned pauses.
    pub took_s: f64,
    /// Answered connections a second.
    pub connections_per_s: f64,
    /// Answered requests a second.
    pub requests_per_s: f64,
    /// How connections ended.
    pub endings: Endings,
    /// An example of what was wrong with one that was not answered.
    pub example: Option<String>,
    /// Answered requests.
    pub requests: u64,
    /// Time to an answer.
    pub latency_us: Latency,
    /// Connections of each slot.
    pub per_worker: Vec<u64>,
    /// Who counted them.
    pub counted_by: CountedBy,
    /// How even that is.
    pub spread: Option<Spread>,
    /// How even the open connections were.
    pub open: Option<Open>,
    /// What the subject used.
    pub costs: Option<Costs>,
    /// What the clients used.
    pub client: ClientCost,
    /// 99th percentile of how late connections of an open loop were begun, in microseconds, by the
    /// clients' own fault.
    pub late_p99_us: u64,
    /// Arrivals that waited because too many connections were open.
    pub held_back: u64,
    /// How often workers were disturbed, by the workload or by commands.
    pub disturbances: u64,
    /// What came of the commands of `--disturb`.
    #[serde(default)]
    pub commands: Ran,
    /// What the front says of this run, if it is one of ours.
    #[serde(default)]
    pub front: Option<Front>,
    /// Bytes that the subject wrote on standard error meanwhile.
    pub stderr_bytes: u64,
    /// Part of the machine's processor time that it did not get from its host.
    pub stolen: f64,
    /// Part of the machine's processor time that neither the subject nor the clients used, and that
    /// was not idle.
    pub strangers: f64,
    /// Why this run does not count.
    pub invalid: Vec<String>,
    /// Ctrl-C came.
    pub cut_short: bool,
    /// All latencies.
    #[serde(skip, default = "no_latencies")]
    pub latencies: Histogram<u64>,
}

fn no_latencies() -> Histogram<u64> {
    Tally::default().latency
}

/// Measures a subject that serves; `None` when `stop` came before there was anything to measure.
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
    probe(plan, running, stop).map_err(|error| error.unwrap_or_else(lab))?;
    let uncounted = AtomicU64::new(0);
    drive(&warm_up(&plan.load), running.address, stop, &uncounted).map_err(lab)?;
    if stop.is_set() {
        return Ok(None);
    }
    let before = front_status(running)?;
    let written = running.written();
    let (outcome, costs, samples, done, machine) = observed(plan, running, stop, ended).map_err(lab)?;
    let after = front_status(running)?;
    let mut run = record(round, running, &outcome, stop);
    run.costs = costs;
    run.open = Open::of(&samples, plan.load.seed);
    run.disturbances = done.signals + done.commands.times;
    run.commands = done.commands;
    run.stderr_bytes = running.written() - written;
    (run.stolen, run.strangers) = machine.shares(&costs.unwrap_or_default(), &outcome.cost);
    count_workers(plan, &mut run, &outcome.tally, before.zip(after));
    Ok(Some(run))
}

/// One request, to know at once what is wrong with a server that does not answer.
fn probe(plan: &Plan, running: &Running, stop: &Stop) -> Result<(), Result<BenchError, std::io::Error>> {
    let mut load = plan.load.clone();
    (load.arrival, load.volume, load.pause) = (Arrival::Closed { clients: 1 }, Volume::Connections(1), None);
    let outcome = drive(&load, running.address, stop, &AtomicU64::new(0)).map_err(Err)?;
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
    // Staying is what takes long, and what warms least.
    warm.pause = None;
    warm
}

fn front_status(running: &Running) -> Result<Option<Status>, BenchError> {
    running.control().map(|_| running.status()).transpose()
}

/// What was done to the subject meanwhile.
#[derive(Default)]
struct Done {
    signals: u64,
    commands: Ran,
}

type Observed = (Outcome, Option<Costs>, Vec<Vec<u64>>, Done, Machine);

/// The clients at work, and all that is looked at or done meanwhile.
fn observed(plan: &Plan, running: &Running, stop: &Stop, ended: &AtomicU64) -> std::io::Result<Observed> {
    let over = Stop::new()?;
    let root = running.root();
    std::thread::scope(|scope| {
        let sampler = root.map(|root| {
            let (port, workers, over) = (running.address.port(), plan.workers as usize, &over);
            scope.spawn(move || sample_open(root, port, workers, over))
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
        let outcome = drive(&plan.load, running.address, stop, ended);
        let machine = machine.until(&Machine::now());
        let ended = root.map(Snapshot::take);
        over.set();
        let costs = root.zip(begun.zip(ended)).map(|(root, (begun, ended))| begun.until(&ended, root));
        let samples = sampler.map(|thread| thread.join().unwrap_or_default()).unwrap_or_default();
        let done = Done {
            signals: disturber.map_or(0, |thread| thread.join().unwrap_or_default()),
            commands: commander.map(|thread| thread.join().unwrap_or_default()).unwrap_or_default(),
        };
        Ok((outcome?, costs, samples, done, machine))
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

/// Fills in who served what, and compares what the front says with what the clients were told.
fn count_workers(plan: &Plan, run: &mut Run, tally: &Tally, status: Option<(Status, Status)>) {
    if let Some((before, after)) = &status {
        let difference = |of: fn(&crate::control::status::Worker) -> u64| -> Vec<u64> {
            after.workers.iter().zip(&before.workers).map(|(a, b)| of(a).saturating_sub(of(b))).collect()
        };
        if after.totals.lost > 0 {
            run.invalid.push(format!("the front lost {} connections", after.totals.lost));
        }
        let restarts: u64 = difference(|worker| worker.restarts).iter().sum();
        let meant = plan.workload.disturbance() == Disturbance::Crash || plan.disturb.is_some();
        if restarts > 0 && !meant {
            run.invalid.push(format!("workers ended {restarts} times while they were measured"));
        }
        let taken = difference(|worker| worker.taken);
        run.front = Some(Front::between(before, after));
        // In shared mode only the shim can count what is taken.
        if before.mode == Mode::Handoff.name() || taken.iter().any(|&n| n > 0) {
            run.per_worker = taken;
            run.counted_by = CountedBy::Front;
        }
    }
    let handoff = status.is_some_and(|(before, _)| before.mode == Mode::Handoff.name());
    let by_slot = &tally.by_slot;
    match run.counted_by {
        // A command may take slots away with their counts, so only the sums can be compared.
        CountedBy::Front if plan.disturb.is_some() => {
            let accepted = run.front.filter(|_| handoff).map(|front| [front.accepted]);
            run.invalid.extend(accepted.and_then(|accepted| disagreement(&accepted, &[], &run.endings)));
        }
        CountedBy::Front => run.invalid.extend(disagreement(&run.per_worker, by_slot, &run.endings)),
        CountedBy::Clients | CountedBy::Nobody if !by_slot.is_empty() => {
            let slots = by_slot.len().max(plan.workers as usize);
            run.per_worker = (0..slots).map(|slot| by_slot.get(slot).copied().unwrap_or(0)).collect();
            run.counted_by = CountedBy::Clients;
        }
        CountedBy::Clients | CountedBy::Nobody => {}
    }
    run.spread = Spread::of(&run.per_worker);
}

/// What is wrong between the front's count and the clients'. A connection that was not answered may
/// or may not have reached a worker; all others must be found on both sides, for each worker.
fn disagreement(front: &[u64], clients: &[u64], endings: &Endings) -> Option<String> {
    let doubtful = endings.unanswered() + endings.abandoned;
    let sum: u64 = front.iter().sum();
    let agreed = if clients.is_empty() {
        sum >= endings.answered && sum <= endings.all()
    } else {
        let known: u64 = clients.iter().sum();
        let at_most = |slot: usize, served: &u64| *served <= front.get(slot).copied().unwrap_or(0);
        clients.iter().enumerate().all(|(slot, served)| at_most(slot, served)) && sum - sum.min(known) <= doubtful
    };
    (!agreed).then(|| {
        format!(
            "the front and the clients disagree: workers took {front:?}, the clients were answered by {clients:?} \
             ({} answered, {doubtful} not)",
            endings.answered
        )
    })
}

/// The machine's processor time, from `/proc/stat`.
#[derive(Clone, Copy, Debug, Default)]
struct Machine {
    busy_s: f64,
    idle_s: f64,
    stolen_s: f64,
}

impl Machine {
    fn now() -> Machine {
        use procfs::CurrentSI;
        let Ok(stat) = procfs::KernelStats::current() else { return Machine::default() };
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        let t = &stat.total;
        let interrupts = t.irq.unwrap_or(0) + t.softirq.unwrap_or(0);
        Machine {
            busy_s: seconds(t.user + t.nice + t.system + interrupts),
            idle_s: seconds(t.idle + t.iowait.unwrap_or(0)),
            stolen_s: seconds(t.steal.unwrap_or(0)),
        }
    }

    fn until(&self, later: &Machine) -> Machine {
        Machine {
            busy_s: later.busy_s - self.busy_s,
            idle_s: later.idle_s - self.idle_s,
            stolen_s: later.stolen_s - self.stolen_s,
        }
    }

    /// What the host took, and what neither subject nor clients used, as parts of the whole.
    fn shares(&self, costs: &Costs, client: &ClientCost) -> (f64, f64) {
        let whole = self.busy_s + self.idle_s + self.stolen_s;
        if whole <= 0.0 {
            return (0.0, 0.0);
        }
        let known = costs.front.cpu_s + costs.workers.cpu_s + client.cpu_s;
        (self.stolen_s / whole, (self.busy_s - known).max(0.0) / whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endings(answered: u64, hung: u64) -> Endings {
        Endings { answered, hung, ..Endings::default() }
    }

    #[test]
    fn front_and_clients_agree_when_every_answer_is_found_on_both_sides() {
        assert_eq!(disagreement(&[5, 5], &[5, 5], &endings(10, 0)), None);
        assert_eq!(disagreement(&[5, 5], &[], &endings(10, 0)), None);
        // One hung: whether its worker took it, nobody knows.
        assert_eq!(disagreement(&[5, 5], &[5, 4], &endings(9, 1)), None);
        assert_eq!(disagreement(&[5, 4], &[5, 4], &endings(9, 1)), None);
    }

    #[test]
    fn they_disagree_when_the_sums_match_but_the_workers_do_not() {
        assert!(disagreement(&[5, 5], &[6, 4], &endings(10, 0)).is_some());
        assert!(disagreement(&[5, 5], &[5, 4], &endings(10, 0)).is_some());
        assert!(disagreement(&[5, 5], &[5, 5, 1], &endings(11, 0)).is_some());
        assert!(disagreement(&[5, 4], &[], &endings(10, 0)).is_some());
        assert!(disagreement(&[5, 6], &[], &endings(10, 0)).is_some());
    }
}
