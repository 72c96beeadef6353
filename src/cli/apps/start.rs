//! `maitred start`: runs an app in the background, and remembers it.

use crate::adapt::inspect;
use crate::apps::earlier;
use crate::apps::launch::{LaunchError, launch};
use crate::apps::select::{ALL, is_pattern, select};
use crate::apps::state::{self, App, Held, StateError, Store, Wanted};
use crate::cli::apps::executable;
use crate::cli::failure::Failure;
use crate::cli::run::RunArgs;
use crate::cli::run::meaning::{self, Apps};
use crate::cli::say::{self, complain};
use crate::cli::tell::One;
use crate::cli::{FAILED, USAGE, files::FileArgs};
use crate::config::{Config, Control};
use crate::control;
use crate::control::client;
use crate::control::status::Status;
use crate::logs::Log;
use crate::sys::process::identity::Identity;
use clap::Args;
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct StartArgs {
    #[command(flatten)]
    run: RunArgs,
}

/// Starts a new app, or some that are remembered.
pub fn main(_: &StartArgs) -> ExitCode {
    let typed: Vec<OsString> = std::env::args_os().skip(2).collect();
    let mut code = 0;
    let mut report = |started: Result<String, Failure>| match started {
        Ok(said) => drop(say::lines(&format!("{said}\n"), ExitCode::SUCCESS)),
        Err(failure) => {
            complain(&failure.said);
            code = failure.code;
        }
    };
    match (remembered(&typed), meaning::apps_of_file(&typed)) {
        (Err(failure), _) | (Ok(None), Err(failure)) => report(Err(failure)),
        (Ok(Some(names)), _) => names.iter().for_each(|name| report(start(name))),
        (Ok(None), Ok(Some(apps))) => start_file(&apps, report),
        (Ok(None), Ok(None)) => report(start_new(&typed)),
    }
    ExitCode::from(code)
}

/// Starts apps of a file, each when those that it depends on serve.
fn start_file(file: &Apps, mut report: impl FnMut(Result<String, Failure>)) {
    let wanted = match file.wanted() {
        Ok(wanted) => wanted,
        Err(failure) => return report(Err(failure)),
    };
    let mut failed: Vec<&str> = Vec::new();
    for app in file.apps.iter().filter(|app| wanted.contains(&app.name.as_str())) {
        let name = &app.name;
        let missing = app.depends_on.iter().find(|name| failed.contains(&name.as_str()));
        let started = match missing {
            Some(missing) => Err(Failure::cannot_start(format_args!("{name} is not started: it depends on {missing}"))),
            None => start_of_file(file, name),
        };
        if started.is_err() {
            failed.push(name);
        }
        report(started);
    }
}

fn start_of_file(file: &Apps, name: &str) -> Result<String, Failure> {
    if let Ok(status) = client::status(name, &One::named(name)?.path)
        && !status.stopping
    {
        return Ok(format!("{name} runs already: pid {}", status.pid));
    }
    let app = [OsString::from("--app"), name.into()];
    start_new(&file.words.iter().cloned().chain(app).collect::<Vec<_>>())
}

/// The apps that are meant, if the words are names of such, patterns, or `all`, and no command.
fn remembered(typed: &[OsString]) -> Result<Option<Vec<String>>, Failure> {
    let words: Option<Vec<String>> = typed.iter().map(|word| word.to_str().map(str::to_owned)).collect();
    let Some(words) = words.filter(|words| !words.iter().any(|word| word.starts_with('-'))) else { return Ok(None) };
    let Some(first) = words.first() else { return Ok(None) };
    let names: Vec<String> = state::apps()?.0.into_iter().map(|app| app.name).collect();
    if first != ALL && !is_pattern(first) && !names.contains(first) {
        return Ok(None);
    }
    select(&words, &names).map(Some).map_err(|said| Failure::new(said, FAILED))
}

