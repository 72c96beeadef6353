//! `maitred status`: what a running master reports about itself, as a table or as JSON.

use super::help;
use super::say::{self, complain};
use super::table::{aligned, fit, seconds};
use super::tell;
use crate::control::client::{self, Patience};
use crate::control::status::{Admission, Status};
use crate::control::{Request, Usage};
use crate::core::visible::line;
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

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
    let shown = tell::find(args.name.as_deref(), args.control.as_deref())
        .and_then(|one| {
            client::ask(&one.name, &one.path, &Request::Status { usage: Usage::Told }, Patience::Short)
                .map_err(|error| error.to_string())
        })
        .and_then(|answer| {
            if args.json && !args.ready {
                return Ok(say::json(&answer, ExitCode::SUCCESS));
            }
            let status: Status =
                serde_json::from_str(&answer).map_err(|error| client::ClientError::Answer(error).to_string())?;
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
    !status.stopping && status.ready() > 0
}

/// The status for people; columns are hidden until it fits into `width`.
pub fn table(status: &Status, width: Option<usize>) -> String {
    let mut text = format!(
        "{}  pid {}  {} mode, {}, depth {}  up {}\n",
        line(&status.name),
        status.pid,
        line(&status.mode),
        line(&status.policy),
        status.depth,
        seconds(status.uptime_s)
    );
    let mut listeners = aligned(&["LISTENER", "ACCEPTED", "QUEUED", "BACKLOG"]);
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
    let mut workers = aligned(&header);
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
        fit(&mut workers, &header, &SPARED, width);
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
    if let Some(scaling) = &status.scaling {
        text += &format!("workers {}..{}", scaling.min, scaling.max);
        if let Some(last) = &scaling.last {
            let ago = seconds(last.since_s);
            text += &format!("; from {} to {} {ago} ago: {}", last.from, last.to, line(&last.because));
        }
        text.push('\n');
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

/// Columns that a narrow terminal does without, the least important first.
const SPARED: [&str; 9] = ["ADAPTER", "CPU", "GEN", "ID", "TAKEN", "RSS", "RESTARTS", "UP", "QUEUED"];
