//! Goes back to the old binary when the new one cannot go on after all: memory, threads or descriptors may run out at
//! that very moment, and a new version may have a defect that its trial does not show.
//!
//! The old binary is passed as a descriptor, since its file may be gone. What was passed is kept until it is certain
//! that the new one goes on. The state is as it was, because nothing has happened since: the loop has not begun.

use crate::sys::exec;
use crate::sys::process::limits;
use crate::sys::socket::keep;
use crate::sys::{dispose, fd};
use crate::wire::environment;
use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// What may be available again a moment later: descriptors, threads, memory.
const TRANSIENT: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM];
/// How long to wait for descriptors that are closed in the background: they have the numbers of those that come back.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

/// The way back to the old binary.
#[derive(Debug)]
pub struct Fallback {
    way: RefCell<Way>,
    old: OwnedFd,
    state: i32,
}

#[derive(Debug)]
enum Way {
    /// Everything is as it was passed.
    Untouched,
    /// What was passed is kept.
    Kept(keep::Kept),
    /// This program goes on: there is no way back any more.
    Closed,
}

/// What a program that is to replace another can do if it cannot go on.
#[derive(Debug)]
pub enum Prepared {
    /// Go back, also when it fails later.
    Ready(Fallback),
    /// Go back now: what it needs to go back later is not available at this moment.
    Now(Fallback, io::Error),
    /// Nothing: the other program offers no way back, or this kernel has none.
    Impossible(io::Error),
}

impl Fallback {
    /// For a program that is to replace another, with the state at this descriptor. To be called before anything of
    /// what was passed is touched.
    #[must_use]
    pub fn prepare(state: i32) -> Prepared {
        let number = std::env::var(environment::UPGRADE_BACK).ok().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| io::Error::other("the old binary offers no way back"));
        let old = match number.and_then(fd::inherited) {
            Ok(old) => old,
            Err(error) => return Prepared::Impossible(error),
        };
        let back = |way| Fallback { way: RefCell::new(way), old, state };
        match keep::open_numbers().and_then(keep::keep) {
            Ok(kept) => Prepared::Ready(back(Way::Kept(kept))),
            Err(error) if error.raw_os_error().is_some_and(|errno| TRANSIENT.contains(&errno)) => {
                Prepared::Now(back(Way::Untouched), error)
            }
            Err(error) => Prepared::Impossible(error),
        }
    }

    /// This program goes on: there is no way back any more.
    pub fn forget(&self) {
        if let Way::Kept(kept) = self.way.replace(Way::Closed) {
            kept.forget();
        }
    }

    /// Executes the old binary if this one has not gone on. Returns only when it has, or when that fails.
    ///
    /// # Errors
    /// Why the old binary cannot be executed.
    pub fn go_back(&self, why: &str) -> io::Result<()> {
        let kept = match self.way.replace(Way::Closed) {
            Way::Closed => return Ok(()),
            Way::Untouched => None,
            Way::Kept(kept) => Some(kept),
        };
        // What ran out may have been descriptors.
        limits::raise_descriptor_limit()?;
        if let Some(kept) = kept {
            let begun = Instant::now();
            while dispose::is_busy() && begun.elapsed() < CLOSING_TIMEOUT {
                std::thread::yield_now();
            }
            kept.give_back()?;
            // The old program does not know that its own binary is passed, too.
            fd::close_on_exec(self.old.as_fd())?;
        }
        let set: [(OsString, OsString); 2] = [
            (environment::UPGRADE.into(), format!("resume {}", self.state).into()),
            (environment::UPGRADE_FAILED.into(), why.replace('\0', " ").into()),
        ];
        let Err(error) = exec::replace_by(&self.old, std::env::args_os().collect(), environment_with(&set));
        Err(error)
    }
}

/// This process's environment, with the variables for the next program and without those for this one.
pub(super) fn environment_with(set: &[(OsString, OsString)]) -> Vec<OsString> {
    let pair = |(name, value): (OsString, OsString)| {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        pair
    };
    inherited_environment().chain(set.iter().cloned()).map(pair).collect()
}

/// This process's environment without the variables that masters pass to each other.
pub(super) fn inherited_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !environment::BETWEEN_MASTERS.iter().any(|own| name == own))
}

/// Why the binary that was to replace this one could not go on, if this one was executed for that reason.
#[must_use]
pub fn failed() -> Option<String> {
    std::env::var(environment::UPGRADE_FAILED).ok()
}
