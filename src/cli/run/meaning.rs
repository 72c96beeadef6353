//! What the words of `run` and `start` mean, with those of the file that they name.

use super::RunArgs;
use crate::adapt::inspect;
use crate::apps::select::select;
use crate::cli::failure::Failure;
use crate::cli::files::FileArgs;
use crate::cli::logging::{LogFormat, LogOptions};
use crate::cli::{name, words};
use crate::config::layers::{AppInFile, Which};
use crate::config::life::Ready;
use crate::config::options::{OPTIONS, RunOption};
use crate::config::process;
use crate::config::{Config, Control, Mode, Named, PortZero, Prefix, Source, env_file, file, found};
use crate::control;
use crate::logs::Log;
use crate::sys::process::directory;
use crate::sys::process::trusted::Access;
use clap::{CommandFactory, Parser};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::rc::Rc;

/// The settings of the log, which do not change while the master runs.
pub struct LogArgs {
    pub options: LogOptions,
    /// What comes before each line.
    pub before: Option<String>,
    pub files: FileArgs,
}

/// `run` alone, to parse the words again with those of a file before them.
#[derive(Debug, Parser)]
#[command(name = "maitred run", no_binary_name = true)]
pub(super) struct Again {
    #[command(flatten)]
    pub(super) args: RunArgs,
}

/// Turns the command line, and the file that it names, into settings. `text` takes the place of the file's text if the
/// file should not be read again.
pub(super) fn load(args: RunArgs, typed: &[OsString], text: Option<String>) -> Result<(LogArgs, Config), String> {
    let Some(file) = file_of(&args)? else {
        let source = Source { text: None, make: maker(typed.to_vec()) };
        return meant(args, source);
    };
    let text = match text {
        Some(text) => text,
        None => file.read()?,
    };
    let path = file.path;
    let which = Which { app: args.app.as_deref(), profile: args.profile.as_deref() };
    let words = file::words(&text, &path, which).map_err(|error| error.to_string())?;
    let all = words.options.iter().chain(typed);
    let again = Again::try_parse_from(all).map_err(|error| {
        let what = error.to_string();
        let first = what.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("{}: {first}", path.display())
    })?;
    let mut args = again.args;
    if args.command.is_empty() {
        args.command = words.command;
    }
    if args.command.is_empty() {
        return Err(format!("{}: there is no command; add command = [\"node\", \"server.js\"]", path.display()));
    }
    meant(args, Source { text: Some(text), make: maker(typed.to_vec()) })
}

/// A file, and how it was chosen.
#[derive(Clone, Debug)]
pub struct ChosenFile {
    /// Its path.
    pub path: PathBuf,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// It was typed: whoever typed it means it.
    Typed,
    /// It was found, so it is checked at each read that nobody else decides what it says.
    Found,
}

impl ChosenFile {
    /// One that was typed.
    pub fn typed(path: PathBuf) -> ChosenFile {
        ChosenFile { path, how: How::Typed }
    }

    /// The one in the working directory or in one above.
    ///
    /// # Errors
    /// Says why one that is there is not used.
    pub fn found() -> Result<Option<ChosenFile>, String> {
        let here = std::env::current_dir().map_err(|error| format!("cannot look for {}: {error}", found::NAME))?;
        let path = found::upwards(&here).map_err(|error| error.to_string())?;
        Ok(path.map(|path| ChosenFile { path, how: How::Found }))
    }

    /// Its text.
    ///
    /// # Errors
    /// Says why it cannot be read, or is not used.
    pub fn read(&self) -> Result<String, String> {
        match self.how {
            How::Typed => file::read(&self.path).map_err(|error| error.to_string()),
            How::Found => found::read(&self.path).map_err(|error| error.to_string()),
        }
    }

    /// The words that mean an app of it, chosen in the same way.
    pub fn words(&self, app: Option<&str>, profile: Option<&str>) -> Vec<OsString> {
        let file = match self.how {
            How::Typed => "--config=",
            How::Found => "--found=",
        };
        let file = OsString::from_iter([OsStr::new(file), self.path.as_ref()]);
        let profile = profile.map(|profile| format!("--profile={profile}").into());
        let app = app.map(|app| format!("--app={app}").into());
        [file].into_iter().chain(profile).chain(app).collect()
    }
}

