//! Steering in the kernel: one listening socket per slot, all on one address (`SO_REUSEPORT`), and a
//! program that says which of them a connection belongs to, in exact turn over the eligible slots.
//!
//! The choice is made when the connection is asked for (its SYN), so a connection costs the master
//! nothing. What the program goes by lies in memory that both share: excluding a slot, or having more
//! of them, is writing there, and the program stays as it is.

pub mod program;

use crate::sys::bpf::{self, Refused, Shared, Sockets};
use program::{ACTIVE, ORDER, ROOM, TURN, WORDS, round_robin};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Names under which `bpftool` lists what is loaded.
const NAME: &str = "maitred_steer";

/// Exact round-robin in the kernel.
#[derive(Debug)]
pub struct Steering {
    state: Shared,
    sockets: Sockets,
    program: OwnedFd,
}

impl Steering {
    /// Loads the program; nobody is eligible yet, so the kernel's hash goes on choosing.
    ///
    /// # Errors
    /// [`Refused`]: `EPERM` without `CAP_BPF` (or root), `EINVAL` on kernels before 5.12, which know
    /// no fetching addition.
    pub fn load() -> Result<Steering, Refused> {
        let plain = |source| Refused { source, verifier: None };
        let state = Shared::new(NAME, WORDS).map_err(plain)?;
        let sockets = Sockets::new(NAME, ROOM as u32).map_err(plain)?;
        let instructions = round_robin(state.as_fd().as_raw_fd(), sockets.as_fd().as_raw_fd());
        let program = bpf::load(NAME, &instructions)?;
        Ok(Steering { state, sockets, program })
    }

    /// Makes the program choose for the group of this listening socket; once for a group.
    ///
    /// # Errors
    /// That of `setsockopt(2)`.
    pub fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        bpf::attach(self.program.as_fd(), socket)
    }

    /// Says which socket is a slot's.
    ///
    /// # Errors
    /// `EINVAL` unless it listens with `SO_REUSEPORT`.
    pub fn seat(&self, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.sockets.put(slot, socket)
    }

    /// Says who is eligible, in which order; what is beyond [`ROOM`] is left out. With nobody, the
    /// kernel's hash chooses, and connections wait at whichever socket it names.
    pub fn order(&self, slots: &[u32]) {
        let words = self.state.words();
        let half = 1 - (words[ACTIVE].load(Relaxed) >> 32 & 1);
        let first = ORDER + half as usize * ROOM / 2;
        let slots = &slots[..slots.len().min(ROOM)];
        for (word, pair) in words[first..].iter().zip(slots.chunks(2)) {
            let two = |i: usize| u64::from(pair.get(i).copied().unwrap_or(0));
            word.store(two(0) | two(1) << 32, Relaxed);
        }
        // One store: whoever sees the new half sees what is in it.
        words[ACTIVE].store(half << 32 | slots.len() as u64, Release);
    }

    /// Connections steered so far.
    #[must_use]
    pub fn steered(&self) -> u64 {
        self.state.words()[TURN].load(Acquire)
    }
}
