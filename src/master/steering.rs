//! Kernel mode: tells the kernel which slots may get connections, and notices when a slot has none left.

use super::error::RunError;
use super::run::Master;
use crate::clock;
use crate::config::choice::Policy;
use crate::config::{Config, Mode};
use crate::core::ids::{Slot, WorkerId};
use crate::front::listener::{Listener, Origin, Phase};
use crate::kernel::Wanted;
use crate::kernel::group::Group;
use crate::kernel::order::Share;
use crate::kernel::shares::{self, Served};
use crate::workers::worker::Worker;
use std::io;
use std::rc::Rc;
use tracing::{debug, warn};

/// Whether the kernel can apply the policy, where nothing else would do: without its program a client would get another
/// worker each time.
///
/// # Errors
/// [`RunError::NoSourceHash`].
pub fn is_possible(config: &Config) -> Result<(), RunError> {
    match (config.mode, config.policy) {
        (Mode::Kernel, Policy::SourceHash(_)) => Wanted::from(config.policy).try_now().map_err(RunError::NoSourceHash),
        _ => Ok(()),
    }
}

/// Makes the sockets of these slots and lets each get connections, before any worker is there.
///
/// # Errors
/// When no descriptor is free.
pub fn fill(group: &Group, shares: &[Share]) -> io::Result<()> {
    for slot in shares.iter().map(|share| Slot(share.slot)) {
        group.socket_of(slot)?;
        group.listen(slot, None)?;
    }
    group.order(shares);
    Ok(())
}

impl Master {
    /// Tells the kernel which slots are served, after every event.
    pub(super) fn steer(&mut self) {
        if self.config.mode != Mode::Kernel {
            return;
        }
        if self.fleet.is_stopping() {
            return self.move_what_waits();
        }
        let (wanted, now) = (self.fleet.slots().len(), clock::now());
        let serving = self.serving();
        for listener in self.front.listeners.iter().filter(|l| l.phase.get() == Phase::Open) {
            let Some(group) = &listener.group else { continue };
            let slots = group.slots();
            let here = |served: &&Served| slots.contains(&served.slot) && self.is_served(listener, served.worker);
            let served: Vec<Served> = serving.iter().filter(here).copied().collect();
            let shares = match served.as_slice() {
                // Connections wait for the first worker that comes, instead of being refused.
                [] => shares::plain(&self.config, (0..wanted as u32).map(Slot)),
                served => self.shares.of(&self.config, served, &self.front, now),
            };
            if group.order(&shares) && shares.len() < served.len() {
                let slots: Vec<u32> = shares.iter().map(|share| share.slot).collect();
                debug!(address = %listener.address, ?slots, "new connections go to the less loaded slots");
            }
            for slot in slots.into_iter().filter(|slot| slot.index() >= wanted) {
                let lost = group.vacate(slot);
                if lost > 0 {
                    self.front.lose(lost);
                    warn!(slot = slot.0, lost, address = %listener.address, "connections that waited at a slot which ended are lost; moving them needs CAP_BPF and Linux 5.14");
                }
            }
        }
        self.shares.go_on_growing(&self.config, &serving, now, clock::now().since(now));
    }

    /// While the fleet stops, an empty slot gets no new worker. What is pending there moves to workers that still
    /// listen, and is lost when none does.
    fn move_what_waits(&mut self) {
        let mut lost = 0;
        for listener in self.front.listeners.iter() {
            let Some(group) = &listener.group else { continue };
            let listens = |slot: &Slot| self.workers.values().any(|w| w.slot == *slot && w.serves(listener));
            let (served, empty): (Vec<Slot>, Vec<Slot>) = group.slots().into_iter().partition(listens);
            if served.is_empty() {
                lost += group.queued();
                group.close();
                continue;
            }
            group.order(&shares::plain(&self.config, served));
            lost += empty.into_iter().map(|slot| group.vacate(slot)).sum::<u64>();
        }
        if lost > 0 {
            self.front.lose(lost);
            warn!(lost, "connections that waited for workers which ended are lost");
        }
    }

    /// A worker that lives on has stopped listening. What is pending at its slot's socket moves to others, and the next
    /// worker of the slot gets a new socket.
    pub(super) fn leave_slot(&mut self, id: WorkerId, listener: &Rc<Listener>) {
        let (Some(group), Some(worker)) = (&listener.group, self.workers.get(id)) else { return };
        if worker.serves(listener) {
            return;
        }
        let slot = worker.slot;
        self.steer();
        if group.slots().contains(&slot) && group.can_move_from(slot) {
            group.vacate(slot);
        }
    }

    /// Whether a worker gets what comes to this listener.
    fn is_served(&self, listener: &Rc<Listener>, id: WorkerId) -> bool {
        let passed_over = self.fleet.occupant(id).is_none_or(|occupant| occupant.excluded);
        !passed_over && self.workers.get(id).is_some_and(|worker| worker.serves(listener))
    }

    /// The workers that serve, in the order of their slots.
    fn serving(&self) -> Vec<Served> {
        let serving = self.fleet.slots().iter().filter_map(|slot| slot.serving());
        serving.filter_map(|occupant| self.workers.get(occupant.worker)).map(served).collect()
    }

    /// It is time for something that the shares depend on.
    pub(super) fn handle_shares(&mut self, event: shares::Event) {
        let all: Vec<Served> = self.workers.values().map(served).collect();
        match event {
            shares::Event::LookAtLoads => {
                self.shares.look(&all, &self.front, self.front.ports(), &self.front.common.aside);
            }
            shares::Event::Loads(look) => self.shares.seen(&look, &all, &self.front),
            shares::Event::Grown => self.shares.grown_by_now(),
        }
    }

    /// Makes the sockets of a slot that is about to get its first worker, on the operator's addresses.
    pub(super) fn prepare_slot(&self, slot: Slot) -> io::Result<()> {
        for group in
            self.front.listeners.iter().filter(|l| l.origin == Origin::Operator).filter_map(|l| l.group.as_ref())
        {
            group.socket_of(slot)?;
            group.listen(slot, None)?;
        }
        Ok(())
    }
}

fn served(worker: &Worker) -> Served {
    let health = &worker.health;
    Served { worker: worker.id, slot: worker.slot, group: worker.pid, since: health.serves_since, base: health.base }
}