/// The file that is named, or that is meant where no command is given.
pub(super) fn file_of(args: &RunArgs) -> Result<Option<ChosenFile>, String> {
    if let Some(path) = &args.found {
        return Ok(Some(ChosenFile { path: path.clone(), how: How::Found }));
    }
    if args.config.is_some() || !args.command.is_empty() {
        return match (&args.config, args.app.is_some() || args.profile.is_some()) {
            (None, true) => Err("--app and --profile choose from a file; name it with -c FILE".to_owned()),
            (path, _) => Ok(path.clone().map(ChosenFile::typed)),
        };
    }
    match ChosenFile::found()? {
        Some(file) => Ok(Some(file)),
        None => Err(format!("there is no command, and no {} here or above; give one of them", found::NAME)),
    }
}

/// The apps of the file that these words name, if they name one with several and no app of it, and the words without those
/// that would be a command.
///
/// # Errors
/// Says what is wrong with them.
pub fn apps_of_file(words: &[OsString]) -> Result<Option<Apps>, Failure> {
    // What is wrong with the words is said where they are used.
    let Ok(Again { args }) = Again::try_parse_from(words) else { return Ok(None) };
    if args.app.is_some() {
        return Ok(None);
    }
    let options = words.len() - args.command.len();
    let mut options: Vec<OsString> = words.iter().take(options).filter(|word| *word != "--").cloned().collect();
    if let Some(path) = &args.config {
        let apps = apps(&ChosenFile::typed(path.clone()), args.profile.as_deref()).map_err(Failure::usage)?;
        return Ok(Some(Apps { apps, words: options, named: args.command }).filter(|found| !found.apps.is_empty()));
    }
    if words.iter().any(|word| word == "--") {
        // What follows is a command, whatever it is called.
        return Ok(None);
    }
    let found = ChosenFile::found()
        .and_then(|file| file.map(|file| apps(&file, args.profile.as_deref()).map(|apps| (file, apps))).transpose());
    let first = args.command.first();
    match (found, first) {
        (Ok(Some((file, apps))), first) if !apps.is_empty() && first.is_none_or(|first| has(&apps, first)) => {
            options.splice(..0, file.words(None, None));
            Ok(Some(Apps { apps, words: options, named: args.command }))
        }
        // A file that is not named says nothing about a program.
        (Err(error), first) if first.is_none_or(|first| !is_program(first)) => Err(Failure::usage(error)),
        _ => Ok(None),
    }
}

fn apps(file: &ChosenFile, profile: Option<&str>) -> Result<Vec<AppInFile>, String> {
    let text = file.read()?;
    file::apps(&text, &file.path, profile).map_err(|error| error.to_string())
}

fn has(apps: &[AppInFile], name: &OsStr) -> bool {
    apps.iter().any(|app| name == app.name.as_str())
}

/// The definition of `run`.
pub fn command() -> clap::Command {
    let mut command = Again::command();
    command.build();
    command
}

/// All options with their definitions, in the order of the help.
pub fn options() -> Vec<(&'static RunOption, clap::Arg)> {
    let command = command();
    let defined = |option: &RunOption| command.get_arguments().find(|arg| arg.get_long() == Some(option.name)).cloned();
    OPTIONS.iter().filter_map(|option| Some((option, defined(option)?))).collect()
}

/// Whether a word is a program that could be run here.
pub fn is_program(word: &OsStr) -> bool {
    inspect::find(word, std::env::var_os("PATH").as_deref(), None).is_ok()
}

/// The apps of a file.
pub struct Apps {
    /// All of them, each after those that it depends on.
    pub apps: Vec<AppInFile>,
    /// The words that are the same for all.
    pub words: Vec<OsString>,
    /// Words that name some of them.
    pub named: Vec<OsString>,
}

impl Apps {
    /// The apps that are named, else those that are enabled, and all that these depend on.
    ///
    /// # Errors
    /// Says which name is none of them.
    pub fn wanted(&self) -> Result<Vec<&str>, Failure> {
        let there: Vec<String> = self.apps.iter().map(|app| app.name.clone()).collect();
        let words: Vec<String> = self.named.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let named = select(&words, &there).map_err(Failure::usage)?;
        if let Some(unknown) = named.iter().find(|name| !there.contains(name)) {
            return Err(Failure::usage(format_args!(
                "the file has no app {unknown:?}; there are {}",
                there.join(", ")
            )));
        }
        let first = |app: &AppInFile| if named.is_empty() { app.enabled } else { named.contains(&app.name) };
        let mut wanted: Vec<&str> = self.apps.iter().filter(|app| first(app)).map(|app| app.name.as_str()).collect();
        // Each comes after those that it depends on, so one way back finds all.
        for app in self.apps.iter().rev() {
            if wanted.contains(&app.name.as_str()) {
                wanted.extend(app.depends_on.iter().map(String::as_str));
            }
        }
        Ok(wanted)
    }
}

