//! `maitred list`: the running maitreds of this user, and the apps that were started in the background and do not run.

use crate::apps::state::{self, App, StateError, Wanted};
use crate::cli::help;
use crate::cli::say::{self, complain};
use crate::cli::table::{aligned, fit, seconds};
use crate::control::client::{self, ClientError};
use crate::control::status::{READY, Status};
use crate::control::{self, Usage};
use crate::core::visible::line;
use crate::master::status::add_usage;
use crate::sys::process;
use clap::Args;
use nix::unistd::Pid;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Masters that are asked at the same time.
const ASKED_AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print a JSON array, for scripts
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    /// Print only the names of those that run
    #[arg(short, long)]
    quiet: bool,
}

/// One line of the list. Scripts rely on these names: they only ever grow.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    /// `ready`: each slot has a worker that serves; `degraded`: some have; `starting`: none has yet; `stopping`;
    /// `stopped`: by its user; `failed`: it should run and does not; `silent`: it does not answer.
    pub state: &'static str,
    pub pid: Option<i32>,
    pub workers_ready: usize,
    pub workers_wanted: usize,
    pub restarts: u64,
    /// Processor time of the workers since they started, in seconds.
    pub cpu_s: f64,
    /// The same as a share of their time, in percent of one processor.
    pub cpu_percent: f64,
    pub rss_bytes: u64,
    pub accepted: u64,
    /// The mean since the master started.
    pub connections_per_s: f64,
    pub addresses: Vec<String>,
    pub mode: Option<String>,
    pub uptime_s: f64,
    /// Whether it was started in the background.
    pub remembered: bool,
}

/// One line of the list, and what it is made of.
#[derive(Clone, Debug)]
pub struct Surveyed {
    pub row: Row,
    /// Its control socket.
    pub control: PathBuf,
    /// What it says of itself, if it runs and answers.
    pub status: Option<Status>,
}

/// Prints the list.
pub fn main(args: &ListArgs) -> ExitCode {
    if args.quiet {
        return match client::running() {
            Ok(names) => {
                let names = names.iter().map(|name| format!("{}\n", line(name)));
                say::lines(&names.collect::<String>(), ExitCode::SUCCESS)
            }
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        };
    }
    let (surveyed, wrong) = match survey(Count::Nothing) {
        Ok(surveyed) => surveyed,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    wrong.iter().for_each(|error| complain(error));
    let code = if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let rows: Vec<Row> = surveyed.into_iter().map(|surveyed| surveyed.row).collect();
    if args.json {
        return say::json(&format!("{}\n", serde_json::to_string(&rows).unwrap_or_default()), code);
    }
    let width = std::io::stdout().is_terminal().then(help::width);
    say::lines(&table(&rows, width), code)
}

/// Which connections are counted in `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Those that are open at workers.
    Open,
    /// None, which is faster.
    Nothing,
}

/// Asks all that run, and adds those that do not and are remembered; and what of these cannot be read.
///
/// # Errors
/// When another user could have put the sockets there.
pub fn survey(count: Count) -> Result<(Vec<Surveyed>, Vec<StateError>), ClientError> {
    let running = client::running()?;
    let (apps, wrong) = state::apps().unwrap_or_else(|error| (Vec::new(), vec![error]));
    Ok((asked(running, apps, count), wrong))
}

fn asked(running: Vec<String>, apps: Vec<App>, count: Count) -> Vec<Surveyed> {
    let mut all = BTreeMap::new();
    let mut asked: BTreeMap<String, PathBuf> =
        running.into_iter().map(|name| (name.clone(), control::find_socket(&name))).collect();
    for app in apps {
        // Its control socket may be gone.
        let pid = app.process().map(Pid::as_raw);
        let state = match (pid, app.wanted) {
            (Some(_), _) => "silent",
            (None, Wanted::Stopped) => "stopped",
            (None, Wanted::Running) => "failed",
        };
        asked.insert(app.name.clone(), app.control.clone());
        let row = Row { remembered: true, pid, ..Row::without_status(app.name.clone(), state) };
        all.insert(app.name, Surveyed { row, control: app.control, status: None });
    }
    let asked: Vec<(String, PathBuf)> = asked.into_iter().collect();
    for some in asked.chunks(ASKED_AT_ONCE) {
        let statuses = std::thread::scope(|scope| {
            let asked: Vec<_> = some
                .iter()
                .map(|(name, path)| (name, path, scope.spawn(|| client::status_with(name, path, Usage::LeftOut))))
                .collect();
            asked.into_iter().map(|(name, path, asked)| (name, path, asked.join().ok())).collect::<Vec<_>>()
        });
        for (name, path, status) in statuses {
            let remembered = all.contains_key(name);
            let (row, status) = match status {
                Some(Ok(status)) => (Row::of(name, &status), Some(status)),
                // It does not run, or ended in this moment.
                Some(Err(ClientError::NotRunning { .. })) => continue,
                _ => (Row::without_status(name.clone(), "silent"), None),
            };
            all.insert(name.clone(), Surveyed { row: Row { remembered, ..row }, control: path.clone(), status });
        }
    }
    let mut all: Vec<Surveyed> = all.into_values().collect();
    look_at_processes(&mut all, count);
    all
}

