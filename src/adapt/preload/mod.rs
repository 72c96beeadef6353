//! The preload adapter: the shim's object is embedded in this binary, and the dynamic loader of each worker reads it
//! from a file that only this user and root can ever change or replace.
//!
//! Processes that a worker leaves behind keep `LD_PRELOAD` longer than the master lives, and a wrapper may have
//! changed their user. So the file has a name of its own, based on its content's hash, in a directory that belongs
//! only to this user; a path below `/proc/PID` would belong to the next process with that number. If no such directory
//! is available, that path is used all the same, and the log says so.
//!
//! The shim itself, in `shim/`, is a separate crate that `build.rs` compiles.

#[cfg(test)]
mod entry_points;

use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::process::spawn::PLACED_MAX;
use crate::sys::process::trusted::{Absent, Directory};
use crate::sys::process::{library, limits};
use crate::sys::{fd, memfd};
use nix::unistd::geteuid;
use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use tracing::{debug, warn};

/// The object that `build.rs` built.
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim.so"));
/// The name of the directory for the file; in a place shared by all users, the user's own number follows.
const DIRECTORY: &str = "maitred-lib";
/// Its mode: every user can read its contents.
const DIRECTORY_MODE: u32 = 0o755;
/// The prefix and the suffix of the file names of all versions.
const PREFIX: &str = "libmaitred-";
const SUFFIX: &str = ".so";

/// The shim as a file that loaders can read.
#[derive(Debug)]
pub struct Shim {
    place: RefCell<Place>,
    /// Whether the log already says that the last resort is in use.
    said: Cell<bool>,
}

/// Where the file is.
#[derive(Debug)]
enum Place {
    /// A file in a directory, under its own name.
    Named { directory: Directory, name: OsString, file: OwnedFd },
    /// A file in memory, because no directory can be used.
    Memory { file: OwnedFd, reach: Reach, because: String },
}

/// How a worker reaches a file in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Through the master's `/proc` entry. Works behind wrappers that close inherited descriptors.
    Master,
    /// Through a descriptor that the worker inherits. The only way if the master has privileges from its executable,
    /// because the kernel then hides its `/proc` entry from workers.
    Inherited,
}

impl Shim {
    /// Puts the shim where workers can find it.
    ///
    /// # Errors
    /// When memory or descriptors are short.
    pub fn new() -> io::Result<Shim> {
        Ok(Shim { place: RefCell::new(place(&candidates())?), said: Cell::new(false) })
    }

    /// Passes the file on to the next program of this process.
    pub fn pass(&self, passing: &Passing) -> Number {
        match &*self.place.borrow() {
            Place::Named { file, .. } | Place::Memory { file, .. } => passing.pass(file),
        }
    }

    /// The shim of this version. The file that was passed on is also returned, for the workers that use it, unless it
    /// is the same.
    ///
    /// # Errors
    /// When the descriptor is missing, or memory is short.
    pub fn take(number: Number, taking: &Taking) -> io::Result<(Shim, Option<OwnedFd>)> {
        let old = taking.take(number)?;
        let shim = Shim::new()?;
        let same = match &*shim.place.borrow() {
            Place::Named { directory, name, .. } => library::is_there(directory, name, &old),
            Place::Memory { .. } => false,
        };
        Ok((shim, (!same).then_some(old)))
    }

    /// The value of `LD_PRELOAD`: the shim, then what the user already has in it. If the file is gone, because a
    /// session ended or someone cleaned up, it is placed again.
    ///
    /// # Errors
    /// When memory or descriptors are short.
    pub fn preload(&self, present: Option<&OsStr>) -> io::Result<OsString> {
        let gone = match &*self.place.borrow() {
            Place::Named { directory, name, file } => !is_as_placed(directory, name, file),
            Place::Memory { .. } => false,
        };
        if gone {
            debug!("the shim's file is not there any more; placing it again");
            self.place.replace(place(&candidates())?);
        }
        let place = self.place.borrow();
        let mut value = match &*place {
            Place::Named { directory, name, .. } => directory.path().join(name).into_os_string(),
            Place::Memory { file, reach, because } => {
                if !self.said.replace(true) {
                    warn!(
                        because,
                        "no directory for the shim that is only this user's and not mounted noexec: workers find it \
                         through this process's /proc entry, which a wrapper that changes the user cannot read"
                    );
                }
                let number = file.as_raw_fd();
                OsString::from(match reach {
                    Reach::Master => format!("/proc/{}/fd/{number}", std::process::id()),
                    Reach::Inherited => format!("/proc/self/fd/{number}"),
                })
            }
        };
        if let Some(present) = present.filter(|p| !p.is_empty()) {
            value.push(":");
            value.push(present);
        }
        Ok(value)
    }