/// What these words after `run` or `start` mean.
///
/// # Errors
/// Says what is wrong with them.
pub fn look(words: &[OsString]) -> Result<(Config, FileArgs), Failure> {
    looked(words, None)
}

/// The same with this text of the file that they name.
///
/// # Errors
/// Says what is wrong with them.
pub fn look_at(words: &[OsString], text: &str) -> Result<(Config, FileArgs), Failure> {
    looked(words, Some(text.to_owned()))
}

fn looked(words: &[OsString], text: Option<String>) -> Result<(Config, FileArgs), Failure> {
    let again = Again::try_parse_from(words).map_err(|error| Failure::usage(words::explained(&error)))?;
    let (log, config) = load(again.args, words, text).map_err(Failure::usage)?;
    config.is_possible().map_err(Failure::usage)?;
    Ok((config, log.files))
}

/// Makes the configuration again from the same words.
fn maker(typed: Vec<OsString>) -> Rc<dyn Fn(Option<String>) -> Result<Config, String>> {
    Rc::new(move |text| {
        let again = Again::try_parse_from(&typed).map_err(|error| error.to_string())?;
        load(again.args, &typed, text).map(|(_, config)| config)
    })
}

/// What a file's text means; the same code runs at the start and at every reload.
#[cfg(fuzzing)]
pub fn meaning_of_file(text: &str) -> Result<(), String> {
    maker(vec!["--config".into(), "maitred.toml".into()])(Some(text.to_owned())).map(drop)
}

fn meant(mut args: RunArgs, source: Source) -> Result<(LogArgs, Config), String> {
    let (name, named) = match args.name {
        Some(name) => (name, Named::ByOperator),
        None if args.app.is_some() => (args.app.unwrap_or_default(), Named::ByOperator),
        None => (name::of_command(args.command.first().map_or(OsStr::new(""), OsString::as_os_str)), Named::ByCommand),
    };
    let control = match args.control {
        Some(path) => Control::Explicit(path),
        None => Control::Usual(control::socket_path(&name)),
    };
    let own = Log::ALL.into_iter().filter_map(|log| args.files.given(log)).chain(args.pid_file.clone());
    let triggers = args.life.triggers(own)?;
    let range = args.workers.workers.range().map(|range| args.life.range(range));
    let life = args.life.meant()?;
    let for_processes = args.process.meant()?;
    if args.mode != Mode::Handoff && (life.probing.is_some() || matches!(life.ready, Ready::Http(_))) {
        let mode = args.mode.name();
        return Err(format!(
            "--probe and --ready http: need --mode handoff: in {mode} mode nobody can choose who gets the connection"
        ));
    }
    let group =
        args.control_group.as_deref().map(process::group_number).transpose().map_err(|error| error.to_string())?;
    let access = Access { mode: args.control_mode, group };
    let pid_file = args.pid_file.map(std::path::absolute).transpose().map_err(|error| error.to_string())?;
    let admin = args.admin.meant(args.on_event);
    let admission = args.admission.meant()?;
    let mut env = Vec::new();
    for path in &args.env_file {
        env.extend(env_file::read(path).map_err(|error| error.to_string())?);
    }
    // The later one counts.
    env.append(&mut args.workers.env);
    args.workers.policy.fits(args.mode, &args.workers.weights)?;
    admission.fits(args.mode)?;
    // JSON is for programs.
    let before = (args.prefix == Prefix::Name && args.log.log_format == LogFormat::Text).then(|| format!("{name}| "));
    let log = LogArgs { options: args.log, before, files: args.files };
    let config = Config {
        workers: args.workers.count(),
        range,
        bind: args.bind,
        mode: args.mode,
        policy: args.workers.policy,
        weights: args.workers.weights,
        admission,
        adapter: args.workers.adapter,
        preset: args.workers.preset,
        private: args.private,
        port_zero: if args.share_port_zero { PortZero::Shared } else { PortZero::Private },
        depth: args.workers.depth,
        name,
        named,
        control,
        access,
        pid_file,
        admin,
        env,
        // The link is followed anew for each worker.
        cwd: args.workers.cwd.or_else(|| if for_processes.root().is_some() { None } else { directory::named() }),
        stop_signal: args.workers.stop_signal,
        grace: args.grace,
        prefix: args.prefix,
        worker_log: args.worker_log,
        triggers,
        process: for_processes,
        life,
        command: args.command,
        source,
    };
    Ok((log, config))
}
