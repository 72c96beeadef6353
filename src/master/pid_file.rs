//! The file with the master's number (`--pid-file`), which init scripts and monitoring read.

use crate::sys::lock::{Lock, try_lock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(flags)
            .open(path)
            .map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(io(io::Error::other("it is no regular file")));
        }
        if !try_lock(&file, Lock::Exclusive).map_err(io)? {
            let mut text = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut text);
            return Err(PidFileError::Taken { path: path.to_owned(), pid: text.trim().parse().ok() });
        }
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(PidFile { path: path.to_owned(), file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let id = |found: std::fs::Metadata| (found.dev(), found.ino());
        // Somebody may have put another one there.
        if self.path.symlink_metadata().ok().map(id) == self.file.metadata().ok().map(id) {
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
