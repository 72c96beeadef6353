//! Which descriptor numbers of this process are listening sockets that maitred serves.
//!
//! [`find`] is what every hooked call pays for a descriptor that is not ours: one load of a byte.
//! Everything that changes the table is rare (a handful of calls in a worker's life) and happens
//! under one lock with signals blocked, so a signal handler that closes descriptors cannot
//! deadlock with the code that it interrupted.

use super::abi::{ADDRESS_MAX, getpid, kernel, nr, raw};
use super::process::owner;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_uint};
use core::sync::atomic::{AtomicI32, AtomicU8, AtomicU16, AtomicU32, Ordering::*};

/// Descriptor numbers above this are left alone: the listener then works without maitred.
const DESCRIPTORS: usize = 65_536;
/// Listening sockets that one process can have through the shim.
const ENTRIES: usize = 250;
/// Marks a descriptor that the shim itself holds: the program must not close it by accident, as
/// daemons do that close every number.
const INTERNAL: u8 = 255;

static SLOT: [AtomicU8; DESCRIPTORS] = [const { AtomicU8::new(0) }; DESCRIPTORS];
static POOL: [Entry; ENTRIES] = [const { Entry::new() }; ENTRIES];
/// Whose memory the holder of the lock runs in, 0 when free. A forked child may inherit it held by its parent,
/// whose id is not its own: that lock is void. A child that borrows its parent's memory waits like a thread of it.
static LOCK: AtomicI32 = AtomicI32::new(0);

/// How far a listening socket has come.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Free = 0,
    /// Really bound to a port that the kernel chose; the master was not asked yet, because it may
    /// become a client's socket.
    Ephemeral = 1,
    /// The hand-off socket is in place; `listen` was not called yet.
    Bound = 2,
    /// Connections come through the hand-off socket.
    Handoff = 3,
    /// The descriptor is the shared listening socket itself.
    Shared = 4,
    /// The program shut it down.
    Shut = 5,
    /// The shared socket is in place; this program did not call `listen` yet.
    SharedBound = 6,
}

/// What the shim knows of one listening socket.
pub struct Entry {
    state: AtomicU8,
    /// Descriptor numbers that mean this socket.
    refs: AtomicU32,
    /// Family that the program asked for, which accepted addresses must have.
    family: AtomicU16,
    detail: UnsafeCell<Detail>,
}

// SAFETY: `detail` is reached only through `Locked::detail` under the lock, or through
// `Entry::name` when the entry is past the state in which it changes.
unsafe impl Sync for Entry {}

/// The part of an [`Entry`] that is guarded by the lock.
pub struct Detail {
    /// `ID` in the packets to the master.
    pub id: u64,
    /// Process that called `bind`; without [`Detail::hold`] only its `close` ends the listening, not a forked
    /// child's.
    pub owner: c_int,
    /// The program's own socket, kept for its options, or -1.
    pub own: c_int,
    /// An end of a pipe that this process has as long as the socket, or -1: the master sees at the other end
    /// when no process has it any more.
    pub hold: c_int,
    /// Whether the program bound it for real, to a port that the kernel chose.
    pub ephemeral: bool,
    /// Whether the master made the program's own socket the listener.
    pub adopted: bool,
    /// The address as the program asked for it, with the real port.
    pub name: [u8; ADDRESS_MAX],
    pub name_len: c_uint,
}

impl Entry {
    const fn new() -> Entry {
        Entry {
            state: AtomicU8::new(0),
            refs: AtomicU32::new(0),
            family: AtomicU16::new(0),
            detail: UnsafeCell::new(Detail {
                id: 0,
                owner: 0,
                own: -1,
                hold: -1,
                ephemeral: false,
                adopted: false,
                name: [0; ADDRESS_MAX],
                name_len: 0,
            }),
        }
    }

    pub fn state(&self) -> State {
        match self.state.load(Acquire) {
            1 => State::Ephemeral,
            2 => State::Bound,
            3 => State::Handoff,
            4 => State::Shared,
            5 => State::Shut,
            6 => State::SharedBound,
            _ => State::Free,
        }
    }

    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Release);
    }

    pub fn family(&self) -> u16 {
        self.family.load(Relaxed)
    }

    /// How many descriptor numbers mean this socket.
    pub fn refs(&self) -> u32 {
        self.refs.load(Relaxed)
    }
}

/// The entry of a descriptor, if it is a listening socket of ours.
#[inline]
pub fn find(fd: c_int) -> Option<&'static Entry> {
    let slot = SLOT.get(usize::try_from(fd).ok()?)?.load(Acquire);
    POOL.get(usize::from(slot.checked_sub(1)?))
}

/// Whether the shim itself holds this descriptor.
#[inline]
pub fn is_internal(fd: c_int) -> bool {
    usize::try_from(fd).ok().and_then(|fd| SLOT.get(fd)).is_some_and(|s| s.load(Relaxed) == INTERNAL)
}

/// The lowest number from this one on that is a listening socket of ours, or that the shim holds.
pub fn next_special(from: c_uint) -> Option<c_uint> {
    let rest = SLOT.get(from as usize..)?;
    rest.iter().position(|slot| slot.load(Relaxed) != 0).map(|more| from + more as c_uint)
}

