//! Workers begin to listen where they asked to, and stop.

use super::claims::Whether;
use super::event::Event;
use super::rights::in_name_of;
use crate::clock;
use crate::core::ids::WorkerId;
use crate::core::moment::millis;
use crate::front::handoff::Handoff;
use crate::front::listener::{Listener, Phase};
use crate::front::returned;
use crate::lifecycle::deaf::{self, DEAF_AFTER};
use crate::lifecycle::ready;
use crate::lifecycle::ready::Signal;
use crate::master::run::Master;
use crate::provoked::{Kind, Told};
use crate::sys::dispose::Foreign;
use crate::sys::socket::listen::{BACKLOG, longest_queue};
use crate::wire::packet::{AnswerTo, Holder, Listen, Otherwise, RequestId};
use crate::workers::worker::MayProbe;
use nix::errno::Errno;
use std::io;
use std::rc::Rc;
use tokio::task::JoinHandle;
use tracing::{debug, info};

/// A listener in which a worker takes part now, and its hand-off socket there.
pub(in crate::master) type Entered = (Rc<Listener>, Option<Rc<Handoff>>);

impl Master {
    /// `ACCEPTING`: the worker takes part from now on. Returns what it takes part in, for
    /// [`Master::listens`].
    ///
    /// # Errors
    /// What `listen` is to return in the worker.
    pub(in crate::master) fn accepting(
        &mut self,
        id: WorkerId,
        request: RequestId,
        backlog: Option<u32>,
    ) -> io::Result<Option<Entered>> {
        let Some(worker) = self.workers.get(id) else { return Ok(None) };
        if let Some(asks) = worker.requests.iter().find(|r| r.id == request && !r.accepting) {
            let wanted = (&asks.address.clone(), asks.claim);
            self.check_claim(id, request, wanted, Whether::MayListen)?;
        }
        let Some(worker) = self.workers.get_mut(id) else { return Ok(None) };
        let Some(index) = worker.requests.iter().position(|r| r.id == request) else {
            debug!(worker = id.0, "a worker accepts on an address that it did not ask for");
            return Err(Errno::EINVAL.into());
        };
        self.rehome(id, index)?;
        match self.enter(id, index, backlog) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.discard_clients_socket(id, index) => {
                self.rehome(id, index)?;
                self.enter(id, index, backlog)
            }
            entered => entered,
        }
    }

    /// A worker changed options of its own socket after `listen`: they are those of the listener.
    pub(in crate::master) fn options_changed(&self, id: WorkerId, request: RequestId, own: &Foreign) {
        let Some(worker) = self.workers.get(id) else { return };
        if let Some(asked) = worker.requests.iter().find(|r| r.id == request && r.handoff.is_some()) {
            asked.listener.take_options(own);
        }
    }

    /// What follows when a worker listens somewhere for the first time.
    pub(in crate::master) async fn listens(&mut self, id: WorkerId, (listener, handoff): Entered) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.listened = true;
        worker.deaf_moment.take().iter().for_each(JoinHandle::abort);
        let (slot, uptime_ms) = (worker.slot.0, millis(worker.age()));
        if let Some(handoff) = handoff {
            tokio::task::spawn_local(returned::serve(Rc::clone(&listener), handoff));
        }
        self.front.listeners.serve(&listener);
        if self.fleet.is_stopping() || !self.fleet.is_wanted(id) {
            return;
        }
        let heard_again = self.workers.get(id).and_then(|worker| deaf::hears_again(worker, &self.fleet));
        self.handle_all(heard_again).await;
        if let Some(worker) = self.workers.get_mut(id) {
            ready::ask_until_ready(worker, &self.checks.events);
        }
        let told = self.front.common.provoked.tell(id, Kind::Listens);
        if told.is_some() {
            self.program.recorder.listening(id, listener.address.to_string());
        }
        self.readiness(id, Signal::Listens).await;
        let admitted = self.workers.get(id).is_some_and(|worker| worker.admitted);
        let message = if admitted { "worker ready" } else { "worker listens" };
        if let Some(told) = told {
            info!(slot, worker = id.0, address = %listener.address, uptime_ms, left_out = told.left_out, "{message}");
        }
        self.drop_unused_listeners();
    }

    /// Lets a worker's request take part in its listener. Returns the two when it is the first time.
    fn enter(&mut self, id: WorkerId, index: usize, backlog: Option<u32>) -> io::Result<Option<Entered>> {
        let Some(worker) = self.workers.get_mut(id) else { return Ok(None) };
        let (slot, admitted) = (worker.slot, worker.admitted);
        let Some(request) = worker.requests.get_mut(index) else { return Ok(None) };
        let listener = Rc::clone(&request.listener);
        let first = !request.accepting;
        let own = request.own.take();
        if let (Some(own), Some(_)) = (&own, &request.handoff) {
            listener.style_after(own);
        }
        let backlog = backlog.map_or(BACKLOG, |asked| asked.clamp(1, longest_queue()));
        // One queue stands for those of all workers. `--depth` limits how many connections may be pending at each.
        let backlog = if request.handoff.is_some() { backlog.max(BACKLOG.min(longest_queue())) } else { backlog };
        let grows = backlog > listener.backlog.get();
        let grows = grows && listener.group.is_none();
        let listens = if grows { listener.listen(backlog) } else { Ok(()) };
        let done = match &request.handoff {
            // A worker that is not ready yet takes part when it is admitted.
            Some(handoff) if first && admitted => listens.and_then(|()| listener.admit(handoff)),
            Some(_) => listens,
            None => match &listener.group {
                Some(group) => {
                    listener.backlog.set(backlog.max(listener.backlog.get()));
                    group.listen(slot, Some(backlog))
                }
                None => listens,
            },
        };
        if let Err(error) = done {
            // The worker may try again with the same socket.
            request.own = own;
            return Err(error);
        }
        request.accepting = true;
        let entered = (listener, request.handoff.clone());
        worker.choose_target(MayProbe::Yes);
        if self.fleet.occupant(id).is_some_and(|o| o.excluded) {
            entered.0.workers.suspend(id);
        }
        Ok(first.then_some(entered))
    }

    /// Gives up a listener that cannot listen because it is another worker's socket on which that worker has connected
    /// since. Its CLOSE is on the way. False when it is not such a listener.
    fn discard_clients_socket(&mut self, id: WorkerId, index: usize) -> bool {
        let Some(request) = self.workers.get(id).and_then(|worker| worker.requests.get(index)) else { return false };
        let listener = Rc::clone(&request.listener);
        let others = listener.adopted_from.get().is_some_and(|(owner, _)| owner != id);
        let found = others && listener.backlog.get() == 0 && listener.group.is_none();
        if found {
            debug!(worker = id.0, address = %listener.address, "a client's socket was taken for a listener");
            self.front.listeners.discard(&listener);
            self.front.close_account(&listener);
        }
        found
    }

    /// Gives a request another listener when its own turned out to be a client's socket and is gone:
    /// between `bind` and `listen` the two look alike.
    fn rehome(&mut self, id: WorkerId, index: usize) -> io::Result<()> {
        let Some(worker) = self.workers.get_mut(id) else { return Ok(()) };
        let Some(request) = worker.requests.get_mut(index) else { return Ok(()) };
        if request.listener.socket().is_some() || request.listener.phase.get() == Phase::Closing {
            return Ok(());
        }
        let (address, asker) = (request.listener.key.asked.clone(), request.listener.made_by());
        let (own, id) = (request.own.take(), request.id);
        let (answer, otherwise, holder) = (AnswerTo::Sender, Otherwise::Nothing, Holder::Unknown);
        let asked = Listen { address, id, answer, umask: None, otherwise, holder };
        let found = in_name_of(&asker, &asked.address, &mut self.front.listeners, |listeners| {
            listeners.find_or_bind(&asked, own, worker.slot, |listener| worker.holds(listener))
        })?;
        let Some(request) = worker.requests.get_mut(index) else { return Ok(()) };
        request.listener = found.listener;
        request.own = found.own;
        Ok(())
    }

    /// `CLOSE`: the worker no longer listens there. What it has not taken goes to others.
    pub(in crate::master) fn close(&mut self, id: WorkerId, request: RequestId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let slot = worker.slot;
        let Some(request) = worker.take_request(request) else { return self.close_datagram(id, request) };
        worker.choose_target(if worker.leaves { MayProbe::No } else { MayProbe::Yes });
        debug!(slot = slot.0, worker = id.0, address = %request.listener.address, "a worker stopped listening");
        let listener = request.listener;
        if let Some(handoff) = request.handoff {
            listener.workers.retire(id, Some(request.id));
            handoff.finish();
        }
        listener.changed.notify_one();
        self.leave_slot(id, &listener);
        let held = self.workers.values().any(|worker| worker.holds(&listener));
        if listener.adopted_from.get() == Some((id, request.id)) {
            if held && listener.withdraw(slot) {
                listener.adopted_from.set(None);
            } else if listener.backlog.get() == 0 {
                self.front.listeners.discard(&listener);
                self.front.close_account(&listener);
                return self.lost_listener(id);
            }
        }
        if !held {
            listener.given_up.set(true);
            listener.given_up_by.set(Some(id));
            listener.kept_until.set(Some(clock::now() + DEAF_AFTER));
            let events = self.request_events();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(DEAF_AFTER).await;
                let _ = events.send(Event::GivenUp).await;
            });
        }
        self.lost_listener(id);
        self.drop_unused_listeners();
    }

    /// Closes addresses that workers asked for and gave up. While a worker is missing or starting
    /// they stay: it may come back and ask for them.
    pub(in crate::master) fn drop_unused_listeners(&mut self) {
        if self.fleet.is_stopping() || !self.fleet.all_ready() {
            return;
        }
        let in_use = |listener: &Listener| self.workers.values().any(|worker| worker.holds(listener));
        for dropped in self.front.listeners.drop_unused(in_use) {
            let by = dropped.given_up_by.get().filter(|by| self.workers.get(*by).is_some());
            let told = by.map_or(Some(Told::UNPROVOKED), |by| self.front.common.provoked.tell(by, Kind::GivenUp));
            if let Some(told) = told {
                let left_out = told.left_out;
                info!(address = %dropped.address, left_out, "nobody listens here any more; closing the address");
            }
            self.front.close_account(&dropped);
        }
    }

    fn lost_listener(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            deaf::lost_listener(worker, &self.fleet, &self.checks.events);
        }
    }
}
