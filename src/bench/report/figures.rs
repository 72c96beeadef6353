//! The figures in tables, as text, for both the terminal and the page.

use super::Report;
use crate::bench::observe::SeenBy;
use crate::bench::record::Front;
use crate::bench::summary::{Median, Summary};
use crate::core::spread::Spread;

/// Some figures of all subjects.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The subject matter.
    pub title: &'static str,
    /// The columns after the first.
    pub columns: Vec<&'static str>,
    /// The subject's name, and its figures.
    pub rows: Vec<Vec<String>>,
    /// How to read them.
    pub note: &'static str,
}

/// All tables that have a row.
#[must_use]
pub fn figures(report: &Report) -> Vec<Figures> {
    let all = [
        rates(report),
        endings(report),
        disturbances(report),
        spreads(report),
        open(report),
        sources(report),
        costs(report),
    ];
    all.into_iter().filter(|figures| !figures.rows.is_empty()).collect()
}

fn rates(report: &Report) -> Figures {
    let requests = report.plan.load.exchanges > 1;
    let mut columns = vec!["connections/s", "min … max", "ratio"];
    if requests {
        columns.push("requests/s");
    }
    columns.extend(["p50", "p90", "p99", "p99.9", "max"]);
    let row = |s: &Summary| {
        let rate = &s.connections_per_s;
        let ratio = s.ratio.map_or_else(dash, |ratio| format!("{:.2}", ratio.median));
        let mut row =
            vec![s.subject.clone(), whole(rate.median), format!("{} … {}", whole(rate.min), whole(rate.max)), ratio];
        if requests {
            row.push(whole(s.requests_per_s.median));
        }
        let l = &s.latency_us;
        row.extend([l.p50, l.p90, l.p99, l.p99_9, l.max].map(latency));
        row
    };
    Figures {
        title: "rate and latency",
        columns,
        rows: report.summaries.iter().map(row).collect(),
        note: "medians of the runs; the ratio is the median of the rounds' ratios to the first line",
    }
}

/// Shown only if some connections were not answered, or if that is the purpose of the measurement.
fn endings(report: &Report) -> Figures {
    let row = |s: &Summary| {
        let e = &s.endings;
        let numbers = [e.answered, e.reset, e.unavailable, e.hung, e.refused, e.failed, e.abandoned];
        let front = |of: fn(&Front) -> u64| s.front.map_or_else(dash, |front| of(&front).to_string());
        let by_front = [front(|front| front.accepted), front(|front| front.refused), front(|front| front.lost)];
        let numbers = numbers.map(|n| n.to_string()).into_iter().chain(by_front);
        std::iter::once(s.subject.clone()).chain(numbers).collect()
    };
    let something = report.plan.disturb.is_some()
        || report.summaries.iter().any(|s| s.endings.unanswered() + s.endings.abandoned > 0);
    let shown = report.summaries.iter().filter(|_| something);
    Figures {
        title: "endings",
        columns: vec![
            "answered",
            "reset",
            "503",
            "hung",
            "refused",
            "failed",
            "cut short",
            "accepted",
            "turned away",
            "lost",
        ],
        rows: shown.map(row).collect(),
        note: "connections of all runs together, as their clients saw them end; refused: nobody listened; failed: closed \
               early, no HTTP, or a status of 400 and above other than 503; then what the front says that it accepted, \
               turned away because of a limit, and could give to nobody. Latencies are those of answers only",
    }
}

/// What the command of `--disturb` did, and how the front reacted.
fn disturbances(report: &Report) -> Figures {
    let row = |s: &Summary| {
        let (ran, front) = (&s.commands, |of: fn(&Front) -> u64| s.front.map_or_else(dash, |f| of(&f).to_string()));
        vec![
            s.subject.clone(),
            ran.times.to_string(),
            ran.failed.to_string(),
            ran.mean_s().map_or_else(dash, |mean| latency((mean * 1e6) as u64)),
            front(|front| front.restarts),
            front(|front| front.accepted),
            front(|front| front.returned),
            front(|front| front.rescued),
        ]
    };
    let shown = report.summaries.iter().filter(|_| report.plan.disturb.is_some());
    Figures {
        title: "disturbed",
        columns: vec!["times", "failed", "took", "restarts", "accepted", "returned", "rescued"],
        rows: shown.map(row).collect(),
        note: "how often the command ran in all runs together, how often it failed and how long one took; then what the \
               front counted: workers in the place of others, connections accepted, sent back and taken back",
    }
}

fn spreads(report: &Report) -> Figures {
    let mut rows = Vec::new();
    for s in &report.summaries {
        let Some(spread) = &s.spread else { continue };
        let by = format!("{:?}", s.counted_by).to_lowercase();
        rows.push(of_spread(&s.subject, spread, s.widest.map_or_else(dash, |w| w.to_string()), by));
        if let Some(chance) = &s.by_chance {
            rows.push(of_spread("  by chance", chance, String::new(), String::new()));
        }
    }
    Figures {
        title: "spread",
        columns: vec![
            "Jain",
            "max/mean",
            "min",
            "max",
            "CV",
            "top 2",
            "chi²",
            "as even",
            "as uneven",
            "max−min",
            "counted by",
        ],
        rows,
        note: "connections per worker in the run with the median Jain index; below it what pure chance gives on average \
               for as many workers and connections; “as even” and “as uneven” are the probabilities that chance is, the \
               left and right tails of chi-square; max−min is the widest of all runs",
    }
}

