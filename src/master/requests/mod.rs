//! What workers say, and what the master does about it.

mod answer;
mod calls;
mod claims;
mod closes;
mod datagrams;
pub mod deferred;
pub mod event;
mod listening;
mod rights;

use super::run::Master;
use crate::clock;
use crate::config::Mode;
use crate::core::claim::Claim;
use crate::core::ids::WorkerId;
use crate::front::counters::count;
use crate::front::handoff::{Handoff, Whose};
use crate::front::listener::Listener;
use crate::lifecycle::failures::{Failure, advice};
use crate::lifecycle::ready::Signal;
use crate::provoked::Kind;
use crate::reports::Reports;
use crate::sys::dispose::{self, Foreign};
use crate::sys::rights::Asker;
use crate::sys::socket::listen::copy_options;
use crate::wire::address::Address;
use crate::wire::packet::{self, AnswerTo, Holder, Listen, Ownership, ToWorker, Via};
use crate::workers::FromWorker;
use crate::workers::holders::Holders;
use crate::workers::worker::{REQUESTS_MAX, Request, name_of};
use answer::{Answer, errno_of};
use claims::{Whether, claim_of, with_real_port};
use event::{Deferred, Event};
use nix::errno::Errno;
use rights::in_name_of;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use tracing::{debug, info, warn};

impl Master {
    /// Something became known that is needed to answer a worker.
    pub(in crate::master) async fn handle_request(&mut self, event: Event) {
        match event {
            Event::Unanswered { worker, request, error } => self.unanswered(worker, request, &error),
            Event::Looked { worker, request, found } => self.looked(worker, request, found),
            Event::LookedFirst { worker, seen, again, deferred } => {
                self.looked_first(worker, seen, again, deferred).await;
                self.tell_guard_of_sockets();
            }
            Event::Closed { worker, deferred } => {
                self.closed(worker, deferred).await;
                self.tell_guard_of_sockets();
            }
            Event::SocketsOpen { worker, had, open } => self.sockets_open(worker, &had, open),
            Event::GivenUp => self.drop_unused_listeners(),
        }
    }

    /// Where such events are reported.
    fn request_events(&self) -> Reports<Event> {
        Reports::wrapped(&self.events, super::event::Event::Request)
    }

