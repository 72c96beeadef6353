//! Connections that a worker sends back on its hand-off socket because it does not want them.

use super::common::Common;
use super::counters::count;
use super::handoff::Handoff;
use super::incoming::Incoming;
use super::listener::Listener;
use super::refuse::refuse_returned;
use super::refused::Because;
use super::returns::{Came, Pace};
use super::worker_set::{Arrival, Offered};
use crate::clock;
use crate::provoked::Kind;
use crate::sys::dispose::{Foreign, keep_up};
use crate::sys::fd;
use crate::sys::fd::Received;
use crate::sys::socket::listen;
use crate::wire::address::Address;
use crate::wire::peer::PEER_MAX;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Pause before a returned connection is offered again when no other worker could have it, so that one worker that
/// refuses everything cannot make itself and the master spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Pause while no descriptor is free.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(5);

/// Ends the returned connections that wait in the hand-off sockets of all workers, when no worker is left that could
/// have them.
pub fn lose_all(common: &Common) {
    for (address, handoff) in common.returning.0.take() {
        while let Ok(received) = fd::receive(handoff.sender(), &mut [0; PEER_MAX]) {
            match sort(received, common, &address, &handoff) {
                Sent::Back(..) | Sent::Lost => {
                    count(&handoff.counters.returned);
                    count(&common.lost);
                }
                Sent::Nothing => break,
                Sent::Nonsense => {}
            }
        }
    }
}

/// A hand-off socket and its entry in `Common::returning`, for as long as a task reads from it.
struct Read {
    listener: Rc<Listener>,
    handoff: Rc<Handoff>,
}

impl Read {
    fn begin(listener: &Rc<Listener>, handoff: &Rc<Handoff>) -> Read {
        let entry = (listener.address.clone(), Rc::clone(handoff));
        listener.common.returning.0.borrow_mut().push(entry);
        Read { listener: Rc::clone(listener), handoff: Rc::clone(handoff) }
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.listener.common.returning.0.borrow_mut().retain(|(_, handoff)| !Rc::ptr_eq(handoff, &self.handoff));
    }
}

/// What a worker sent on its hand-off socket.
enum Sent {
    /// A connection that it had from the master.
    Back(Foreign, Came),
    /// A connection that could not be received.
    Lost,
    /// Nothing: the worker is gone.
    Nothing,
    /// Anything else.
    Nonsense,
}

fn sort(received: Received, common: &Common, address: &Address, handoff: &Handoff) -> Sent {
    let (len, lost) = (received.len, received.fds_lost);
    let [first, _] = received.fds;
    let Some(first) = first else {
        return match len {
            0 if fd::is_hung_up(handoff.sender()) => Sent::Nothing,
            _ if lost => Sent::Lost,
            _ => Sent::Nonsense,
        };
    };
    let Some(connection) = Some(first).filter(|first| listen::is_accepted_at(first.as_fd(), address)) else {
        return Sent::Nonsense;
    };
    // No client waits for one of the master's own connections, and a copy is not a connection.
    match common.returns.came(connection.as_fd(), handoff.worker) {
        Came::Copy => Sent::Nonsense,
        _ if handoff.is_own(connection.as_fd()) => Sent::Nonsense,
        came => Sent::Back(connection, came),
    }
}

/// Reads what the worker returns and gives it to others, one connection at a time; further ones wait in the socket.
/// Ends when the worker can return nothing more and everything was read.
pub async fn serve(listener: Rc<Listener>, handoff: Rc<Handoff>) {
    let _read = Read::begin(&listener, &handoff);
    let common = &listener.common;
    let mut pace = Pace::default();
    let mut finished = false;
    loop {
        let ready = tokio::select! {
            biased;
            () = handoff.is_finished(), if !finished => {
                finished = true;
                continue;
            }
            ready = handoff.watch().readable(), if !finished => Some(ready),
            () = std::future::ready(()), if finished => None,
        };
        let Ok(ready) = ready.transpose() else { return };
        if let Some(waits) = pace.one_more().await.filter(|waits| waits.is_power_of_two()) {
            let (slot, worker) = (handoff.slot.0, handoff.worker.0);
            warn!(slot, worker, waits, "a worker sends back more than it may in a second; the rest waits");
        }
        if !common.reserve.free_one() {
            sleep(NO_DESCRIPTOR_PAUSE).await;
            continue;
        }
        let received = fd::receive(handoff.sender(), &mut [0; PEER_MAX]);
        common.reserve.refill();
        let received = match received {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match ready {
                Some(mut ready) => {
                    ready.clear_ready();
                    continue;
                }
                None => return,
            },
            Err(error) => {
                debug!(slot = handoff.slot.0, %error, "the hand-off socket returns nothing more");
                return;
            }
        };
        match sort(received, common, &listener.address, &handoff) {
            Sent::Back(connection, came) => {
                count(&handoff.counters.returned);
                common.in_hands.set(common.in_hands.get() + 1);
                match came {
                    Came::TooOften => give_up(&listener, connection, Because::Returned),
                    Came::Welcome | Came::Copy => place(&listener, &handoff, connection).await,
                }
                common.in_hands.set(common.in_hands.get().saturating_sub(1));
            }
            Sent::Lost => {
                count(&handoff.counters.returned);
                count(&common.lost);
                if let Some(told) = common.provoked.tell(handoff.worker, Kind::Undelivered) {
                    let (slot, worker, left_out) = (handoff.slot.0, handoff.worker.0, told.left_out);
                    warn!(
                        slot,
                        worker,
                        left_out,
                        "a connection that came back is lost: no descriptor was free; raise the limit with ulimit -n"
                    );
                }
                keep_up().await;
            }
            Sent::Nothing => return,
            Sent::Nonsense => {
                if let Some(told) = common.provoked.tell(handoff.worker, Kind::NoConnection) {
                    let (slot, worker, nonsense, left_out) =
                        (handoff.slot.0, handoff.worker.0, told.seen, told.left_out);
                    warn!(slot, worker, nonsense, left_out, "a worker sent something that is no connection back");
                }
                keep_up().await;
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Gives a returned connection to another worker, or after a pause to any worker that has room. Turns it away when it
/// has waited for as long as it may.
async fn place(listener: &Listener, handoff: &Handoff, connection: Foreign) {
    let peer = listen::peer_of(connection.as_fd());
    let incoming = Incoming { connection: connection.as_fd(), peer: listen::peer_bytes(&peer) };
    listener.common.opens.came_back(connection.as_fd(), listener.workers.choice.countable);
    let until = listener.common.admission.longest_wait().map(|most| clock::now() + most);
    let mut except = Some(handoff.slot);
    loop {
        if let Offered::Handed = listener.workers.offer(incoming, Arrival::Returned(except)) {
            return listener.common.returns.went(connection.as_fd(), listener.workers.served_last());
        }
        if until.is_some_and(|until| until <= clock::now()) && !listener.workers.is_empty() {
            return refuse_returned(listener, connection, Because::Expired);
        }
        if listener.is_closed() && listener.workers.is_empty() {
            return count(&listener.common.lost);
        }
        if except.is_some() && listener.workers.anybody_but(handoff.slot) {
            // The others are only full for now.
            sleep(PAUSE / 10).await;
            continue;
        }
        sleep(PAUSE).await;
        except = None;
    }
}

/// Turns a connection away: no worker has it any more.
fn give_up(listener: &Listener, connection: Foreign, because: Because) {
    listener.common.opens.came_back(connection.as_fd(), listener.workers.choice.countable);
    refuse_returned(listener, connection, because);
}
