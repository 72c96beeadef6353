//! The file with the master's number (`--pid-file`), which init scripts and monitoring read.

use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::lock::try_own;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How often it is tried again when the file was removed just then.
const ATTEMPTS_MAX: u32 = 10;

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// A running process holds it.
    #[error(
        "the pid file {} belongs to a maitred that runs{}; stop that one first, or give another --pid-file",
        path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Taken {
        /// The file.
        path: PathBuf,
        /// The number in it.
        pid: Option<u32>,
    },
    /// The system refused.
    #[error("cannot write the pid file {}: {source}; check --pid-file", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The file; removed when dropped. It is locked as long as this process runs, so that one that was left behind is told
/// from one in use whoever has its number by now.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Writes this process's number.
    ///
    /// # Errors
    /// [`PidFileError`]; a file that another master holds stays as it is.
    pub fn write(path: &Path) -> Result<PidFile, PidFileError> {
        let io = |source| PidFileError::Io { path: path.to_owned(), source };
        for _ in 0..ATTEMPTS_MAX {
            let mut file = open(path).map_err(io)?;
            if !try_own(&file).map_err(io)? {
                let mut text = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut text);
                return Err(PidFileError::Taken { path: path.to_owned(), pid: text.trim().parse().ok() });
            }
            let held = PidFile { path: path.to_owned(), file };
            if held.is_there() {
                held.file.set_len(0).map_err(io)?;
                writeln!(&held.file, "{}", std::process::id()).map_err(io)?;
                return Ok(held);
            }
            // The master before this one removed it after it was opened here.
        }
        Err(io(io::Error::other("it is removed again and again")))
    }

    /// Passes it on to the next program of this process; the lock goes with it.
    pub fn pass(&self, passing: &Passing) -> Passed {
        Passed { path: self.path.clone(), file: passing.pass(&self.file) }
    }

    /// Takes over a file that was passed on.
    ///
    /// # Errors
    /// When the descriptor is missing.
    pub fn take(passed: Passed, taking: &Taking) -> io::Result<PidFile> {
        Ok(PidFile { path: passed.path, file: taking.take(passed.file)?.into() })
    }

    /// Whether the path still leads to it.
    fn is_there(&self) -> bool {
        let id = |found: std::fs::Metadata| (found.dev(), found.ino());
        let there = self.path.symlink_metadata().ok().map(id);
        there.is_some() && there == self.file.metadata().ok().map(id)
    }
}

/// A pid file as it is passed on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    path: PathBuf,
    file: Number,
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(flags);
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have put another one there.
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_as_long_as_the_master_runs_and_one_left_behind_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        std::fs::write(&path, "4194304999\nand more\n").unwrap();
        let first = PidFile::write(&path).unwrap();
        let own = format!("{}\n", std::process::id());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), own);
        match PidFile::write(&path) {
            Err(PidFileError::Taken { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), own);
        drop(first);
        assert!(!path.exists());
        let first = PidFile::write(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        drop(first);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another");
    }

    #[test]
    fn who_may_only_read_it_cannot_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        std::fs::write(&path, "1\n").unwrap();
        let reader = File::open(&path).unwrap();
        assert!(crate::sys::lock::try_lock(&reader, crate::sys::lock::Lock::Exclusive).unwrap());
        assert!(PidFile::write(&path).is_ok());
    }

    #[test]
    fn what_is_no_file_of_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        std::fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for path in [&link, dir.path(), Path::new("/dev/null"), &dir.path().join("no/x")] {
            assert!(matches!(PidFile::write(path), Err(PidFileError::Io { .. })), "{}", path.display());
        }
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "kept");
    }
}