fn of_spread(name: &str, spread: &Spread, widest: String, by: String) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{:.4}", spread.jain),
        format!("{:.4}", spread.max_over_mean),
        whole(spread.min),
        whole(spread.max),
        format!("{:.4}", spread.cv),
        format!("{:.1}%", 100.0 * spread.top2_share),
        whole_or_tenths(spread.chi_square),
        probability(spread.as_even),
        probability(spread.as_uneven),
        widest,
        by,
    ]
}

fn open(report: &Report) -> Figures {
    let row = |s: &Summary| {
        let open = s.open.as_ref()?;
        Some(vec![
            s.subject.clone(),
            format!("{:.1}", open.mean),
            format!("{:.2}", open.sd),
            open.sd_by_chance.map_or_else(dash, |sd| format!("{sd:.2}")),
            format!("{:.3}", open.jain),
            format!("{:.3}", open.jain_by_chance),
            format!("{:.2}", open.max_over_mean),
            format!("{:.2}", open.max_over_mean_by_chance),
            open.samples.to_string(),
            match open.seen_by {
                SeenBy::Kernel => "kernel".to_owned(),
                SeenBy::Clients => "clients".to_owned(),
            },
        ])
    };
    Figures {
        title: "open connections",
        columns: vec![
            "mean",
            "SD",
            "SD by chance",
            "Jain",
            "Jain by chance",
            "max/mean",
            "max/mean by chance",
            "samples",
            "seen by",
        ],
        rows: report.summaries.iter().filter_map(row).collect(),
        note: "over the workers, mean of the samples with at least a connection a worker; seen by the clients: a hundred \
               times a second, until no connection more is begun; by the kernel: five times a second",
    }
}

/// How consistently addresses stay with their slots, if that is measured.
fn sources(report: &Report) -> Figures {
    let row = |s: &Summary| {
        let sources = s.sources.as_ref()?;
        let numbers = [sources.answered, sources.mixed, sources.astray, sources.moved].map(|n| n.to_string());
        Some(std::iter::once(s.subject.clone()).chain(numbers).collect())
    };
    Figures {
        title: "sources",
        columns: vec!["answered", "mixed", "astray", "moved"],
        rows: report.summaries.iter().filter_map(row).collect(),
        note: "addresses of which a connection was answered; those that more than one slot answered, in the worst run; \
               connections at another slot than the one that their address is mostly with; addresses that were with \
               another slot in another run",
    }
}

fn costs(report: &Report) -> Figures {
    let micros = |m: &Option<Median>| m.map_or_else(dash, |m| format!("{:.1} µs", m.median));
    let number = |m: &Option<Median>| m.map_or_else(dash, |m| format!("{:.2}", m.median));
    let memory = |bytes: Option<u64>| bytes.map_or_else(dash, |b| format!("{:.1} MiB", b as f64 / f64::from(1 << 20)));
    let row = |s: &Summary| {
        vec![
            s.subject.clone(),
            micros(&s.front_cpu_us),
            micros(&s.workers_cpu_us),
            number(&s.front_switches),
            number(&s.workers_switches),
            memory(s.front_rss_bytes),
            memory(s.workers_rss_bytes),
            format!("{:.1} µs", s.client_cpu_us.median),
            format!("{:.2}", s.client_allocations.median),
            format!("{:.0}%", 100.0 * s.client_busy.median),
        ]
    };
    Figures {
        title: "cost per connection",
        columns: vec![
            "front CPU",
            "workers CPU",
            "front switches",
            "workers switches",
            "front RSS",
            "workers RSS",
            "client CPU",
            "client allocations",
            "client busy",
        ],
        rows: report.summaries.iter().map(row).collect(),
        note: "context switches and most resident memory of the front, then of the workers together; the clients' \
               processor time, allocations, and how much of the time they ran or wanted to run",
    }
}

fn dash() -> String {
    "–".to_owned()
}

/// A number without decimals, in groups of three digits.
#[must_use]
pub fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let grouped: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    grouped.join(" ")
}

/// A number that may be small or large.
fn whole_or_tenths(number: f64) -> String {
    if number < 1000.0 { format!("{number:.1}") } else { whole(number) }
}

/// Microseconds in a suitable unit.
fn latency(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// A probability, which may be close to zero.
fn probability(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0.0, 999.4, 1000.0, 1_234_567.0].map(whole), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!([17, 1500, 42_000, 2_500_000].map(latency), ["17 µs", "1.50 ms", "42.0 ms", "2.50 s"]);
        assert_eq!([0.5, 1e-12].map(probability), ["0.500", "<0.001"]);
    }
}
