//! `maitred status`: what a running master reports about itself, as a table or as JSON.

use super::help;
use super::say::{self, complain};
use crate::control::Request;
use crate::control::client::{self, Patience};
use crate::control::status::{Admission, Status};
use crate::core::visible::line;
use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, Table};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The state of a worker that serves.
const READY: &str = "ready";

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Name of the maitred; may be left out when only one runs
    name: Option<String>,

    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,

    /// Exit with 0 only if a worker serves, for readiness checks of scripts and containers
    #[arg(long)]
    ready: bool,

    /// Path of the control socket, if it is not where the name says
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

/// Requests the status and prints it.
pub fn main(args: &StatusArgs) -> ExitCode {
    let shown = client::find(args.name.as_deref(), args.control.as_deref())
        .and_then(|(name, path)| client::ask(&name, &path, &Request::Status, Patience::Short))
        .and_then(|answer| {
            if args.json && !args.ready {
                return Ok(say::json(&answer, ExitCode::SUCCESS));
            }
            let status: Status = serde_json::from_str(&answer).map_err(client::ClientError::Answer)?;
            let code = if args.ready && !serves(&status) { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            Ok(match args.json {
                true => say::json(&answer, code),
                false => {
                    let width = std::io::stdout().is_terminal().then(help::width);
                    say::lines(&table(&status, width), code)
                }
            })
        });
    match shown {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether somebody takes connections, and will for a while.
fn serves(status: &Status) -> bool {
    !status.stopping && status.workers.iter().any(|worker| worker.state == READY)
}

fn table(status: &Status, width: Option<usize>) -> String {
    let mut text = format!(
        "{}  pid {}  {} mode, {}, depth {}  up {}\n",
        line(&status.name),
        status.pid,
        line(&status.mode),
        line(&status.policy),
        status.depth,
        seconds(status.uptime_s)
    );
    let mut listeners = right_aligned(&["LISTENER", "ACCEPTED", "QUEUED", "BACKLOG"], 1);
    for l in &status.listeners {
        listeners.add_row([
            line(&l.address).into_owned(),
            l.accepted.to_string(),
            l.queued.to_string(),
            l.backlog.to_string(),
        ]);
    }
    let header = [
        "SLOT", "ID", "PID", "GEN", "STATE", "ADAPTER", "HANDED", "TAKEN", "QUEUED", "OPEN", "RESTARTS", "UP", "CPU",
        "RSS",
    ];
    let mut workers = right_aligned(&header, header.len());
    for w in &status.workers {
        let or_dash = |n: Option<String>| n.unwrap_or_else(|| "-".to_owned());
        workers.add_row([
            w.slot.to_string(),
            or_dash(w.id.map(|id| id.to_string())),
            or_dash(w.pid.map(|pid| pid.to_string())),
            w.generation.to_string(),
            line(&w.state).into_owned(),
            line(&w.adapter).into_owned(),
            w.handed.to_string(),
            w.taken.to_string(),
            w.queued.to_string(),
            w.open.to_string(),
            w.restarts.to_string(),
            seconds(w.uptime_s),
            format!("{:.1}s", w.cpu_s),
            format!("{:.1}M", w.rss_bytes as f64 / 1e6),
        ]);
    }
    let (t, f) = (&status.totals, &status.fairness);
    if let Some(width) = width {
        fit(&mut workers, &header, width);
    }
    text += &format!("\n{listeners}\n\n{workers}\n\n");
    for (slot, state, reason) in status.workers.iter().filter_map(|w| Some((w.slot, &w.state, w.reason.as_ref()?))) {
        text += &format!("slot {slot} is {state}: {reason}\n");
    }
    for l in &status.leaving {
        let pid = l.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        text += &format!(
            "worker {} (pid {pid}) of generation {} is leaving slot {} since {}, with {} connections open and {} untaken\n",
            l.id,
            l.generation,
            l.slot,
            seconds(l.since_s),
            l.open,
            l.queued
        );
    }
    if let Some(generation) = status.reloading {
        text += &format!("generation {generation} is starting\n");
    }
    if let Some(reason) = &status.steering {
        text += &format!("connections are spread by {} and not in turn: {}\n", line(&status.policy), line(reason));
    }
    if status.mode == "shared" {
        text += "the kernel gives the connections; what workers take is counted with the preload adapter only\n";
    } else {
        text += &format!(
            "accepted {}  handed {}  returned {}  rescued {}  refused {}  lost {}\n",
            t.accepted, t.handed, t.returned, t.rescued, t.refused, t.lost
        );
        if t.held > 0 {
            text += &format!("{} connections wait in the master\n", t.held);
        }
        if t.unaccounted != 0 {
            text += &format!("{} connections are in no sum (below 0: in two); please report this\n", t.unaccounted);
        }
    }
    text += &admission(&status.admission);
    text += &format!("fairness: Jain {:.4}  max/mean {:.4}  min {}  max {}\n", f.jain, f.max_over_mean, f.min, f.max);
    text
}

/// The open and the refused connections, if there are limits.
fn admission(admission: &Admission) -> String {
    let mut text = String::new();
    if let Some(open) = admission.open {
        let most = admission.max_open.map_or_else(String::new, |most| format!(" of {most}"));
        let full = if admission.full { ", full" } else { "" };
        text += &format!("open {open}{most}{full}\n");
    }
    let refused = [
        ("as many as may be were open", admission.refused_full),
        ("waited too long", admission.refused_waited),
        ("address with too many open", admission.refused_source_open),
        ("address came too often", admission.refused_source_rate),
        ("workers sent it back too often", admission.refused_returned),
    ];
    for (because, refused) in refused.into_iter().filter(|(_, refused)| *refused > 0) {
        text += &format!("turned away: {refused}, {because}\n");
    }
    text
}

/// A table without lines; its first `left` columns are aligned to the left, where that reads better.
fn right_aligned(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec());
    for ((index, column), title) in table.column_iter_mut().enumerate().zip(header) {
        let words = ["STATE", "ADAPTER", "LISTENER"].contains(title);
        column.set_padding((0, 2));
        if index >= left || !words {
            column.set_cell_alignment(if words { CellAlignment::Left } else { CellAlignment::Right });
        }
    }
    table
}

/// Columns that a narrow terminal does without, the least important first.
const SPARED: [&str; 9] = ["ADAPTER", "CPU", "GEN", "ID", "TAKEN", "RSS", "RESTARTS", "UP", "QUEUED"];

/// Hides columns until the table fits.
fn fit(table: &mut Table, header: &[&str], width: usize) {
    for spared in SPARED {
        if table.lines().all(|line| line.trim_end().chars().count() <= width) {
            return;
        }
        let index = header.iter().position(|title| *title == spared);
        if let Some(column) = index.and_then(|index| table.column_mut(index)) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
}

fn seconds(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs(seconds as u64)).to_string()
}
