//! Notices that a supervised worker closed a listening socket, which nothing reports.

use super::deferred::LOOK_PAUSE;
use super::event::Event;
use crate::core::ids::WorkerId;
use crate::master::run::Master;
use crate::sys::process;
use crate::wire::packet::RequestId;
use std::collections::HashSet;
use std::time::Instant;
use tokio::time::sleep;
use tracing::debug;

impl Master {
    /// Checks whether connections are pending at a supervised worker that has closed its listening socket. Looks only
    /// when some are pending and the worker takes none, because a look is expensive.
    pub(in crate::master) fn look_for_closed(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let (mut waiting, mut taken) = (0, 0);
        for request in &worker.requests {
            let at_kernel =
                request.listener.group.as_ref().map(|g| (g.queued_at(worker.slot), g.steered_to(worker.slot)));
            let (queued, sent) = match (&request.handoff, at_kernel) {
                (Some(handoff), _) => (u64::from(handoff.queued()), handoff.sent()),
                (None, Some((queued, steered))) => (queued, steered.unwrap_or(0)),
                (None, None) => continue,
            };
            waiting += queued;
            taken += sent.saturating_sub(queued);
        }
        let takes = worker.supervised.as_ref().is_some_and(|supervised| supervised.takes(taken));
        if waiting > 0 && !takes {
            self.look_at_supervised(id);
        }
    }

    pub(in crate::master) fn close_all(&mut self, id: WorkerId, closed: Vec<RequestId>) {
        for request in closed {
            debug!(worker = id.0, request, "a supervised worker closed a listening socket");
            self.close(id, request);
        }
    }

    /// Checks which sockets a supervised worker has closed: now and then, and when connections are pending there.
    pub(in crate::master) fn look_at_supervised(&self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        // If much is open, a look takes longer than the time until the next one.
        let Some(supervised) = worker.supervised.clone().filter(|supervised| !supervised.looks.replace(true)) else {
            return;
        };
        let (pid, had, others) = (worker.pid, supervised.inodes(), self.workers.groups_beside(id));
        // All workers together take as much time as one may: other processes may have much open.
        let pause = LOOK_PAUSE * self.workers.len() as u32;
        let (events, aside) = (self.request_events(), self.front.common.aside.clone());
        tokio::task::spawn_local(async move {
            let begun = Instant::now();
            let found = aside.run(move || process::sockets_of_others(pid, &others)).await;
            let took = begun.elapsed();
            if let Ok(Some(open)) = found {
                let _ = events.send(Event::SocketsOpen { worker: id, had, open }).await;
            }
            sleep(took * pause).await;
            supervised.looks.set(false);
        });
    }

    /// The look is done. It could not see a socket that came meanwhile.
    pub(in crate::master) fn sockets_open(&mut self, id: WorkerId, had: &HashSet<u64>, mut open: HashSet<u64>) {
        let Some(supervised) = self.workers.get(id).and_then(|worker| worker.supervised.clone()) else { return };
        open.extend(supervised.inodes().difference(had));
        self.close_all(id, supervised.closed(&open));
    }
}
