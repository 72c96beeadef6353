//! What is seen from outside: the options of `run` for it, and `maitred admin`, which shows all apps of the machine.

use super::failure::{Failure, ended};
use super::logging::{self, LogOptions};
use super::say;
use crate::admin::{AdminError, Bound, Serving, Source, TokenFile};
use crate::config::admin::{self, Admin};
use crate::config::bind::Bind;
use crate::logs::kept::Kept;
use crate::logs::rotation::Rotation;
use crate::logs::{Log, Sink};
use crate::manual;
use clap::{Args, ValueEnum};
use nix::sys::signal::{SigSet, Signal};
use std::path::PathBuf;
use std::process::ExitCode;

/// Where `maitred admin` serves, unless told otherwise.
const USUAL: &str = "127.0.0.1:9901";

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Seen from outside")]
pub struct AdminArgs {
    /// Serve metrics, probes, events and a page here: 127.0.0.1:9901, unix:/path?mode=660
    ///
    /// Reading needs no token at a loopback address or a Unix socket; everything else does. May be given several times.
    #[arg(long, value_name = "ADDR", value_parser = admin::address)]
    pub admin: Vec<Bind>,

    /// The file with the token; without it, one is made and kept in the state directory
    #[arg(long, value_name = "PATH")]
    pub admin_token_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Seen from outside")]
pub struct OnEventArgs {
    /// Run this command of the shell for each event, which it gets as a line of JSON: for pagers and chat
    ///
    /// One runs at a time, for ten seconds at most. MAITRED_EVENT and other variables say the same as the line on its
    /// standard input.
    #[arg(long, value_name = "COMMAND")]
    pub on_event: Option<String>,
}

impl AdminArgs {
    /// What is meant, with the command for events.
    pub fn meant(self, on_event: OnEventArgs) -> Admin {
        Admin { addresses: self.admin, token_file: self.admin_token_file, on_event: on_event.on_event }
    }
}

#[derive(Debug, Args)]
pub struct AdminCommand {
    /// Serve here; 127.0.0.1:9901 by default. May be given several times
    #[arg(long, value_name = "ADDR", default_value = USUAL, value_parser = admin::address)]
    listen: Vec<Bind>,

    /// The file with the token; without it, one is made and kept in the state directory
    #[arg(long, value_name = "PATH")]
    admin_token_file: Option<PathBuf>,

    /// Print a dashboard for Grafana, or alert rules for Prometheus, and end
    #[arg(long, value_enum, value_name = "WHAT")]
    print: Option<Print>,

    #[command(flatten)]
    log: LogOptions,
}

/// What can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Print {
    /// A dashboard, as Grafana imports it
    Dashboard,
    /// Alert rules, for rule_files of Prometheus
    Alerts,
}

/// Whose token it is where all apps are served: no app has this name.
const OF_MACHINE: &str = "all";

/// Serves until a signal ends it.
pub fn main(args: &AdminCommand) -> ExitCode {
    match args.print {
        None => ended(serve(args)),
        Some(Print::Dashboard) => say::lines(manual::DASHBOARD, ExitCode::SUCCESS),
        Some(Print::Alerts) => say::lines(manual::ALERTS, ExitCode::SUCCESS),
    }
}

fn serve(args: &AdminCommand) -> Result<ExitCode, Failure> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|errno| Failure::cannot_start(format_args!("no signals can be held: {errno}")))?;
    let log = Sink::open(Log::Master, None, Rotation::NEVER, &Kept::new(0)).map_err(Failure::cannot_start)?;
    logging::start(&args.log, log, None).map_err(Failure::cannot_start)?;
    let _serving = serve_all(&args.listen, args.admin_token_file.clone()).map_err(Failure::cannot_start)?;
    // Until it comes.
    let _ = signals.wait();
    logging::flush();
    Ok(ExitCode::SUCCESS)
}

/// Serves all apps of the machine at these addresses.
///
/// # Errors
/// [`AdminError`].
pub fn serve_all(addresses: &[Bind], token_file: Option<PathBuf>) -> Result<Serving, AdminError> {
    Bound::bind(addresses, &TokenFile::of(token_file, OF_MACHINE)?)?.serve(Source::Machine)
}
