//! Counts the connections accepted on a shared listening socket, which only this process sees. The master names a file
//! in memory with a counter for each slot.

use super::abi::{AT_FDCWD, O_RDWR_CLOEXEC, PATH_MAX, close, kernel, nr, raw};
use core::ffi::c_int;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

static COUNTER: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());

/// Starts using the counter that `COUNT=PLACE PATH` names. If anything is wrong with it, nothing is counted and
/// everything else continues.
pub fn start(count: &str) {
    const PROT_READ_WRITE: c_int = 3;
    const MAP_SHARED: c_int = 1;
    const F_GET_SEALS: c_int = 1034;
    const F_SEAL_SHRINK: c_int = 2;
    if !COUNTER.load(Relaxed).is_null() {
        return;
    }
    let Some((place, path)) = count.split_once(' ') else { return };
    let Ok(place) = place.parse::<usize>() else { return };
    let mut name = [0u8; PATH_MAX];
    if path.len() >= PATH_MAX {
        return;
    }
    name[..path.len()].copy_from_slice(path.as_bytes());
    let file = kernel!(nr::OPENAT, AT_FDCWD, name.as_ptr(), O_RDWR_CLOEXEC) as c_int;
    if file < 0 {
        return;
    }
    // The name may belong to another process by now: only memory whose size is sealed is ever written to.
    let seals = kernel!(nr::FCNTL, file, F_GET_SEALS) as c_int;
    if seals < 0 || seals & F_SEAL_SHRINK == 0 {
        close(file);
        return;
    }
    let length = (place + 1) * size_of::<AtomicU64>();
    let memory = kernel!(nr::MMAP, 0, length, PROT_READ_WRITE, MAP_SHARED, file, 0);
    close(file);
    if memory > 0 {
        COUNTER.store((memory as *mut AtomicU64).wrapping_add(place), Relaxed);
    }
}

/// Counts a connection, if `fd` is one.
pub fn count(fd: c_int) -> c_int {
    let counter = COUNTER.load(Relaxed);
    if fd >= 0 && !counter.is_null() {
        // SAFETY: the slot's place in a mapping that is never unmapped; the master made the file large enough for
        // every slot and sealed its size.
        unsafe { (*counter).fetch_add(1, Relaxed) };
    }
    fd
}