/// What all workers use, with one look at the processes of the machine.
fn look_at_processes(all: &mut [Surveyed], count: Count) {
    let workers = || all.iter().filter_map(|one| one.status.as_ref()).flat_map(|status| &status.workers);
    let groups: Vec<Pid> = workers().filter_map(|worker| worker.pid.map(Pid::from_raw)).collect();
    let addresses = || all.iter().filter_map(|one| one.status.as_ref()).flat_map(|status| &status.listeners);
    let port = |address: &str| address.strip_prefix("tcp:")?.rsplit_once(':')?.1.parse().ok();
    let ports = match count {
        Count::Open => addresses().filter_map(|listener| port(&listener.address)).collect(),
        Count::Nothing => HashSet::new(),
    };
    let usage = process::usage(&groups, &ports);
    for one in all {
        if let Some(status) = &mut one.status {
            add_usage(status, &usage);
            let remembered = one.row.remembered;
            one.row = Row { remembered, ..Row::of(&one.row.name, status) };
        }
    }
}

impl Row {
    /// One that says nothing.
    pub fn without_status(name: String, state: &'static str) -> Row {
        Row {
            name,
            state,
            pid: None,
            workers_ready: 0,
            workers_wanted: 0,
            restarts: 0,
            cpu_s: 0.0,
            cpu_percent: 0.0,
            rss_bytes: 0,
            accepted: 0,
            connections_per_s: 0.0,
            addresses: Vec::new(),
            mode: None,
            uptime_s: 0.0,
            remembered: false,
        }
    }

    fn of(name: &str, status: &Status) -> Row {
        let workers = &status.workers;
        let ready = status.ready();
        let cpu_percent =
            workers.iter().filter(|worker| worker.uptime_s > 0.0).map(|w| w.cpu_s / w.uptime_s).sum::<f64>();
        let accepted = status.totals.accepted;
        Row {
            name: name.to_owned(),
            state: match ready {
                _ if status.stopping => "stopping",
                0 => "starting",
                ready if ready < workers.len() => "degraded",
                _ => READY,
            },
            pid: Some(status.pid),
            workers_ready: ready,
            workers_wanted: workers.len(),
            restarts: workers.iter().map(|worker| worker.restarts).sum(),
            cpu_s: workers.iter().map(|worker| worker.cpu_s).sum(),
            cpu_percent: cpu_percent * 100.0,
            rss_bytes: workers.iter().map(|worker| worker.rss_bytes).sum(),
            accepted,
            connections_per_s: accepted as f64 / status.uptime_s.max(1.0),
            addresses: status.listeners.iter().map(|listener| listener.address.clone()).collect(),
            mode: Some(status.mode.clone()),
            uptime_s: status.uptime_s,
            remembered: false,
        }
    }
}

/// Columns that a narrow terminal does without, the least important first.
const SPARED: [&str; 7] = ["MODE", "CONN/S", "RESTARTS", "CPU", "UP", "PID", "ADDRESSES"];

fn table(rows: &[Row], width: Option<usize>) -> String {
    if rows.is_empty() {
        return "no maitred runs for this user; start one with `maitred start -- COMMAND`\n".to_owned();
    }
    let header = ["NAME", "STATE", "WORKERS", "RESTARTS", "CPU", "RSS", "CONN/S", "UP", "PID", "MODE", "ADDRESSES"];
    let mut table = aligned(&header);
    for row in rows {
        let running = |text: String| row.pid.map_or_else(|| "-".to_owned(), |_| text);
        table.add_row([
            line(&row.name).into_owned(),
            row.state.to_owned(),
            running(format!("{}/{}", row.workers_ready, row.workers_wanted)),
            running(row.restarts.to_string()),
            running(format!("{:.1}%", row.cpu_percent)),
            running(format!("{:.1}M", row.rss_bytes as f64 / 1e6)),
            running(format!("{:.1}", row.connections_per_s)),
            running(seconds(row.uptime_s)),
            row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            row.mode.as_deref().map_or_else(|| "-".to_owned(), |mode| line(mode).into_owned()),
            running(row.addresses.iter().map(|address| line(address)).collect::<Vec<_>>().join(" ")),
        ]);
    }
    if let Some(width) = width {
        fit(&mut table, &header, &SPARED, width);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