fn start_new(typed: &[OsString]) -> Result<String, Failure> {
    let words: Option<Vec<String>> = typed.iter().map(|word| word.to_str().map(str::to_owned)).collect();
    let words = words.ok_or_else(|| Failure::new("what is started in the background is given in UTF-8", USAGE))?;
    let (config, files) = meaning::look(typed)?;
    // What cannot be started at all is not remembered.
    let program = config.command.first().map_or(OsStr::new(""), OsString::as_os_str);
    inspect::find(program, std::env::var_os("PATH").as_deref(), config.directory()).map_err(Failure::cannot_start)?;
    let directory = std::env::current_dir()
        .map_err(|error| Failure::new(format_args!("cannot start from the working directory: {error}"), FAILED))?;
    let store = Store::open()?;
    let held = store.hold(&config.name)?;
    let old = held.get()?;
    match &old {
        Some(old) => earlier::wait_for_app(old)?,
        None => earlier::wait(&config.name, &control::find_socket(&config.name))?,
    }
    let name = config.name.clone();
    let app = App::new(name, words, directory.clone(), control_path(&config, &directory), logs(&config, &files)?);
    if old.is_none() {
        held.put(&app)?;
        return begin(&app, &config, &held);
    }
    // What served before is remembered until this serves.
    let (said, master) = launched(&app, &config)?;
    held.put(&app.served_by(master))?;
    Ok(said)
}

/// Starts an app that is remembered and does not run.
///
/// # Errors
/// What to say, and the exit code.
pub fn start(name: &str) -> Result<String, Failure> {
    executable();
    let store = Store::open()?;
    let held = store.hold(name)?;
    let app = held.get()?.ok_or_else(|| Failure::new(format_args!("no app is remembered as {name}"), FAILED))?;
    earlier::wait_for_app(&app)?;
    std::env::set_current_dir(&app.directory)
        .map_err(|error| Failure::cannot_start(format_args!("{name}: {}: {error}", app.directory.display())))?;
    let words: Vec<OsString> = app.words.iter().map(OsString::from).collect();
    let (config, files) = meaning::look(&words)?;
    // Its file and this environment may say something else by now.
    let (control, logs) = (control_path(&config, &app.directory), logs(&config, &files)?);
    let app = app.at(control, logs).wanted(Wanted::Running);
    held.put(&app)?;
    begin(&app, &config, &held)
}

fn control_path(config: &Config, directory: &Path) -> PathBuf {
    match &config.control {
        Control::Explicit(path) | Control::Usual(path) => directory.join(path),
    }
}

/// Where its lines go.
fn logs(config: &Config, files: &FileArgs) -> Result<[PathBuf; 3], Failure> {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let of = |log: Log| match files.given(log) {
        Some(path) => Ok(absolute(path)),
        None if files.merge_logs => Log::merged(&config.name).ok_or(StateError::NoPlace),
        None => log.usual(&config.name).ok_or(StateError::NoPlace),
    };
    Ok([of(Log::Out)?, of(Log::Err)?, of(Log::Master)?])
}

fn begin(app: &App, config: &Config, held: &Held) -> Result<String, Failure> {
    let (said, master) = launched(app, config)?;
    held.served_by(master)?;
    Ok(said)
}

/// Starts it; what to say, and its master.
fn launched(app: &App, config: &Config) -> Result<(String, Option<Identity>), Failure> {
    let serves = || client::status(&app.name, &app.control).is_ok_and(|status| status.ready() == status.workers.len());
    launch(app, executable(), &config.inherited(), serves).map_err(|error| match error {
        LaunchError::Ended { said, code } => Failure::new(said, code),
        error => Failure::cannot_start(error),
    })?;
    // It may have ended in this moment.
    let status = client::status(&app.name, &app.control)?;
    Ok((said(&status), Identity::of(Pid::from_raw(status.pid))))
}

fn said(status: &Status) -> String {
    let addresses: Vec<&str> = status.listeners.iter().map(|listener| listener.address.as_str()).collect();
    let workers = match status.ready() {
        1 => "1 worker".to_owned(),
        ready => format!("{ready} workers"),
    };
    let name = &status.name;
    match &addresses[..] {
        [] => format!("{name} has started: pid {}, {workers}", status.pid),
        addresses => format!("{name} has started: pid {}, {workers}, {}", status.pid, addresses.join(", ")),
    }
}
