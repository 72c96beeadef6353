//! Functions that remove files: the master's Unix sockets stay.

use super::super::abi::*;
use super::super::text::{absolute, absolute_at};
use super::super::{paths, settings};
use core::ffi::{CStr, c_char, c_int};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the program's own argument.
    unsafe { if kept(AT_FDCWD, path) { 0 } else { next::unlink(path) } }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe { if flags == 0 && kept(dir, path) { 0 } else { next::unlinkat(dir, path, flags) } }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn remove(path: *const c_char) -> c_int {
    // SAFETY: the program's own argument.
    unsafe { if kept(AT_FDCWD, path) { 0 } else { next::remove(path) } }
}

/// Whether the master holds the Unix socket at `path` for all workers.
unsafe fn kept(dir: c_int, path: *const c_char) -> bool {
    if path.is_null() || !settings::active() {
        return false;
    }
    // SAFETY: not null, and terminated as `unlink(2)` requires.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let full = if dir == AT_FDCWD { absolute(path) } else { absolute_at(dir, path) };
    full.is_some_and(|(path, len)| paths::holds(&path[..len]))
}
