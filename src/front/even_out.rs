//! At a stop: connections that wait at a busy worker go to idle ones, as long as all workers are there.

use super::counters::count;
use super::handoff::Handoff;
use super::incoming::NotTaken;
use super::listener::Listener;
use super::rescue::place_waiting;
use crate::core::ids::WorkerId;
use crate::sys::dispose::dispose;
use crate::sys::fd::Sent;
use crate::wire::packet::RequestId;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::info;

/// How long a worker may leave a connection untaken before it counts as busy.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How many connections a worker had taken from each hand-off socket when it was seen to leave one untaken. It is busy
/// for as long as it takes no more.
type Left = HashMap<(WorkerId, RequestId), u64>;

fn key(handoff: &Handoff) -> (WorkerId, RequestId) {
    (handoff.worker, handoff.request)
}

/// Waits until nothing waits untaken at any worker. Meanwhile each worker that becomes idle gets what waits at a busy
/// one. The fleet sets the limit: when the time for a stop runs out, it goes on without this.
pub async fn even_out(listener: &Listener) {
    let mut left = Left::new();
    loop {
        // What ended workers never took.
        let _ = place_waiting(listener).await;
        let serving: Vec<_> = listener.workers.serving().filter(|handoff| !handoff.is_suspended()).collect();
        let waiting = serving.iter().any(|handoff| handoff.queued() > 0);
        if serving.is_empty() || !waiting && !listener.workers.is_draining() {
            return;
        }
        // Who left one untaken at the last look, and has taken none since.
        let (busy, others): (Vec<_>, Vec<_>) =
            serving.into_iter().partition(|handoff| left.get(&key(handoff)) == Some(&handoff.taken()));
        left.extend(others.iter().filter(|handoff| handoff.queued() > 0).map(|h| (key(h), h.taken())));
        give_to_idle(listener, &busy, &others);
        listener.common.reserve.refill();
        sleep(LOOK_AGAIN).await;
    }
}

/// Gives each worker of `others` that is idle one connection of a busy one.
fn give_to_idle(listener: &Listener, busy: &[Rc<Handoff>], others: &[Rc<Handoff>]) {
    for idle in others.iter().filter(|handoff| handoff.queued() == 0 && handoff.has_room()) {
        let Some(from) = busy.iter().max_by_key(|busy| busy.queued()) else { return };
        if !listener.common.reserve.free_one() {
            return;
        }
        let taken = match from.take_back() {
            Ok(taken) => taken,
            Err(NotTaken::Lost) => return count(&listener.common.lost),
            Err(NotTaken::Nothing | NotTaken::Ended | NotTaken::Failed(_)) => continue,
        };
        listener.common.returns.forget(taken.incoming().connection);
        let sent = idle.send(taken.incoming().connection, taken.peer());
        if matches!(sent, Ok(Sent::Sent)) {
            listener.workers.count(taken.incoming(), idle);
            let (slot, worker, to) = (from.slot.0, from.worker.0, idle.worker.0);
            info!(listener = %listener.address, slot, worker, to, "gave an untaken connection to an idle worker");
            dispose(taken.connection);
        } else if !from.untake(&taken) {
            count(&listener.common.lost);
        }
    }
}
