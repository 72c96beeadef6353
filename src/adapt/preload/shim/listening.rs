//! The lifecycle of a listening socket: requested and put in place at `bind`, served from `listen` on, emptied by
//! `accept`, given up at `close`.

use super::abi::*;
use super::channel::{request, tell};
use super::descriptors::{high_copy, move_up, set_nonblocking};
use super::process::{self, owns_memory};
use super::table::{Entry, Locked, State, find, lock};
use super::text::{Packet, Requested, family_of, port_of, set_port, value};
use super::{epoll, paths, settings, taken};
use core::ffi::{c_int, c_uint};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed};

/// If a packet is received without a free number for its descriptor, the connection is lost. So once any connection's
/// number has come this near to the descriptor limit, and always if the limit is no larger, each `accept` first makes
/// sure that a number is free, which takes two system calls.
const FD_MARGIN: u64 = 1024;

/// The highest number of an accepted connection. Numbers are given lowest first, so this shows when a table is nearly
/// full.
pub static HIGHEST_FD: AtomicI32 = AtomicI32::new(0);
/// The number from which on `accept` is careful; determined at `listen`.
pub static CAREFUL_FROM: AtomicI32 = AtomicI32::new(0);

/// `bind`: `Some` is the result, `None` means that the shim does not manage the address.
///
/// # Safety
/// `addr` must be readable for `len` bytes.
pub unsafe fn bind(fd: c_int, addr: *const u8, len: c_uint) -> Option<c_int> {
    if !settings::active() {
        return None;
    }
    if let Some(entry) = find(fd) {
        // It is already bound. The kernel would check the hand-off socket in its place; for a file it first checks
        // whether the path exists (`unix_bind_bsd` in net/unix/af_unix.c).
        let errno = if entry.family() == AF_UNIX { EADDRINUSE } else { EINVAL };
        return if entry.state() == State::Ephemeral { None } else { Some(fail(errno)) };
    }
    // SAFETY: as the caller vouches.
    let family = unsafe { family_of(addr, len) }?;
    let kind = socket_option(fd, SO_TYPE).filter(|_| [AF_INET, AF_INET6, AF_UNIX].contains(&family))?;
    // SAFETY: as the caller vouches.
    let asked = match (kind, unsafe { Requested::read(addr, len) }?) {
        (SOCK_STREAM, asked) => asked,
        // A port of the kernel's choice is a client's.
        (SOCK_DGRAM, Requested::Ip(addr)) if addr.port() != 0 => Requested::Datagram(addr),
        _ => return None,
    };
    if asked.port() == Some(0) {
        if !settings::shares_port_zero() {
            return None;
        }
        // The kernel chooses the port, so nothing can be requested yet: bind for real, and ask the master only when
        // the socket turns out to be a listener and not a client.
        // SAFETY: the arguments are the program's own.
        let ret = unsafe { next::bind(fd, addr, len) };
        if ret == 0 {
            // SAFETY: as the caller vouches.
            unsafe { remember(fd, family, State::Ephemeral, addr, len) };
        }
        return Some(ret);
    }
    // SAFETY: as the caller vouches.
    let entry = unsafe { remember(fd, family, State::Bound, addr, len) }?;
    match ask(fd, entry, &asked) {
        Ok(Served::ByMaster) => {
            if let Requested::Path(path, len) = &asked {
                paths::remember(&path[..*len]);
            }
            Some(0)
        }
        refused => {
            let mut locked = lock();
            if locked.forget(fd) {
                locked.free(entry);
            }
            drop(locked);
            refused.err().map(fail)
        }
    }
}

/// Enters `fd` into the table with the address that the program gave.
///
/// # Safety
/// `addr` must be readable for `len` bytes.
unsafe fn remember(fd: c_int, family: u16, state: State, addr: *const u8, len: c_uint) -> Option<&'static Entry> {
    let mut locked = lock();
    let entry = locked.insert(fd, family, state)?;
    let detail = locked.detail(entry);
    let n = (len as usize).min(ADDRESS_MAX);
    // SAFETY: both are readable and writable for `n` bytes.
    unsafe { addr.copy_to_nonoverlapping(detail.name.as_mut_ptr(), n) };
    detail.name_len = n as c_uint;
    detail.ephemeral = state == State::Ephemeral;
    detail.id = next_id();
    Some(entry)
}