    /// Why the file is only in memory, if it is.
    #[must_use]
    pub fn why_in_memory(&self) -> Option<String> {
        match &*self.place.borrow() {
            Place::Named { .. } => None,
            Place::Memory { because, .. } => Some(because.clone()),
        }
    }

    /// The descriptor that workers must inherit, if any.
    #[must_use]
    pub fn inherited(&self) -> Option<RawFd> {
        match &*self.place.borrow() {
            Place::Memory { file, reach: Reach::Inherited, .. } => Some(file.as_raw_fd()),
            Place::Named { .. } | Place::Memory { .. } => None,
        }
    }
}

/// Whether the path still leads to the file: the directory may have been removed with all its contents.
fn is_as_placed(directory: &Directory, name: &OsStr, file: &OwnedFd) -> bool {
    Directory::open(directory.path(), Absent::Refuse).is_ok_and(|now| library::is_there(&now, name, file))
}

/// Places the file in the first suitable directory.
fn place(candidates: &[PathBuf]) -> io::Result<Place> {
    let name = file_name(OBJECT);
    let mut refused = Vec::new();
    for path in candidates {
        let placed =
            Directory::open(path, Absent::Make(DIRECTORY_MODE)).map_err(io::Error::other).and_then(|directory| {
                if !is_plain(directory.path().as_os_str()) {
                    return Err(io::Error::other("the loader would not read its name as one"));
                }
                library::place(&directory, &name, OBJECT).map(|file| (directory, file))
            });
        match placed {
            Ok((directory, file)) => {
                let ours = name.to_string_lossy().into_owned();
                library::sweep(&directory, |other| {
                    other.starts_with(PREFIX) && other.contains(SUFFIX) && !other.starts_with(&ours)
                });
                // Above the numbers at which a worker may expect other descriptors.
                let file = fd::duplicate_above(file.as_fd(), PLACED_MAX)?;
                return Ok(Place::Named { directory, name, file });
            }
            Err(error) => refused.push(format!("{}: {error}", path.display())),
        }
    }
    let file = fd::duplicate_above(memfd::sealed(c"maitred-shim", OBJECT)?.as_fd(), PLACED_MAX)?;
    let reach = if limits::has_privileges_of_executable() { Reach::Inherited } else { Reach::Master };
    Ok(Place::Memory { file, reach, because: refused.join("; ") })
}

/// The possible directories, the best first. Those that a reboot empties come first, and those that all users share
/// come last.
fn candidates() -> Vec<PathBuf> {
    let uid = geteuid();
    let shared = ["/dev/shm", "/tmp"].map(|dir| PathBuf::from(format!("{dir}/{DIRECTORY}-{uid}")));
    let own: Vec<PathBuf> = if uid.is_root() {
        ["/run", "/var/lib"].map(|dir| PathBuf::from(dir).join(DIRECTORY)).into()
    } else {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        [variable("XDG_RUNTIME_DIR"), cache].into_iter().flatten().map(|dir| dir.join(DIRECTORY)).collect()
    };
    own.into_iter().chain(shared).collect()
}

/// Whether the loader takes the path as a single name: spaces and colons separate names, and a dollar sign begins a
/// token (`ld.so(8)`).
fn is_plain(path: &OsStr) -> bool {
    path.as_bytes().iter().all(|byte| !byte.is_ascii_whitespace() && !b":$".contains(byte))
}

/// A name that is unique to these bytes: FNV-1a of 128 bits, which no two versions share by chance; against intent,
/// the content is compared.
fn file_name(bytes: &[u8]) -> OsString {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{PREFIX}{hash:032x}{SUFFIX}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_will_do_is_taken_and_otherwise_memory() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let [open, colon, good] = ["open", "a:b", "good"].map(|name| dir.path().join(name));
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let found = place(&[open.clone(), colon.clone(), good.clone()]).unwrap();
        assert!(matches!(&found, Place::Named { directory, .. } if directory.path() == good), "{found:?}");
        let found = place(&[open.clone(), colon]).unwrap();
        let Place::Memory { because, .. } = &found else { panic!("{found:?}") };
        assert!(because.contains("other users can write") && because.contains("the loader would not"), "{because}");
        assert_eq!(std::fs::read_dir(open).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_went_missing_is_put_back_and_what_the_user_preloads_stays() {
        let shim = Shim::new().unwrap();
        let before = shim.preload(Some(OsStr::new("/other.so"))).unwrap().into_string().unwrap();
        let (path, rest) = before.split_once(':').unwrap();
        assert_eq!((rest, std::fs::read(path).unwrap() == OBJECT), ("/other.so", true));
        assert!(path.contains(PREFIX), "{path}");
    }

    #[test]
    fn a_name_is_its_contents() {
        assert_eq!(file_name(b""), "libmaitred-6c62272e07bb014262b821756295c58d.so");
        assert_eq!(file_name(b"foobar"), "libmaitred-343e1662793c64bf6f0d3597ba446f18.so");
    }
}
