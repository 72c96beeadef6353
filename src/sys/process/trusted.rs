//! Directories that only this user and root can change.
//!
//! A path is walked step by step from the root, each step relative to a descriptor of the one before (`openat(2)`,
//! `O_NOFOLLOW`), so that nothing can be exchanged between the check and the use. A directory on the way belongs to
//! root or to this user, and others cannot write to it unless it is sticky: there they can add names but neither
//! rename nor remove those of others (`unlink(2)`, `EPERM`).
//!
//! The owner of `/` counts as root where others cannot add names: it can exchange everything. In a user namespace
//! that is the overflow user, as which all users that are not mapped appear (`user_namespaces(7)`).

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Links that are followed on one path, as many as the kernel does (`path_resolution(7)`).
const LINKS_MAX: usize = 40;
/// The mode of a directory that is made on the way to the last one.
const MODE_ON_THE_WAY: u32 = 0o700;

/// A directory that only this user and root can change, or that is sticky, and all above it.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// What is done about a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It is an error.
    Refuse,
    /// It is made, with this mode.
    Make(u32),
}

/// Who else may connect to a socket of this user's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The mode of its file; nobody else if it is not given.
    pub mode: Option<u32>,
    /// Its group.
    pub group: Option<u32>,
}

impl Access {
    /// Whether other users may connect.
    #[must_use]
    pub fn is_shared(self) -> bool {
        self.mode.is_some_and(|mode| mode & 0o022 != 0)
    }
}

/// A directory that cannot be trusted, or that is not available.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// How far the walk came.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It belongs to another user.
    #[error("{} belongs to user {uid}", path.display())]
    Foreign {
        /// Its path.
        path: PathBuf,
        /// The user that owns it.
        uid: u32,
    },
    /// Others can exchange what is in it.
    #[error("other users can write to {}", .0.display())]
    Writable(PathBuf),
}

impl Directory {
    /// Walks to a directory.
    ///
    /// # Errors
    /// [`Untrusted`] for the first step that cannot be trusted.
    pub fn open(path: &Path, absent: Absent) -> Result<Directory, Untrusted> {
        let fail = |path: &Path, errno: Errno| Untrusted::Io { path: path.to_owned(), source: errno.into() };
        let absolute = std::path::absolute(path).map_err(|source| Untrusted::Io { path: path.to_owned(), source })?;
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let root = || nix::fcntl::open("/", flags | OFlag::O_DIRECTORY, Mode::empty());
        let mut seen = PathBuf::from("/");
        let mut at = root().map_err(|errno| fail(&seen, errno))?;
        let found = fstat(&at).map_err(|errno| fail(&seen, errno))?;
        let machines = found.st_uid;
        check(&seen, &found, Some(machines))?;
        // Which other user may own a step: none where others can add names.
        let owner_within = |found: &FileStat| (found.st_mode & 0o022 == 0).then_some(machines);
        let mut owner = owner_within(&found);
        let mut ahead = steps(&absolute);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            let next = seen.join(&name);
            let mut opened = openat(&at, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty());
            if let (Err(Errno::ENOENT), Absent::Make(mode)) = (&opened, absent) {
                make(at.as_fd(), &name, if ahead.is_empty() { mode } else { MODE_ON_THE_WAY })
                    .map_err(|errno| fail(&next, errno))?;
                opened = openat(&at, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty());
            }
            let opened = opened.map_err(|errno| fail(&next, errno))?;
            let found = fstat(&opened).map_err(|errno| fail(&next, errno))?;
            if is(&found, SFlag::S_IFLNK) {
                links += 1;
                if links > LINKS_MAX {
                    return Err(fail(&next, Errno::ELOOP));
                }
                check_owner(&next, &found, owner)?;
                let target = PathBuf::from(readlinkat(&opened, "").map_err(|errno| fail(&next, errno))?);
                if target.is_absolute() {
                    seen = PathBuf::from("/");
                    at = root().map_err(|errno| fail(&seen, errno))?;
                    owner = Some(machines);
                }
                ahead.extend(steps(&target));
                continue;
            }
            if !is(&found, SFlag::S_IFDIR) {
                return Err(fail(&next, Errno::ENOTDIR));
            }
            if name == ".." {
                seen.pop();
            } else {
                seen = next;
            }
            check(&seen, &found, owner)?;
            owner = owner_within(&found);
            at = opened;
        }
        Ok(Directory { fd: at, path: seen })
    }

    /// Its path, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it belongs to this user and no other user can add a name to it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        fstat(&self.fd).is_ok_and(|found| found.st_uid == geteuid().as_raw() && found.st_mode & 0o022 == 0)
    }

    /// The file with this name in it; a link is not followed.
    ///
    /// # Errors
    /// That of `fstatat(2)`, above all that there is nothing.
    pub fn look(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// That of `unlinkat(2)`.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a file is of this kind.
#[must_use]
pub fn is(found: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) == kind
}

