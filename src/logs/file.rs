//! One file that lines are appended to.

use super::rotation::Rotation;
use crate::sys::outlet;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::geteuid;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::warn;

/// How often it is asked whether the path still leads to the open file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Workers' output may hold secrets.
pub(super) const MODE: u32 = 0o640;

/// A file that cannot take lines.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {}: {why}", path.display())]
pub struct FileError {
    path: PathBuf,
    why: String,
}

/// An open file of lines. It follows its path: what was renamed or removed is opened anew.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
    rotation: Rotation,
    size: u64,
    /// When its first line came, as far as is known.
    since: Instant,
    /// Whether its last line has no end.
    half: bool,
    /// Whether the log already says that it cannot be opened again.
    failing: bool,
    /// Compresses the file that was put aside last.
    compressing: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Opens a file to append to it; it is made if it is not there.
    ///
    /// # Errors
    /// When the system refuses, when it is neither a regular file nor a device, or when it is a link of another user.
    pub fn open(path: &Path, rotation: Rotation) -> Result<LogFile, FileError> {
        let file = open(path).map_err(|why| FileError { path: path.to_owned(), why })?;
        let now = Instant::now();
        let (size, since) = begun(&file, now);
        Ok(LogFile {
            path: path.to_owned(),
            file,
            looked: now,
            rotation,
            size,
            since,
            half: false,
            failing: false,
            compressing: None,
        })
    }

    /// The open file.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn try_clone(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Opens the path again. If that fails, the open file stays.
    pub fn reopen(&mut self) {
        self.looked = Instant::now();
        match open_again(&self.path) {
            Ok(file) => {
                (self.size, self.since) = begun(&file, self.looked);
                (self.file, self.half, self.failing) = (file, false, false);
            }
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                let path = self.path.display();
                warn!(%path, %error, "cannot open a log file again; lines go on into the one that was there");
            }
            Err(_) => {}
        }
    }

    /// Appends lines.
    ///
    /// # Errors
    /// That of `write(2)`.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            if !self.is_at_its_path() {
                self.reopen();
            }
        }
        if self.rotation.is_due(self.size, self.since.elapsed()) {
            self.rotate();
        }
        if self.half {
            // A full disk cut a line off.
            outlet::write_all(self.file.as_fd(), b"\n")?;
            self.half = false;
        }
        let written = outlet::write_all(self.file.as_fd(), lines);
        self.half = written.is_err() && self.file.metadata().is_ok_and(|now| now.len() > self.size);
        self.size += lines.len() as u64;
        written
    }

    /// Puts the file aside. Where that fails, or while an earlier one is still compressed, it grows on.
    fn rotate(&mut self) {
        if self.compressing.as_ref().is_some_and(|compressing| !compressing.is_finished()) || !self.is_at_its_path() {
            return;
        }
        match self.rotation.put_aside(&self.path) {
            Ok(compressing) => self.compressing = compressing,
            // Tried again when it has grown by as much again.
            Err(_) => return (self.size, self.since) = (0, Instant::now()),
        }
        self.reopen();
    }

    fn is_at_its_path(&self) -> bool {
        let there = std::fs::metadata(&self.path).map(|there| (there.dev(), there.ino()));
        let open = self.file.metadata().map(|open| (open.dev(), open.ino()));
        matches!((there, open), (Ok(there), Ok(open)) if there == open)
    }
}

impl Drop for LogFile {
    /// Lets the file that was put aside last be compressed whole.
    fn drop(&mut self) {
        let _ = self.compressing.take().map(JoinHandle::join);
    }
}

/// The size of an open file, and when it was begun.
fn begun(file: &File, now: Instant) -> (u64, Instant) {
    let Ok(found) = file.metadata() else { return (0, now) };
    // Not every file system knows; then its age counts from now on.
    let age = found.created().ok().and_then(|created| created.elapsed().ok()).unwrap_or_default();
    (found.len(), now.checked_sub(age).unwrap_or(now))
}

/// Opens a file whose directory may have been removed.
fn open_again(path: &Path) -> Result<File, String> {
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        // If this fails, the next call says why.
        let _ = std::fs::DirBuilder::new().mode(0o750).create(directory);
    }
    open(path)
}

fn open(path: &Path) -> Result<File, String> {
    let link = std::fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_symlink());
    if let Some(link) = link.filter(|link| link.uid() != 0 && link.uid() != geteuid().as_raw()) {
        return Err(format!("it is a link of user {}", link.uid()));
    }
    // Non-blocking, since opening a pipe would wait for its reader.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().append(true).create(true).mode(MODE).custom_flags(flags).open(path);
    let file = file.map_err(|error| error.to_string())?;
    let found = fstat(&file).map_err(|errno| errno.to_string())?;
    match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG | SFlag::S_IFCHR => Ok(file),
        _ => Err("it is neither a regular file nor a device".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_its_path_when_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let mut log = LogFile::open(&path, Rotation::NEVER).unwrap();
        log.write(b"1\n").unwrap();
        std::fs::rename(&path, dir.path().join("old.log")).unwrap();
        log.write(b"2\n").unwrap();
        log.reopen();
        log.write(b"3\n").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("old.log")).unwrap(), "1\n2\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3\n");
        std::fs::remove_file(&path).unwrap();
        log.looked -= LOOK_EVERY;
        log.write(b"4\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4\n");
    }

    #[test]
    fn what_is_no_file_is_refused_and_the_open_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let why = |path: &Path| LogFile::open(path, Rotation::NEVER).unwrap_err().to_string();
        assert!(why(&pipe).contains("pipe: "), "{}", why(&pipe));
        let _reader = File::options().read(true).write(true).open(&pipe).unwrap();
        assert!(why(&pipe).ends_with("it is neither a regular file nor a device"), "{}", why(&pipe));
        assert!(why(dir.path()).contains("Is a directory"));
        assert!(LogFile::open(Path::new("/dev/null"), Rotation::NEVER).is_ok());
        let path = dir.path().join("out.log");
        let mut log = LogFile::open(&path, Rotation::NEVER).unwrap();
        let old = dir.path().join("old.log");
        std::fs::rename(&path, &old).unwrap();
        std::fs::rename(&pipe, &path).unwrap();
        log.reopen();
        log.write(b"still\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "still\n");
        assert!(LogFile::open(Path::new("/dev/full"), Rotation::NEVER).unwrap().write(b"x\n").is_err());
    }

    #[test]
    fn it_is_put_aside_before_it_grows_beyond_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let rotation = Rotation { max_size: Some(6), keep: 2, ..Rotation::NEVER };
        std::fs::write(&path, "older\n").unwrap();
        let mut log = LogFile::open(&path, rotation).unwrap();
        for line in ["1\n", "2\n", "3\n", "4\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            (text("out.log"), text("out.log.1"), text("out.log.2")),
            ("4\n".into(), "1\n2\n3\n".into(), "older\n".into())
        );
    }
}
