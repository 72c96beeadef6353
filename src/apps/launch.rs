//! Starts a master in the background, and waits until its first generation serves or it has ended.

use super::places;
use super::state::{App, StateError};
use crate::logs::rotation::Rotation;
use crate::logs::{FileError, Log, LogFile};
use crate::sys::fd;
use crate::sys::process::trusted::{Absent, Directory};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The mode of the directory with an app's logs: workers' output may hold secrets.
const LOGS_MODE: u32 = 0o750;
/// How much of the log is read to say why a start failed.
const TAIL_MAX: u64 = 64 << 10;
/// How often it is asked whether it serves.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// What a service manager tells a process about itself (`sd_notify(3)`, `sd_watchdog_enabled(3)`).
pub const NOT_FOR_APPS: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// How a master begins its last message.
const LAST_MESSAGE: &str = "maitred: ";

impl Log {
    /// The option of `run` that says where it lies.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Log::Out => "--out-file",
            Log::Err => "--err-file",
            Log::Master => "--log-file",
        }
    }

    /// Where it lies unless an option says otherwise; none if this user has no home.
    #[must_use]
    pub fn usual(self, app: &str) -> Option<PathBuf> {
        Some(places::logs(app)?.join(format!("{}.log", self.name())))
    }

    /// Where all of them lie together.
    #[must_use]
    pub fn merged(app: &str) -> Option<PathBuf> {
        Some(places::logs(app)?.join("all.log"))
    }

    /// Where it lies since the last start of this app.
    #[must_use]
    pub fn of(self, app: &App) -> &Path {
        let [out, err, master] = &app.logs;
        match self {
            Log::Out => out,
            Log::Err => err,
            Log::Master => master,
        }
    }
}

/// Why an app could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its logs have no place, or not one that others cannot change.
    #[error(transparent)]
    Place(#[from] StateError),
    /// A log cannot be written.
    #[error(transparent)]
    Log(#[from] FileError),
    /// The system refused.
    #[error("cannot start {what}: {source}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// It ended before it served.
    #[error("{said}")]
    Ended {
        /// Its last words.
        said: String,
        /// Its exit code, as a shell has it.
        code: u8,
    },
}

/// Starts an app with this executable of ours, which gets the descriptors `passed` and no other. Returns when it serves;
/// `serves` asks it, should it be replaced by another binary meanwhile.
///
/// # Errors
/// [`LaunchError`].
pub fn launch(app: &App, executable: &Path, passed: &[RawFd], serves: impl Fn() -> bool) -> Result<(), LaunchError> {
    let io = |what: &str| {
        let what = format!("{} ({what})", app.name);
        move |source| LaunchError::Io { what, source }
    };
    let usual = places::logs(&app.name).ok_or(StateError::NoPlace)?;
    Directory::open(&usual, Absent::Make(LOGS_MODE)).map_err(StateError::from)?;
    let options = Log::ALL.into_iter().flat_map(|log| [OsString::from(log.option()), log.of(app).into()]);
    // What the master says when its log is not there yet, or not any more.
    let last_words = Log::Master.of(app);
    let log = LogFile::open(last_words, Rotation::NEVER)?.try_clone().map_err(io("its log"))?;
    let before = log.metadata().map_err(io("its log"))?.len();
    let (answer, reports) = nix::unistd::pipe().map_err(|errno| io("a pipe")(errno.into()))?;
    let passed: Vec<RawFd> = passed.iter().copied().chain([reports.as_raw_fd()]).collect();
    fd::pass_only(&passed).map_err(io("the descriptors that it gets"))?;
    let mut command = Command::new(executable);
    command.args(["run", "--background", "--ready-fd", &reports.as_raw_fd().to_string(), "--name", &app.name]);
    command.args(options).args(&app.words).current_dir(&app.directory);
    // What a service manager told the shell is not for an app that goes its own way.
    for name in NOT_FOR_APPS {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().map_err(io(&format!("in {}", app.directory.display())))?;
    drop(reports);
    if is_reported(answer).map_err(io("its answer"))? {
        return Ok(());
    }
    // It has ended, or another binary took its place.
    let status = loop {
        match child.try_wait().map_err(io("its end"))? {
            Some(status) => break status,
            None if serves() => return Ok(()),
            None => std::thread::sleep(ASK_EVERY),
        }
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    let said = said_since(last_words, before).unwrap_or_else(|| match status.success() {
        true => "it was stopped before it served".to_owned(),
        false => format!("it ended with {status}"),
    });
    let said = format!("{}: {said}\n(its log: {})", app.name, last_words.display());
    Err(LaunchError::Ended { said, code: u8::try_from(code).unwrap_or(1).max(1) })
}

/// Whether a line comes before the end.
fn is_reported(serves: OwnedFd) -> io::Result<bool> {
    Ok(File::from(serves).read(&mut [0])? > 0)
}

/// The last message in a log, from this place on.
fn said_since(log: &Path, from: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let end = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL_MAX)))).ok()?;
    let mut text = Vec::new();
    file.take(TAIL_MAX).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let begins = lines.iter().rposition(|line| line.starts_with(LAST_MESSAGE))?;
    let said = lines.get(begins..)?.join("\n");
    Some(said.trim_start_matches(LAST_MESSAGE).to_owned())
}
