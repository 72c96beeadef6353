//! A file that the dynamic loader of any process reads by its name, and that only its owner can ever have changed. It
//! is first written completely under another name, compared before each use, checked to be executable, and locked as
//! long as a process uses it (`flock(2)`), so that files of other versions can be removed.

use crate::sys::lock::{Lock, try_lock};
use crate::sys::process::trusted::{Directory, is};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::geteuid;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Every user can read it, only its owner can write to it.
const MODE: Mode = Mode::from_bits_truncate(0o644);
/// Another program may be removing or writing the file at the same moment.
const ATTEMPTS: u32 = 16;

/// The file of this name with these bytes, written now unless it is there already; it stays locked for as long as the
/// descriptor, or a copy of it, is open anywhere.
///
/// # Errors
/// When it cannot be written, or what is written there cannot be executed.
pub fn place(dir: &Directory, name: &OsStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    if !dir.is_private() {
        return Err(io::Error::other(format!("{} is not only this user's", dir.path().display())));
    }
    for _ in 0..ATTEMPTS {
        match existing(dir, name, bytes)? {
            Some(file) => return Ok(file),
            None => write(dir, name, bytes)?,
        }
    }
    Err(io::Error::other(format!("{} keeps being replaced", dir.path().join(name).display())))
}

/// Whether the file still has its name.
#[must_use]
pub fn is_there(dir: &Directory, name: &OsStr, file: impl AsFd) -> bool {
    let id = |found: nix::sys::stat::FileStat| (found.st_dev, found.st_ino);
    match (dir.look(name), fstat(file)) {
        (Ok(named), Ok(open)) => id(named) == id(open),
        _ => false,
    }
}

/// Removes the files that fit and that no process has locked.
pub fn sweep(dir: &Directory, fits: impl Fn(&str) -> bool) {
    let names = std::fs::read_dir(dir.path()).into_iter().flatten().flatten().map(|entry| entry.file_name());
    for name in names.filter(|name| name.to_str().is_some_and(&fits)) {
        let Ok(file) = open(dir, &name) else { continue };
        if try_lock(&file, Lock::Exclusive).unwrap_or(false) && is_there(dir, &name, &file) {
            let _ = dir.remove(&name);
        }
    }
}

fn open(dir: &Directory, name: &OsStr) -> Result<OwnedFd, Errno> {
    // Does not wait for the writer of a pipe that another process left there.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// The file, if it is there as it should be.
fn existing(dir: &Directory, name: &OsStr, bytes: &[u8]) -> io::Result<Option<OwnedFd>> {
    let file = match open(dir, name) {
        Ok(file) => file,
        // A link is replaced.
        Err(Errno::ENOENT | Errno::ELOOP) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let found = fstat(&file)?;
    let ours = found.st_uid == geteuid().as_raw() || found.st_uid == 0;
    let readable = found.st_mode & MODE.bits() == MODE.bits() && found.st_mode & 0o022 == 0;
    if !is(&found, SFlag::S_IFREG) || !ours || !readable || found.st_size != bytes.len() as i64 {
        return Ok(None);
    }
    let mut text = Vec::with_capacity(bytes.len() + 1);
    let file = File::from(file);
    (&file).take(bytes.len() as u64 + 1).read_to_end(&mut text)?;
    if text != bytes {
        return Ok(None);
    }
    if !try_lock(&file, Lock::Shared)? || !is_there(dir, name, &file) {
        return Ok(None);
    }
    is_executable(&file, bytes.len())?;
    Ok(Some(file.into()))
}

/// Writes the file under another name and then renames it.
fn write(dir: &Directory, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
    let mut other = name.to_owned();
    other.push(format!(".{}", std::process::id()));
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = match openat(dir, other.as_os_str(), flags, Mode::from_bits_truncate(0o600)) {
        Err(Errno::EEXIST) => {
            // A process with this id died while it wrote the file.
            dir.remove(&other)?;
            openat(dir, other.as_os_str(), flags, Mode::from_bits_truncate(0o600))
        }
        made => made,
    };
    let mut file = File::from(made?);
    let written = file.write_all(bytes).and_then(|()| Ok(fchmod(&file, MODE)?)).and_then(|()| {
        match renameat(dir, other.as_os_str(), dir, name) {
            // Another process that removes old files was faster.
            Err(Errno::ENOENT) => Ok(()),
            renamed => Ok(renamed?),
        }
    });
    if written.is_err() {
        let _ = dir.remove(&other);
    }
    written
}

/// Whether a process may map the file as a program, as the loader does: not on a file system that is mounted
/// `noexec` (`mmap(2)`, `EPERM`).
fn is_executable(file: impl AsFd, length: usize) -> io::Result<()> {
    // SAFETY: a new mapping at an address of the kernel's choice, which nothing uses and which is removed again.
    unsafe {
        let (protection, number) = (libc::PROT_READ | libc::PROT_EXEC, file.as_fd().as_raw_fd());
        let memory = libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_PRIVATE, number, 0);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(memory, length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::trusted::Absent;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn directory() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let trusted = Directory::open(dir.path(), Absent::Refuse).unwrap();
        (dir, trusted)
    }

    #[test]
    fn a_file_that_is_not_as_it_should_be_is_replaced_and_never_used() {
        let (dir, trusted) = directory();
        let (name, path) = (OsStr::new("x.so"), dir.path().join("x.so"));
        let content = || std::fs::read(&path).unwrap();
        let first = place(&trusted, name, b"bytes").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        let second = place(&trusted, name, b"bytes").unwrap();
        assert_eq!(fstat(&first).unwrap().st_ino, fstat(&second).unwrap().st_ino);
        std::fs::write(&path, b"other").unwrap();
        place(&trusted, name, b"bytes").unwrap();
        assert_eq!(content(), b"bytes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        place(&trusted, name, b"bytes").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        std::fs::write(dir.path().join("elsewhere"), b"bytes").unwrap();
        for _ in 0..2 {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("elsewhere", &path).unwrap();
            place(&trusted, name, b"bytes").unwrap();
            assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
        }
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o666)).unwrap();
        place(&trusted, name, b"bytes").unwrap();
        assert_eq!(content(), b"bytes");
    }

    #[test]
    fn only_files_that_nobody_has_locked_are_swept() {
        let (dir, trusted) = directory();
        let used = place(&trusted, OsStr::new("used.so"), b"1").unwrap();
        drop(place(&trusted, OsStr::new("unused.so"), b"2").unwrap());
        std::fs::write(dir.path().join("else"), b"3").unwrap();
        sweep(&trusted, |name| name.ends_with(".so"));
        let there = |name: &str| dir.path().join(name).exists();
        assert_eq!([there("used.so"), there("unused.so"), there("else")], [true, false, true]);
        drop(used);
        sweep(&trusted, |name| name.ends_with(".so"));
        assert!(!there("used.so"));
    }

    #[test]
    fn a_directory_of_others_gets_no_file() {
        let (dir, _) = directory();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        let shared = Directory::open(dir.path(), Absent::Refuse).unwrap();
        assert!(place(&shared, OsStr::new("x.so"), b"bytes").is_err());
    }
}
