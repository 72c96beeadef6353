//! The descriptor numbers of this process that are listening sockets served by maitred.
//!
//! [`find`] is the cost of every hooked call on a descriptor that is not ours: one load of a byte. All changes to the
//! table are rare (a handful in a worker's life) and happen under one lock with signals blocked, so a signal handler
//! that closes descriptors cannot deadlock with the code that it interrupted.

use super::abi::{ADDRESS_MAX, getpid, kernel, nr, raw};
use super::process::owner;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_uint};
use core::sync::atomic::{AtomicI32, AtomicU8, AtomicU16, AtomicU32, Ordering::*};

/// Descriptor numbers above this are not handled: the listener then works without maitred.
const DESCRIPTORS: usize = 65_536;
/// Listening sockets that one process can have through the shim.
const ENTRIES: usize = 250;
/// Marks a descriptor that belongs to the shim: the program must not close it by accident, as daemons do that close
/// every number.
const INTERNAL: u8 = 255;

static SLOT: [AtomicU8; DESCRIPTORS] = [const { AtomicU8::new(0) }; DESCRIPTORS];
static POOL: [Entry; ENTRIES] = [const { Entry::new() }; ENTRIES];
/// The owner of the memory in which the holder of the lock runs, 0 when free. A forked child may inherit the lock
/// while its parent, whose id is not its own, holds it: that lock is void. A child that borrows its parent's memory
/// waits like one of its threads.
static LOCK: AtomicI32 = AtomicI32::new(0);

/// The state of a listening socket.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Free = 0,
    /// Really bound to a port that the kernel chose; the master has not been asked yet, because it may become a
    /// client's socket.
    Ephemeral = 1,
    /// The hand-off socket is in place; `listen` has not been called yet.
    Bound = 2,
    /// Connections come through the hand-off socket.
    Handoff = 3,
    /// The descriptor is the shared listening socket itself.
    Shared = 4,
    /// The program shut its hand-off socket down.
    Shut = 5,
    /// The shared socket is in place; this program has not called `listen` yet.
    SharedBound = 6,
    /// The program shut it down; the shared socket itself still listens.
    SharedShut = 7,
}

/// What the shim knows about one listening socket.
pub struct Entry {
    state: AtomicU8,
    /// The number of descriptors that refer to this socket.
    refs: AtomicU32,
    /// The address family that the program asked for; accepted addresses must have it.
    family: AtomicU16,
    detail: UnsafeCell<Detail>,
}

// SAFETY: `detail` is reached only through `Locked::detail` under the lock, or through
// `Entry::name` when the entry is past the state in which it changes.
unsafe impl Sync for Entry {}

/// The part of an [`Entry`] that the lock protects.
pub struct Detail {
    /// `ID` in the packets to the master.
    pub id: u64,
    /// The process that called `bind`; without [`Detail::hold`] only this process's `close` ends the listening, not a
    /// forked child's.
    pub owner: c_int,
    /// The program's own socket, kept for its options, or -1.
    pub own: c_int,
    /// An end of a pipe that this process keeps as long as the socket, or -1: at the other end the master sees when
    /// the last process has closed it.
    pub hold: c_int,
    /// Whether the program really bound it, to a port that the kernel chose.
    pub ephemeral: bool,
    /// Whether the master made the program's own socket the listener.
    pub adopted: bool,
    /// The address that the program asked for, with the real port.
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
            7 => State::SharedShut,
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

    /// The number of descriptors that refer to this socket.
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

/// Whether this descriptor belongs to the shim.
#[inline]
pub fn is_internal(fd: c_int) -> bool {
    usize::try_from(fd).ok().and_then(|fd| SLOT.get(fd)).is_some_and(|s| s.load(Relaxed) == INTERNAL)
}

/// The lowest number from this one on that is a listening socket of ours or belongs to the shim.
pub fn next_special(from: c_uint) -> Option<c_uint> {
    let rest = SLOT.get(from as usize..)?;
    rest.iter().position(|slot| slot.load(Relaxed) != 0).map(|more| from + more as c_uint)
}

/// The held lock. All changes go through it.
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

    /// The entry with this id, if there is one.
    pub fn named(&mut self, id: u64) -> Option<&'static Entry> {
        POOL.iter().find(|entry| entry.state() != State::Free && self.detail(entry).id == id)
    }

    /// Makes `copy` another descriptor of `entry`'s socket.
    pub fn alias(&mut self, entry: &'static Entry, copy: c_int) {
        let index = (core::ptr::from_ref(entry) as usize - POOL.as_ptr() as usize) / size_of::<Entry>();
        if let Some(slot) = usize::try_from(copy).ok().and_then(|fd| SLOT.get(fd)) {
            entry.refs.fetch_add(1, Relaxed);
            slot.store(index as u8 + 1, Release);
        }
    }

    /// Forgets one number; returns true if it was the socket's last. The caller must then clean up the entry and free
    /// it with [`Locked::free`].
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

    /// The next descriptor above `after` that refers to the same socket.
    pub fn next_alias(&mut self, entry: &'static Entry, after: c_int) -> Option<c_int> {
        (after + 1..DESCRIPTORS as c_int).find(|&n| find(n).is_some_and(|e| core::ptr::eq(e, entry)))
    }

    /// Protects one of the shim's own descriptors against the program's `close`.
    pub fn protect(&mut self, fd: c_int) {
        if let Some(slot) = usize::try_from(fd).ok().and_then(|fd| SLOT.get(fd)) {
            slot.store(INTERNAL, Relaxed);
        }
    }

    /// Ends the protection of [`Locked::protect`] and closes the descriptor.
    pub fn discard(&mut self, fd: c_int) {
        if let Some(slot) = usize::try_from(fd).ok().and_then(|fd| SLOT.get(fd)) {
            slot.store(0, Relaxed);
            super::abi::close(fd);
        }
    }

    /// Records that one of the shim's own descriptors has another number now, or -1 if it could not be kept.
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
