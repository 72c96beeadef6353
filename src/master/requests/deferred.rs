//! Requests that depend on what processes have open: whether a socket that has an address is still there. That is read
//! from `/proc`. Reading takes long if much is open, so it happens in the background, and the request waits for it. It
//! also waits for the close of a socket that was given up.

use super::event::{Deferred, Event};
use crate::core::ids::WorkerId;
use crate::master::run::Master;
use crate::sys::process::descent;
use crate::sys::seccomp::{Call, Name};
use crate::sys::{dispose, process};
use crate::wire::address::Address;
use crate::wire::packet::{self, Packet, RequestId};
use crate::workers::looks::Seen;
use crate::workers::worker::Request;
use nix::unistd::Pid;
use std::rc::Rc;
use std::time::Instant;
use tokio::time::sleep;

/// The pause after a look, as a multiple of its duration: looks at one worker take a tenth of a core at most.
pub(in crate::master) const LOOK_PAUSE: u32 = 10;

impl Master {
    /// Whether what a worker said needs a look first and can wait for it.
    pub(in crate::master) fn must_look_first(&self, id: WorkerId, said: &packet::FromWorker) -> bool {
        let Some(worker) = self.workers.get(id).filter(|worker| worker.looks.may_begin()) else { return false };
        let unsure = |other: &&Request| worker.supervised.is_some() || other.holders.are_gone();
        let in_the_way = |request: RequestId, asked: &Address| {
            worker
                .requests
                .iter()
                .filter(unsure)
                .any(|other| other.id != request && may_conflict(asked, &other.address))
        };
        match said {
            packet::FromWorker::Listen(listen) => in_the_way(listen.id, &listen.address),
            packet::FromWorker::Accepting { id: request, .. } => {
                let asks = worker.requests.iter().find(|r| r.id == *request && !r.accepting);
                asks.is_some_and(|asks| in_the_way(*request, &asks.address))
            }
            _ => false,
        }
    }

    /// The same for a call. The first socket of a worker conflicts with no other.
    pub(in crate::master) fn must_look_first_at(&self, id: WorkerId, call: &Call) -> bool {
        let Some(worker) = self.workers.get(id).filter(|worker| worker.looks.may_begin()) else { return false };
        match call.name {
            Name::Bind => !worker.requests.is_empty(),
            // One of these requests is the call's own.
            Name::Listen => worker.requests.len() > 1,
            Name::Accept | Name::Accept4 | Name::GetSockName | Name::GetSockOpt => false,
        }
    }

    /// Reads in the background what the worker's processes have open; [`Master::looked_first`] goes on then.
    pub(in crate::master) fn look_first(&mut self, id: WorkerId, deferred: Deferred) {
        let beside = self.workers.groups_beside(id);
        let Some(worker) = self.workers.get_mut(id) else { return };
        let not_before = worker.looks.not_before.take();
        worker.looks.under_way = true;
        let supervised = worker.supervised.is_some();
        let had = worker.supervised.as_ref().map(|supervised| supervised.inodes()).unwrap_or_default();
        let requests = worker.requests.iter().map(|request| request.id).collect();
        let (pid, passed) = (worker.pid, worker.unused_passed());
        let (common, events) = (Rc::clone(&self.front.common), self.request_events());
        common.deferred.set(common.deferred.get() + 1);
        tokio::task::spawn_local(async move {
            if let Some(wait) = not_before.map(|then| then.saturating_duration_since(Instant::now())) {
                sleep(wait).await;
            }
            let begun = Instant::now();
            let look = move || match supervised {
                true => process::sockets_of_others(pid, &beside),
                false => descent::sockets_below(Pid::this(), &beside, &passed),
            };
            let open = common.aside.run(look).await.unwrap_or(None);
            let seen = Seen { open, had, requests };
            let again = Instant::now() + begun.elapsed() * LOOK_PAUSE;
            let _ = events.send(Event::LookedFirst { worker: id, seen, again, deferred }).await;
            common.deferred.set(common.deferred.get() - 1);
        });
    }

    /// Whether a request for this address waits until a socket is closed that was given up lately.
    pub(in crate::master) fn must_wait_for_close(&self, id: WorkerId, asked: &Address) -> bool {
        self.workers.get(id).is_some_and(|worker| !worker.looks.under_way) && self.front.listeners.is_closing(asked)
    }

    /// Lets the sockets be closed that were given up; [`Master::closed`] goes on then.
    pub(in crate::master) fn wait_for_close(&mut self, id: WorkerId, deferred: Deferred) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.looks.under_way = true;
        let (common, events) = (Rc::clone(&self.front.common), self.request_events());
        common.deferred.set(common.deferred.get() + 1);
        tokio::task::spawn_local(async move {
            // Tasks that had the socket and were told to end do so first.
            tokio::task::yield_now().await;
            dispose::until_all_closed().await;
            let _ = events.send(Event::Closed { worker: id, deferred }).await;
            common.deferred.set(common.deferred.get() - 1);
        });
    }

    /// The sockets are closed, or that takes too long: handles what waited for it.
    pub(in crate::master) async fn closed(&mut self, id: WorkerId, deferred: Deferred) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.looks.under_way = false;
        self.go_on(id, deferred).await;
    }

    async fn go_on(&mut self, id: WorkerId, deferred: Deferred) {
        match deferred {
            Deferred::Packet(from) => self.heard(from).await,
            Deferred::Called(call) => self.called(id, call).await,
            Deferred::Ready(signal) => self.readiness(id, signal).await,
        }
    }

    /// The look is done: handles what waited for it.
    pub(in crate::master) async fn looked_first(
        &mut self,
        id: WorkerId,
        mut seen: Seen,
        again: Instant,
        deferred: Deferred,
    ) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.looks.under_way = false;
        worker.looks.not_before = Some(again);
        if let (Some(supervised), Some(open)) = (&worker.supervised, &mut seen.open) {
            open.extend(supervised.inodes().difference(&seen.had));
        }
        worker.looks.seen = Some(seen);
        self.go_on(id, deferred).await;
        if let Some(worker) = self.workers.get_mut(id) {
            worker.looks.seen = None;
        }
    }

    /// Ends the requests of a supervised worker whose sockets a look saw closed; nothing else reports a close.
    pub(in crate::master) fn forget_closed(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let open = worker.looks.seen.as_ref().and_then(|seen| seen.open.as_ref());
        if let (Some(supervised), Some(open)) = (&worker.supervised, open) {
            let closed = supervised.closed(open);
            self.close_all(id, closed);
        }
    }
}

/// Whether two addresses may conflict; [`super::claims`] knows exactly.
pub(in crate::master) fn may_conflict(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => one.port() == other.port(),
        (Address::Abstract(one), Address::Abstract(other)) => one == other,
        _ => false,
    }
}

/// What is left of a packet.
pub fn rest(first: packet::FromWorker, others: impl Iterator<Item = packet::FromWorker>) -> Packet {
    Packet { says: std::iter::once(first).chain(others).collect(), token: None }
}
