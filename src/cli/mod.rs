//! The command line. Each subcommand turns the typed words into settings.

mod admin;
mod admission;
mod apps;
mod bench;
mod check;
mod config;
mod events;
mod failure;
mod files;
mod guard;
mod help;
mod life;
mod logging;
mod name;
mod panic;
mod process;
mod reload;
mod run;
mod say;
mod scale;
mod scribe;
mod signal;
mod status;
mod stop;
mod table;
mod tell;
mod top;
mod upgrade;
mod words;
mod workers;

#[cfg(fuzzing)]
pub(crate) use run::meaning::meaning_of_file;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;
use words::with_run;

/// Exit code for wrong usage.
const USAGE: u8 = 2;
/// Exit code of a failure while running.
const FAILED: u8 = 1;
/// Exit code when a required resource is missing.
const CANNOT_START: u8 = 3;

/// One process in front of N copies of any TCP server, which makes them a cluster
#[derive(Debug, Parser)]
#[command(
    name = "maitred",
    version,
    max_term_width = 100,
    help_expected = true,
    disable_help_subcommand = true,
    after_help = "Without a subcommand, `run` is meant: maitred -w 4 -- node server.js"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run copies of a server in the foreground and share its connections among them
    Run(Box<run::RunArgs>),
    /// Run an app in the background, and remember it; or start a remembered one by its name
    Start(Box<apps::start::StartArgs>),
    /// Run all apps of a file in the foreground; HUP applies changes of the file
    Up(apps::up::UpArgs),
    /// End what `up` runs
    Down(apps::up::DownArgs),
    /// Watch all apps, their workers, rates and last lines, and act on them
    #[command(visible_alias = "monit")]
    Top(top::TopArgs),
    /// Show the workers of a running maitred and what they were given
    Status(status::StatusArgs),
    /// Compare modes, or anything that serves: fairness, rate, latency, costs
    Bench(Box<bench::BenchArgs>),
    /// The built-in worker of `bench`
    #[command(hide = true)]
    BenchWorker,
    /// The process that ends workers when their master was killed
    #[command(name = crate::sys::process::guard::SUBCOMMAND, hide = true)]
    GuardWorkers,
    /// Show what this kernel, these privileges and an executable allow
    Check(check::CheckArgs),
    /// Replace all workers without losing a connection: new ones first
    Reload(reload::ReloadArgs),
    /// Replace all workers: the old ones leave first
    Restart(reload::RestartArgs),
    /// Stop a running maitred as TERM does
    Stop(stop::StopArgs),
    /// Stop an app that was started in the background, and forget it
    #[command(visible_alias = "del")]
    Delete(stop::DeleteArgs),
    /// Show all about one app: how it was started, its logs, its workers
    #[command(visible_alias = "show")]
    Describe(apps::describe::DescribeArgs),
    /// Show what apps in the background wrote, and follow it
    Logs(apps::logs::LogsArgs),
    /// Show what happens to a running maitred and its workers: forked, ready, exited, reload begun, and so on
    Events(events::EventsArgs),
    /// Serve metrics, probes, events and a page for all apps of the machine
    Admin(admin::AdminCommand),
    /// Run more workers, or fewer
    Scale(scale::ScaleArgs),
    /// Check a file, or show what it means
    Config(config::ConfigArgs),
    /// Write what is remembered of apps as a file, for `up`
    Save(apps::save::SaveArgs),
    /// Write units of systemd that start apps at boot
    Startup(apps::save::StartupArgs),
    /// Print a file of PM2, a Procfile or a unit of systemd as one of ours
    Import(apps::import::ImportArgs),
    /// Send a signal to the workers
    Signal(signal::SignalArgs),
    /// Replace the running binary with the one on disk; workers and connections are not affected
    Upgrade(upgrade::UpgradeArgs),
    /// List the running maitreds of this user, and the apps that were started in the background
    #[command(visible_alias = "ls")]
    List(apps::list::ListArgs),
    /// Show the options of a command, or a chapter of the manual
    Help(help::HelpArgs),
    /// Write man pages and shell completions, for packagers
    #[command(hide = true)]
    Package(help::PackageArgs),
}

/// Runs the program; the exit codes are part of its interface.
#[must_use]
pub fn main() -> ExitCode {
    panic::one_line();
    // The panic hook has already printed the message.
    std::panic::catch_unwind(command).unwrap_or(ExitCode::FAILURE)
}

fn command() -> ExitCode {
    let cli = match Cli::try_parse_from(with_run(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            say::message(&words::explained(&error));
            return ExitCode::from(USAGE);
        }
        // The help or the version.
        Err(shown) => return say::written(shown.print().and_then(|()| std::io::stdout().flush()), ExitCode::SUCCESS),
    };
    match cli.command {
        Command::Run(args) => run::main(*args),
        Command::Start(args) => apps::start::main(&args),
        Command::Up(args) => apps::up::main(&args),
        Command::Down(args) => apps::up::down(&args),
        Command::Top(args) => top::main(&args),
        Command::Status(args) => status::main(&args),
        Command::Bench(args) => bench::main(*args),
        Command::BenchWorker => bench::worker(),
        Command::GuardWorkers => guard::main(),
        Command::Check(args) => check::main(&args),
        Command::Reload(args) => reload::main(&args),
        Command::Restart(args) => reload::restart(&args),
        Command::Stop(args) => stop::main(&args),
        Command::Delete(args) => stop::delete(&args),
        Command::Describe(args) => apps::describe::main(&args),
        Command::Logs(args) => apps::logs::main(&args),
        Command::Events(args) => events::main(&args),
        Command::Admin(args) => admin::main(&args),
        Command::Scale(args) => scale::main(&args),
        Command::Config(args) => config::main(&args),
        Command::Save(args) => apps::save::main(&args),
        Command::Startup(args) => apps::save::startup(&args),
        Command::Import(args) => apps::import::main(&args),
        Command::Signal(args) => signal::main(&args),
        Command::Upgrade(args) => upgrade::main(&args),
        Command::List(args) => apps::list::main(&args),
        Command::Help(args) => help::main(&args),
        Command::Package(args) => help::package(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::ffi::OsString;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The commands that a text shows, in indented lines and fenced blocks. Lines with placeholders or alternatives
    /// are not examples.
    fn shown(text: &str) -> Vec<String> {
        let lines = text.lines().map(|line| line.trim().trim_start_matches("$ "));
        let maitred = lines.filter(|line| line.starts_with("maitred ") && !line.contains(['[', '|', '…']));
        maitred.map(str::to_owned).collect()
    }

    #[test]
    fn every_command_that_the_manual_shows_is_understood() {
        let texts = crate::manual::CHAPTERS.iter().map(|chapter| chapter.text);
        let mut all: Vec<String> = texts.chain([include_str!("../../README.md")]).flat_map(shown).collect();
        all.retain(|line| !line.contains("NAME ") && !line.contains(" COMMAND"));
        assert!(all.len() >= 10, "{all:#?}");
        for line in all {
            let words = shlex::split(&line).unwrap().into_iter().map(OsString::from).collect();
            if let Err(error) = Cli::try_parse_from(with_run(words)) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn the_readme_is_short() {
        assert!(include_str!("../../README.md").lines().count() <= 250);
    }
}
