//! What the guard itself does: it waits for the master's end, and ends what came from the master.

use super::memory::Memory;
use super::{Detached, SUBCOMMAND};
use crate::sys::process::descent::{self, Kin, Mark};
use crate::sys::process::sweep::{Patience, Progress, Sweep};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Processes are not asked any more: they had their master's lifetime to end. After this time, those that cannot be
/// killed are left alone.
const PATIENCE: Patience = Patience { to_end: Duration::ZERO, to_die: Duration::from_secs(10) };

/// Why there is nothing to guard.
#[derive(Debug, thiserror::Error)]
#[error("`maitred {SUBCOMMAND}` is for maitred itself: it guards the workers of a master that starts it ({0})")]
pub struct NoGuard(#[from] io::Error);

/// Guards the workers until the master has ended and no process is left.
///
/// # Errors
/// [`NoGuard`] when this process was not started by a master.
pub fn stand() -> Result<(), NoGuard> {
    // Blocks signals, so that one that ends the master from outside does not end the guard first.
    SigSet::all().thread_block().map_err(io::Error::from)?;
    // SAFETY: the master has put a pipe and a file there, see `Standing::start`; nothing else here owns them.
    let (mut life, memory) = unsafe {
        libc::prctl(libc::PR_SET_NAME, c"maitred-guard".as_ptr());
        // Above all, the other end of the pipe must not be open. Kernels before 5.9 cannot close all descriptors at
        // once, and everything of the master is closed on exec.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        (std::fs::File::from_raw_fd(0), OwnedFd::from_raw_fd(1))
    };
    let memory = Memory::take(memory)?;
    // Waits for end of file: no process writes anything before it.
    while matches!(life.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::Interrupted) {}
    if !memory.is_dismissed() {
        end_all(&memory)?;
    }
    Ok(())
}

/// Ends all processes that are left.
fn end_all(memory: &Memory) -> io::Result<()> {
    // The groups come first, since they need no search.
    for group in memory.groups() {
        let _ = killpg(group, Signal::SIGKILL);
    }
    let left = Left::of(memory);
    let mut sweep = Sweep::new(Instant::now(), PATIENCE);
    while let Progress::Until(then) = sweep.step(|| left.look())? {
        let timeout = then.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
        let mut ended: Vec<_> = sweep.waited_for().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        if ended.is_empty() {
            // No process could be opened: descriptors have run out, or the processes are ending at this moment.
            std::thread::sleep(then.saturating_duration_since(Instant::now()));
        } else {
            let _ = poll(&mut ended, timeout);
        }
    }
    Ok(())
}

/// What identifies the master's descendants, now that they are orphans.
struct Left {
    myself: Pid,
    master: Pid,
    session: Pid,
    family: String,
    groups: HashSet<Pid>,
    channels: HashSet<u64>,
    sockets: HashSet<u64>,
    detached: Detached,
}

impl Left {
    fn of(memory: &Memory) -> Left {
        Left {
            myself: Pid::this(),
            master: memory.master(),
            session: memory.session(),
            family: memory.family(),
            groups: memory.groups(),
            channels: memory.channels(),
            sockets: memory.sockets(),
            detached: memory.detached(),
        }
    }

    /// The processes that are left.
    fn look(&self) -> io::Result<Vec<Kin>> {
        let all: HashMap<Pid, Kin> = descent::everybody()?.into_iter().map(|kin| (kin.pid, kin)).collect();
        let mut known = HashMap::new();
        let mut left = Vec::new();
        for kin in all.values().filter(|kin| kin.runs() && kin.pid != self.myself && kin.pid != self.master) {
            if self.is_ours(kin, &all, &mut known) && !self.may_stay(kin) {
                left.push(kin.clone());
            }
        }
        Ok(left)
    }

    /// Whether a process, or one that it descends from, has a mark of the master.
    fn is_ours(&self, kin: &Kin, all: &HashMap<Pid, Kin>, known: &mut HashMap<Pid, bool>) -> bool {
        let mut line = Vec::new();
        let mut at = Some(kin);
        // By the time it is read, a parent's id can be that of a grandchild, so a line of parents may contain a loop.
        let ours = loop {
            let Some(kin) = at.filter(|kin| kin.pid != self.master && !line.contains(&kin.pid)) else {
                // Everything that descends from a master that is about to end belongs to it, except this process.
                break at.is_some_and(|kin| kin.pid == self.master);
            };
            if kin.pid == self.myself {
                break false;
            }
            if let Some(ours) = known.get(&kin.pid) {
                break *ours;
            }
            line.push(kin.pid);
            if self.is_marked(kin) {
                break true;
            }
            at = all.get(&kin.parent);
        };
        known.extend(line.into_iter().map(|pid| (pid, ours)));
        ours
    }

    fn is_marked(&self, kin: &Kin) -> bool {
        let has_channel = || descent::sockets_of(kin.pid).is_ok_and(|inodes| !inodes.is_disjoint(&self.channels));
        // A number stays taken as long as a group or session has it, so these belong to the workers.
        self.groups.contains(&kin.group)
            || self.groups.contains(&kin.session)
            || matches!(descent::mark_of(kin.pid, &self.family), Mark::OfWorker(_))
            || has_channel()
    }

    /// Whether it is a job that was detached on purpose, where such jobs may stay.
    fn may_stay(&self, kin: &Kin) -> bool {
        let own_session = kin.session != self.session && !self.groups.contains(&kin.session);
        let has_none = || descent::sockets_of(kin.pid).map_or(true, |inodes| inodes.is_disjoint(&self.sockets));
        self.detached == Detached::Stay && own_session && has_none()
    }
}
