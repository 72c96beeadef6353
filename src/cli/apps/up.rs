//! `maitred up`: the apps of a file in the foreground, under one process. `maitred down`: ends it.

use crate::apps::plan::{Planned, changes};
use crate::apps::up::record::{self, Record, RecordError, What};
use crate::apps::up::{self, Milestone, Plan, Together};
use crate::cli::admin::{AdminArgs, serve_all};
use crate::cli::failure::{Failure, ended};
use crate::cli::logging::{self, LogFormat, LogOptions};
use crate::cli::run::meaning::{self, Apps, ChosenFile};
use crate::cli::say;
use crate::cli::{CANNOT_START, FAILED, USAGE};
use crate::config::layers::Which;
use crate::config::{Control, env_file, file, found, options};
use crate::core::apps::Outcome;
use crate::logs::Sink;
use crate::logs::kept::Kept;
use crate::logs::rotation::Rotation;
use crate::master::upgrade;
use crate::sys::socket::manager::{self, Manager};
use clap::Args;
use nix::sys::signal::SigSet;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use toml::Value;

/// The options that say what lines look like.
const FORMS: [&str; 2] = ["prefix", "worker-log"];

#[derive(Clone, Debug, Args)]
pub struct FileOfApps {
    /// The file; without it, maitred.toml here or in a directory above
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    file: FileOfApps,

    /// Which layer of the file is laid over it: [profile.P], [profile.P.app.NAME]
    #[arg(long, value_name = "P")]
    profile: Option<String>,

    /// Names, patterns (`web-*`), and with them what these depend on; without one, all that are enabled
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Only print what HUP, or a first start, would do
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    admin: AdminArgs,

    #[command(flatten)]
    log: LogOptions,
}

#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    file: FileOfApps,
}

/// Runs the apps until all have ended.
pub fn main(args: &UpArgs) -> ExitCode {
    ended(if args.dry_run { dry_run(args) } else { run(args) })
}

/// Ends them, and waits for that.
pub fn down(args: &DownArgs) -> ExitCode {
    ended(end(args))
}

impl FileOfApps {
    /// This file, or the one that is found.
    pub fn named(config: Option<PathBuf>) -> FileOfApps {
        FileOfApps { config }
    }

    /// The file, with its absolute path, by which everybody knows it. Links in it are followed at each read.
    ///
    /// # Errors
    /// Says why there is none, or why it is not used.
    pub fn chosen(&self) -> Result<ChosenFile, Failure> {
        let Some(path) = &self.config else {
            return ChosenFile::found().map_err(Failure::usage)?.ok_or_else(|| {
                Failure::usage(format_args!("there is no {} here or above; name a file with -c", found::NAME))
            });
        };
        let path =
            std::path::absolute(path).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))?;
        Ok(ChosenFile::typed(path))
    }
}

