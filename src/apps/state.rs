//! What is remembered of each app: a file of JSON, `NAME.json`, that only its user can read. It is written to a new file
//! and renamed, so that nobody ever sees half of it.

use super::places;
use crate::sys::process::identity::Identity;
use crate::sys::process::trusted::{Absent, Directory, Untrusted};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The form of these files.
const VERSION: u32 = 1;
/// A longer file is not one of ours.
const FILE_MAX: u64 = 4 << 20;
/// How long a command may take to let an app go once its master has ended.
const SOON: Duration = Duration::from_secs(5);
/// What an app's file name ends with.
const ENDING: &str = "json";

/// One app, as it was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The form of this file.
    version: u32,
    /// Its name.
    pub name: String,
    /// The options and the command, as they were typed after `start`. Of the environment only what `--env` gave.
    pub words: Vec<String>,
    /// The directory in which they were typed.
    pub directory: PathBuf,
    /// Where its control socket is, as its environment had it at the last start.
    pub control: PathBuf,
    /// Where its lines go: the workers' standard output, their error output, the log.
    pub logs: [PathBuf; 3],
    /// What its user wants.
    pub wanted: Wanted,
    /// Its master at the last start that served. Its control socket may be gone though it runs.
    #[serde(default)]
    pub master: Option<Identity>,
}

/// Whether an app should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// It was started.
    Running,
    /// It was stopped.
    Stopped,
}

impl App {
    /// An app that should run.
    #[must_use]
    pub fn new(name: String, words: Vec<String>, directory: PathBuf, control: PathBuf, logs: [PathBuf; 3]) -> App {
        App { version: VERSION, name, words, directory, control, logs, wanted: Wanted::Running, master: None }
    }

    /// The same app, with its control socket and its logs there.
    #[must_use]
    pub fn at(self, control: PathBuf, logs: [PathBuf; 3]) -> App {
        App { control, logs, ..self }
    }

    /// The process of its master, if that is known and runs, whether its control socket is there or not.
    #[must_use]
    pub fn process(&self) -> Option<Pid> {
        self.master.and_then(Identity::running)
    }

    /// Whether its master runs, as far as is known: one that was started before this was remembered counts.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.master.is_none() || self.process().is_some()
    }

    /// The same app, served by this process.
    #[must_use]
    pub fn served_by(self, master: Option<Identity>) -> App {
        App { master, ..self }
    }

    /// The same app, wanted in this way.
    #[must_use]
    pub fn wanted(self, wanted: Wanted) -> App {
        App { wanted, ..self }
    }
}

/// Why the state of apps cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// This user has no place for it.
    #[error("there is no place to remember apps: neither XDG_STATE_HOME nor HOME is set")]
    NoPlace,
    /// Other users could change it.
    #[error("apps cannot be remembered: {0}")]
    Directory(#[from] Untrusted),
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what this version writes.
    #[error("{}: {why}; delete the file to forget the app", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another command works on the same app.
    #[error("another command starts or deletes {0} right now")]
    Busy(String),
}

/// The directory of these files.
#[derive(Debug)]
pub struct Store(PathBuf);

/// The app with this name, if this user has one.
///
/// # Errors
/// As [`Store::find`] and [`Store::get`].
pub fn app(name: &str) -> Result<Option<App>, StateError> {
    Store::find()?.map_or(Ok(None), |store| store.get(name))
}

/// All apps of this user, by name, and what is wrong with those that cannot be read.
///
/// # Errors
/// As [`Store::find`] and [`Store::all`].
pub fn apps() -> Result<(Vec<App>, Vec<StateError>), StateError> {
    Store::find()?.map_or_else(|| Ok(Default::default()), |store| store.all())
}

/// One app, held against other commands until this is dropped.
#[derive(Debug)]
pub struct Held {
    name: String,
    directory: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// The store of this user, which is made if it is not there.
    ///
    /// # Errors
    /// [`StateError::NoPlace`], or [`StateError::Directory`] when others could change it.
    pub fn open() -> Result<Store, StateError> {
        let path = places::state().ok_or(StateError::NoPlace)?;
        Ok(Store(Directory::open(&path, Absent::Make(0o700))?.path().to_owned()))
    }

