//! What a reader should doubt, stated with the numbers, like hyperfine's warnings
//! (<https://github.com/sharkdp/hyperfine>, `warnings.rs`).

use super::load::Arrival;
use super::plan::{Plan, REPEAT_DEFAULT, Subject};
use super::record::{CountedBy, Run};
use super::summary::Summary;

/// If rates differ by more than this part of their median from run to run, comparisons are uncertain.
const RANGE_MAX: f64 = 0.10;
/// If the host took more than this part of the machine, that is noise.
const STOLEN_MAX: f64 = 0.02;
/// If other programs used more than this part of the machine, that is noise.
const STRANGERS_MAX: f64 = 0.10;
/// A client that ran, or waited to run, for more than this part of the time may have limited the rate.
const CLIENT_BUSY_MAX: f64 = 0.90;
/// Shorter runs are dominated by chance and by effects at their start and end.
const SECONDS_MIN: f64 = 2.0;
/// An open loop that begins its connections later than this, in microseconds, at the 99th percentile, measures itself.
const LATE_MAX_US: u64 = 2000;
/// With fewer answers than this in all runs together, a thousandth of them is only a handful.
const ANSWERS_FOR_P99_9: u64 = 10_000;
/// More bytes than this on standard error cost the server and the lab time.
const STDERR_MAX: u64 = 1 << 20;

/// All doubts about these results, the most general first.
#[must_use]
pub fn doubts(plan: &Plan, runs: &[Run], summaries: &[Summary], cores: usize) -> Vec<String> {
    let mut doubts = Vec::new();
    machine(plan, runs, summaries, cores, &mut doubts);
    if plan.repeat < REPEAT_DEFAULT {
        doubts.push(format!("few rounds: with {} there is no telling how far results scatter", plan.repeat));
    }
    for summary in summaries {
        let of = |run: &&Run| run.subject == summary.subject && run.invalid.is_empty();
        subject(plan, summary, &runs.iter().filter(of).collect::<Vec<_>>(), &mut doubts);
    }
    doubts
}

fn machine(plan: &Plan, runs: &[Run], summaries: &[Summary], cores: usize, doubts: &mut Vec<String>) {
    let front = plan.subjects.iter().any(|subject| !matches!(subject, Subject::Target { .. }));
    let busy = plan.workers as usize + usize::from(front) + plan.load.threads;
    if front && cores < busy {
        doubts.push(format!(
            "few cores: {} workers, the front and {} client thread{} share {cores}; rates say how much work each way of \
             giving connections takes, not how far it scales",
            plan.workers,
            plan.load.threads,
            if plan.load.threads == 1 { "" } else { "s" }
        ));
    }
    let most = |of: fn(&Run) -> f64| runs.iter().map(of).fold(0.0, f64::max);
    let stolen = most(|run| run.stolen);
    if stolen > STOLEN_MAX {
        doubts.push(format!("noisy machine: its host took up to {:.0} % of its processor time", 100.0 * stolen));
    }
    // A target's processes are not known, so their usage cannot be distinguished from that of other programs.
    let strangers = runs.iter().filter(|run| run.costs.is_some()).map(|run| run.strangers).fold(0.0, f64::max);
    if strangers > STRANGERS_MAX {
        doubts.push(format!(
            "noisy machine: up to {:.0} % of its processor time went elsewhere, to other programs or to the kernel on \
             nobody's account",
            100.0 * strangers
        ));
    }
    // A trickle and an open loop do not measure the rate.
    let closed = matches!(plan.load.arrival, Arrival::Closed { clients } if clients > 1);
    let busiest = summaries.iter().max_by(|a, b| a.client_busy.median.total_cmp(&b.client_busy.median));
    if let Some(summary) = busiest.filter(|s| closed && s.client_busy.median > CLIENT_BUSY_MAX) {
        doubts.push(format!(
            "client saturated: its threads ran or wanted to run {:.0} % of the time with {}, so they may limit the rate; {}",
            100.0 * summary.client_busy.median,
            summary.subject,
            if cores > busy { format!("try --threads {}", plan.load.threads + 1) } else { "it needs a core more".to_owned() }
        ));
    }
}

fn subject(plan: &Plan, summary: &Summary, runs: &[&Run], doubts: &mut Vec<String>) {
    let name = &summary.subject;
    let shortest = runs.iter().map(|run| run.took_s).fold(f64::MAX, f64::min);
    if shortest < SECONDS_MIN {
        doubts.push(format!("{name}: run too short, {shortest:.2} s; give more --connections or --duration"));
    }
    let rate = summary.connections_per_s;
    if rate.range() > RANGE_MAX {
        doubts.push(format!(
            "{name}: rates scatter by {:.0} % of their median ({:.0} … {:.0})",
            100.0 * rate.range(),
            rate.min,
            rate.max
        ));
    }
    let ran = &summary.commands;
    if ran.failed > 0 {
        doubts.push(format!(
            "{name}: the disturbing command failed {} of {} times{}",
            ran.failed,
            ran.times,
            ran.last_words.as_ref().map(|words| format!(", as in: {words}")).unwrap_or_default()
        ));
    }
    let wanted = plan.disturb.as_ref().and_then(|command| command.times).unwrap_or(0) * runs.len() as u64;
    if ran.times < wanted {
        doubts
            .push(format!("{name}: the clients were through when the command had run {} of {wanted} times", ran.times));
    }
    let endings = &summary.endings;
    // Connections that the front turned away as configured are no reason for doubt.
    let as_told = summary.front.map_or(0, |front| front.refused);
    if endings.unanswered() > as_told {
        doubts.push(format!(
            "{name}: {} of {} connections were not answered ({} failed, {} refused, {} reset, {} times 503, {} hung){}{}",
            endings.unanswered(),
            endings.all(),
            endings.failed,
            endings.refused,
            endings.reset,
            endings.unavailable,
            endings.hung,
            if as_told > 0 { format!(", {as_told} of them turned away as told") } else { String::new() },
            summary.example.as_ref().map(|why| format!(", as in: {why}")).unwrap_or_default()
        ));
    }
    let late = runs.iter().map(|run| run.late_p99_us).max().unwrap_or(0);
    if matches!(plan.load.arrival, Arrival::Open { .. }) && late > LATE_MAX_US {
        doubts.push(format!(
            "{name}: the clients began connections up to {:.1} ms late (99th percentile) by their own fault",
            late as f64 / 1e3
        ));
    }
    let held: u64 = runs.iter().map(|run| run.held_back).sum();
    if held > 0 {
        doubts.push(format!(
            "{name}: {held} times a connection waited because {} were open; its wait is in the latency",
            plan.load.open_max
        ));
    }
    let answers: u64 = runs.iter().map(|run| run.requests).sum();
    if answers < ANSWERS_FOR_P99_9 {
        doubts.push(format!("{name}: with {answers} answers in all, p99.9 is the luck of a few"));
    }
    if summary.counted_by == CountedBy::Nobody {
        doubts.push(format!(
            "{name}: who served what is not known, because neither the front counts it nor the server sends the header {}",
            super::load::answer::SLOT_HEADER
        ));
    }
    let written = runs.iter().map(|run| run.stderr_bytes).max().unwrap_or(0);
    if written > STDERR_MAX {
        doubts.push(format!(
            "{name}: it wrote {:.1} MB to standard error in a run, which takes time; turn its access log off",
            written as f64 / 1e6
        ));
    }
}
