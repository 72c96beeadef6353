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
    let mut grouped = Grouped::default();
    machine(plan, runs, summaries, cores, &mut doubts);
    if plan.repeat < REPEAT_DEFAULT {
        doubts.push(format!("few rounds: with {} there is no telling how far results scatter", plan.repeat));
    }
    for summary in summaries {
        let of = |run: &&Run| run.subject == summary.subject && run.invalid.is_empty();
        subject(plan, summary, &runs.iter().filter(of).collect::<Vec<_>>(), &mut grouped);
    }
    doubts.extend(grouped.lines());
    doubts
}

/// Doubts of the same kind about several subjects, which make one line.
#[derive(Default)]
struct Grouped(Vec<Group>);

struct Group {
    kind: &'static str,
    of: Vec<String>,
    advice: String,
}

impl Grouped {
    fn add(&mut self, kind: &'static str, subject: &str, detail: &str, advice: impl Into<String>) {
        let of = if detail.is_empty() { subject.to_owned() } else { format!("{subject} {detail}") };
        match self.0.iter_mut().find(|group| group.kind == kind) {
            Some(group) => group.of.push(of),
            None => self.0.push(Group { kind, of: vec![of], advice: advice.into() }),
        }
    }

    fn lines(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|Group { kind, of, advice }| {
            let advice = if advice.is_empty() { advice } else { format!("; {advice}") };
            format!("{kind}: {}{advice}", of.join(", "))
        })
    }
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

fn subject(plan: &Plan, summary: &Summary, runs: &[&Run], doubts: &mut Grouped) {
    let name = &summary.subject;
    let shortest = runs.iter().map(|run| run.took_s).fold(f64::MAX, f64::min);
    if shortest < SECONDS_MIN {
        doubts.add("run too short", name, &format!("{shortest:.2} s"), "give more --connections or --duration");
    }
    let rate = summary.connections_per_s;
    if rate.range() > RANGE_MAX {
        let detail = format!("by {:.0} % ({:.0} … {:.0})", 100.0 * rate.range(), rate.min, rate.max);
        doubts.add("rates scatter around their median", name, &detail, "");
    }
    let ran = &summary.commands;
    if ran.failed > 0 {
        let words = ran.last_words.as_ref().map(|words| format!(", as in: {words}")).unwrap_or_default();
        let detail = format!("{} of {} times{words}", ran.failed, ran.times);
        doubts.add("the disturbing command failed", name, &detail, "");
    }
    let wanted = plan.disturb.as_ref().and_then(|command| command.times).unwrap_or(0) * runs.len() as u64;
    if ran.times < wanted {
        let detail = format!("{} of {wanted} times", ran.times);
        doubts.add("the clients were through before the command had run as often as asked", name, &detail, "");
    }
    let endings = &summary.endings;
    // Connections that the front turned away as configured are no reason for doubt.
    let as_told = summary.front.map_or(0, |front| front.refused);
    if endings.unanswered() > as_told {
        let detail = format!(
            "{} of {} ({} failed, {} refused, {} reset, {} times 503, {} hung){}{}",
            endings.unanswered(),
            endings.all(),
            endings.failed,
            endings.refused,
            endings.reset,
            endings.unavailable,
            endings.hung,
            if as_told > 0 { format!(", {as_told} of them turned away as told") } else { String::new() },
            summary.example.as_ref().map(|why| format!(", as in: {why}")).unwrap_or_default()
        );
        doubts.add("connections were not answered", name, &detail, "");
    }
    let late = runs.iter().map(|run| run.late_p99_us).max().unwrap_or(0);
    if matches!(plan.load.arrival, Arrival::Open { .. }) && late > LATE_MAX_US {
        let detail = format!("up to {:.1} ms (99th percentile)", late as f64 / 1e3);
        doubts.add("the clients began connections late by their own fault", name, &detail, "");
    }
    let held: u64 = runs.iter().map(|run| run.held_back).sum();
    if held > 0 {
        let advice = format!("{} may be open at once, and the wait is in the latency", plan.load.open_max);
        doubts.add("connections waited in the clients", name, &format!("{held} times"), advice);
    }
    let answers: u64 = runs.iter().map(|run| run.requests).sum();
    if answers < ANSWERS_FOR_P99_9 {
        doubts.add("p99.9 is the luck of a few", name, &format!("with {answers} answers in all"), "");
    }
    if summary.counted_by == CountedBy::Nobody {
        let header = super::load::answer::SLOT_HEADER;
        let advice = format!("neither the front counts it nor does the server send the header {header}");
        doubts.add("who served what is not known", name, "", advice);
    }
    let written = runs.iter().map(|run| run.stderr_bytes).max().unwrap_or(0);
    if written > STDERR_MAX {
        let detail = format!("{:.1} MB in a run", written as f64 / 1e6);
        doubts.add("much written to standard error, which takes time", name, &detail, "turn the access log off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_of_one_kind_make_one_line() {
        let mut grouped = Grouped::default();
        grouped.add("run too short", "handoff", "0.5 s", "give more");
        grouped.add("who knows", "handoff", "", "");
        grouped.add("run too short", "shared", "0.6 s", "give more");
        let lines: Vec<String> = grouped.lines().collect();
        assert_eq!(lines, ["run too short: handoff 0.5 s, shared 0.6 s; give more", "who knows: handoff"]);
    }
}
