//! The functions that intercept libc's. Each asks [`find`] whether the descriptor is one of ours, which costs a single
//! load for any other descriptor, and otherwise passes the call on.
//!
//! The list of these functions, and the decisions about all others that take or create a descriptor, are in
//! `src/adapt/preload/entry_points`, and are checked against the installed libc.

#![allow(clippy::missing_safety_doc, reason = "each is as safe as libc's function of its name")]

pub mod by_number;
pub mod descriptors;
pub mod files;

use super::abi::*;
use super::closing;
use super::follow;
use super::inherited;
use super::listening;
use super::table::{State, find};
use super::taken;
use super::taking;
use super::text::family_of;
use core::ffi::{c_int, c_uint, c_void};

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

/// Takes a connection; `kernel` takes it from a socket that really listens.
///
/// # Safety
/// As for `accept4(2)`.
#[inline]
unsafe fn accept_from(fd: c_int, addr: *mut u8, len: *mut c_uint, flags: c_int, kernel: impl Fn() -> c_int) -> c_int {
    match find(fd).map(|entry| (entry, entry.state())) {
        // SAFETY: the program's own arguments.
        Some((entry, State::Handoff | State::Shut)) => unsafe { taking::take(fd, entry, addr, len, flags) },
        Some((_, State::Shared)) => taken::count(kernel()),
        // Others may listen on this address, but this program does not.
        Some((_, State::Bound | State::SharedBound | State::SharedShut)) => fail(EINVAL),
        Some((_, State::Free | State::Ephemeral)) | None => {
            inherited::used(fd);
            let connection = inherited::count(kernel());
            // The answer of a hand-off socket that this program received from another process (`SCM_RIGHTS`).
            if connection < 0
                && errno() == EINVAL
                && let Some(entry) = follow::recognise(fd).filter(|entry| entry.state() == State::Handoff)
            {
                // SAFETY: the program's own arguments.
                return unsafe { taking::take(fd, entry, addr, len, flags) };
            }
            connection
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, addr: *const u8, len: c_uint) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe {
        if let Some(entry) = find(fd).filter(|_| family_of(addr, len) == Some(AF_UNSPEC)) {
            return closing::disconnect(fd, entry);
        }
        if let Some(failed) = find(fd).and_then(|entry| closing::give_up_for_client(fd, entry)) {
            return failed;
        }
        next::connect(fd, addr, len)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __connect(fd: c_int, addr: *const u8, len: c_uint) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe { connect(fd, addr, len) }
}

/// With `MSG_FASTOPEN`, `sendto` also connects.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    bytes: *const c_void,
    len: usize,
    flags: c_int,
    addr: *const u8,
    addr_len: c_uint,
) -> isize {
    // SAFETY: the program's own arguments.
    unsafe {
        match becomes_client(fd, flags) {
            Some(failed) => failed as isize,
            None => next::sendto(fd, bytes, len, flags, addr, addr_len),
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const c_void, flags: c_int) -> isize {
    // SAFETY: the program's own arguments.
    unsafe {
        match becomes_client(fd, flags) {
            Some(failed) => failed as isize,
            None => next::sendmsg(fd, message, flags),
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmmsg(fd: c_int, messages: *mut c_void, count: c_uint, flags: c_int) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe {
        match becomes_client(fd, flags) {
            Some(failed) => failed,
            None => next::sendmmsg(fd, messages, count, flags),
        }
    }
}

/// A bound socket that sends with `MSG_FASTOPEN` turns out to be a client's (tcp(7)). `Some` is a failure.
unsafe fn becomes_client(fd: c_int, flags: c_int) -> Option<c_int> {
    if flags & MSG_FASTOPEN == 0 {
        return None;
    }
    // SAFETY: as for `connect`.
    find(fd).and_then(|entry| unsafe { closing::give_up_for_client(fd, entry) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    const SHUT_RD: c_int = 0;
    const SHUT_RDWR: c_int = 2;
    let entry = find(fd).filter(|_| (SHUT_RD..=SHUT_RDWR).contains(&how));
    match entry.map(|entry| (entry, entry.state())) {
        // A Unix socket only records it (`unix_shutdown` in net/unix/af_unix.c).
        Some((entry, State::Bound | State::SharedBound | State::SharedShut)) => {
            if entry.family() == AF_UNIX {
                0
            } else {
                fail(ENOTCONN)
            }
        }
        // Only the other direction carries connections (`inet_shutdown` in net/ipv4/af_inet.c).
        Some((_, State::Handoff | State::Shared)) if how != SHUT_RD && how != SHUT_RDWR => 0,
        Some((entry, State::Handoff | State::Shared)) if closing::shut(entry) => 0,
        // SAFETY: no pointers.
        _ => unsafe { next::shutdown(fd, how) },
    }
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

/// Whether the name is that of an unnamed Unix socket, such as a hand-off socket received from another process.
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
    if let Some(entry) = entry.filter(|_| level == SOL_SOCKET && option == SO_ACCEPTCONN)
        && !value.is_null()
        && !len.is_null()
    {
        let listens = c_int::from(matches!(entry.state(), State::Handoff | State::Shared));
        // SAFETY: the program's own arguments, not null; `len` says how much of `value` is writable.
        return unsafe {
            let Ok(room) = usize::try_from((*len).cast_signed()) else { return fail(EINVAL) };
            let n = room.min(size_of::<c_int>());
            value.cast::<u8>().copy_from_nonoverlapping(listens.to_ne_bytes().as_ptr(), n);
            *len = n as c_uint;
            0
        };
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
        // A timeout limits a blocking accept, which is now a receive on the hand-off socket.
        // SAFETY: the program's own arguments.
        unsafe { next::setsockopt(fd, level, option, value, len) };
    }
    // SAFETY: the program's own arguments.
    let done = unsafe { next::setsockopt(listening::options_of(fd, entry), level, option, value, len) };
    if done == 0 && !timeout && entry.state() == State::Handoff {
        listening::options_changed(entry);
    }
    done
}
