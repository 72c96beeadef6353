//! The exact program, in turn or by source. What it uses lies in memory that it shares with the master: to exclude a
//! slot, or to have more of them, the master writes there, and the program stays as it is.

use super::order::{self, Share};
use super::program::{
    ACTIVE, COUNTS, Choice, HALF, Invoked, ORDER, PLACES, REFUSING, ROOM, TURN, WORDS, fingerprint, program,
};
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::socket::bpf::{self, Loaded, Refused, Shared, Sockets};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Names under which `bpftool` lists what is loaded.
const NAME: &str = "maitred_steer";

/// What the next program of this process needs to go on steering.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Passed {
    state: Number,
    sockets: Number,
    program: Number,
    migrates: bool,
    words: usize,
    /// What the program does, and its [`fingerprint`].
    #[serde(default)]
    program_is: Option<(Choice, u64)>,
}

impl Passed {
    /// Whether this version knows its memory, and would load the same program.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.words == WORDS && self.choice().is_some()
    }

    fn choice(&self) -> Option<Choice> {
        self.program_is.filter(|(choice, print)| *print == fingerprint(*choice)).map(|(choice, _)| choice)
    }
}

/// The exact program in the kernel.
#[derive(Debug)]
pub struct Exact {
    choice: Choice,
    state: Shared,
    sockets: Sockets,
    program: Loaded,
}

impl Exact {
    /// Loads the program. No slot is eligible yet, so the kernel's hash goes on choosing.
    ///
    /// # Errors
    /// [`Refused`]: `EPERM` without `CAP_BPF` (or root), `EINVAL` on kernels before 5.12, which have no fetching
    /// addition.
    pub fn load(choice: Choice) -> Result<Exact, Refused> {
        let plain = |source| Refused { source, verifier: None };
        let state = Shared::new(NAME, WORDS).map_err(plain)?;
        let sockets = Sockets::new(NAME, ROOM as u32).map_err(plain)?;
        let program = |asked| program(choice, state.as_fd().as_raw_fd(), sockets.as_fd().as_raw_fd(), asked);
        let program = bpf::load(NAME, &program(Invoked::PacketsAndMoves), &program(Invoked::Packets))?;
        Ok(Exact { choice, state, sockets, program })
    }

    /// Passes it on to the next program of this process.
    pub fn pass(&self, passing: &Passing) -> Passed {
        Passed {
            state: passing.pass(&self.state),
            sockets: passing.pass(&self.sockets),
            program: passing.pass(&self.program.fd),
            migrates: self.program.migrates,
            words: WORDS,
            program_is: Some((self.choice, fingerprint(self.choice))),
        }
    }

    /// Takes over what was passed on; it has gone on steering meanwhile.
    ///
    /// # Errors
    /// When a descriptor is missing, or the program or its memory is not what this version knows.
    pub fn take(passed: &Passed, taking: &Taking) -> io::Result<Exact> {
        let Some(choice) = passed.choice().filter(|_| passed.is_understood()) else {
            return Err(io::Error::other("the steering program of the old version is another one"));
        };
        let state = Shared::map(taking.take(passed.state)?, WORDS)?;
        let sockets = Sockets::again(taking.take(passed.sockets)?);
        let program = Loaded { fd: taking.take(passed.program)?, migrates: passed.migrates };
        Ok(Exact { choice, state, sockets, program })
    }

    /// Makes the program choose for the group of this listening socket; needed once for a group.
    ///
    /// # Errors
    /// The error of `setsockopt(2)`.
    pub fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        bpf::attach(self.program.fd.as_fd(), socket)
    }

    /// Says which socket belongs to a slot.
    ///
    /// # Errors
    /// `EINVAL` unless it listens with `SO_REUSEPORT`.
    pub fn enter(&self, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.sockets.put(slot, socket)
    }

    /// Says which slots are eligible, and what each should get; slots beyond [`ROOM`] are left out. With no slot, the
    /// kernel's hash chooses, and connections wait at whichever socket it names.
    pub fn order(&self, shares: &[Share]) {
        let shares: Vec<Share> = shares.iter().copied().filter(|share| (share.slot as usize) < ROOM).collect();
        let places = match self.choice {
            Choice::InTurn => order::turns(&shares),
            Choice::BySource(_) => order::table(&shares),
        };
        let words = self.state.words();
        let active = words[ACTIVE].load(Relaxed);
        let (half, refusing) = (1 - (active >> HALF & 1), active & 1 << REFUSING);
        let first = ORDER + half as usize * PLACES / 2;
        for (word, pair) in words[first..].iter().zip(places.chunks(2)) {
            let two = |i: usize| u64::from(pair.get(i).copied().unwrap_or(0));
            word.store(two(0) | two(1) << 32, Relaxed);
        }
        // One store: a program that sees the new half sees what is in it.
        words[ACTIVE].store(refusing | half << HALF | places.len() as u64, Release);
    }

    /// Refuses every new connection from now on, as if nothing listened. What waits already stays, and may still move.
    pub fn refuse(&self) {
        self.state.words()[ACTIVE].fetch_or(1 << REFUSING, Release);
    }

    /// Whether what waits at a socket that is shut down is steered once more (Linux 5.14).
    #[must_use]
    pub fn migrates(&self) -> bool {
        self.program.migrates
    }

    /// Connections steered to a slot so far; one that had to move counts at both slots.
    #[must_use]
    pub fn steered_to(&self, slot: u32) -> u64 {
        let count = self.state.words()[COUNTS..].get(slot as usize);
        count.map_or(0, |count| count.load(Acquire))
    }

    /// Connections steered so far.
    #[must_use]
    pub fn steered(&self) -> u64 {
        self.state.words()[TURN].load(Acquire)
    }
}
