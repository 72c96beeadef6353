//! Every run as one line, for spreadsheets and scripts.

use super::Report;
use crate::bench::record::{Front, Run};
use crate::bench::sources::Sources;

/// The file's text.
///
/// # Errors
/// Those of the writer, which writes to memory.
pub fn text(report: &Report) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS.iter().map(|(name, _)| *name))?;
    for run in &report.runs {
        writer.write_record(COLUMNS.iter().map(|(_, value)| value(run)))?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

type Column = (&'static str, fn(&Run) -> String);

const COLUMNS: [Column; 48] = [
    ("subject", |run| run.subject.clone()),
    ("round", |run| run.round.to_string()),
    ("valid", |run| run.invalid.is_empty().to_string()),
    ("cut_short", |run| run.cut_short.to_string()),
    ("took_s", |run| run.took_s.to_string()),
    ("connections_per_s", |run| run.connections_per_s.to_string()),
    ("requests_per_s", |run| run.requests_per_s.to_string()),
    ("answered", |run| run.endings.answered.to_string()),
    ("failed", |run| run.endings.failed.to_string()),
    ("refused", |run| run.endings.refused.to_string()),
    ("reset", |run| run.endings.reset.to_string()),
    ("unavailable", |run| run.endings.unavailable.to_string()),
    ("hung", |run| run.endings.hung.to_string()),
    ("p50_us", |run| run.latency_us.p50.to_string()),
    ("p90_us", |run| run.latency_us.p90.to_string()),
    ("p99_us", |run| run.latency_us.p99.to_string()),
    ("p99_9_us", |run| run.latency_us.p99_9.to_string()),
    ("max_us", |run| run.latency_us.max.to_string()),
    ("jain", |run| optional(run.spread.map(|s| s.jain))),
    ("max_over_mean", |run| optional(run.spread.map(|s| s.max_over_mean))),
    ("cv", |run| optional(run.spread.map(|s| s.cv))),
    ("top2_share", |run| optional(run.spread.map(|s| s.top2_share))),
    ("chi_square", |run| optional(run.spread.map(|s| s.chi_square))),
    ("as_even", |run| optional(run.spread.map(|s| s.as_even))),
    ("as_uneven", |run| optional(run.spread.map(|s| s.as_uneven))),
    ("open_mean", |run| optional(run.open.as_ref().map(|open| open.mean))),
    ("open_jain", |run| optional(run.open.as_ref().map(|open| open.jain))),
    ("open_sd", |run| optional(run.open.as_ref().map(|open| open.sd))),
    ("front_cpu_s", |run| optional(run.costs.map(|costs| costs.front.cpu_s))),
    ("workers_cpu_s", |run| optional(run.costs.map(|costs| costs.workers.cpu_s))),
    ("front_switches", |run| optional(run.costs.map(|costs| costs.front.switches as f64))),
    ("workers_switches", |run| optional(run.costs.map(|costs| costs.workers.switches as f64))),
    ("client_cpu_s", |run| run.client.cpu_s.to_string()),
    ("client_allocations", |run| run.client.allocations.to_string()),
    ("disturbances", |run| run.disturbances.to_string()),
    ("disturb_failed", |run| run.commands.failed.to_string()),
    ("accepted", |run| counted(run, |front| front.accepted)),
    ("handed", |run| counted(run, |front| front.handed)),
    ("returned", |run| counted(run, |front| front.returned)),
    ("rescued", |run| counted(run, |front| front.rescued)),
    ("turned_away", |run| counted(run, |front| front.refused)),
    ("turned_away_with_503", |run| counted(run, |front| front.answered_503)),
    ("lost", |run| counted(run, |front| front.lost)),
    ("restarts", |run| counted(run, |front| front.restarts)),
    ("sources", |run| of_sources(run, |sources| sources.answered)),
    ("mixed_sources", |run| of_sources(run, |sources| sources.mixed)),
    ("astray", |run| of_sources(run, |sources| sources.astray)),
    ("per_worker", |run| run.per_worker.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")),
];

fn counted(run: &Run, of: fn(&Front) -> u64) -> String {
    run.front.as_ref().map(|front| of(front).to_string()).unwrap_or_default()
}

fn of_sources(run: &Run, of: fn(&Sources) -> u64) -> String {
    run.sources.as_ref().map(|sources| of(sources).to_string()).unwrap_or_default()
}

fn optional(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
