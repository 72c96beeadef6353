//! What `maitred up` writes down, so that `down` finds it and `--dry-run` knows what runs: a file of JSON for each, locked as
//! long as it runs, so that a killed one leaves nothing that counts.

use crate::apps::places;
use crate::apps::plan::Planned;
use crate::apps::state::StateError;
use crate::clock;
use crate::core::chance;
use crate::core::moment::{Moment, millis};
use crate::sys::lock::{Lock, lock_within, try_lock};
use crate::sys::process::identity::Identity;
use crate::sys::process::trusted::{Absent, Directory};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The form of these files.
const VERSION: u32 = 1;
/// A longer file is not one of ours.
const FILE_MAX: u64 = 16 << 20;
/// What the name of a record ends with, and that of its lock.
const ENDING: &str = "json";
const LOCK_ENDING: &str = "lock";
/// How long another one may look at the directory.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// What one `up` runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Content {
    version: u32,
    /// Its process. In another PID namespace its number means another one.
    pub process: Option<Identity>,
    /// What it runs.
    pub what: What,
    /// The key of the digests in `apps`.
    pub key: u64,
    /// The apps that run or will run again.
    pub apps: Vec<Planned>,
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// The file, as an absolute path.
    pub file: PathBuf,
    /// The profile.
    pub profile: Option<String>,
    /// The apps that were named.
    pub names: Vec<String>,
}

/// The record of this process; removed when dropped.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    what: What,
    key: u64,
    /// Let go of at the end: only then another one counts this as gone.
    _lock: File,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another `up` runs this file.
    #[error("{} is up already{}; HUP applies a changed file, and maitred down ends it", file.display(), shown(*process))]
    Taken {
        /// The file.
        file: PathBuf,
        /// The other one's process, if it is in this PID namespace.
        process: Option<Pid>,
    },
    /// Others do not let go of the directory.
    #[error("another maitred up looks at {} and does not end", .0.display())]
    Busy(PathBuf),
    /// It cannot be written.
    #[error(transparent)]
    State(#[from] StateError),
}

fn shown(process: Option<Pid>) -> String {
    process.map_or_else(|| " in another container".to_owned(), |pid| format!(": pid {pid}"))
}

impl Record {
    /// Takes the file for this process.
    ///
    /// # Errors
    /// [`RecordError::Taken`] when another `up` runs it.
    pub fn take(what: What) -> Result<Record, RecordError> {
        let directory = directory(Absent::Make(0o700))?.ok_or(StateError::NoPlace)?;
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        let open = |path: &Path| File::options().write(true).create(true).truncate(false).mode(0o600).open(path);
        // Two at the same time see each other: one after the other looks and takes.
        let turn_path = directory.join("turn");
        let turn = open(&turn_path).map_err(io(&turn_path))?;
        if !lock_within(&turn, Lock::Exclusive, TURN_TIMEOUT).map_err(io(&turn_path))? {
            return Err(RecordError::Busy(directory));
        }
        if let Some(other) = running(&directory)?.into_iter().find(|other| other.what.file == what.file) {
            return Err(RecordError::Taken { file: what.file, process: other.process.and_then(Identity::running) });
        }
        // Locked before it has the name under which others look for it.
        let new = tempfile::NamedTempFile::new_in(&directory).map_err(io(&directory))?;
        try_lock(new.as_file(), Lock::Exclusive).map_err(io(new.path()))?;
        let random = new.path().file_name().unwrap_or_default().to_string_lossy().trim_start_matches('.').to_owned();
        let path = directory.join(format!("{random}.{ENDING}"));
        let lock_path = path.with_extension(LOCK_ENDING);
        let lock = new.persist(&lock_path).map_err(|error| io(&lock_path)(error.error))?;
        let key = chance::mix(u64::from(std::process::id()) ^ millis(clock::now().since(Moment::default())));
        let record = Record { path, what, key, _lock: lock };
        record.write(&[])?;
        Ok(record)
    }

    /// Writes down which apps run.
    ///
    /// # Errors
    /// When the file cannot be written; then the old one is still there.
    pub fn write(&self, apps: &[Planned]) -> Result<(), StateError> {
        let fail = |source: io::Error| StateError::Io { path: self.path.clone(), source };
        let content = Content {
            version: VERSION,
            process: Identity::of(Pid::this()),
            what: self.what.clone(),
            key: self.key,
            apps: apps.iter().map(|app| app.digested(self.key)).collect(),
        };
        let text = serde_json::to_vec(&content).map_err(|error| fail(error.into()))?;
        let mut new = tempfile::NamedTempFile::new_in(self.path.parent().unwrap_or(Path::new("/"))).map_err(fail)?;
        new.write_all(&text).map_err(fail)?;
        new.persist(&self.path).map_err(|error| fail(error.error))?;
        Ok(())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension(LOCK_ENDING));
    }
}

/// The one that runs this file.
///
/// # Errors
/// When it cannot be looked up.
pub fn of_file(file: &Path) -> Result<Option<Content>, StateError> {
    let Some(directory) = directory(Absent::Refuse)? else { return Ok(None) };
    Ok(running(&directory)?.into_iter().find(|content| content.what.file == file))
}

fn directory(absent: Absent) -> Result<Option<PathBuf>, StateError> {
    use crate::sys::process::trusted::Untrusted;
    let Some(path) = places::ups() else { return Ok(None) };
    match Directory::open(&path, absent) {
        Ok(directory) => Ok(Some(directory.path().to_owned())),
        Err(Untrusted::Io { source, .. }) if absent == Absent::Refuse && source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(untrusted) => Err(untrusted.into()),
    }
}

/// Those that run. What a killed one left is removed.
fn running(directory: &Path) -> Result<Vec<Content>, StateError> {
    let fail = |source| StateError::Io { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_none_or(|ending| ending != LOCK_ENDING) {
            continue;
        }
        let record = path.with_extension(ENDING);
        let Ok(lock) = File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(&path) else { continue };
        if try_lock(&lock, Lock::Exclusive).map_err(fail)? {
            let _ = std::fs::remove_file(&record);
            let _ = std::fs::remove_file(&path);
            continue;
        }
        found.extend(read(&record));
    }
    Ok(found)
}

fn read(path: &Path) -> Option<Content> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str::<Content>(&text).ok().filter(|content| content.version == VERSION)
}
