//! Which process owns this memory.
//!
//! After `fork` a child has its own copy of the table and may change it. After `vfork` it runs in its parent's memory
//! until it executes a program: the descriptors that it closes and duplicates are its own, but the table is its
//! parent's and must not be changed. CPython and the JVM start programs that way. The kernel distinguishes the two: it
//! empties a page marked `MADV_WIPEONFORK` in a forked child (`madvise(2)`), but not in borrowed memory.

use super::abi::{AT_FDCWD, O_RDONLY_CLOEXEC, at_fork, close, getpid, kernel, nr, raw};
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
    at_fork(forked);
}

/// The process that owns this memory: this one, or between `vfork` and `exec` its parent.
pub fn owner() -> c_int {
    if owns_memory() { getpid() } else { OWNER.load(Relaxed) }
}

/// A forked child takes ownership of its memory at once, before it can lend it to a child of its own by `vfork`: that
/// child would find the page empty, like a forked child does.
extern "C" fn forked() {
    owns_memory();
}

/// Whether this process may change what is in its memory; false between `vfork` and `exec`.
pub fn owns_memory() -> bool {
    let me = getpid();
    if OWNER.load(Relaxed) == me {
        return true;
    }
    let mark = MARK.load(Relaxed);
    // SAFETY: null, or the page that `start` made and that is never unmapped.
    let marked = !mark.is_null() && unsafe { (*mark).load(Relaxed) } == 1;
    // An empty page means that this process was forked from the owner, or borrows memory from a forked process that
    // has done nothing yet.
    let borrowed = marked || shares_memory_with_parent(me);
    if !borrowed {
        OWNER.store(me, Relaxed);
        if !mark.is_null() {
            // SAFETY: as above.
            unsafe { (*mark).store(1, Relaxed) };
        }
    }
    !borrowed
}

/// Whether the kernel says that this process shares its parent's memory (`kcmp(2)`); the kernel may be built without
/// that call, or forbid it.
fn shares_memory_with_parent(me: c_int) -> bool {
    const KCMP_VM: c_int = 1;
    kernel!(nr::KCMP, me, kernel!(nr::GETPPID), KCMP_VM, 0, 0) == 0
}

/// The file mode mask from `/proc` (Linux 4.7): `umask(2)` returns it only by changing it, for all threads.
pub fn umask() -> Option<u32> {
    // It comes after the name, which has at most 64 bytes, even with all of them escaped.
    let mut text = [0u8; 512];
    let file = kernel!(nr::OPENAT, AT_FDCWD, c"/proc/self/status".as_ptr(), O_RDONLY_CLOEXEC) as c_int;
    if file < 0 {
        return None;
    }
    let n = kernel!(nr::READ, file, text.as_mut_ptr(), text.len());
    close(file);
    let text = core::str::from_utf8(text.get(..usize::try_from(n).ok()?)?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}
