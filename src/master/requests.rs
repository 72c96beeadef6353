//! What workers say, and what the master does about it.

use super::answer::{Answer, errno_of};
use super::claims::{Whether, claim_of, with_real_port};
use super::deferred::{self, Deferred};
use super::event::Event;
use super::rights::in_name_of;
use super::run::Master;
use crate::clock;
use crate::config::Mode;
use crate::core::ids::WorkerId;
use crate::front::counters::count;
use crate::front::handoff::{Handoff, Whose};
use crate::front::listener::{Listener, Phase};
use crate::front::returned;
use crate::lifecycle::deaf::{self, DEAF_AFTER};
use crate::lifecycle::failures::{Failure, advice};
use crate::lifecycle::ready;
use crate::lifecycle::ready::Signal;
use crate::provoked::{Kind, Told};
use crate::sys::dispose::{self, Foreign};
use crate::sys::listen::{BACKLOG, copy_options, longest_queue};
use crate::sys::rights::Asker;
use crate::wire::address::Address;
use crate::wire::packet::{self, AnswerTo, Holder, Listen, Otherwise, Ownership, RequestId, ToWorker, Via};
use crate::workers::FromWorker;
use crate::workers::holders::Holders;
use crate::workers::worker::{MayProbe, REQUESTS_MAX, Request, name_of};
use nix::errno::Errno;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

/// A listener in which a worker takes part now, and its hand-off socket there.
pub(super) type Entered = (Rc<Listener>, Option<Rc<Handoff>>);

impl Master {
    /// A worker said something.
    pub(super) async fn heard(&mut self, from: FromWorker) {
        let FromWorker { worker: id, packet, mut fds, sender, rendezvous } = from;
        let mut says = packet.says.into_iter();
        while let Some(said) = says.next() {
            if self.workers.get(id).is_none() {
                return;
            }
            if self.must_look_first(id, &said) {
                let packet = deferred::rest(said, says);
                return self
                    .look_first(id, Deferred::Packet(FromWorker { worker: id, packet, fds, sender, rendezvous }));
            }
            debug!(worker = id.0, said = name_of(&said), "heard");
            match said {
                packet::FromWorker::Listen(listen) => {
                    let asker = self.asker(id, rendezvous.as_ref().map(AsFd::as_fd), sender.as_ref());
                    self.listen(id, listen, std::mem::take(&mut fds), rendezvous.as_ref(), asker);
                }
                packet::FromWorker::Accepting { id: request, backlog, answer } => {
                    let entered = self.accepting(id, request, backlog);
                    if let Err(error) = &entered
                        && let Some(told) = self.front.common.provoked.tell(id, Kind::NoPart)
                    {
                        warn!(worker = id.0, %error, left_out = told.left_out, "a worker cannot take part");
                    }
                    // Before the consequences: a program waits in `listen`.
                    if let Some(answer) = answer {
                        let done = entered.as_ref().map(|_| ToWorker::Accepted { id: request }.into());
                        let reply = if answer == AnswerTo::AttachedSocket { fds.pop() } else { None };
                        self.answer_worker(id, request, done.map_err(errno_of), reply.as_ref().or(rendezvous.as_ref()));
                    }
                    if let Ok(Some(entered)) = entered {
                        self.listens(id, entered).await;
                    }
                }
                packet::FromWorker::Follow(follow) => {
                    let found = self.follow(id, follow);
                    let reply = if follow.answer == AnswerTo::AttachedSocket { fds.pop() } else { None };
                    let found = found.map_err(|error| errno_of(&error));
                    self.answer_worker(id, 0, found, reply.as_ref().or(rendezvous.as_ref()));
                }
                packet::FromWorker::Close { id: request } => {
                    self.close(id, request);
                    if !fds.is_empty() {
                        // The worker goes on when these end, and by then no copy of its socket shall be open here.
                        tokio::task::spawn_local(dispose::after_the_others(std::mem::take(&mut fds)));
                    }
                }
                packet::FromWorker::Truncated { .. } => self.truncated(id),
                packet::FromWorker::Ready => {
                    if let Some(worker) = self.workers.get_mut(id) {
                        // Not with an address of its own, so with those it was started with.
                        worker.uses_inherited |= worker.requests.is_empty();
                    }
                    self.readiness(id, Signal::Notified).await;
                }
                packet::FromWorker::Stopping => {
                    if let Some(told) = self.front.common.provoked.tell(id, Kind::Stopping) {
                        info!(worker = id.0, left_out = told.left_out, "the worker is about to end");
                    }
                }
                packet::FromWorker::Status(text) => self.says(id, &text),
                packet::FromWorker::Watchdog => {
                    let now = clock::now();
                    self.workers.get_mut(id).into_iter().for_each(|worker| worker.health.watchdog = Some(now));
                }
                packet::FromWorker::Pong(_) => {
                    let now = clock::now();
                    self.workers.get_mut(id).into_iter().for_each(|worker| worker.health.ponged = Some(now));
                }
                packet::FromWorker::Ping(n) => {
                    if let Some(worker) = self.workers.get(id) {
                        worker.tell(&ToWorker::Pong(n));
                    }
                }
            }
        }
    }