    /// The store of this user, if there is one.
    ///
    /// # Errors
    /// [`StateError::Directory`] when others could change it.
    pub fn find() -> Result<Option<Store>, StateError> {
        let Some(path) = places::state() else { return Ok(None) };
        match Directory::open(&path, Absent::Refuse) {
            Ok(directory) => Ok(Some(Store(directory.path().to_owned()))),
            Err(Untrusted::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(untrusted) => Err(untrusted.into()),
        }
    }

    /// The app with this name, if there is one.
    ///
    /// # Errors
    /// When its file cannot be read, or is not what this version writes.
    pub fn get(&self, name: &str) -> Result<Option<App>, StateError> {
        read(&file(&self.0, name))
    }

    /// All apps, by name, and what is wrong with those that cannot be read.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn all(&self) -> Result<(Vec<App>, Vec<StateError>), StateError> {
        let fail = |source| StateError::Io { path: self.0.clone(), source };
        let (mut apps, mut wrong) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.0).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            match read(&path) {
                Ok(app) => apps.extend(app),
                Err(error) => wrong.push(error),
            }
        }
        apps.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((apps, wrong))
    }

    /// Remembers what its user wants, if the app is remembered. Nobody has to hold it for this: a stop may come while a
    /// start waits.
    ///
    /// # Errors
    /// As [`Store::get`], and when the file cannot be written.
    pub fn want(&self, name: &str, wanted: Wanted) -> Result<(), StateError> {
        let _change = change(&self.0, name)?;
        match self.get(name)? {
            Some(app) if app.wanted != wanted => write(&self.0, &app.wanted(wanted)),
            _ => Ok(()),
        }
    }

    /// Holds an app, so that no other command starts or forgets it meanwhile.
    ///
    /// # Errors
    /// [`StateError::Busy`] when another command holds it.
    pub fn hold(&self, name: &str) -> Result<Held, StateError> {
        let path = self.0.join(format!("{name}.lock"));
        match lock(&path, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Held { name: name.to_owned(), directory: self.0.clone(), _lock: lock }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StateError::Busy(name.to_owned())),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }

    /// The same, when another command is about to let it go.
    ///
    /// # Errors
    /// [`StateError::Busy`] when it does not.
    pub fn hold_soon(&self, name: &str) -> Result<Held, StateError> {
        let until = Instant::now() + SOON;
        loop {
            match self.hold(name) {
                Err(StateError::Busy(_)) if Instant::now() < until => std::thread::sleep(SOON / 250),
                held => return held,
            }
        }
    }
}

impl Held {
    /// The app, if it is remembered.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn get(&self) -> Result<Option<App>, StateError> {
        read(&file(&self.directory, &self.name))
    }

    /// Remembers the app.
    ///
    /// # Errors
    /// When the file cannot be written; then the old one is still there.
    pub fn put(&self, app: &App) -> Result<(), StateError> {
        let _change = change(&self.directory, &self.name)?;
        write(&self.directory, app)
    }

    /// Remembers which process serves, and changes nothing else: a stop may have come meanwhile.
    ///
    /// # Errors
    /// As [`Held::put`].
    pub fn served_by(&self, master: Option<Identity>) -> Result<(), StateError> {
        let _change = change(&self.directory, &self.name)?;
        match self.get()? {
            Some(app) => write(&self.directory, &App { master, ..app }),
            None => Ok(()),
        }
    }

    /// Forgets the app.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn forget(self) -> Result<(), StateError> {
        let _change = change(&self.directory, &self.name)?;
        let path = file(&self.directory, &self.name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateError::Io { path, source }),
            _ => Ok(()),
        }
    }
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.{ENDING}"))
}

fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let open = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Flock::lock(open, how).map_err(|(_, errno)| errno.into())
}

