//! Ending processes for sure: asked first, then killed, looked for again until nobody is left. What cannot be
//! killed is named, and waited for no longer than said.

use super::descent::{Held, Kin};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// From one look to the next while some are waited for: they may fork meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Looks in a row that must find nobody: a list of children may lack one while another ends (proc(5)).
const QUIET_LOOKS: u32 = 2;

/// How long processes may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From being asked to being killed; none for those that are killed at once.
    pub to_end: Duration,
    /// From being killed to being given up.
    pub to_die: Duration,
}

/// How far a sweep has come.
#[derive(Debug)]
pub enum Progress {
    /// Come again then, or when one of those that are waited for has ended.
    Until(Instant),
    /// Nobody is left but these, who cannot be killed.
    Done(Vec<Kin>),
}

/// Who is asked and waited for.
#[derive(Debug)]
struct Target {
    kin: Kin,
    held: Held,
    sent: Option<Signal>,
    /// Whether the last signal was refused.
    refused: bool,
}

/// A sweep under way.
#[derive(Debug)]
pub struct Sweep {
    targets: HashMap<Pid, Target>,
    kill_at: Instant,
    give_up_at: Instant,
    quiet: u32,
}

impl Sweep {
    /// Begins one.
    #[must_use]
    pub fn new(now: Instant, patience: Patience) -> Sweep {
        let kill_at = now + patience.to_end;
        Sweep { targets: HashMap::new(), kill_at, give_up_at: kill_at + patience.to_die, quiet: 0 }
    }

    /// Goes on, with a function that says who is left now.
    ///
    /// # Errors
    /// That of looking; nobody is known to be left then.
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

    /// Tells everybody once what is due.
    fn signal(&mut self, left: &[Kin], now: Instant) {
        self.targets.retain(|_, target| left.contains(&target.kin));
        let due = if now < self.kill_at { Signal::SIGTERM } else { Signal::SIGKILL };
        for kin in left {
            let target = match self.targets.entry(kin.pid) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    // It ended since, or descriptors ran out: then there is a next time.
                    let Some(held) = kin.hold() else { continue };
                    place.insert(Target { kin: kin.clone(), held, sent: None, refused: false })
                }
            };
            if target.sent.replace(due) == Some(due) {
                continue;
            }
            target.refused = target.held.signal(due).is_err();
            if due == Signal::SIGTERM {
                // One that is stopped could not hear it.
                let _ = target.held.signal(Signal::SIGCONT);
            }
        }
    }

    /// Each becomes readable when one ends.
    pub fn waited_for(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.targets.values().map(|target| target.held.as_fd())
    }
}