    pub(super) fn malformed(&self, id: WorkerId, what: &str) {
        let Some(worker) = self.workers.get(id) else { return };
        if let Some(told) = self.front.common.provoked.tell(id, Kind::Malformed) {
            warn!(
                slot = worker.slot.0,
                worker = id.0,
                malformed = told.seen,
                left_out = told.left_out,
                what,
                "a worker sent a packet that makes no sense"
            );
        }
    }

    fn truncated(&self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        if let Some(counters) = self.front.counters.get(worker.slot.index()) {
            count(&counters.truncated);
            if let Some(told) = self.front.common.provoked.tell(id, Kind::Truncated) {
                let (slot, truncated, left_out) = (worker.slot.0, counters.truncated.get(), told.left_out);
                warn!(
                    slot,
                    worker = id.0,
                    truncated,
                    left_out,
                    "a worker without a free descriptor lost a connection; raise its ulimit -n"
                );
            }
        }
    }

    /// `STATUS`: a line for people.
    fn says(&self, id: WorkerId, text: &str) {
        let Some(worker) = self.workers.get(id) else { return };
        if let Some(told) = self.front.common.provoked.tell(id, Kind::Says) {
            info!(slot = worker.slot.0, worker = id.0, text, left_out = told.left_out, "the worker says");
        }
    }

    /// `LISTEN`: finds or makes the listener and sends the worker its socket.
    fn listen(
        &mut self,
        id: WorkerId,
        listen: Listen,
        fds: Vec<Foreign>,
        rendezvous: Option<&Foreign>,
        asker: io::Result<Asker>,
    ) {
        let mut fds = fds.into_iter();
        let (own, reply) = match listen.answer {
            AnswerTo::AttachedSocket => {
                let (first, second) = (fds.next(), fds.next());
                if second.is_some() { (first, second) } else { (None, first) }
            }
            AnswerTo::Sender => (fds.next(), None),
        };
        let served = asker.and_then(|asker| self.serve_request(id, &listen, own, &asker)).map_err(|error| {
            self.refused(id, &listen.address, &error);
            errno_of(&error)
        });
        self.answer_worker(id, listen.id, served, reply.as_ref().or(rendezvous));
    }

    /// Says that a worker cannot have an address, and remembers that as the reason should it not boot.
    pub(super) fn refused(&mut self, id: WorkerId, address: &Address, error: &io::Error) {
        let (asked, address) = (address.clone(), address.to_string());
        if let Some(told) = self.front.common.provoked.tell(id, Kind::Refused) {
            let left_out = told.left_out;
            warn!(worker = id.0, %address, %error, left_out, "a worker cannot have the address{}", advice(&address, error));
        }
        if let Some(errno) =
            error.raw_os_error().filter(|errno| *errno == libc::EADDRINUSE && self.fleet.was_never_ready())
            // Another address will do for a second socket of the same worker, as it would without a master.
            && !self.workers.get(id).is_some_and(|worker| worker.requests.iter().any(|r| r.address.covers(&asked)))
        {
            let address = address.trim_start_matches("tcp:").to_owned();
            self.failures.boot_failure = Some(Failure::Bind { address, source: io::Error::from_raw_os_error(errno) });
        }
    }

