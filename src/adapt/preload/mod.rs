//! The preload adapter: the shim's object is embedded in this binary, and the dynamic loader of
//! each worker reads it from a sealed file in memory, which nobody can replace or change.
//!
//! The shim itself, in `shim/`, is a crate of its own that `build.rs` compiles.

use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::spawn::PLACED_MAX;
use crate::sys::{fd, limits, memfd};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// The object that `build.rs` made.
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim.so"));

/// The shim as a file that loaders can read.
#[derive(Debug)]
pub struct Shim {
    file: OwnedFd,
    reach: Reach,
}

/// How a worker reaches the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Through the master's `/proc` entry. Works behind wrappers that close inherited descriptors.
    Master,
    /// Through a descriptor that the worker inherits. The only way when the master has privileges
    /// of its executable, because the kernel then hides its `/proc` entry from workers.
    Inherited,
}

impl Shim {
    /// Puts the shim into memory.
    ///
    /// # Errors
    /// When memory or descriptors are short.
    pub fn new() -> io::Result<Shim> {
        // Above the numbers under which a worker may want to find something else.
        let file = fd::duplicate_above(memfd::sealed(c"maitred-shim", OBJECT)?.as_fd(), PLACED_MAX)?;
        let reach = if limits::has_privileges_of_executable() { Reach::Inherited } else { Reach::Master };
        Ok(Shim { file, reach })
    }

    /// Passes the file on to the next program of this process; workers find it under the same name.
    pub fn pass(&self, passing: &Passing) -> Number {
        passing.pass(&self.file)
    }

    /// The shim of this version: the file that was passed on, if that has the same in it, else a new one;
    /// then the old one is returned beside it, for the workers that have it.
    ///
    /// # Errors
    /// When the descriptor is missing, or memory is short.
    pub fn take(number: Number, taking: &Taking) -> io::Result<(Shim, Option<OwnedFd>)> {
        let file = taking.take(number)?;
        let mut found = vec![0; OBJECT.len() + 1];
        let length = nix::sys::uio::pread(&file, &mut found, 0)?;
        if found.get(..length) == Some(OBJECT) {
            let reach = if limits::has_privileges_of_executable() { Reach::Inherited } else { Reach::Master };
            return Ok((Shim { file, reach }, None));
        }
        Ok((Shim::new()?, Some(file)))
    }

    /// The value of `LD_PRELOAD`, before what the user has in it already.
    #[must_use]
    pub fn preload(&self, present: Option<&OsStr>) -> OsString {
        let number = self.file.as_raw_fd();
        let mut value = OsString::from(match self.reach {
            Reach::Master => format!("/proc/{}/fd/{number}", std::process::id()),
            Reach::Inherited => format!("/proc/self/fd/{number}"),
        });
        if let Some(present) = present.filter(|p| !p.is_empty()) {
            value.push(":");
            value.push(present);
        }
        value
    }

    /// The descriptor that workers must inherit, if any.
    #[must_use]
    pub fn inherited(&self) -> Option<RawFd> {
        (self.reach == Reach::Inherited).then(|| self.file.as_raw_fd())
    }
}
