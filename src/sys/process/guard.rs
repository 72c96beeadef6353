//! A small process that outlives the master for a moment: if the master is killed, the guard ends everything that
//! came from it.
//!
//! The parent-death signal (`prctl(2)`) reaches only a worker's first process. It does not reach the children that it
//! forked, the server behind a shell or `npm`, or a process that went into a session of its own. The guard reads from
//! shared memory (`memory`) how to recognise those, and learns of the master's end from a pipe. It is this program,
//! executed anew (`watch`): its work needs more than a forked child of a process with threads may do
//! (signal-safety(7)), and it can be started again while the master runs.

mod memory;
mod watch;

pub use memory::GROUPS;
pub use watch::{NoGuard, stand};

use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::foreign;
use crate::sys::process::reap;
use memory::Memory;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The subcommand that is the guard, with a name that no server has.
pub const SUBCOMMAND: &str = "guard-workers";

/// What happens, when the master ends, to jobs that workers detached on purpose: processes in a session of their own
/// that have none of the master's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detached {
    /// They end with it.
    #[default]
    End,
    /// They go on.
    Stay,
}

/// What the next program of this process needs to go on with the guard.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    memory: Number,
    process: i32,
    life: Option<Number>,
    /// How the memory is laid out; programs from before this field did not say.
    #[serde(default)]
    layout: u32,
}

/// The master's side of the guard; the guard itself ends when this is dropped, unless it was taken over and not
/// [confirmed](Guard::confirm).
#[derive(Debug)]
pub struct Guard {
    memory: Memory,
    standing: RefCell<Standing>,
    /// The guard of another version, until it is certain that this program goes on.
    former: RefCell<Option<Former>>,
}

#[derive(Debug)]
struct Former {
    memory: OwnedFd,
    standing: Standing,
}

/// How long a guard that is dismissed may take to end.
const TIME_TO_GO: std::time::Duration = std::time::Duration::from_secs(1);

/// The process that is the guard now.
#[derive(Debug)]
struct Standing {
    process: Pid,
    /// Readable when it has ended; without it that cannot be known.
    pidfd: Option<OwnedFd>,
    /// Never written to: its closing is the message.
    life: Option<OwnedFd>,
    ends: Ends,
}

/// When a guard ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Together with this program's side of it.
    WithUs,
    /// Not yet: another program may have to go on with it.
    Later,
}

impl Standing {
    /// Executes the guard.
    fn start(memory: &Memory) -> io::Result<Standing> {
        let (death, life) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(SUBCOMMAND)
            // The pipe and the memory, where it finds them whatever else is open. It gets no environment: it is no
            // worker, and no variable changes what it does.
            .stdin(death)
            .stdout(Stdio::from(memory.file()?))
            .stderr(Stdio::null())
            .env_clear()
            .current_dir("/")
            // A signal from a terminal that ends the master must not end the guard first.
            .process_group(0);
        let child = command.spawn()?;
        let process = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        Ok(Standing { process, pidfd: foreign::pidfd(process).ok(), life: Some(life), ends: Ends::WithUs })
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.life = None;
        if self.ends == Ends::Later {
            return;
        }
        // It ends soon then. A reaper elsewhere may have been faster, and another child may have its number.
        if let Some(pidfd) = &self.pidfd {
            if !reap::wait_for(pidfd.as_fd(), TIME_TO_GO) {
                // It is stopped or frozen; it has nothing left to do.
                let _ = nix::sys::signal::kill(self.process, nix::sys::signal::Signal::SIGKILL);
                let _ = reap::wait_for(pidfd.as_fd(), TIME_TO_GO);
            }
            let _ = reap::reap(pidfd.as_fd());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.former.take().is_some() {
            // The old program goes on with a guard of its own, and the end of this program means nothing.
            self.memory.dismiss();
        }
    }
}

impl Guard {
    /// Starts the guard.
    ///
    /// # Errors
    /// When no process, memory, randomness or descriptor is available.
    pub fn start(detached: Detached) -> io::Result<Guard> {
        let memory = Memory::new(detached)?;
        let standing = RefCell::new(Standing::start(&memory)?);
        Ok(Guard { memory, standing, former: RefCell::default() })
    }

