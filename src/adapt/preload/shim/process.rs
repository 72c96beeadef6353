//! Whose memory this is.
//!
//! After `fork` a child has the table for itself and may change it. After `vfork` it runs in its
//! parent's memory until it executes something: the descriptors that it closes and duplicates are
//! its own, but the table is its parent's and must not be touched. CPython and the JVM start
//! programs that way. The kernel tells the two apart: it empties a page marked `MADV_WIPEONFORK` in
//! a forked child (`madvise(2)`), and a borrowed memory is not a forked one.

use super::abi::{getpid, kernel, nr, raw};
use core::ffi::c_int;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering::Relaxed};

const PAGE: usize = 4096;

static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Marks the memory as this process's. Called once, at the start.
pub fn start() {
    const PROT_READ_WRITE: c_int = 3;
    const MAP_PRIVATE_ANONYMOUS: c_int = 0x22;
    const MADV_WIPEONFORK: c_int = 18;
    OWNER.store(getpid(), Relaxed);
    let page = kernel!(nr::MMAP, 0, PAGE, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    if page < 0 || kernel!(nr::MADVISE, page, PAGE, MADV_WIPEONFORK) < 0 {
        return;
    }
    let mark = page as *mut AtomicU32;
    // SAFETY: a fresh page of our own, aligned and zeroed.
    unsafe { (*mark).store(1, Relaxed) };
    MARK.store(mark, Relaxed);
}

/// Whether this process may change what is in its memory; false between `vfork` and `exec`.
pub fn owns_memory() -> bool {
    let me = getpid();
    if OWNER.load(Relaxed) == me {
        return true;
    }
    let mark = MARK.load(Relaxed);
    // SAFETY: null, or the page that `start` made and that is never unmapped.
    let borrowed = !mark.is_null() && unsafe { (*mark).swap(1, Relaxed) } == 1;
    if !borrowed {
        OWNER.store(me, Relaxed);
    }
    !borrowed
}