fn run(args: &UpArgs) -> Result<ExitCode, Failure> {
    // Until each has its handler: `HUP` would end this, and PID 1 would never hear of `TERM`.
    SigSet::all()
        .thread_block()
        .map_err(|errno| Failure::cannot_start(format_args!("no signals can be held: {errno}")))?;
    let file = args.file.chosen()?;
    let plan = planned(&file, args)?;
    let kept = Kept::new(0);
    let log = Sink::open(crate::logs::Log::Master, None, Rotation::NEVER, &kept).map_err(Failure::cannot_start)?;
    let before = (args.log.log_format == LogFormat::Text).then(|| "maitred| ".to_owned());
    logging::start(&args.log, log, before).map_err(Failure::cannot_start)?;
    let serving = match &args.admin.admin[..] {
        [] => None,
        addresses => Some(serve_all(addresses, args.admin.admin_token_file.clone()).map_err(Failure::cannot_start)?),
    };
    let what = What { file: file.path.clone(), profile: args.profile.clone(), names: args.names.clone() };
    let record = match Record::take(what) {
        Ok(record) => Some(record),
        Err(taken @ RecordError::Taken { .. }) => return Err(Failure::cannot_start(taken)),
        Err(error) => {
            tracing::warn!(%error, "cannot write down what runs; maitred up --dry-run and maitred down will not know");
            None
        }
    };
    let again = {
        let (file, args) = (file.clone(), args.clone());
        Box::new(move || planned(&file, &args).map_err(|failure| failure.said))
    };
    let tell = teller().map_err(Failure::cannot_start)?;
    let together = Together { file: file.path, plan, again, executable: upgrade::executable(), record, tell };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::cannot_start(format_args!("no event loop: {error}")))?;
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, up::run(together));
    // Whoever still waits for an earlier master is not waited for.
    runtime.shutdown_background();
    drop(serving);
    logging::flush();
    match outcome {
        Ok(Outcome::Stopped) => Ok(ExitCode::SUCCESS),
        Ok(Outcome::NotStarted) => Ok(ExitCode::from(CANNOT_START)),
        Ok(Outcome::Misused) => Ok(ExitCode::from(USAGE)),
        Err(error) => Err(Failure::cannot_start(format_args!("no signals can be received: {error}"))),
    }
}

/// Tells the service manager, if there is one.
///
/// # Errors
/// When no thread can be created.
fn teller() -> io::Result<Box<dyn Fn(Milestone)>> {
    let Some(manager) = Manager::find()? else { return Ok(Box::new(|_| {})) };
    Ok(Box::new(move |milestone| {
        manager.tell(match milestone {
            Milestone::Serves => "READY=1".to_owned(),
            Milestone::Stops => "STOPPING=1".to_owned(),
            Milestone::Reloads => manager::reloading(),
        });
    }))
}

fn dry_run(args: &UpArgs) -> Result<ExitCode, Failure> {
    let file = args.file.chosen()?;
    let up = record::of_file(&file.path)?;
    let mut args = args.clone();
    if let Some(up) = &up
        && args.profile.is_none()
        && args.names.is_empty()
    {
        // As HUP does it.
        (args.profile, args.names) = (up.what.profile.clone(), up.what.names.clone());
    }
    let new = planned(&file, &args)?.apps;
    let (runs, new) = match up {
        Some(up) => (up.apps, new.iter().map(|app| app.digested(up.key)).collect()),
        None => (Vec::new(), new),
    };
    let lines: String = changes(&runs, &new).into_iter().map(|(name, change)| format!("{name}: {change}\n")).collect();
    let lines = if lines.is_empty() { "nothing would change\n".to_owned() } else { lines };
    Ok(say::lines(&lines, ExitCode::SUCCESS))
}

fn end(args: &DownArgs) -> Result<ExitCode, Failure> {
    let file = args.file.chosen()?.path;
    let Some(up) = record::of_file(&file)? else {
        return Err(Failure::new(
            format_args!("no maitred up runs {}; apps in the background end with maitred stop", file.display()),
            FAILED,
        ));
    };
    let Some(process) = up.process.filter(|process| process.running().is_some()) else {
        let file = file.display();
        return Err(Failure::new(format_args!("{file} is up in another container; end it there"), FAILED));
    };
    process.end().map_err(|error| Failure::new(format_args!("cannot end it: {error}"), FAILED))?;
    let names: Vec<String> = up.apps.into_iter().map(|app| app.name).collect();
    Ok(say::lines(&format!("down: {}\n", names.join(", ")), ExitCode::SUCCESS))
}

/// What the file says of the apps that are wanted.
fn planned(file: &ChosenFile, args: &UpArgs) -> Result<Plan, Failure> {
    let (apps, text) = plans(file, args.profile.as_deref(), &args.names)?;
    Ok(Plan { apps: apps.into_iter().map(|(app, _)| app).collect(), text })
}