/// The names on a path, the last first.
fn steps(path: &Path) -> Vec<OsString> {
    let name = |step: Component<'_>| match step {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// Makes a directory with exactly this mode. One that another process made meanwhile is checked like any other.
fn make(at: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<(), Errno> {
    match mkdirat(at, name, Mode::from_bits_truncate(MODE_ON_THE_WAY)) {
        Ok(()) if mode == MODE_ON_THE_WAY => Ok(()),
        // Whatever the mask is. No other user can have exchanged it: the directory that it is in is trusted.
        Ok(()) => fchmodat(at, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink),
        Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn check_owner(path: &Path, found: &FileStat, other: Option<u32>) -> Result<(), Untrusted> {
    match [Some(0), Some(geteuid().as_raw()), other].contains(&Some(found.st_uid)) {
        true => Ok(()),
        false => Err(Untrusted::Foreign { path: path.to_owned(), uid: found.st_uid }),
    }
}

fn check(path: &Path, found: &FileStat, other: Option<u32>) -> Result<(), Untrusted> {
    check_owner(path, found, other)?;
    // An access list shows in the bits of the group (`acl(5)`).
    let others_write = found.st_mode & 0o022 != 0 && found.st_mode & 0o1000 == 0;
    if others_write { Err(Untrusted::Writable(path.to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused_wherever_it_is_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let (open, inner) = (dir.path().join("open"), dir.path().join("open/inner"));
        std::fs::create_dir_all(&inner).unwrap();
        let trusted = |path: &Path| Directory::open(path, Absent::Refuse);
        assert_eq!(trusted(&inner).unwrap().path(), inner);
        for mode in [0o777, 0o775, 0o757] {
            set_mode(&open, mode);
            assert!(matches!(trusted(&inner), Err(Untrusted::Writable(path)) if path == open), "{mode:o}");
        }
        // As /tmp is.
        set_mode(&open, 0o1777);
        assert!(trusted(&inner).unwrap().is_private());
        assert!(!trusted(&open).unwrap().is_private());
        assert!(matches!(trusted(&dir.path().join("none")), Err(Untrusted::Io { .. })));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(trusted(&dir.path().join("file")), Err(Untrusted::Io { .. })));
    }

    #[test]
    fn links_are_followed_one_by_one_and_what_is_missing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/deep")).unwrap();
        symlink("real", dir.path().join("relative")).unwrap();
        symlink(dir.path().join("relative/deep"), dir.path().join("absolute")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let real = dir.path().join("real/deep");
        for name in ["absolute", "relative/deep", "relative/../real/deep", "real/./deep"] {
            assert_eq!(Directory::open(&dir.path().join(name), Absent::Refuse).unwrap().path(), real, "{name}");
        }
        assert!(Directory::open(&dir.path().join("loop"), Absent::Make(0o700)).is_err());
        let made = Directory::open(&dir.path().join("new/one"), Absent::Make(0o755)).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(made.path()), mode(made.path().parent().unwrap())), (0o755, 0o700));
    }

    #[test]
    fn what_belongs_to_a_stranger_is_refused_and_so_is_a_strangers_link() {
        if !geteuid().is_root() {
            eprintln!("only root can make what belongs to somebody else");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (theirs, link) = (dir.path().join("theirs"), dir.path().join("link"));
        std::fs::create_dir(&theirs).unwrap();
        symlink("/etc", &link).unwrap();
        for path in [&theirs, &link] {
            std::os::unix::fs::lchown(path, Some(65534), None).unwrap();
            assert!(matches!(Directory::open(path, Absent::Refuse), Err(Untrusted::Foreign { uid: 65534, .. })));
        }
    }
}