/// The lock, held. All changes go through it.
pub struct Locked {
    signals: u64,
}

/// Takes the lock with signals blocked.
pub fn lock() -> Locked {
    const SIG_SETMASK: c_int = 2;
    let all = u64::MAX;
    let mut signals = 0u64;
    kernel!(nr::RT_SIGPROCMASK, SIG_SETMASK, &raw const all, &raw mut signals, 8);
    let me = owner();
    loop {
        match LOCK.compare_exchange(0, me, Acquire, Relaxed) {
            Ok(_) => break,
            // Held by the process that forked this one, at the moment of the fork.
            Err(other) if other != me => {
                if LOCK.compare_exchange(other, me, Acquire, Relaxed).is_ok() {
                    break;
                }
            }
            Err(_) => {
                kernel!(nr::SCHED_YIELD);
            }
        }
    }
    Locked { signals }
}

impl Drop for Locked {
    fn drop(&mut self) {
        const SIG_SETMASK: c_int = 2;
        LOCK.store(0, Release);
        kernel!(nr::RT_SIGPROCMASK, SIG_SETMASK, &raw const self.signals, 0, 8);
    }
}

impl Locked {
    /// The guarded part of an entry.
    pub fn detail<'a>(&'a mut self, entry: &'static Entry) -> &'a mut Detail {
        // SAFETY: the lock is held for as long as the reference lives.
        unsafe { &mut *entry.detail.get() }
    }

    /// Makes `fd` a listening socket of ours. `None` when the table is full or the number too high.
    pub fn insert(&mut self, fd: c_int, family: u16, state: State) -> Option<&'static Entry> {
        let slot = SLOT.get(usize::try_from(fd).ok()?)?;
        let index = POOL.iter().position(|e| e.state() == State::Free)?;
        let entry = &POOL[index];
        entry.refs.store(1, Relaxed);
        entry.family.store(family, Relaxed);
        entry.set_state(state);
        let detail = self.detail(entry);
        detail.owner = getpid();
        detail.own = -1;
        detail.hold = -1;
        detail.adopted = false;
        slot.store(index as u8 + 1, Release);
        Some(entry)
    }

    /// The entry with this name, if there is one.
    pub fn named(&mut self, id: u64) -> Option<&'static Entry> {
        POOL.iter().find(|entry| entry.state() != State::Free && self.detail(entry).id == id)
    }

    /// Makes `copy` another number of `entry`'s socket.
    pub fn alias(&mut self, entry: &'static Entry, copy: c_int) {
        let index = (core::ptr::from_ref(entry) as usize - POOL.as_ptr() as usize) / size_of::<Entry>();
        if let Some(slot) = usize::try_from(copy).ok().and_then(|fd| SLOT.get(fd)) {
            entry.refs.fetch_add(1, Relaxed);
            slot.store(index as u8 + 1, Release);
        }
    }

    /// Forgets one number; returns true when it was the socket's last. The entry then is the
    /// caller's to clean and to free with [`Locked::free`].
    pub fn forget(&mut self, fd: c_int) -> bool {
        let Some(entry) = find(fd) else { return false };
        if let Some(slot) = usize::try_from(fd).ok().and_then(|fd| SLOT.get(fd)) {
            slot.store(0, Release);
        }
        entry.refs.fetch_sub(1, Relaxed) == 1
    }

    pub fn free(&mut self, entry: &'static Entry) {
        entry.set_state(State::Free);
    }

    /// Other numbers than `fd` that mean the same socket, lowest first, from `after` upwards.
    pub fn next_alias(&mut self, entry: &'static Entry, after: c_int) -> Option<c_int> {
        (after + 1..DESCRIPTORS as c_int).find(|&n| find(n).is_some_and(|e| core::ptr::eq(e, entry)))
    }

    /// Guards a descriptor of the shim's own against the program's `close`.
    pub fn protect(&mut self, fd: c_int) {
        if let Some(slot) = usize::try_from(fd).ok().and_then(|fd| SLOT.get(fd)) {
            slot.store(INTERNAL, Relaxed);
        }
    }

    /// Ends the guard of [`Locked::protect`] and closes the descriptor.
    pub fn discard(&mut self, fd: c_int) {
        if let Some(slot) = usize::try_from(fd).ok().and_then(|fd| SLOT.get(fd)) {
            slot.store(0, Relaxed);
            super::abi::close(fd);
        }
    }

    /// Notes that a descriptor of the shim's own has another number now, or -1 when it could not be kept.
    pub fn moved(&mut self, from: c_int, to: c_int) {
        for entry in POOL.iter().filter(|entry| entry.state() != State::Free) {
            let detail = self.detail(entry);
            for kept in [&mut detail.own, &mut detail.hold].into_iter().filter(|kept| **kept == from) {
                *kept = to;
            }
        }
        if let Some(slot) = usize::try_from(from).ok().and_then(|fd| SLOT.get(fd)) {
            slot.store(0, Relaxed);
        }
        self.protect(to);
    }
}
