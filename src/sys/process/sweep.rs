//! Ends processes reliably: they are asked first, then killed, and searched for again until none is left. Those that
//! cannot be killed are named, and waited for no longer than specified.

use crate::sys::process::descent::{Held, Kin};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// From one search to the next while processes are waited for: they may fork meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Searches in a row that must find no process: a list of children may lack one while another ends (proc(5)).
const QUIET_LOOKS: u32 = 2;

/// How long processes may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From being asked to being killed; zero for those that are killed at once.
    pub to_end: Duration,
    /// From being killed to being given up.
    pub to_die: Duration,
}

/// How far a sweep has come.
#[derive(Debug)]
pub enum Progress {
    /// Call again at this time, or when one of the processes that are waited for has ended.
    Until(Instant),
    /// No process is left except these, which cannot be killed.
    Done(Vec<Kin>),
}

/// A process that is asked to end and waited for.
#[derive(Debug)]
struct Target {
    kin: Kin,
    held: Held,
    sent: Option<Signal>,
    /// Whether the last signal was refused.
    refused: bool,
}

/// A sweep in progress.
#[derive(Debug)]
pub struct Sweep {
    targets: HashMap<Pid, Target>,
    kill_at: Instant,
    give_up_at: Instant,
    quiet: u32,
}

impl Sweep {
    /// Begins a sweep.
    #[must_use]
    pub fn new(now: Instant, patience: Patience) -> Sweep {
        let kill_at = now + patience.to_end;
        Sweep { targets: HashMap::new(), kill_at, give_up_at: kill_at + patience.to_die, quiet: 0 }
    }

    /// Continues, with a function that says which processes are left now.
    ///
    /// # Errors
    /// That of `look`; then it is not known which processes are left.
    pub fn step(&mut self, mut look: impl FnMut() -> io::Result<Vec<Kin>>) -> io::Result<Progress> {
        loop {
            let left = look()?;
            let now = Instant::now();
            if left.is_empty() {
                self.targets.clear();
                self.quiet += 1;
                if self.quiet >= QUIET_LOOKS {
                    return Ok(Progress::Done(Vec::new()));
                }
                continue;
            }
            self.quiet = 0;
            self.signal(&left, now);
            let hopeless = now >= self.kill_at && self.targets.values().all(|target| target.refused);
            if now >= self.give_up_at || (hopeless && !self.targets.is_empty()) {
                return Ok(Progress::Done(left));
            }
            let next = if now < self.kill_at { self.kill_at } else { self.give_up_at };
            return Ok(Progress::Until(next.min(now + LOOK_AGAIN)));
        }
    }

    /// Sends each process once the signal that is due.
    fn signal(&mut self, left: &[Kin], now: Instant) {
        self.targets.retain(|_, target| left.contains(&target.kin));
        let due = if now < self.kill_at { Signal::SIGTERM } else { Signal::SIGKILL };
        for kin in left {
            let target = match self.targets.entry(kin.pid) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    // It has ended since, or descriptors ran out: then the next search tries again.
                    let Some(held) = kin.hold() else { continue };
                    place.insert(Target { kin: kin.clone(), held, sent: None, refused: false })
                }
            };
            if target.sent.replace(due) == Some(due) {
                continue;
            }
            target.refused = target.held.signal(due).is_err();
            if due == Signal::SIGTERM {
                // A stopped process could not react to it.
                let _ = target.held.signal(Signal::SIGCONT);
            }
        }
    }

    /// One descriptor for each process that is waited for; it becomes readable when the process ends.
    pub fn waited_for(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.targets.values().map(|target| target.held.as_fd())
    }
}
