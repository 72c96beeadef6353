//! The functions that stand before libc's. Each asks [`find`] whether the descriptor is one of
//! ours, which costs a descriptor that is not a single load, and otherwise passes the call on.

#![allow(clippy::missing_safety_doc, reason = "each is as safe as libc's function of its name")]

use super::abi::*;
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
    match find(fd) {
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
    match find(fd) {
        // SAFETY: the program's own arguments.
        Some(e) if handed(e.state()) => unsafe { listening::take(fd, e, addr, len, 0) },
        // SAFETY: the program's own arguments.
        Some(e) if e.state() == State::Shared => taken::count(unsafe { next::accept(fd, addr, len) }),
        _ => {
            inherited::used(fd);
            // SAFETY: the program's own arguments.
            inherited::count(unsafe { next::accept(fd, addr, len) })
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(fd: c_int, addr: *mut u8, len: *mut c_uint, flags: c_int) -> c_int {
    match find(fd) {
        // SAFETY: the program's own arguments.
        Some(e) if handed(e.state()) => unsafe { listening::take(fd, e, addr, len, flags) },
        // SAFETY: the program's own arguments.
        Some(e) if e.state() == State::Shared => taken::count(unsafe { next::accept4(fd, addr, len, flags) }),
        _ => {
            inherited::used(fd);
            // SAFETY: the program's own arguments.
            inherited::count(unsafe { next::accept4(fd, addr, len, flags) })
        }
    }
}

fn handed(state: State) -> bool {
    matches!(state, State::Handoff | State::Shut)
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
    listening::forget(fd);
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
    if fd != to {
        listening::forget(to);
    }
    // SAFETY: no pointers.
    copied(fd, unsafe { next::dup2(fd, to) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    if fd != to {
        listening::forget(to);
    }
    // SAFETY: no pointers.
    copied(fd, unsafe { next::dup3(fd, to, flags) })
}

/// `fcntl(2)`. It is variadic in C; its one optional argument is passed in a register like any
/// other on the machines that the shim is built for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, arg: c_long) -> c_int {
    let between = |fd| find(fd).filter(|entry| listening::is_asked(entry));
    // SAFETY: the program's own arguments.
    let call = |arg| unsafe { next::fcntl(fd, command, arg) };
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => copied(fd, call(arg)),
        F_GETFL => match (call(arg), between(fd)) {
            (flags, Some(entry)) if flags >= 0 => with_nonblocking(c_long::from(flags), entry.nonblocking()) as c_int,
            (flags, _) => flags,
        },
        F_SETFL => match between(fd) {
            Some(entry) => {
                entry.set_nonblocking(arg & O_NONBLOCK != 0);
                let present = kernel!(nr::FCNTL, fd, F_GETFL) & O_NONBLOCK != 0;
                call(with_nonblocking(arg, present))
            }
            None => call(arg),
        },
        _ => call(arg),
    }
}

fn with_nonblocking(flags: c_long, on: bool) -> c_long {
    if on { flags | O_NONBLOCK } else { flags & !O_NONBLOCK }
}

/// `ioctl(2)`, of which only `FIONBIO` matters here; it is variadic as `fcntl` is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_long, arg: *mut c_void) -> c_int {
    if request as u32 == FIONBIO as u32
        && let Some(entry) = find(fd).filter(|entry| listening::is_asked(entry))
        && !arg.is_null()
    {
        // SAFETY: `FIONBIO` takes a pointer to an int.
        entry.set_nonblocking(unsafe { arg.cast::<c_int>().read_unaligned() } != 0);
        return 0;
    }
    // SAFETY: the program's own arguments.
    unsafe { next::ioctl(fd, request, arg) }
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
            unsafe { next::getsockname(fd, addr, len) }
        }
    }
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
    let entry = find(fd);
    if let Some(entry) = entry {
        let listening = handed(entry.state()) && level == SOL_SOCKET && option == SO_ACCEPTCONN;
        // SAFETY: `len` says how much of `value` is writable.
        if listening && !value.is_null() && !len.is_null() && unsafe { *len } >= 4 {
            // SAFETY: as above.
            unsafe {
                value.cast::<c_int>().write_unaligned(1);
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
    if handed(entry.state()) && level == SOL_SOCKET && timeout {
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