    /// Passes the guard on to the next program.
    pub fn pass(&self, passing: &Passing) -> Passed {
        let standing = self.standing.borrow();
        let life = standing.life.as_ref().map(|life| passing.pass(life));
        let (memory, process) = (passing.pass(self.memory.as_fd()), standing.process.as_raw());
        Passed { memory, process, life, layout: memory::LAYOUT }
    }

    /// Takes over a guard that was passed on. If it is of another version, a new guard is started beside it, and the
    /// workers must be added to that one again. Until [`Guard::confirm`] the old program could go on with its own.
    ///
    /// # Errors
    /// When a descriptor is missing, or no new guard can be started.
    pub fn take(passed: Passed, taking: &Taking, detached: Detached) -> io::Result<Guard> {
        let file = taking.take(passed.memory)?;
        let life = passed.life.map(|life| taking.take(life)).transpose()?;
        let process = Pid::from_raw(passed.process);
        let old = Standing { process, pidfd: foreign::pidfd(process).ok(), life, ends: Ends::Later };
        if passed.layout == memory::LAYOUT {
            let (memory, standing) = (Memory::again(file, detached)?, RefCell::new(old));
            return Ok(Guard { memory, standing, former: RefCell::default() });
        }
        let guard = Guard::start(detached)?;
        guard.former.replace(Some(Former { memory: file, standing: old }));
        Ok(guard)
    }

    /// From here on the guard belongs to this program alone; a guard of another version is ended.
    ///
    /// # Errors
    /// When its memory cannot be written.
    pub fn confirm(&self) -> io::Result<()> {
        self.standing.borrow_mut().ends = Ends::WithUs;
        let Some(mut former) = self.former.take() else { return Ok(()) };
        // It must not find any process when it learns that its master is gone.
        memory::blank(&former.memory)?;
        former.standing.ends = Ends::WithUs;
        Ok(())
    }

    /// The guard's own process.
    #[must_use]
    pub fn process(&self) -> Pid {
        self.standing.borrow().process
    }

    /// A copy of the descriptor that becomes readable when the guard has ended.
    ///
    /// # Errors
    /// When no descriptor is free, or the guard had ended before one could be opened.
    pub fn watched(&self) -> io::Result<OwnedFd> {
        let standing = self.standing.borrow();
        standing.pidfd.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()
    }

    /// Starts a new guard in place of one that ended.
    ///
    /// # Errors
    /// As for [`Guard::start`]; there is no guard then, and this can be tried again.
    pub fn replace(&self) -> io::Result<()> {
        let next = Standing::start(&self.memory)?;
        drop(self.standing.replace(next));
        Ok(())
    }

    /// The family's name, which is in every environment that comes from this master.
    #[must_use]
    pub fn family(&self) -> String {
        self.memory.family()
    }

    /// Guards the process group of a worker; `channel` is the inode of the socket that it was given to talk to the
    /// master.
    pub fn add(&self, group: Pid, channel: Option<u64>) {
        self.memory.add(group, channel.unwrap_or(0));
    }

    /// Forgets a group, before its number can be given to another.
    pub fn remove(&self, group: Pid) {
        self.memory.remove(group);
    }

    /// Tells the guard which sockets are the master's; a process that has one is no detached job. Of use only where
    /// detached jobs stay.
    pub fn know_sockets(&self, inodes: &HashSet<u64>) {
        self.memory.know_sockets(inodes);
    }

    /// The master ended in order and left no process: the guard has nothing to do.
    pub fn dismiss(&self) {
        self.memory.dismiss();
    }
}