/// An id for a request, used by no other process of the worker, nor by the program that this process ran before.
fn next_id() -> u64 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if NEXT.load(Relaxed) == 0 {
        const GRND_NONBLOCK: c_int = 1;
        let mut first = 0u32;
        kernel!(nr::GETRANDOM, &raw mut first, size_of::<u32>(), GRND_NONBLOCK);
        let _ = NEXT.compare_exchange(0, first | 1, Relaxed, Relaxed);
    }
    (getpid() as u64) << 32 | u64::from(NEXT.fetch_add(1, Relaxed))
}

/// What serves an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Served {
    /// The master, for all workers.
    ByMaster,
    /// This process, for itself.
    Privately,
}

/// Asks the master for the address and puts the result in place: from then on the descriptor means the same to a
/// program that inherits it.
fn ask(fd: c_int, entry: &'static Entry, asked: &Requested) -> Result<Served, c_int> {
    // Once the master has answered, it may change this flag for its own purposes.
    let nonblocking = kernel!(nr::FCNTL, fd, F_GETFL) & O_NONBLOCK != 0;
    let id = lock().detail(entry).id;
    let mut packet = Packet::default();
    asked.write(&mut packet, "LISTEN");
    packet.line("ID", format_args!("{id}"));
    packet.push(b"ALONE=1\nHOLD=1\n");
    if let Requested::Path(..) = asked
        && let Some(mask) = process::umask()
    {
        packet.line("UMASK", format_args!("{mask:o}"));
    }
    // A socket that was shut down and is opened again has the program's own beside it.
    let (kept, was) = (lock().detail(entry).own, entry.state());
    let answer = request(&mut packet, Some(if kept >= 0 { kept } else { fd }))?;
    let text = answer.text();
    if let Some(errno) = answer.error() {
        return Err(errno);
    }
    if value(text, "PRIVATE") == Some("1") {
        return Ok(Served::Privately);
    }
    let [given, hold] = answer.fds;
    let Some(address) = value(text, "LISTENING").filter(|_| given >= 0) else {
        answer.discard();
        return Err(EINVAL);
    };
    if let Some(count) = value(text, "COUNT") {
        taken::start(count);
    }
    let adopted = value(text, "ADOPTED") == Some("1");
    let by_handoff = value(text, "VIA") == Some("handoff");
    let hold = if hold >= 0 { move_up(hold) } else { hold };
    let mut locked = lock();
    if hold >= 0 {
        locked.protect(hold);
    }
    let detail = locked.detail(entry);
    (detail.hold, detail.adopted) = (hold, adopted);
    if let Some(port) = port_of(address) {
        set_port(&mut detail.name, entry.family(), port);
    }
    entry.set_state(if by_handoff { State::Bound } else { State::SharedBound });
    drop(locked);
    if by_handoff || !adopted {
        let own = match was {
            State::SharedShut => -1,
            _ if kept >= 0 => kept,
            _ => high_copy(fd),
        };
        let mut locked = lock();
        locked.detail(entry).own = own;
        if own >= 0 && own != kept {
            locked.protect(own);
            if by_handoff {
                copy_timeouts(own, given);
            }
            if !adopted && entry.family() == AF_INET6 && !is_unspecified(&locked.detail(entry).name) {
                // As `bind` does with an address that is only of that family (`__inet6_bind` in net/ipv6/af_inet6.c).
                let on: c_int = 1;
                kernel!(nr::SETSOCKOPT, own, IPPROTO_IPV6, IPV6_V6ONLY, &raw const on, size_of::<c_int>());
            }
        }
        drop(locked);
        put_in_place(fd, entry, given);
        if nonblocking {
            set_nonblocking(fd, true);
        }
    }
    close(given);
    Ok(Served::ByMaster)
}

/// Whether an IPv6 name (`struct sockaddr_in6`) means all addresses.
fn is_unspecified(name: &[u8; ADDRESS_MAX]) -> bool {
    name[8..24].iter().all(|byte| *byte == 0)
}

