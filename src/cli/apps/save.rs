//! `maitred save`: what is remembered as a file. `maitred startup`: units of systemd.

use crate::apps::places;
use crate::apps::plan::Planned;
use crate::apps::state::{self, App, StateError, Wanted};
use crate::apps::units::{self, Service, Whose};
use crate::cli::FAILED;
use crate::cli::apps::{executable, up};
use crate::cli::failure::{Failure, ended};
use crate::cli::name;
use crate::cli::run::{as_file, meaning};
use crate::cli::say::{self, complain};
use clap::Args;
use nix::unistd::geteuid;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use toml::{Table, Value};

/// How a saved file begins; another one is never overwritten.
const MARK: &str = "# Written by maitred save.";
/// The modes of what may hold secrets, and of what others may read.
const OF_USER: u32 = 0o600;
const OF_ALL: u32 = 0o644;

#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Where it is written; without it, ~/.config/maitred/maitred.toml, for root /etc/maitred/maitred.toml
    file: Option<PathBuf>,

    /// Print it and write nothing
    #[arg(long)]
    print: bool,
}

#[derive(Debug, Args)]
pub struct StartupArgs {
    /// One unit that runs `maitred up` with this file; without it, one for each app that was started in the background
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Which layer of the file is laid over it
    #[arg(long, value_name = "P", requires = "config")]
    profile: Option<String>,

    /// Units of this user and not of the machine
    #[arg(long)]
    user: bool,

    /// Print them and write nothing
    #[arg(long)]
    print: bool,
}

/// Writes the file.
pub fn main(args: &SaveArgs) -> ExitCode {
    ended(save(args))
}

/// Writes the units.
pub fn startup(args: &StartupArgs) -> ExitCode {
    ended(write_units(args))
}

fn save(args: &SaveArgs) -> Result<ExitCode, Failure> {
    let (apps, wrong) = state::apps()?;
    if let Some(wrong) = wrong.first() {
        return Err(Failure::new(wrong, FAILED));
    }
    let mut all = Table::new();
    for app in &apps {
        let table = table(app).map_err(|why| Failure::new(format_args!("{}: {why}", app.name), FAILED))?;
        all.insert(app.name.clone(), Value::Table(table));
    }
    let text = format!("{MARK}\n{}", Table::from_iter([("app".to_owned(), Value::Table(all))]));
    if args.print {
        return Ok(say::lines(&text, ExitCode::SUCCESS));
    }
    let path = args.file.clone().or_else(places::saved).ok_or(StateError::NoPlace)?;
    write(&path, &text, MARK, OF_USER)?;
    let count = apps.len();
    let path = std::path::absolute(&path).unwrap_or(path);
    let shown = path.display().to_string();
    let quoted = shlex::try_quote(&shown).unwrap_or_else(|_| shown.clone().into());
    let said = format!("{count} apps are in {shown}; maitred startup -c {quoted} has them started at boot\n");
    Ok(say::lines(&said, ExitCode::SUCCESS))
}

/// What is remembered of an app as options of a file.
fn table(app: &App) -> Result<Table, String> {
    let words: Vec<OsString> = app.words.iter().map(OsString::from).collect();
    let mut table = as_file::as_table(&words, &app.directory)?;
    let directory = app.directory.to_str().ok_or("its directory has a name that is not UTF-8")?;
    table.entry("cwd").or_insert_with(|| directory.into());
    if app.wanted == Wanted::Stopped {
        table.insert("enabled".to_owned(), false.into());
    }
    Ok(table)
}

fn write_units(args: &StartupArgs) -> Result<ExitCode, Failure> {
    let whose = if args.user { Whose::User } else { Whose::System };
    if whose == Whose::System && !geteuid().is_root() && !args.print {
        return Err(Failure::usage(
            "units of the machine are root's: run this as root, or give --user for your own, or --print to see them",
        ));
    }
    // Before the working directory changes.
    executable_in_words()?;
    let services = match &args.config {
        Some(file) => vec![of_file(file, args.profile.as_deref())?],
        None => of_apps()?,
    };
    let mut shown = String::new();
    for (name, service) in &services {
        let text = units::text(service, whose).map_err(|why| Failure::new(format_args!("{name}: {why}"), FAILED))?;
        if args.print {
            shown += &format!("# {name}.service\n{text}\n");
            continue;
        }
        let path = whose.directory().ok_or(StateError::NoPlace)?.join(format!("{name}.service"));
        write(&path, &text, &units::mark(service), OF_ALL)?;
        shown += &format!("{}\n{text}\n", path.display());
    }
    if !args.print {
        let systemctl = whose.systemctl();
        let names: Vec<&str> = services.iter().map(|(name, _)| name.as_str()).collect();
        let stop = if args.config.is_some() { "down" } else { "stop" };
        shown += &format!(
            "They are written. What runs already is stopped first (maitred {stop}), then:\n\
             {systemctl} daemon-reload && {systemctl} enable --now {}\n",
            names.join(" ")
        );
        if whose == Whose::User {
            shown += "loginctl enable-linger has them started at boot and not at login\n";
        }
    }
    Ok(say::lines(&shown, ExitCode::SUCCESS))
}