    /// Finds or makes what a worker asks for: the socket, and the end of a pipe if it wants one.
    ///
    /// # Errors
    /// What `bind` shall return in the worker.
    pub(super) fn serve_request(
        &mut self,
        id: WorkerId,
        listen: &Listen,
        own: Option<Foreign>,
        asker: &Asker,
    ) -> io::Result<Answer> {
        // The same name again means that the old socket is gone, with the program that had it.
        self.close(id, listen.id);
        let claim = claim_of(own.as_ref());
        self.check_claim(id, listen.id, (&listen.address, claim), Whether::MayBind)?;
        let worker = self.workers.get(id).ok_or(Errno::ESRCH)?;
        if self.is_private(worker, listen) {
            return Ok(ToWorker::Private { id: listen.id }.into());
        }
        self.may(asker, &listen.address)?;
        let late = !self.front.listeners.serves(&listen.address) && self.notice_late_address(id, &listen.address);
        let worker = self.workers.get_mut(id).ok_or(Errno::ESRCH)?;
        if worker.requests.len() >= REQUESTS_MAX {
            return Err(Errno::EMFILE.into());
        }
        if !self.front.listeners.serves(&listen.address) {
            let workers = &self.workers;
            let in_use = |listener: &Listener| workers.values().any(|worker| worker.holds(listener));
            let dropped = self.front.listeners.make_way(&listen.address, in_use);
            dropped.iter().for_each(|dropped| self.front.close_account(dropped));
        }
        let (worker, starter) = self.workers.get_with_starter(id).ok_or(Errno::ESRCH)?;
        let found = in_name_of(asker, &listen.address, &mut self.front.listeners, |listeners| {
            listeners.find_or_bind(listen, own, worker.slot, |listener| worker.holds(listener))
        })?;
        let listener = found.listener;
        listener.given_up.set(false);
        listener.opened_late.set(listener.opened_late.get() || late);
        if found.ownership == Ownership::Adopted {
            listener.adopted_from.set(Some((id, listen.id)));
        }
        let (via, handoff, socket) = match self.config.mode {
            Mode::Handoff => {
                let counters = Rc::clone(self.front.counters.get(worker.slot.index()).ok_or(Errno::ESRCH)?);
                let whose = Whose { worker: id, slot: worker.slot, request: listen.id };
                let load = self.front.common.opens.load_of(id);
                let (handoff, socket) = Handoff::new(whose, counters, load, self.front.common.depth)?;
                (Via::Handoff, Some(Rc::new(handoff)), socket)
            }
            Mode::Shared | Mode::Kernel => {
                let socket = match &listener.group {
                    Some(group) => group.socket_of(worker.slot)?,
                    None => listener.socket().ok_or(Errno::ESHUTDOWN)?,
                };
                // Now, because what the worker sets from here on it sets on this one.
                match (&listener.group, &found.own) {
                    (Some(_), Some(own)) => copy_options(own.as_fd(), socket.as_fd()),
                    (None, Some(own)) => listener.style_after(own),
                    (_, None) => {}
                }
                (Via::Shared, None, socket.as_fd().try_clone_to_owned()?)
            }
        };
        let address = listener.address.clone();
        debug!(slot = worker.slot.0, worker = id.0, asked = %listen.address, %address, ownership = ?found.ownership, "serving a worker's address");
        let holders = Holders::default();
        // Without a pipe the worker says `CLOSE`.
        let hold = match listen.holder {
            Holder::Pipe => holders.add(id, listen.id, &starter.events).ok(),
            Holder::Unknown => None,
        };
        let asked = with_real_port(&listen.address, &address);
        let (own, accepting) = (found.own, false);
        worker.requests.push(Request {
            id: listen.id,
            listener,
            handoff,
            own,
            accepting,
            address: asked,
            claim,
            holders,
        });
        let count = self.workers.get(id).and_then(|worker| self.count_of(worker));
        let message = ToWorker::Listening { address, id: listen.id, via, ownership: found.ownership, count };
        Ok(Answer { message, fds: [Some(socket), hold].into_iter().flatten().collect() })
    }

    /// `ACCEPTING`: the worker takes part from now on. Returns what it takes part in, for
    /// [`Master::listens`].
    ///
    /// # Errors
    /// What `listen` shall return in the worker.
    pub(super) fn accepting(
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

    /// What follows when a worker listens somewhere for the first time.
    pub(super) async fn listens(&mut self, id: WorkerId, (listener, handoff): Entered) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.listened = true;
        worker.deaf_moment.take().iter().for_each(JoinHandle::abort);
        let (slot, uptime_ms) = (worker.slot.0, worker.age().as_millis());
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
        self.readiness(id, Signal::Listens).await;
        let admitted = self.workers.get(id).is_some_and(|worker| worker.admitted);
        let message = if admitted { "worker ready" } else { "worker listens" };
        if let Some(told) = self.front.common.provoked.tell(id, Kind::Listens) {
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
        // One queue stands for those of all workers; how much each may have waiting is --depth's affair.
        let backlog = if request.handoff.is_some() { backlog.max(BACKLOG.min(longest_queue())) } else { backlog };
        let grows = backlog > listener.backlog.get();
        let grows = grows && listener.group.is_none();
        let listens = if grows { listener.listen(backlog) } else { Ok(()) };
        let done = match &request.handoff {
            // One that is not ready yet takes part when it is admitted.
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
            // It may try again, with the same socket.
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

    /// Gives up a listener that cannot listen because it is another worker's socket on which that worker
    /// has connected since; its CLOSE is on the way. False when it is no such listener.
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

    /// `CLOSE`: the worker listens there no more; what it has not taken goes to others.
    pub(super) fn close(&mut self, id: WorkerId, request: RequestId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let slot = worker.slot;
        let Some(request) = worker.take_request(request) else { return };
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
            let events = self.events.clone();
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
    pub(super) fn drop_unused_listeners(&mut self) {
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