/// Copies timeouts: they limit a blocking `accept`, which is a receive on the hand-off socket.
fn copy_timeouts(from: c_int, to: c_int) {
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
        let (mut time, mut len) = ([0i64; 2], size_of::<[i64; 2]>() as c_uint);
        let read = kernel!(nr::GETSOCKOPT, from, SOL_SOCKET, option, time.as_mut_ptr(), &raw mut len);
        if read == 0 && time != [0, 0] {
            kernel!(nr::SETSOCKOPT, to, SOL_SOCKET, option, time.as_ptr(), len);
        }
    }
}

/// Asks for an address whose port the kernel chose, now that it is known to be a listener. An address that is not
/// shared is forgotten.
fn settle(fd: c_int, entry: &'static Entry) -> Result<Served, c_int> {
    if entry.state() != State::Ephemeral {
        return Ok(Served::ByMaster);
    }
    let mut locked = lock();
    let (name, len) = (locked.detail(entry).name, locked.detail(entry).name_len);
    drop(locked);
    // SAFETY: `name` is an array of at least `len` bytes.
    let asked = unsafe { Requested::read(name.as_ptr(), len) }.ok_or(EINVAL)?;
    let served = ask(fd, entry, &asked)?;
    if served == Served::Privately {
        let mut locked = lock();
        while let Some(number) = locked.next_alias(entry, -1) {
            locked.forget(number);
        }
        locked.free(entry);
    }
    Ok(served)
}

/// The program listens again on a socket that it had shut down, as HAProxy does to pause and resume. A hand-off socket
/// that was shut down stays so, and the master has given up on the old request.
fn open_again(fd: c_int, entry: &'static Entry) -> Result<(), c_int> {
    let mut locked = lock();
    let detail = locked.detail(entry);
    let (name, len, hold) = (detail.name, detail.name_len, detail.hold);
    (detail.id, detail.hold) = (next_id(), -1);
    if hold >= 0 {
        locked.discard(hold);
    }
    drop(locked);
    // SAFETY: `name` is an array of at least `len` bytes.
    let asked = unsafe { Requested::read(name.as_ptr(), len) }.ok_or(EINVAL)?;
    match ask(fd, entry, &asked)? {
        Served::ByMaster => Ok(()),
        Served::Privately => Err(EINVAL),
    }
}

/// `listen`: connections arrive from now on, if the master agrees.
pub fn listen(fd: c_int, entry: &'static Entry, backlog: c_int) -> c_int {
    match settle(fd, entry) {
        Ok(Served::ByMaster) => {}
        // SAFETY: no pointers.
        Ok(Served::Privately) => return unsafe { next::listen(fd, backlog) },
        Err(errno) => return fail(errno),
    }
    if matches!(entry.state(), State::Shut | State::SharedShut)
        && let Err(errno) = open_again(fd, entry)
    {
        return fail(errno);
    }
    let mut locked = lock();
    let detail = locked.detail(entry);
    let (adopted, own, id) = (detail.adopted, detail.own, detail.id);
    drop(locked);
    let listens = match entry.state() {
        State::Bound => State::Handoff,
        State::SharedBound => State::Shared,
        // Called again to change the backlog.
        // SAFETY: no pointers.
        _ => return if own >= 0 && adopted { unsafe { next::listen(own, backlog) } } else { 0 },
    };
    // A listener that is this program's own socket starts listening right here, so that a client which the program
    // starts next is not refused. So does a shared one.
    let really = if listens == State::Shared { fd } else { own };
    if listens == State::Shared || adopted {
        // SAFETY: no pointers.
        let ret = unsafe { next::listen(really, backlog) };
        if ret < 0 {
            return ret;
        }
    }
    let mut limit = [0u64; 2];
    kernel!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, 0, limit.as_mut_ptr());
    CAREFUL_FROM.store(limit[0].saturating_sub(FD_MARGIN).min(1 << 30) as c_int, Relaxed);
    // Before the request to the master, which may hand over connections at once.
    entry.set_state(listens);
    let mut packet = Packet::default();
    if !about(entry, &mut packet, "ACCEPTING", id) {
        return fail(EINVAL);
    }
    packet.line("BACKLOG", format_args!("{backlog}"));
    match request(&mut packet, None).map(|answer| answer.error()) {
        Ok(None) => 0,
        Ok(Some(errno)) | Err(errno) => {
            entry.set_state(if listens == State::Shared { State::SharedBound } else { State::Bound });
            fail(errno)
        }
    }
}

