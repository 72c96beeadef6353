//! The file of a Unix socket that the master holds, with a spare name: if a worker removes the file, it is put back
//! under its name and is still the same socket. Everything is done with the rights of the process that asked for the
//! socket, and within the directory that was opened, whatever happens to its path meanwhile.

use crate::sys::rights::Asker;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Device and inode.
type FileId = (u64, u64);

/// A socket's file and its spare name beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SocketFile {
    path: PathBuf,
    spare: PathBuf,
    /// Which file it is, so that no other file is taken for it.
    #[serde(default)]
    file: Option<FileId>,
    /// The asker with whose rights it was made.
    #[serde(default)]
    made_by: Asker,
}

impl SocketFile {
    /// Takes charge of the file that was just made, with the rights that this thread has now.
    #[must_use]
    pub fn own(path: &Path) -> SocketFile {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prefix = format!(".{name}.maitred-");
        let spare = path.with_file_name(format!("{prefix}{}", std::process::id()));
        let own = SocketFile { path: path.to_owned(), spare, file: None, made_by: Asker::current() };
        let Some(directory) = own.directory() else { return own };
        let file = id(&directory, &own.path);
        remove_spares_of_the_dead(path, &prefix);
        unlink(&directory, &own.spare);
        // Without a spare name a removed file cannot be put back; the listener works all the same.
        let _ = linkat(&directory, last(&own.path), &directory, last(&own.spare), AtFlags::empty());
        SocketFile { file, ..own }
    }

    /// The asker with whose rights it was made.
    #[must_use]
    pub fn made_by(&self) -> &Asker {
        &self.made_by
    }

    /// Puts the file back if it was removed; tells whether that was so.
    #[must_use]
    pub fn restore(&self) -> bool {
        let restore = || {
            let Some(directory) = self.directory() else { return false };
            self.is_ours(&directory, &self.spare)
                && linkat(&directory, last(&self.spare), &directory, last(&self.path), AtFlags::empty()).is_ok()
        };
        self.made_by.act(restore).unwrap_or(false)
    }

    /// Replaces this socket with another one, with the same mode and the same rights.
    ///
    /// # Errors
    /// `EADDRINUSE` when the file is not this one any more; that of `bind(2)`.
    pub fn replace<T>(&self, bind: impl FnOnce(&Path, u32) -> io::Result<T>) -> io::Result<(T, SocketFile)> {
        let replace = || {
            let directory = open_directory(&self.path)?;
            if !self.is_ours(&directory, &self.path) {
                return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
            }
            let mode = fstatat(&directory, last(&self.path), AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode & 0o777;
            unlink(&directory, &self.path);
            unlink(&directory, &self.spare);
            let made = bind(&self.path, mode)?;
            Ok((made, SocketFile::own(&self.path)))
        };
        self.made_by.act(replace)?
    }

    /// Removes both names, each only if it still is this file: another process may have bound there since.
    pub fn remove(&self) {
        let remove = || {
            let Some(directory) = self.directory() else { return };
            if self.is_ours(&directory, &self.path) {
                unlink(&directory, &self.path);
            }
            if self.is_ours(&directory, &self.spare) {
                unlink(&directory, &self.spare);
            }
        };
        let _ = self.made_by.act(remove);
    }

    fn directory(&self) -> Option<OwnedFd> {
        open_directory(&self.path).ok()
    }

    fn is_ours(&self, directory: &OwnedFd, path: &Path) -> bool {
        let found = id(directory, path);
        // An earlier version did not write down which file it is.
        found.is_some() && found == self.file.or_else(|| id(directory, &self.spare))
    }
}

/// The directory that a file is in, so that the following steps use the same one.
///
/// # Errors
/// That of `open(2)`.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn last(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

fn id(directory: &OwnedFd, path: &Path) -> Option<FileId> {
    let found = fstatat(directory, last(path), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    Some((found.st_dev, found.st_ino))
}

fn unlink(directory: &OwnedFd, path: &Path) {
    let _ = unlinkat(directory, last(path), UnlinkatFlags::NoRemoveDir);
}

/// Removes the spare names that killed masters left.
fn remove_spares_of_the_dead(path: &Path, prefix: &str) {
    let owner = path.symlink_metadata().map(|found| found.uid());
    let files = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    for file in files {
        let name = file.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|pid| pid.parse::<u32>().ok());
        let is_dead = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        let is_such = |found: std::fs::Metadata| {
            found.file_type().is_socket() && owner.as_ref().is_ok_and(|owner| *owner == found.uid())
        };
        if is_dead && file.path().symlink_metadata().is_ok_and(is_such) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// Whether a socket file is in a directory that was made less than this time ago, that only its maker may use, and
/// that is among the temporary files of all users (`mkdtemp(3)`): no other user can know the name.
#[must_use]
pub fn is_in_fresh_directory(path: &Path, for_less_than: Duration) -> bool {
    const STICKY: u32 = 0o1000;
    let within = |path: &Path| {
        let (directory, around) = (path.parent()?.metadata().ok()?, path.parent()?.parent()?.metadata().ok()?);
        // Where the file system does not remember when it was made, it is not fresh.
        let age = directory.created().ok()?.elapsed().ok()?;
        Some(directory.mode() & 0o077 == 0 && around.mode() & STICKY != 0 && age <= for_less_than)
    };
    within(path).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_removed_file_is_put_back_and_another_ones_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let file = SocketFile::own(&path);
        assert!(!file.restore());
        std::fs::remove_file(&path).unwrap();
        assert!(file.restore() && path.exists());
        // Another socket has the name by now, and also the spare one.
        let _others = [&path, &file.spare].map(|path| {
            std::fs::remove_file(path).unwrap();
            UnixListener::bind(path).unwrap()
        });
        file.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(!file.restore());
    }

    #[test]
    fn what_earlier_versions_passed_on_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let (path, spare) = (dir.path().join("x.sock"), dir.path().join(".x.sock.maitred-1"));
        let _listener = UnixListener::bind(&path).unwrap();
        std::fs::hard_link(&path, &spare).unwrap();
        let text = format!(r#"{{"path":"{}","spare":"{}"}}"#, path.display(), spare.display());
        let file: SocketFile = serde_json::from_str(&text).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(file.restore());
        file.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