    /// A worker said something.
    pub(in crate::master) async fn heard(&mut self, from: FromWorker) {
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
            if let packet::FromWorker::Listen(listen) = &said
                && let own = own_of(listen, &fds)
                && self.clear_the_way(id, listen, claim_of(own)).is_ok()
                && self.must_wait_for_close(id, &listen.address)
            {
                let packet = deferred::rest(said, says);
                let deferred = Deferred::Packet(FromWorker { worker: id, packet, fds, sender, rendezvous });
                return self.wait_for_close(id, deferred);
            }
            debug!(worker = id.0, said = name_of(&said), "heard");
            match said {
                packet::FromWorker::Listen(listen) => {
                    let asker = self.asker(id, rendezvous.as_ref().map(AsFd::as_fd), sender.as_ref());
                    self.listen(id, listen, std::mem::take(&mut fds), rendezvous.as_ref(), asker);
                }
                packet::FromWorker::Datagram(datagram) => {
                    let asker = self.asker(id, rendezvous.as_ref().map(AsFd::as_fd), sender.as_ref());
                    self.datagram(id, &datagram, std::mem::take(&mut fds), rendezvous.as_ref(), asker);
                }
                packet::FromWorker::Accepting { id: request, backlog, answer } => {
                    let reply = if answer == Some(AnswerTo::AttachedSocket) { fds.pop() } else { None };
                    if let Some(own) = fds.pop() {
                        self.options_changed(id, request, &own);
                    }
                    let entered = self.accepting(id, request, backlog);
                    if let Err(error) = &entered
                        && let Some(told) = self.front.common.provoked.tell(id, Kind::NoPart)
                    {
                        warn!(worker = id.0, %error, left_out = told.left_out, "a worker cannot take part");
                    }
                    // The answer comes before the consequences: a program waits in `listen`.
                    if answer.is_some() {
                        let done = entered.as_ref().map(|_| ToWorker::Accepted { id: request }.into());
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
                        // The worker goes on when these end. By then no copy of its socket may be open here.
                        tokio::task::spawn_local(dispose::after_the_others(std::mem::take(&mut fds)));
                    }
                }
                packet::FromWorker::Truncated { .. } => self.truncated(id),
                packet::FromWorker::Ready => {
                    if let Some(worker) = self.workers.get_mut(id) {
                        // It asked for no address of its own, so it serves those that it was started with.
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
                packet::FromWorker::Replace(reason) => self.asks_for_replacement(id, &reason),
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

    pub(in crate::master) fn malformed(&self, id: WorkerId, what: &str) {
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

    /// `REPLACE`: another worker is to take its place.
    fn asks_for_replacement(&mut self, id: WorkerId, reason: &str) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.health.asks = true;
        if let Some(told) = self.front.common.provoked.tell(id, Kind::Replace) {
            let slot = worker.slot.0;
            info!(slot, worker = id.0, reason, left_out = told.left_out, "the worker asks to be replaced");
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

    /// Logs that a worker cannot have an address, and remembers that as the reason in case it does not boot.
    pub(in crate::master) fn refused(&mut self, id: WorkerId, address: &Address, error: &io::Error) {
        let (asked, address) = (address.clone(), address.to_string());
        if let Some(told) = self.front.common.provoked.tell(id, Kind::Refused) {
            let left_out = told.left_out;
            warn!(worker = id.0, %address, %error, left_out, "a worker cannot have the address{}", advice(&address, error));
        }
        if let Some(errno) =
            error.raw_os_error().filter(|errno| *errno == libc::EADDRINUSE && self.fleet.was_never_ready())
            // A second socket of the same worker can do with another address, as it would without a master.
            && !self.workers.get(id).is_some_and(|worker| worker.requests.iter().any(|r| r.address.covers(&asked)))
        {
            let address = address.trim_start_matches("tcp:").to_owned();
            self.failures.boot_failure = Some(Failure::Bind { address, source: io::Error::from_raw_os_error(errno) });
        }
    }

    /// Closes what is in the way of an address that a worker asks for and that nobody uses any more.
    ///
    /// # Errors
    /// `EADDRINUSE` when the worker itself has a socket in the way.
    fn clear_the_way(&mut self, id: WorkerId, listen: &Listen, claim: Claim) -> io::Result<()> {
        // The same id again means that the old socket is gone, with the program that had it.
        self.close(id, listen.id);
        self.check_claim(id, listen.id, (&listen.address, claim), Whether::MayBind)?;
        self.make_way(&listen.address);
        Ok(())
    }

    /// Closes addresses that nobody uses any more and that overlap with a new one.
    fn make_way(&mut self, asked: &Address) {
        if !self.front.listeners.serves(asked) {
            let workers = &self.workers;
            let in_use = |listener: &Listener| workers.values().any(|worker| worker.holds(listener));
            let dropped = self.front.listeners.make_way(asked, in_use);
            dropped.iter().for_each(|dropped| self.front.close_account(dropped));
        }
    }

    /// Finds or makes what a worker asks for: the socket, and the end of a pipe if it wants one.
    ///
    /// # Errors
    /// What `bind` is to return in the worker.
    pub(in crate::master) fn serve_request(
        &mut self,
        id: WorkerId,
        listen: &Listen,
        own: Option<Foreign>,
        asker: &Asker,
    ) -> io::Result<Answer> {
        let claim = claim_of(own.as_ref());
        self.clear_the_way(id, listen, claim)?;
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
                // Done now, because from here on the worker sets options on this socket.
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
}

/// The worker's own socket, among the descriptors that came with `LISTEN`.
fn own_of<'a>(listen: &Listen, fds: &'a [Foreign]) -> Option<&'a Foreign> {
    match listen.answer {
        // The last one is for the answer.
        AnswerTo::AttachedSocket => fds.split_last().and_then(|(_, before)| before.first()),
        AnswerTo::Sender => fds.first(),
    }
}
