//! Connections that a worker sends back on its hand-off socket because it will not have them.

use super::handoff::{Handoff, count};
use super::listener::Listener;
use super::provoked::Kind;
use super::refuse::{Because, refuse_returned};
use super::returns::{Came, Pace};
use super::seats::{Comes, Guest, Offered};
use crate::sys::dispose::{Foreign, keep_up};
use crate::sys::{clock, fd, listen};
use crate::wire::peer::PEER_MAX;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Pause before a returned connection is offered again when nobody else could have it, so that one
/// worker that refuses everything cannot make the two of us spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Reads what the worker returns and gives it to others, one at a time; further ones wait in the
/// socket. Ends when the worker can return nothing more and everything was read.
pub async fn serve(listener: Rc<Listener>, handoff: Rc<Handoff>) {
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
        let received = match fd::receive(handoff.sender(), &mut [0; PEER_MAX]) {
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
        let len = received.len;
        let [connection, _] = received.fds;
        let connection = connection.filter(|c| listen::is_accepted_at(c.as_fd(), &listener.address));
        let came = connection.as_ref().map(|c| listener.house.returns.came(c.as_fd(), handoff.worker));
        match connection.zip(came).filter(|(_, came)| *came != Came::Copy) {
            Some((connection, came)) => {
                count(&handoff.counters.returned);
                let in_hands = &listener.house.in_hands;
                in_hands.set(in_hands.get() + 1);
                match came {
                    Came::TooOften => give_up(&listener, connection, Because::Returned),
                    Came::Welcome | Came::Copy => place(&listener, &handoff, connection).await,
                }
                in_hands.set(in_hands.get() - 1);
            }
            None if len == 0 && fd::is_hung_up(handoff.sender()) => return,
            None => {
                if let Some(told) = listener.house.provoked.tell(handoff.worker, Kind::NoConnection) {
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

/// Gives a returned connection to another worker, or after a pause to whoever has room; turns it away when it
/// has waited for as long as it may.
async fn place(listener: &Listener, handoff: &Handoff, connection: Foreign) {
    let peer = listen::peer_of(connection.as_fd());
    let guest = Guest { connection: connection.as_fd(), peer: listen::peer_bytes(&peer) };
    listener.house.opens.came_back(connection.as_fd(), listener.seats.choice.countable);
    let until = listener.house.admission.longest_wait().map(|most| clock::now() + most);
    let mut except = Some(handoff.slot);
    loop {
        if let Offered::Handed = listener.seats.offer(guest, Comes::Back(except)) {
            return listener.house.returns.went(connection.as_fd(), listener.seats.served_last());
        }
        if until.is_some_and(|until| until <= clock::now()) && !listener.seats.is_empty() {
            return refuse_returned(listener, connection, Because::Expired);
        }
        if except.is_some() && listener.seats.anybody_but(handoff.slot) {
            // Others are only full for now.
            sleep(PAUSE / 10).await;
            continue;
        }
        sleep(PAUSE).await;
        except = None;
    }
}

/// Turns it away: nobody has it any more.
fn give_up(listener: &Listener, connection: Foreign, because: Because) {
    listener.house.opens.came_back(connection.as_fd(), listener.seats.choice.countable);
    refuse_returned(listener, connection, because);
}
