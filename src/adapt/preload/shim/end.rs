//! Asks this process and those around it to end when the master is gone.
//!
//! This happens once, not once per process: a server whose first process forks others replaces each one that ends, and
//! would do so forever (nginx does, hundreds of times a second). So all processes forked from one program share the
//! record of the request, and the whole group is asked, its first process included.

use super::abi::{SIGTERM, getpid, kernel, nr, raw};
use super::settings;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI32, AtomicPtr, Ordering::Relaxed};

const PAGE: usize = 4096;

/// The process group that was asked last, shared by all forks.
static ASKED: AtomicPtr<AtomicI32> = AtomicPtr::new(null_mut());
/// The process group of the master, or -1.
static GROUP_OF_MASTER: AtomicI32 = AtomicI32::new(-1);

/// When the request to end was made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    /// Just now.
    Now,
    /// By an earlier call, in this or another process.
    Before,
}

/// Prepares the memory that forks share, before the program begins.
pub fn start() {
    const PROT_READ_WRITE: i32 = 3;
    const MAP_SHARED_ANONYMOUS: i32 = 0x21;
    if !settings::active() {
        return;
    }
    GROUP_OF_MASTER.store(kernel!(nr::GETPGID, settings::master()) as i32, Relaxed);
    let page = kernel!(nr::MMAP, 0, PAGE, PROT_READ_WRITE, MAP_SHARED_ANONYMOUS, -1, 0);
    if page > 0 {
        ASKED.store(page as *mut AtomicI32, Relaxed);
    }
}

/// Asks the process group to end, unless it was asked before. If the group is not the worker's own, it asks only this
/// process: the worker may have moved into the master's group, for example.
pub fn ask() -> Requested {
    static ALONE: AtomicI32 = AtomicI32::new(0);
    let group = kernel!(nr::GETPGID, 0) as i32;
    let shared = ASKED.load(Relaxed);
    // SAFETY: null, or the page that `start` made and that is never unmapped.
    let place = if shared.is_null() { &ALONE } else { unsafe { &*shared } };
    if place.swap(group, Relaxed) == group {
        return Requested::Before;
    }
    // Zero means the own group (kill(2)).
    let whom = if group == GROUP_OF_MASTER.load(Relaxed) { getpid() } else { 0 };
    kernel!(nr::KILL, whom, SIGTERM);
    Requested::Now
}
