//! UDP addresses that workers bind.

use super::answer::{Answer, errno_of};
use super::calls::{Verdict, put_with_its_flags};
use super::claims::claim_of;
use super::event::{Event, Found};
use crate::clock;
use crate::config::Mode;
use crate::core::claim::{Claim, datagrams_conflict};
use crate::core::fleet::SlotState;
use crate::core::ids::{Slot, WorkerId};
use crate::lifecycle::ready;
use crate::master::run::Master;
use crate::provoked::Kind;
use crate::sys::dispose::Foreign;
use crate::sys::foreign;
use crate::sys::process::descent;
use crate::sys::rights::Asker;
use crate::sys::seccomp::Call;
use crate::wire::address::Address;
use crate::wire::packet::{AnswerTo, Datagram, Holder, Ownership, RequestId, ToWorker};
use crate::workers::holders::Holders;
use crate::workers::pool::Pool;
use crate::workers::supervised::Supervised;
use crate::workers::worker::{REQUESTS_MAX, SharedUdp, Worker};
use nix::errno::Errno;
use nix::unistd::Pid;
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use tracing::{debug, info};

impl Master {
    /// `DATAGRAM`: finds or makes the socket and sends it to the worker.
    pub(super) fn datagram(
        &mut self,
        id: WorkerId,
        datagram: &Datagram,
        mut fds: Vec<Foreign>,
        rendezvous: Option<&Foreign>,
        asker: io::Result<Asker>,
    ) {
        let reply = if datagram.answer == AnswerTo::AttachedSocket { fds.pop() } else { None };
        let own = fds.pop();
        let served = asker.and_then(|asker| self.serve_datagram(id, datagram, own.as_ref(), &asker));
        let served = served.map_err(|error| {
            self.refused(id, &Address::Tcp(datagram.address), &error);
            errno_of(&error)
        });
        self.answer_worker(id, datagram.id, served, reply.as_ref().or(rendezvous));
    }

    /// A supervised worker calls `bind` on a socket that is no stream. When it closes one is not noticed: the address
    /// stays its own until it ends.
    pub(super) fn datagram_bind_called(
        &mut self,
        id: WorkerId,
        supervised: &Supervised,
        call: &Call,
        address: &Address,
        inode: u64,
    ) -> Verdict {
        let Address::Tcp(address) = *address else { return Verdict::Pass };
        let Ok(own) = foreign::descriptor(call.thread, call.descriptor()).map(Foreign::from) else {
            return Verdict::Pass;
        };
        let is_udp = socket2::SockRef::from(&own).r#type().is_ok_and(|kind| kind == socket2::Type::DGRAM);
        let asker = Asker::of_thread(call.thread);
        if !is_udp || address.port() == 0 || !supervised.notifier().waits(call) {
            return Verdict::Pass;
        }
        if self.front.datagrams.inodes(address).any(|shared| shared == inode) {
            // Called again because a signal came in between. The first call did everything.
            return Verdict::Return(Ok(0));
        }
        let (answer, holder) = (AnswerTo::Sender, Holder::Unknown);
        let asked = Datagram { address, id: supervised.next_request(), answer, holder };
        let served = asker.and_then(|asker| self.serve_datagram(id, &asked, Some(&own), &asker));
        let placed = served.and_then(|answer| match answer.message {
            ToWorker::Datagram { ownership, .. } => {
                let socket = answer.fds.first().ok_or(Errno::EINVAL)?;
                // One that was adopted is in its place already.
                if ownership == Ownership::Master {
                    put_with_its_flags(supervised, call, socket)?;
                }
                Ok(Verdict::Return(Ok(0)))
            }
            _ => Ok(Verdict::Pass),
        });
        match placed {
            Ok(verdict) => verdict,
            Err(error) => {
                self.close_datagram(id, asked.id);
                self.refused(id, &Address::Tcp(address), &error);
                error.into()
            }
        }
    }

    /// # Errors
    /// What `bind` is to return in the worker.
    fn serve_datagram(
        &mut self,
        id: WorkerId,
        datagram: &Datagram,
        own: Option<&Foreign>,
        asker: &Asker,
    ) -> io::Result<Answer> {
        let Datagram { address, id: request, .. } = *datagram;
        self.close(id, request);
        let claim = claim_of(own);
        let worker = self.workers.get_mut(id).ok_or(Errno::ESRCH)?;
        worker.datagrams.retain(|other| !other.holders.are_gone());
        if worker.datagrams.iter().any(|other| datagrams_conflict((address, claim), (other.address, other.claim))) {
            return Err(Errno::EADDRINUSE.into());
        }
        if self.is_private_datagram(id, address, claim) {
            return Ok(ToWorker::Private { id: request }.into());
        }
        // The rights that a port needs are the same for TCP.
        self.may(asker, &Address::Tcp(address))?;
        let workers = &self.workers;
        self.front.datagrams.make_way(address, |other| is_held(workers, other));
        let (worker, starter) = self.workers.get_with_starter(id).ok_or(Errno::ESRCH)?;
        if worker.datagrams.len() + worker.requests.len() >= REQUESTS_MAX {
            return Err(Errno::EMFILE.into());
        }
        let (socket, ownership) = self.front.datagrams.socket_for(address, worker.slot, own)?;
        let holders = Holders::default();
        let hold = match datagram.holder {
            Holder::Pipe => holders.add(id, request, &starter.events).ok(),
            Holder::Unknown => None,
        };
        worker.datagrams.push(SharedUdp { id: request, address, claim, holders });
        if let Some(told) = self.front.common.provoked.tell(id, Kind::Listens) {
            let adopted = ownership == Ownership::Adopted;
            let (slot, left_out) = (worker.slot.0, told.left_out);
            let datagrams = match self.config.mode {
                Mode::Kernel => "a flow stays at its slot",
                Mode::Handoff | Mode::Shared => "whichever worker reads first gets one; HTTP/3 needs --mode kernel",
            };
            info!(slot, worker = id.0, address = %format_args!("udp:{address}"), adopted, datagrams, left_out, "a worker shares a UDP address");
        }
        ready::await_datagrams(worker, &self.checks.events);
        let message = ToWorker::Datagram { address, id: request, ownership };
        Ok(Answer { message, fds: [Some(socket), hold].into_iter().flatten().collect() })
    }