/// Keeps other commands from changing what is remembered of an app, for the moment that a change takes.
fn change(directory: &Path, name: &str) -> Result<Flock<File>, StateError> {
    let path = directory.join(format!("{name}.change"));
    lock(&path, FlockArg::LockExclusive).map_err(|source| StateError::Io { path, source })
}

fn write(directory: &Path, app: &App) -> Result<(), StateError> {
    let path = file(directory, &app.name);
    let fail = |source| StateError::Io { path: path.clone(), source };
    // Of mode 0600, as it is made.
    let mut new = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
    let text = serde_json::to_string_pretty(app).map_err(|error| fail(error.into()))?;
    new.write_all(text.as_bytes()).and_then(|()| new.as_file().sync_all()).map_err(fail)?;
    new.persist(&path).map_err(|error| fail(error.error))?;
    Ok(())
}

fn read(path: &Path) -> Result<Option<App>, StateError> {
    let io = |source| StateError::Io { path: path.to_owned(), source };
    let foreign = |why: String| StateError::Foreign { path: path.to_owned(), why };
    // Non-blocking, since opening a pipe would wait for its writer.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io)?,
    };
    if !file.metadata().map_err(io)?.is_file() {
        return Err(foreign("it is no regular file".to_owned()));
    }
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(io)?;
    // The form first: a later one may have other fields.
    let form: Form = serde_json::from_str(&text).map_err(|error| foreign(error.to_string()))?;
    if form.version != VERSION {
        return Err(foreign(format!("it has the form {}, and this maitred knows {VERSION}", form.version)));
    }
    let app: App = serde_json::from_str(&text).map_err(|error| foreign(error.to_string()))?;
    match path.file_stem().is_some_and(|stem| stem == app.name.as_str()) {
        true => Ok(Some(app)),
        false => Err(foreign(format!("it is about {:?}", app.name))),
    }
}

#[derive(Deserialize)]
struct Form {
    version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn app(name: &str) -> App {
        App::new(
            name.to_owned(),
            vec!["--".into(), "a".into()],
            "/srv".into(),
            "/run/a.sock".into(),
            Default::default(),
        )
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store(dir.path().to_owned());
        (dir, store)
    }

    #[test]
    fn what_is_put_is_found_again_until_it_is_forgotten() {
        let (dir, store) = store();
        let held = store.hold("web").unwrap();
        held.put(&app("web")).unwrap();
        store.hold("api").unwrap().put(&app("api")).unwrap();
        assert_eq!(store.get("web").unwrap(), Some(app("web")));
        let names: Vec<String> = store.all().unwrap().0.into_iter().map(|app| app.name).collect();
        assert_eq!(names, ["api", "web"]);
        let mode = std::fs::metadata(dir.path().join("web.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        store.want("web", Wanted::Stopped).unwrap();
        assert_eq!(store.get("web").unwrap().unwrap().wanted, Wanted::Stopped);
        held.forget().unwrap();
        assert_eq!(store.get("web").unwrap(), None);
    }

    #[test]
    fn two_commands_do_not_hold_one_app() {
        let (_dir, store) = store();
        let held = store.hold("web").unwrap();
        assert!(matches!(store.hold("web"), Err(StateError::Busy(name)) if name == "web"));
        assert!(store.hold("api").is_ok());
        drop(held);
        assert!(store.hold("web").is_ok());
    }

    #[test]
    fn a_file_that_is_not_ours_is_named_and_harms_no_other() {
        let (dir, store) = store();
        store.hold("web").unwrap().put(&app("web")).unwrap();
        for (name, text) in [("half", "{\"version\": 1, \"na"), ("later", "{\"version\": 2}"), ("other", "")] {
            std::fs::write(dir.path().join(format!("{name}.json")), text).unwrap();
            let error = store.get(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}.json: ")) && error.contains("delete the file"), "{error}");
        }
        std::fs::copy(dir.path().join("web.json"), dir.path().join("copy.json")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link.json")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (apps, wrong) = store.all().unwrap();
        assert_eq!((apps, wrong.len()), (vec![app("web")], 6), "{wrong:?}");
    }
}
