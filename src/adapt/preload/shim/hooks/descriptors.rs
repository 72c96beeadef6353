//! Functions that close and copy descriptors of any kind.

use super::super::abi::*;
use super::super::process::owns_memory;
use super::super::table::{find, is_internal, lock, next_special};
use super::super::{closing, numbers};
use core::ffi::{c_int, c_long, c_uint, c_void};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if is_internal(fd) {
        // As if the descriptor were not open.
        return fail(EBADF);
    }
    let _hold = closing::forget(fd);
    // SAFETY: no pointers.
    unsafe { next::close(fd) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __close(fd: c_int) -> c_int {
    // SAFETY: no pointers.
    unsafe { close(fd) }
}

/// musl's name for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_close(fd: c_int, _flags: c_int) -> c_int {
    // SAFETY: no pointers.
    unsafe { close(fd) }
}

/// The stream's descriptor is closed with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fclose(stream: *mut c_void) -> c_int {
    // SAFETY: the program's own argument, which `fclose` would use as well.
    let fd = unsafe { number_of(stream) };
    // SAFETY: as above.
    let closed = unsafe { next::fclose(stream) };
    // The descriptor is closed in any case (fclose(3)).
    drop(closing::forget(fd));
    closed
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _IO_fclose(stream: *mut c_void) -> c_int {
    // SAFETY: the program's own argument.
    unsafe { fclose(stream) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    outcome(close_numbers(first, last, flags))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn closefrom(first: c_int) {
    let first = first.max(0);
    if close_numbers(first.cast_unsigned(), c_uint::MAX, 0) < 0 {
        // A kernel before 5.9 lacks the call.
        numbers::each(|fd| {
            if fd >= first {
                // SAFETY: no pointers.
                unsafe { close(fd) };
            }
        });
    }
}

/// `close_range(2)`, except for the shim's own descriptors; returns the kernel's value.
pub(super) fn close_numbers(first: c_uint, last: c_uint, flags: c_int) -> c_long {
    const CLOSE_RANGE_UNSHARE: c_int = 2;
    const CLOSE_RANGE_CLOEXEC: c_int = 4;
    const CLONE_FILES: c_int = 0x400;
    let kernel = |first: c_uint, last: c_uint, flags: c_int| kernel!(nr::CLOSE_RANGE, first, last, flags);
    // The shim's descriptors may become close-on-exec. Between `vfork` and `exec` the numbers are not those of the
    // table.
    if flags & CLOSE_RANGE_CLOEXEC != 0 || first > last || !owns_memory() {
        return kernel(first, last, flags);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        let unshared = kernel!(nr::UNSHARE, CLONE_FILES);
        if unshared < 0 {
            return unshared;
        }
    }
    let mut from = first;
    while let Some(special) = next_special(from).filter(|special| *special <= last) {
        if from < special {
            let closed = kernel(from, special - 1, flags);
            if closed < 0 {
                return closed;
            }
        }
        // SAFETY: no pointers.
        unsafe { close(special.cast_signed()) };
        from = special + 1;
    }
    if from <= last { kernel(from, last, flags) } else { 0 }
}

/// After a successful `dup*` the copy has the same meaning as the original.
fn copied(fd: c_int, copy: c_int) -> c_int {
    if copy >= 0
        && copy != fd
        && let Some(entry) = find(fd)
        && owns_memory()
    {
        lock().alias(entry, copy);
    }
    copy
}

/// A `dup*` that closes what was at the target before, if it succeeds.
fn copied_onto(fd: c_int, to: c_int, dup: impl FnOnce() -> c_int) -> c_int {
    if fd == to {
        return dup();
    }
    if is_internal(to) && owns_memory() {
        closing::make_way(to);
    }
    let copy = dup();
    if copy >= 0 {
        let _hold = closing::forget(to);
        copied(fd, copy);
    }
    copy
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: no pointers.
    copied(fd, unsafe { next::dup(fd) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    // SAFETY: no pointers.
    copied_onto(fd, to, || unsafe { next::dup2(fd, to) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __dup2(fd: c_int, to: c_int) -> c_int {
    // SAFETY: no pointers.
    unsafe { dup2(fd, to) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    // SAFETY: no pointers.
    copied_onto(fd, to, || unsafe { next::dup3(fd, to, flags) })
}

/// `fcntl(2)`. It is variadic in C; its one optional argument is passed in a register like any other on the machines
/// that the shim supports.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, arg: c_long) -> c_int {
    // SAFETY: the program's own arguments.
    let ret = unsafe { next::fcntl(fd, command, arg) };
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => copied(fd, ret),
        _ => ret,
    }
}

/// The name under which glibc exports `fcntl` for programs with 64-bit file offsets.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, arg: c_long) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe { fcntl(fd, command, arg) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __fcntl(fd: c_int, command: c_int, arg: c_long) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe { fcntl(fd, command, arg) }
}