    /// Whether the worker binds the address for itself: the operator says so, or it is no address of a server. A program
    /// that sets `SO_REUSEPORT` shares the address by itself, and only in kernel mode better so. One that served for a
    /// while binds ports for its own questions (a resolver does).
    fn is_private_datagram(&self, id: WorkerId, address: SocketAddr, claim: Claim) -> bool {
        let Some(worker) = self.workers.get(id) else { return true };
        let told = worker.config.private.iter().any(|private| private.covers(&Address::Tcp(address)));
        let by_itself = claim.reuse_port && self.config.mode != Mode::Kernel;
        let late = worker.ready && !self.front.datagrams.serves(address);
        told || by_itself || late || address.ip().is_multicast() || address.port() == 0
    }

    /// A worker has closed a UDP socket, or made it a client's.
    pub(super) fn close_datagram(&mut self, id: WorkerId, request: RequestId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let Some(index) = worker.datagrams.iter().position(|datagram| datagram.id == request) else { return };
        let address = worker.datagrams.swap_remove(index).address;
        if !is_held(&self.workers, address) {
            debug!(worker = id.0, %address, "nobody has this UDP address any more");
            self.front.datagrams.give_up(address);
        }
    }

    /// The pipes of a UDP socket are closed. A program that was executed may still have it.
    pub(super) fn let_go_of_datagram(&self, id: WorkerId, request: RequestId) {
        let Some(worker) = self.workers.get(id) else { return };
        let Some(datagram) = worker.datagrams.iter().find(|datagram| datagram.id == request) else { return };
        let inodes: HashSet<u64> = self.front.datagrams.inodes(datagram.address).collect();
        let (events, beside) = (self.request_events(), self.workers.groups_beside(id));
        let aside = self.front.common.aside.clone();
        tokio::task::spawn_local(async move {
            let look = move || {
                let open = descent::sockets_below(Pid::this(), &beside, &(0..0));
                let held = open.is_none_or(|open| !open.is_disjoint(&inodes));
                if held { Found::Held } else { Found::Closed }
            };
            let found = aside.run(look).await.unwrap_or(Found::Held);
            let _ = events.send(Event::Looked { worker: id, request, found }).await;
        });
    }

    /// The check is done. If it is closed, the next worker may ask for it again.
    pub(super) fn looked_for_datagram(&mut self, id: WorkerId, request: RequestId, found: Found) {
        let Some(worker) = self.workers.get_mut(id).filter(|_| found == Found::Closed) else { return };
        worker.datagrams.retain(|datagram| datagram.id != request || !datagram.holders.are_gone());
    }

    /// Gives up UDP sockets that no worker asks for any more. While a slot is about to get its next worker, that one may
    /// ask for them.
    pub(in crate::master) fn give_up_unheld_datagrams(&mut self) {
        if self.fleet.is_stopping() {
            return;
        }
        let (fleet, workers) = (&self.fleet, &self.workers);
        let about_to_come = |slot: Option<Slot>| {
            let waits = |state: &SlotState| !state.rests() && (state.serving().is_none() || state.is_starting());
            match slot {
                Some(slot) => fleet.slots().get(slot.index()).is_some_and(waits),
                None => fleet.slots().iter().any(waits),
            }
        };
        let held = |address, slot: Option<Slot>| {
            let has = |worker: &Worker| worker.datagrams.iter().any(|datagram| datagram.address == address);
            about_to_come(slot) || workers.values().any(|w| slot.is_none_or(|slot| w.slot == slot) && has(w))
        };
        for address in self.front.datagrams.give_up_unheld(clock::now(), held) {
            info!(address = %format_args!("udp:{address}"), "nobody listens here any more; closing the address");
        }
    }
}

/// Whether a worker has this UDP address.
fn is_held(workers: &Pool, address: SocketAddr) -> bool {
    workers.values().any(|worker| worker.datagrams.iter().any(|datagram| datagram.address == address))
}
