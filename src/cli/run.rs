//! `maitred run`: from what was typed to a [`Config`], then the master's loop.

use super::logging::{self, LogFormat};
use super::workers::WorkerArgs;
use super::{USAGE, complain};
use crate::config::bind::Bind;
use crate::config::{Config, Control, Mode, Named, Prefix};
use crate::{control, master};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tracing::error;

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    workers: WorkerArgs,

    /// Bind this address before the first worker starts, so that early clients wait
    ///
    /// `:80` (IPv4 and IPv6), `127.0.0.1:80`, `[::1]:80`, `localhost:80`, `unix:/path?mode=660`,
    /// `unix:@name`, `fd://3`. Port 0 lets the kernel choose. May be given several times. Without
    /// it, whatever address a worker listens on is bound on demand and shared.
    #[arg(short, long, value_name = "ADDR")]
    bind: Vec<Bind>,

    /// Who gives a connection its worker
    #[arg(long, value_enum, default_value = "handoff")]
    mode: Mode,

    /// Name in the control socket and in logs; the command's base name by default
    #[arg(long, value_parser = name)]
    name: Option<String>,

    /// Path of the control socket
    ///
    /// By default $XDG_RUNTIME_DIR/maitred/NAME.sock, for root /run/maitred/NAME.sock.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// How long a worker may take to end before it is killed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    grace: Duration,

    /// When lines of the workers' output get the slot before them; auto means on a terminal
    #[arg(long, value_enum, default_value = "auto")]
    prefix: Prefix,

    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,

    /// Log more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Log less; twice for errors only
    #[arg(short, long, action = clap::ArgAction::Count)]
    quiet: u8,

    /// The server and its arguments; {slot}, {port} and {fd} are replaced
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the master.
pub fn main(args: RunArgs) -> ExitCode {
    let log = logging::start(args.log_format, logging::level(args.verbose, args.quiet));
    let config = match config(args) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return ExitCode::from(3);
        }
    };
    let ended = tokio::task::LocalSet::new().block_on(&runtime, master::run::run(config));
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{}", failure.to_string().lines().next().unwrap_or_default());
            // The log first, so that the reason is the last thing on the screen.
            drop(log);
            complain(&failure);
            return ExitCode::from(failure.exit_code());
        }
    };
    drop(log);
    code
}

fn config(args: RunArgs) -> Result<Config, String> {
    if let Some(dir) = args.workers.cwd.as_ref().filter(|dir| !dir.is_dir()) {
        return Err(format!("cannot run workers in {}: it is no directory; check --cwd", dir.display()));
    }
    let (name, named) = match args.name {
        Some(name) => (name, Named::ByOperator),
        None => (base_name(&args.command[0]), Named::ByCommand),
    };
    let control = match args.control {
        Some(path) => Control::Asked(path),
        None => Control::Usual(control::socket_path(&name)),
    };
    Ok(Config {
        workers: args.workers.count(),
        bind: args.bind,
        mode: args.mode,
        policy: args.workers.policy,
        adapter: args.workers.adapter,
        preset: args.workers.preset,
        depth: args.workers.depth,
        name,
        named,
        control,
        env: args.workers.env,
        cwd: args.workers.cwd,
        stop_signal: args.workers.stop_signal,
        grace: args.grace,
        prefix: args.prefix,
        command: args.command,
    })
}

/// The command's file name, with what a file name cannot have or what would hide it replaced.
fn base_name(command: &OsStr) -> String {
    let file = Path::new(command).file_name().unwrap_or(command).to_string_lossy();
    let clean: String = file.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    match clean.trim_start_matches('.') {
        "" => "maitred".to_owned(),
        clean => clean.to_owned(),
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 64 && !text.starts_with('.');
    match fits && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 letters, digits, '-', '_' or '.', and does not begin with '.'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_from_the_command() {
        for (command, name) in
            [("node", "node"), ("./srv.py", "srv.py"), ("/a/b c", "b_c"), ("..", "maitred"), ("/", "_")]
        {
            assert_eq!(base_name(OsStr::new(command)), name, "{command}");
        }
    }
}
