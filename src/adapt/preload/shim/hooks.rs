//! The functions that stand before libc's. Each asks [`find`] whether the descriptor is one of
//! ours, which costs a descriptor that is not a single load, and otherwise passes the call on.

#![allow(clippy::missing_safety_doc, reason = "each is as safe as libc's function of its name")]

use super::abi::*;
use super::follow;
use super::inherited;
use super::listening;
use super::paths;
use super::process::owns_memory;
use super::table::{State, find, is_internal, lock};
use super::taken;
use super::text::{absolute, absolute_at};
use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(fd: c_int, addr: *const u8, len: c_uint) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe { listening::bind(fd, addr, len).unwrap_or_else(|| next::bind(fd, addr, len)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    match find(fd).or_else(|| follow::recognise(fd)) {
        Some(entry) => listening::listen(fd, entry, backlog),
        None => {
            inherited::used(fd);
            // SAFETY: no pointers.
            unsafe { next::listen(fd, backlog) }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(fd: c_int, addr: *mut u8, len: *mut c_uint) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe { accept_from(fd, addr, len, 0, || next::accept(fd, addr, len)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(fd: c_int, addr: *mut u8, len: *mut c_uint, flags: c_int) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe { accept_from(fd, addr, len, flags, || next::accept4(fd, addr, len, flags)) }
}

/// Takes a connection; `kernel` is what takes it from a socket that is a listening one itself.
///
/// # Safety
/// As for `accept4(2)`.
#[inline]
unsafe fn accept_from(fd: c_int, addr: *mut u8, len: *mut c_uint, flags: c_int, kernel: impl Fn() -> c_int) -> c_int {
    match find(fd).map(|entry| (entry, entry.state())) {
        // SAFETY: the program's own arguments.
        Some((entry, State::Handoff | State::Shut)) => unsafe { listening::take(fd, entry, addr, len, flags) },
        Some((_, State::Shared)) => taken::count(kernel()),
        // Others may listen there, but this program does not.
        Some((_, State::Bound | State::SharedBound)) => fail(EINVAL),
        Some((_, State::Free | State::Ephemeral)) | None => {
            inherited::used(fd);
            let connection = inherited::count(kernel());
            // What a hand-off socket answers that this program has from elsewhere (`SCM_RIGHTS`).
            if connection < 0
                && errno() == EINVAL
                && let Some(entry) = follow::recognise(fd).filter(|entry| entry.state() == State::Handoff)
            {
                // SAFETY: the program's own arguments.
                return unsafe { listening::take(fd, entry, addr, len, flags) };
            }
            connection
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, addr: *const u8, len: c_uint) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe {
        if let Some(failed) = find(fd).and_then(|entry| listening::give_up_for_client(fd, entry)) {
            return failed;
        }
        next::connect(fd, addr, len)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if is_internal(fd) {
        return 0;
    }
    let _hold = listening::forget(fd);
    // SAFETY: no pointers.
    unsafe { next::close(fd) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    if let Some(entry) = find(fd).filter(|e| matches!(e.state(), State::Handoff | State::Shared))
        && listening::shut(entry)
    {
        return 0;
    }
    // SAFETY: no pointers.
    unsafe { next::shutdown(fd, how) }
}

/// The child takes its memory over at once, before it may lend it to a child of its own by `vfork`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fork() -> c_int {
    // SAFETY: no pointers.
    let child = unsafe { next::fork() };
    if child == 0 {
        owns_memory();
    }
    child
}

/// After a successful `dup*` the copy means what the original means.
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

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: no pointers.
    copied(fd, unsafe { next::dup(fd) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    let _hold = (fd != to).then(|| listening::forget(to));
    // SAFETY: no pointers.
    copied(fd, unsafe { next::dup2(fd, to) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    let _hold = (fd != to).then(|| listening::forget(to));
    // SAFETY: no pointers.
    copied(fd, unsafe { next::dup3(fd, to, flags) })
}

/// `fcntl(2)`. It is variadic in C; its one optional argument is passed in a register like any
/// other on the machines that the shim is built for.
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
pub unsafe extern "C" fn getsockname(fd: c_int, addr: *mut u8, len: *mut c_uint) -> c_int {
    match find(fd) {
        // SAFETY: the program's own arguments, not null.
        Some(entry) if !addr.is_null() && !len.is_null() => unsafe { listening::name(fd, entry, addr, len) },
        _ => {
            inherited::used(fd);
            // SAFETY: the program's own arguments.
            let ret = unsafe { next::getsockname(fd, addr, len) };
            // SAFETY: the kernel has just written there.
            if ret == 0
                && unsafe { is_nameless(addr, len) }
                && let Some(entry) = follow::recognise(fd)
            {
                // SAFETY: the program's own arguments, into which the kernel could write.
                return unsafe { listening::name(fd, entry, addr, len) };
            }
            ret
        }
    }
}

/// Whether a name is that of a Unix socket without one, as a hand-off socket is that was received from
/// another process.
///
/// # Safety
/// `addr` and `len` as `getsockname(2)` has filled them.
unsafe fn is_nameless(addr: *const u8, len: *const c_uint) -> bool {
    // SAFETY: the caller vouches for both.
    unsafe { *len == 2 && addr.cast::<u16>().read_unaligned() == AF_UNIX }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(fd: c_int, addr: *mut u8, len: *mut c_uint) -> c_int {
    match find(fd) {
        Some(_) => fail(ENOTCONN),
        // SAFETY: the program's own arguments.
        None => unsafe { next::getpeername(fd, addr, len) },
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    len: *mut c_uint,
) -> c_int {
    let asks_what_it_is = level == SOL_SOCKET && [SO_TYPE, SO_ACCEPTCONN, SO_PROTOCOL, SO_DOMAIN].contains(&option);
    let entry = find(fd).or_else(|| asks_what_it_is.then(|| follow::recognise(fd)).flatten());
    if let Some(entry) = entry {
        let whether = level == SOL_SOCKET && option == SO_ACCEPTCONN;
        // SAFETY: `len` says how much of `value` is writable.
        if whether && !value.is_null() && !len.is_null() && unsafe { *len } >= 4 {
            // SAFETY: as above.
            unsafe {
                let listens = matches!(entry.state(), State::Handoff | State::Shared);
                value.cast::<c_int>().write_unaligned(c_int::from(listens));
                *len = 4;
            }
            return 0;
        }
    }
    let fd = entry.map_or(fd, |entry| listening::options_of(fd, entry));
    // SAFETY: the program's own arguments.
    unsafe { next::getsockopt(fd, level, option, value, len) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    len: c_uint,
) -> c_int {
    let Some(entry) = find(fd) else {
        // SAFETY: the program's own arguments.
        return unsafe { next::setsockopt(fd, level, option, value, len) };
    };
    let timeout = [SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW].contains(&option);
    if matches!(entry.state(), State::Bound | State::Handoff) && level == SOL_SOCKET && timeout {
        // A timeout bounds a blocking accept, which now is a receive on the hand-off socket.
        // SAFETY: the program's own arguments.
        unsafe { next::setsockopt(fd, level, option, value, len) };
    }
    // SAFETY: the program's own arguments.
    unsafe { next::setsockopt(listening::options_of(fd, entry), level, option, value, len) }
}

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
    if path.is_null() || !super::settings::active() {
        return false;
    }
    // SAFETY: not null, and terminated as `unlink(2)` wants it.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let full = if dir == AT_FDCWD { absolute(path) } else { absolute_at(dir, path) };
    full.is_some_and(|(path, len)| paths::holds(&path[..len]))
}

/// `syscall(2)`: libuv closes descriptors this way, and others accept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // SAFETY: the program's own arguments, in the meaning of the call with that number.
    unsafe {
        match number {
            nr::CLOSE => c_long::from(close(a as c_int)),
            nr::BIND => c_long::from(bind(a as c_int, b as *const u8, c as c_uint)),
            nr::LISTEN => c_long::from(listen(a as c_int, b as c_int)),
            nr::ACCEPT => c_long::from(accept(a as c_int, b as *mut u8, c as *mut c_uint)),
            nr::ACCEPT4 => c_long::from(accept4(a as c_int, b as *mut u8, c as *mut c_uint, d as c_int)),
            nr::DUP => c_long::from(dup(a as c_int)),
            nr::DUP3 => c_long::from(dup3(a as c_int, b as c_int, c as c_int)),
            nr::GETSOCKNAME => c_long::from(getsockname(a as c_int, b as *mut u8, c as *mut c_uint)),
            _ => match raw(number, [a, b, c, d, e, f]) {
                ret @ -4095..=-1 => c_long::from(fail(-ret as c_int)),
                ret => ret,
            },
        }
    }
}