/// The absolute path of a file, and its apps that are enabled, with the time that the end of each takes at most.
///
/// # Errors
/// Says what is wrong with it.
pub fn apps_of(file: &Path, profile: Option<&str>) -> Result<(PathBuf, Vec<(Planned, Duration)>), Failure> {
    let file = FileOfApps::named(Some(file.to_owned())).chosen()?;
    let (apps, _) = plans(&file, profile, &[])?;
    Ok((file.path, apps))
}

/// Apps with the time that the end of each takes at most, and the text that says so.
type Plans = (Vec<(Planned, Duration)>, String);

fn plans(file: &ChosenFile, profile: Option<&str>, names: &[String]) -> Result<Plans, Failure> {
    let path = &file.path;
    let text = file.read().map_err(Failure::usage)?;
    let apps = file::apps(&text, path, profile).map_err(Failure::usage)?;
    let named = names.iter().map(OsString::from).collect();
    let apps = Apps { apps, words: file.words(None, profile), named };
    let mut planned = Vec::new();
    if apps.apps.is_empty() {
        if let Some(name) = names.first() {
            return Err(Failure::usage(format_args!("{} has one app without a name, not {name}", path.display())));
        }
        planned.push(plan(&text, path, profile, &apps.words, None, &[])?);
    }
    let wanted = apps.wanted()?;
    for app in apps.apps.iter().filter(|app| wanted.contains(&app.name.as_str())) {
        planned.push(plan(
            &text,
            path,
            profile,
            &file.words(Some(&app.name), profile),
            Some(&app.name),
            &app.depends_on,
        )?);
    }
    if planned.is_empty() {
        return Err(Failure::usage(format_args!("{}: no app is enabled; name one", path.display())));
    }
    let mut sockets = BTreeMap::new();
    for (app, _) in &planned {
        if let Some(other) = sockets.insert(&app.control, &app.name) {
            let (name, control) = (&app.name, app.control.display());
            return Err(Failure::usage(format_args!("{other} and {name} have one control socket: {control}")));
        }
    }
    Ok((planned, text))
}

/// What one app is started with.
fn plan(
    text: &str,
    path: &Path,
    profile: Option<&str>,
    words: &[OsString],
    app: Option<&str>,
    depends_on: &[String],
) -> Result<(Planned, Duration), Failure> {
    let named = |failure: Failure| match app {
        Some(app) => Failure::new(format_args!("[app.{app}]: {}", failure.said), failure.code),
        None => failure,
    };
    let (config, _) = meaning::look_at(words, text).map_err(named)?;
    let which = Which { app, profile };
    let mut settings = BTreeMap::new();
    for setting in file::settings(text, path, which).map_err(Failure::usage)? {
        let mut value = setting.value.to_string();
        if setting.key == options::ENV_FILE {
            // A file with other variables is a change, too.
            value += &contents(&setting.value, path)?;
        }
        settings.insert(setting.key, value);
    }
    let control = match &config.control {
        Control::Explicit(path) | Control::Usual(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
    };
    let mut all = Vec::new();
    if app.is_some() && !FORMS.iter().any(|form| settings.contains_key(*form)) {
        all.push("--prefix=name".to_owned());
    }
    for word in words {
        let word = word.to_str().ok_or_else(|| Failure::usage("the path of the file has to be UTF-8"))?;
        all.push(word.to_owned());
    }
    let name = app.map_or_else(|| config.name.clone(), str::to_owned);
    let passed = config.inherited();
    let workers = config.workers;
    let planned = Planned { name, depends_on: depends_on.to_vec(), words: all, settings, workers, control, passed };
    Ok((planned, config.grace + config.life.stop_delay))
}

fn contents(files: &Value, path: &Path) -> Result<String, Failure> {
    let one = [files.clone()];
    let all = files.as_array().map_or(&one[..], Vec::as_slice);
    let mut contents = String::new();
    for file in all.iter().filter_map(Value::as_str) {
        let variables = env_file::read(&path.parent().unwrap_or(Path::new("/")).join(file)).map_err(Failure::usage)?;
        contents += &format!("{variables:?}");
    }
    Ok(contents)
}
