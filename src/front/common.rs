//! What all listeners have in common.

use super::admission_queue::AdmissionQueue;
use super::choice::Choice;
use super::handoff::Depth;
use super::refused::Refused;
use super::returning::Returning;
use super::returns::Returns;
use super::waits::Waits;
use super::worker_set::WorkerSet;
use crate::activity::Activity;
use crate::aside::Aside;
use crate::config::admission::Admission;
use crate::config::choice::Policy;
use crate::config::{Config, Mode};
use crate::opens::{Countable, Opens};
use crate::provoked::Provoked;
use crate::reports::Reports;
use crate::sys::reserve::Reserve;
use crate::sys::socket::kick::Kicker;
use crate::wire::address::Address;
use socket2::Socket;
use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

/// What all listeners have in common.
#[derive(Debug)]
pub struct Common {
    /// How full a worker may get.
    pub depth: Depth,
    /// Kept open so that a descriptor is available when all others are used up.
    pub reserve: Reserve,
    /// Connections that no worker could get.
    pub lost: Cell<u64>,
    /// Where the accept loops report.
    pub reports: Reports<super::Event>,
    /// Connections that a task holds, and that are in no queue meanwhile.
    pub in_hands: Cell<usize>,
    /// Requests that wait for a look at what processes have open.
    pub deferred: Cell<u32>,
    /// Answers to workers that wait for the kernel to let them through.
    pub unsent: Cell<u32>,
    /// Which connections are let in.
    pub admission: Admission,
    /// Which connections are open.
    pub opens: Rc<Opens>,
    /// The connections that were turned away.
    pub refused: Refused,
    /// Connections that workers sent back.
    pub returns: Returns,
    /// The hand-off sockets from which more of those may come.
    pub returning: Returning,
    /// Which listener gets the next place.
    pub admission_queue: AdmissionQueue,
    /// How long connections wait in the front.
    pub waits: Waits,
    /// Lines of the log that workers provoked.
    pub provoked: Provoked,
    /// Does what takes too long for the loop.
    pub aside: Aside,
    /// Ends an `accept` that blocks, where the master accepts.
    pub kicker: OnceCell<Kicker>,
    /// Whether anything goes on.
    pub activity: Activity,
    config: Rc<Config>,
}

impl Common {
    /// A new one, with nothing in it yet.
    #[must_use]
    pub fn new(config: &Rc<Config>, packet_cost: u32, reports: Reports<super::Event>, aside: Aside) -> Common {
        Common {
            depth: Depth { connections: config.depth, packet_cost },
            reserve: Reserve::new(),
            lost: Cell::new(0),
            reports,
            in_hands: Cell::new(0),
            deferred: Cell::new(0),
            unsent: Cell::new(0),
            admission: config.admission.clone(),
            opens: Rc::new(Opens::new(config, aside.clone())),
            refused: Refused::default(),
            returns: Returns::default(),
            returning: Returning::default(),
            admission_queue: AdmissionQueue::default(),
            waits: Waits::default(),
            provoked: Provoked::default(),
            aside,
            kicker: OnceCell::new(),
            activity: Activity::default(),
            config: Rc::clone(config),
        }
    }

    /// Makes what the accept loops need, in the mode that has them. Call this after it is settled which thread gets
    /// signals.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn begin_to_accept(&self) -> io::Result<()> {
        if self.config.mode == Mode::Handoff {
            // It is not set yet.
            let _ = self.kicker.set(Kicker::start()?);
        }
        Ok(())
    }

    /// The policy that chooses the next worker.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.config.policy
    }

    /// The worker set of a listener at this address and socket, with no workers yet.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn worker_set(&self, address: &Address, socket: Option<&Socket>) -> io::Result<WorkerSet> {
        self.opens.watch(address);
        let countable = socket.map_or(Countable::None, |socket| self.opens.countable(address, socket.as_fd()));
        if self.admission.counts_open() && countable != Countable::All {
            tracing::warn!(%address, "connections here cannot be counted, so limits of open connections do not hold; they need TCP on a socket of this network namespace");
        }
        let choice = Choice::new(&self.config, Rc::clone(&self.opens), countable);
        WorkerSet::new(self.config.policy.begin(seed()), choice)
    }
}

/// A number that no other master and no other listener has. A pid would not do: in containers all have the same.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