/// Puts `given` under the number `fd` and under each of its copies, and keeps the flags and the epoll registrations
/// that the program set.
pub fn put_in_place(fd: c_int, entry: &'static Entry, given: c_int) {
    put_under_all_numbers(&mut lock(), fd, entry, given);
}

/// The same with the table's lock held.
pub fn put_under_all_numbers(locked: &mut Locked, fd: c_int, entry: &'static Entry, given: c_int) {
    let mut number = if entry.refs() > 1 { locked.next_alias(entry, -1) } else { Some(fd) };
    while let Some(fd) = number {
        let cloexec = kernel!(nr::FCNTL, fd, F_GETFD) & FD_CLOEXEC;
        // The process that this one was forked from may have the old socket, too: epoll would then go on watching it.
        let registrations = epoll::take(fd);
        kernel!(nr::DUP3, given, fd, if cloexec != 0 { SOCK_CLOEXEC } else { 0 });
        registrations.restore(fd);
        number = if entry.refs() > 1 { locked.next_alias(entry, fd) } else { None };
    }
}

/// Makes sure that the name of a listening socket is known, and copies it like `getsockname`.
///
/// # Safety
/// As for `getsockname(2)`.
pub unsafe fn name(fd: c_int, entry: &'static Entry, addr: *mut u8, len: *mut c_uint) -> c_int {
    if entry.state() == State::Ephemeral && !owns_memory() {
        // Only the parent can decide whether it is a listener; it is bound in any case.
        // SAFETY: as the caller vouches.
        return unsafe { next::getsockname(fd, addr, len) };
    }
    match settle(fd, entry) {
        Ok(Served::ByMaster) => {}
        // SAFETY: as the caller vouches.
        Ok(Served::Privately) => return unsafe { next::getsockname(fd, addr, len) },
        Err(errno) => return fail(errno),
    }
    let mut locked = lock();
    let detail = locked.detail(entry);
    // SAFETY: as the caller vouches; what does not fit is cut.
    unsafe {
        if (*len).cast_signed() < 0 {
            return fail(EINVAL);
        }
        let room = (*len).min(detail.name_len) as usize;
        addr.copy_from_nonoverlapping(detail.name.as_ptr(), room);
        *len = detail.name_len;
    }
    0
}

/// The program's own socket, which carries its options while the hand-off socket takes its place; otherwise `fd`
/// itself.
pub fn options_of(fd: c_int, entry: &'static Entry) -> c_int {
    match (entry.state(), lock().detail(entry).own) {
        (State::Bound | State::Handoff | State::Shut, own) if own >= 0 => own,
        _ => fd,
    }
}

/// The program changed an option of its listening socket. If the listener is another socket, it gets the option, too.
pub fn options_changed(entry: &'static Entry) {
    let mut locked = lock();
    let detail = locked.detail(entry);
    let (adopted, own, id) = (detail.adopted, detail.own, detail.id);
    drop(locked);
    let mut packet = Packet::default();
    if !adopted && own >= 0 && about(entry, &mut packet, "ACCEPTING", id) {
        // The program's call has succeeded in any case.
        let _ = request(&mut packet, Some(own));
    }
}

pub fn note(entry: &'static Entry, key: &str, id: u64) {
    let mut packet = Packet::default();
    if about(entry, &mut packet, key, id) {
        tell(&mut packet);
    }
}

/// Begins a packet about a socket. False when its name cannot be written.
pub fn about(entry: &'static Entry, packet: &mut Packet, key: &str, id: u64) -> bool {
    let mut locked = lock();
    let detail = locked.detail(entry);
    let (name, len) = (detail.name, detail.name_len);
    drop(locked);
    // SAFETY: `name` is an array of at least `len` bytes.
    let Some(asked) = (unsafe { Requested::read(name.as_ptr(), len) }) else { return false };
    asked.write(packet, key);
    packet.line("ID", format_args!("{id}"));
    true
}
