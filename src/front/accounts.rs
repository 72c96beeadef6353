//! All addresses, and the sum of all connections that came there.

use super::common::Common;
use super::counters::Counters;
use super::listener::Listener;
use super::listeners::Listeners;
use super::returned;
use crate::config::Mode;
use crate::core::ids::{Slot, WorkerId};
use crate::core::ledger::Ledger;
use crate::datagrams::Datagrams;
use crate::kernel::group::Group;
use crate::kernel::shares::Counted;
use crate::sys::dispose;
use crate::wire::address::Address;
use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use tracing::error;

/// All addresses, and what became of the connections that came there. Every connection has one place: see
/// [`Front::ledger`].
#[derive(Debug)]
pub struct Front {
    /// What all listeners share.
    pub common: Rc<Common>,
    /// The addresses.
    pub listeners: Listeners,
    /// The UDP addresses.
    pub datagrams: Datagrams,
    /// What was handed to each slot and what came back, by slot.
    pub counters: Vec<Rc<Counters>>,
    /// Connections accepted on listeners that are closed by now.
    pub accepted_before: u64,
    mode: Mode,
    /// What the sum of all connections lacked at the last check.
    unaccounted: Cell<i64>,
}

impl Front {
    /// Addresses, with what was counted there before.
    #[must_use]
    pub fn new(
        mode: Mode,
        listeners: Listeners,
        datagrams: Datagrams,
        counters: Vec<Rc<Counters>>,
        accepted_before: u64,
    ) -> Front {
        let common = Rc::clone(listeners.common());
        Front { common, listeners, datagrams, counters, accepted_before, mode, unaccounted: Cell::new(0) }
    }

    /// How connections reach the workers.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Counts for a slot from now on.
    pub fn count_slot(&mut self, slot: Slot) {
        while self.counters.len() <= slot.index() {
            self.counters.push(Rc::default());
        }
    }

    /// The ports that the master holds.
    #[must_use]
    pub fn ports(&self) -> HashSet<u16> {
        let port = |address: &Address| match address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) | Address::Abstract(_) => None,
        };
        self.listeners.iter().filter_map(|l| port(&l.address)).collect()
    }

    /// The sockets of kernel mode.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.listeners.iter().filter_map(|listener| listener.group.as_ref())
    }

    /// Whether connections may wait that the worker has not taken.
    #[must_use]
    pub fn has_untaken(&self, worker: WorkerId) -> bool {
        self.listeners.iter().any(|listener| listener.workers.knows(worker))
    }

    /// Connections that the master itself accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted_before + self.listeners.iter().map(|l| l.accepted.get()).sum::<u64>()
    }

    /// Where those connections are.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let sum = |of: fn(&Counters) -> &Cell<u64>| self.counters.iter().map(|c| of(c).get()).sum();
        let held = self.listeners.iter().filter(|l| l.held.borrow().is_some()).count();
        Ledger {
            accepted: self.accepted(),
            handed: sum(|c| &c.handed),
            returned: sum(|c| &c.returned),
            rescued: sum(|c| &c.rescued),
            refused: self.common.refused.total(),
            lost: self.common.lost.get(),
            held: (held + self.common.in_hands.get()) as u64,
        }
    }

    /// What the sum lacks. Where the master does not hand over, it does not know where connections are.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        if self.mode == Mode::Handoff { self.ledger().unaccounted() } else { 0 }
    }

    /// Logs an error when a connection is in no sum, or in two.
    pub fn check_sum(&self) {
        let unaccounted = self.unaccounted();
        if self.unaccounted.replace(unaccounted) != unaccounted && unaccounted != 0 {
            let Ledger { accepted, handed, returned, rescued, refused, lost, held } = self.ledger();
            error!(
                unaccounted,
                accepted,
                handed,
                returned,
                rescued,
                refused,
                lost,
                held,
                "connections are in no sum, or in two; please report this"
            );
        }
    }

    /// Counts connections as lost that no worker can have any more.
    pub fn lose(&self, connections: u64) {
        self.common.lost.set(self.common.lost.get() + connections);
    }

    /// Ends what waits at a listener when no worker can have it any more.
    pub fn lose_waiting(&self, listener: &Listener) {
        // Taken out rather than counted, because some may be the master's own.
        let untaken = listener.workers.take_all();
        let held = listener.held.take().map(|held| dispose::dispose(held.connection)).into_iter().count() as u64;
        self.lose(untaken + held);
    }

    /// Keeps what a listener counted before it is forgotten, and ends what no worker can have any more.
    pub fn close_account(&mut self, listener: &Listener) {
        self.accepted_before += listener.accepted.get();
        // What its sockets counted in kernel mode.
        for (counters, slot) in self.counters.iter().zip((0..).map(Slot)) {
            let steered = listener.group.as_ref().and_then(|group| group.steered_to(slot)).unwrap_or(0);
            counters.handed.set(counters.handed.get() + steered);
        }
        self.lose_waiting(listener);
    }

    /// Closes everything and ends all that waits, because the master ends.
    pub fn close(&self) {
        self.listeners.iter().for_each(|listener| self.lose_waiting(listener));
        returned::lose_all(&self.common);
        // Connections that a task holds end with the task.
        let in_hands = self.common.in_hands.take() as u64;
        self.lose(in_hands + self.groups().map(Group::queued).sum::<u64>());
        self.listeners.iter().for_each(|listener| listener.close());
    }
}

impl Counted for Front {
    fn steered_to(&self, slot: Slot) -> Option<u64> {
        self.groups().filter_map(|group| group.steered_to(slot)).reduce(|a, b| a + b)
    }

    fn waiting_at(&self, slot: Slot) -> u64 {
        self.groups().map(|group| group.queued_at(slot)).sum()
    }
}
