//! A small process that outlives the master for one moment: should the master be killed, it kills
//! what is left of the workers.
//!
//! The parent-death signal (`prctl(2)`) reaches a worker's first process only, not the children that
//! it forked, nor the server behind a shell or `npm`. The guard knows the workers' process groups
//! from shared memory and learns of the master's end from a pipe.

use super::exec::{Number, Passing, Taking};
use super::memfd;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// Process groups that can be guarded at once: all that can be in all slots.
const GROUPS: usize = crate::core::fleet::OCCUPANTS_MAX * crate::config::WORKERS_MAX as usize;

/// Their memory.
const BYTES: usize = GROUPS * size_of::<AtomicI32>();

/// What the next program of this process needs to go on with the guard.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    memory: Number,
    process: i32,
    life: Option<Number>,
}

/// The master's side of the guard; the guard itself ends when this is dropped.
#[derive(Debug)]
pub struct Guard {
    groups: NonNull<[AtomicI32; GROUPS]>,
    /// The memory of the groups, for the next program of this process.
    memory: OwnedFd,
    process: Pid,
    /// Never written to: its closing is the message.
    life: Option<OwnedFd>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.life = None;
        // It ends at once then; a reaper elsewhere may have been faster.
        let _ = nix::sys::wait::waitpid(self.process, None);
    }
}

impl Guard {
    /// Forks the guard. Call before anything is opened that must not stay open twice.
    ///
    /// # Errors
    /// When no process, memory or descriptor can be had.
    pub fn start() -> io::Result<Guard> {
        let (death, life) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let memory = memfd::shared(c"maitred-guard", BYTES)?;
        let groups = map(&memory)?;
        // SAFETY: the child only runs `watch`, which keeps to async-signal-safe calls and never
        // returns.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: this is the child.
            0 => unsafe { watch(groups, death.as_raw_fd(), life.as_raw_fd()) },
            pid => Ok(Guard { groups, memory, process: Pid::from_raw(pid), life: Some(life) }),
        }
    }

    /// Passes it on.
    pub fn pass(&self, passing: &Passing) -> Passed {
        let life = self.life.as_ref().map(|life| passing.pass(life));
        Passed { memory: passing.pass(&self.memory), process: self.process.as_raw(), life }
    }

    /// Takes over a guard that was passed on.
    ///
    /// # Errors
    /// When a descriptor is missing or memory ran out.
    pub fn take(passed: Passed, taking: &Taking) -> io::Result<Guard> {
        let memory = taking.take(passed.memory)?;
        let groups = map(&memory)?;
        let life = passed.life.map(|life| taking.take(life)).transpose()?;
        Ok(Guard { groups, memory, process: Pid::from_raw(passed.process), life })
    }

    /// The guard's own process.
    #[must_use]
    pub fn process(&self) -> Pid {
        self.process
    }

    /// Guards the process group of a worker.
    pub fn add(&self, group: Pid) {
        let free = |place: &&AtomicI32| place.compare_exchange(0, group.as_raw(), SeqCst, SeqCst).is_ok();
        // One that finds no place still has its parent-death signal.
        let _ = self.table().iter().find(free);
    }

    /// Forgets a group, before its number can be given to another.
    pub fn remove(&self, group: Pid) {
        for place in self.table() {
            let _ = place.compare_exchange(group.as_raw(), 0, SeqCst, SeqCst);
        }
    }

    fn table(&self) -> &[AtomicI32; GROUPS] {
        // SAFETY: mapped by `start`, never unmapped, and atomics may be shared.
        unsafe { self.groups.as_ref() }
    }
}

/// Maps the memory of the groups.
fn map(memory: &OwnedFd) -> io::Result<NonNull<[AtomicI32; GROUPS]>> {
    // SAFETY: a new mapping of the whole file, at an address of the kernel's choice.
    let mapped = unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, memory.as_raw_fd(), 0)
    };
    match NonNull::new(mapped.cast()) {
        Some(groups) if mapped != libc::MAP_FAILED => Ok(groups),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The guard's whole life.
///
/// # Safety
/// Call in a freshly forked child only.
unsafe fn watch(groups: NonNull<[AtomicI32; GROUPS]>, death: i32, life: i32) -> ! {
    // SAFETY: async-signal-safe calls (`signal-safety(7)`) on valid arguments only.
    unsafe {
        // A group of its own and deaf to signals: what ends the master from a terminal must not end
        // the guard first.
        libc::setpgid(0, 0);
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NAME, c"maitred-guard".as_ptr());
        // Nothing stays open here, above all not the other end of the pipe; kernels before 5.9 cannot
        // close the rest at once, which then is little.
        libc::close(life);
        libc::dup2(death, 0);
        libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
        let mut byte = 0u8;
        while libc::read(0, (&raw mut byte).cast(), 1) < 0 {}
        for group in groups.as_ref() {
            let group = group.load(SeqCst);
            if group > 0 {
                libc::kill(-group, libc::SIGKILL);
            }
        }
        libc::_exit(0)
    }
}