/// A unit's name, and what it runs.
type Unit = (String, Service);

fn of_file(file: &Path, profile: Option<&str>) -> Result<Unit, Failure> {
    let (file, apps) = up::apps_of(file, profile)?;
    let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| Failure::usage("its path is not UTF-8"));
    let mut command = vec![executable_in_words()?, "up".to_owned(), "--config".to_owned(), text(&file)?];
    command.extend(profile.map(|profile| format!("--profile={profile}")));
    let folder = directory.file_name().map(name::of_command).unwrap_or_default();
    let name = if ["", "maitred"].contains(&&*folder) { "maitred".to_owned() } else { format!("maitred-{folder}") };
    let names: Vec<&str> = apps.iter().map(|(app, _)| app.name.as_str()).collect();
    let service = Service {
        description: format!("maitred up: {}", names.join(", ")),
        command,
        directory,
        of: file,
        grace: longest_end(&apps),
        path: std::env::var("PATH").ok(),
    };
    Ok((name, service))
}

/// How long the end of all takes at most: each ends after those that depend on it.
fn longest_end(apps: &[(Planned, Duration)]) -> Duration {
    let mut until: Vec<(&str, Duration)> = Vec::new();
    for (app, own) in apps.iter().rev() {
        let dependents = apps.iter().filter(|(other, _)| other.depends_on.contains(&app.name));
        let before = dependents
            .filter_map(|(other, _)| until.iter().find(|(name, _)| *name == other.name).map(|(_, time)| *time))
            .max();
        until.push((&app.name, *own + before.unwrap_or_default()));
    }
    until.into_iter().map(|(_, time)| time).max().unwrap_or_default()
}

fn of_apps() -> Result<Vec<Unit>, Failure> {
    let (apps, wrong) = state::apps()?;
    wrong.iter().for_each(|wrong| complain(wrong));
    let mut units = Vec::new();
    for app in apps.into_iter().filter(|app| app.wanted == Wanted::Running) {
        let words: Vec<OsString> = app.words.iter().map(OsString::from).collect();
        std::env::set_current_dir(&app.directory).map_err(|error| {
            Failure::new(format_args!("{}: {}: {error}", app.name, app.directory.display()), FAILED)
        })?;
        let (config, _) = meaning::look(&words)?;
        if app.words.iter().any(|word| word == "--env" || word.starts_with("--env=")) {
            return Err(Failure::new(
                format_args!(
                    "{}: what --env gave would be in the unit, which systemd shows to everybody; maitred save writes a file \
                     that only you can read, and maitred startup -c FILE a unit for that",
                    app.name
                ),
                FAILED,
            ));
        }
        let own = ["run".to_owned(), format!("--name={}", app.name)];
        let service = Service {
            description: format!("maitred: {}", app.name),
            command: [executable_in_words()?].into_iter().chain(own).chain(app.words).collect(),
            directory: app.directory,
            of: PathBuf::from(&app.name),
            grace: config.grace + config.life.stop_delay,
            path: std::env::var("PATH").ok(),
        };
        units.push((format!("maitred-{}", app.name), service));
    }
    if units.is_empty() {
        return Err(Failure::new("no app was started in the background; start one, or name a file with -c", FAILED));
    }
    Ok(units)
}

fn executable_in_words() -> Result<String, Failure> {
    let path = executable();
    path.to_str().map(str::to_owned).ok_or_else(|| Failure::new("the path of maitred is not UTF-8", FAILED))
}

/// Writes a file whole, and replaces only one that has this mark.
fn write(path: &Path, text: &str, mark: &str, mode: u32) -> Result<(), Failure> {
    let fail = |error: io::Error| Failure::new(format_args!("cannot write {}: {error}", path.display()), FAILED);
    // Non-blocking, since opening a pipe would wait for its writer.
    match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(there) => {
            let mut begins = Vec::new();
            let is_file = there.metadata().is_ok_and(|there| there.is_file());
            let read = there.take(mark.len() as u64).read_to_end(&mut begins);
            if !is_file || read.is_err() || begins != mark.as_bytes() {
                return Err(fail(io::Error::other("something else is there, which stays; move it away first")));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(fail)?;
    let mut new = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
    new.write_all(text.as_bytes()).map_err(fail)?;
    new.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(fail)?;
    new.as_file().sync_all().map_err(fail)?;
    new.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}
