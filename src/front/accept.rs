//! The accept loop of one listener: kernel queue → policy → worker.
//!
//! Accepts in bounded bursts until the kernel has nothing more. When all workers are full it stops accepting, and the
//! kernel's queue holds the rest. Connections that ended or draining workers never took go first.

use super::Event;
use super::admission::{admit, hold_until, is_full_still, may_accept, may_wait_until, when_full};
use super::even_out::even_out;
use super::failures::CannotAccept;
use super::incoming::{Incoming, TakenBack};
use super::listener::{HeldBy, Listener, Phase};
use super::mend::mend;
use super::next::{EXHAUSTED_PAUSE, Next, wait_after};
use super::refuse::refuse;
use super::refused::Because;
use super::rescue::{await_room, place_waiting};
use super::waits;
use super::worker_set::{Arrival, Offered};
use crate::clock;
use crate::config::admission::WhenFull;
use crate::core::moment::{Moment, millis};
use crate::sys::socket::kick::Kicker;
use crate::sys::socket::listen::{self, Accepted, Waiting};
use crate::sys::watch;
use crate::wire::address::Address;
use socket2::Socket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Connections accepted before other tasks of the master get their turn (Envoy starved its other
/// listeners by accepting until `EAGAIN`, envoy#16213).
const BURST: u32 = 64;

/// While ended or draining workers have untaken connections: how soon the loop looks for those again. The master does
/// not always hear of a worker that takes them itself.
const DRAINING_RECHECK: Duration = Duration::from_millis(5);

/// Gives the listener's connections to the workers until it is closed.
pub async fn serve(listener: Rc<Listener>) {
    let served = serve_until_closed(&listener).await;
    listener.close();
    listener.common.admission_queue.leave(&listener);
    let end = match served {
        Err(error) if listener.phase.get() == Phase::Open => {
            listener.phase.set(Phase::GivenUp);
            Event::ListenerFailed { address: listener.address.to_string(), error }
        }
        _ => {
            even_out(&listener).await;
            Event::ListenerClosed
        }
    };
    // The receiver ends before its senders only when the process does.
    let _ = listener.common.reports.send(end).await;
    // Draining workers may still have connections that they have not taken. Until the master ends, this task must
    // notice when they have taken them.
    loop {
        let waited = match place_waiting(&listener).await {
            Next::Pause(time) => {
                sleep(time).await;
                Ok(())
            }
            Next::AwaitRoom => await_room(&listener).await,
            Next::Again | Next::AwaitConnection if listener.workers.is_draining() => {
                sleep(DRAINING_RECHECK).await;
                Ok(())
            }
            Next::Again | Next::AwaitConnection => {
                listener.changed.notified().await;
                Ok(())
            }
        };
        if waited.is_err() {
            sleep(EXHAUSTED_PAUSE).await;
        }
    }
}

/// Accepts, and mends the socket when another holder made it useless. An error says that the address must be given up.
async fn serve_until_closed(listener: &Rc<Listener>) -> io::Result<()> {
    loop {
        match accept_until_closed(listener).await {
            Ok(()) => return Ok(()),
            // What waited is gone with the socket's queue, and nothing new is wanted.
            Err(_) if listener.phase.get() == Phase::Closing => return Ok(()),
            Err(why) => mend(listener, why).await?,
        }
    }
}

/// Accepts on the socket that the listener has now. The reactor never forgets a hang-up, so a socket that listens again
/// gets a new watch.
async fn accept_until_closed(listener: &Rc<Listener>) -> Result<(), CannotAccept> {
    let Some(socket) = listener.socket() else { return Ok(()) };
    socket.set_nonblocking(true)?;
    let watched = watch::readable(socket)?;
    // How many connections to take after the order to close: those that waited then. Later ones are refused.
    let mut remaining = None;
    loop {
        if listener.phase.get() == Phase::Closing && listener.workers.is_empty() {
            // No worker is left that could take what waits.
            return Ok(());
        }
        let mut next = place_waiting(listener).await;
        if next == Next::AwaitRoom && listener.held.borrow().is_none() && listener.is_full() {
            // Untaken connections wait for a worker, but those that come now may be refused.
            next = Next::Again;
        }
        if next == Next::Again && !may_accept(listener) {
            next = Next::AwaitRoom;
        }
        if next == Next::Again && listener.phase.get() == Phase::Closing {
            let left = remaining.get_or_insert_with(|| waiting_in_kernel(listener));
            let (accepted, after) = burst(listener, watched.get_ref(), BURST.min(*left))?;
            *left -= accepted;
            let last = *left == 0 || after == Next::AwaitConnection;
            if last && listener.held.borrow().is_none() {
                return Ok(());
            }
            next = after;
        } else if next == Next::Again {
            let mut guard = tokio::select! {
                ready = watched.readable() => ready?,
                () = listener.changed.notified() => continue,
                () = recheck(), if listener.workers.is_draining() => continue,
            };
            next = burst(listener, watched.get_ref(), BURST)?.1;
            if next == Next::AwaitConnection {
                listener.saturated.take();
                if guard.ready().is_read_closed() {
                    // A hang-up, which the reactor never forgets; a Unix socket then only says that no connection
                    // waits.
                    return Err(CannotAccept::ShutDown);
                }
                guard.clear_ready();
            }
        }
        match next {
            Next::Again => tokio::task::yield_now().await,
            Next::AwaitConnection => {}
            Next::AwaitRoom => {
                if let Err(error) = await_room(listener).await {
                    debug!(listener = %listener.address, %error, "cannot wait for room");
                    sleep(EXHAUSTED_PAUSE).await;
                }
            }
            Next::Pause(time) => sleep(time).await,
        }
    }
}

/// Created only when it is polled: a timer has a cost even if it is not waited for.
async fn recheck() {
    sleep(DRAINING_RECHECK).await;
}

/// Connections in the kernel's queue; where the kernel does not tell, as many as fit into the queue.
fn waiting_in_kernel(listener: &Listener) -> u32 {
    match listener.address {
        Address::Tcp(_) => listener.queued(),
        Address::Unix(_) | Address::Abstract(_) => listener.backlog.get(),
    }
}

/// Accepts up to `most` connections and hands them over.
fn burst(listener: &Listener, socket: &Socket, most: u32) -> Result<(u32, Next), CannotAccept> {
    listener.common.opens.catch_up();
    listener.common.activity.begin();
    let kicker = listener.common.kicker.get();
    kicker.iter().for_each(|kicker| kicker.attend());
    let kicker = kicker.filter(|_| listener.held_by.get() != HeldBy::Master);
    // On a socket that other processes hold, accept only what is known to wait, since the call could block.
    let waiting = kicker.map_or(Ok(Waiting::Unknown), |_| listen::waiting(socket))?;
    let (most, after) = match waiting {
        Waiting::Known(waiting) if waiting < most => (waiting, Next::AwaitConnection),
        Waiting::Known(_) | Waiting::Unknown => (most, Next::Again),
    };
    let mut aborted = 0;
    for accepted in 0..most {
        if !may_accept(listener) {
            return Ok((accepted, Next::AwaitRoom));
        }
        let mut got = accept(socket, kicker)?;
        if let Accepted::Exhausted(_) = got {
            // One connection at a time still goes through, on the reserve descriptor.
            let _ = listener.common.reserve.free_one();
            got = accept(socket, kicker)?;
        }
        match got {
            Accepted::Connection(connection, peer) => {
                let number = listener.accepted.get() + 1;
                listener.accepted.set(number);
                waits::accepted(listener, number);
                if listener.exhausted.replace(false) {
                    info!(listener = %listener.address, "accepting again");
                }
                let next = hand_over(listener, connection, listen::peer_bytes(&peer));
                waits::left(listener);
                listener.common.reserve.refill();
                if next != Next::Again {
                    return Ok((accepted + 1, next));
                }
            }
            Accepted::Empty | Accepted::Interrupted => return Ok((accepted, Next::AwaitConnection)),
            Accepted::Aborted(error) => {
                aborted += 1;
                if aborted == BURST {
                    // Not one connection among so many attempts: something forbids them, and will go on doing so.
                    warn!(listener = %listener.address, %error, "every connection fails when it is accepted, pausing");
                    return Ok((accepted, Next::Pause(EXHAUSTED_PAUSE)));
                }
            }
            Accepted::Exhausted(error) => {
                let pause_ms = millis(EXHAUSTED_PAUSE);
                // One line for the whole time in which nothing is accepted.
                if !listener.exhausted.replace(true) {
                    warn!(listener = %listener.address, %error, pause_ms, "cannot accept, pausing; raise the limit with ulimit -n");
                }
                listener.common.reserve.refill();
                return Ok((accepted, Next::Pause(EXHAUSTED_PAUSE)));
            }
        }
    }
    // A failed attempt may have taken none of the connections that were counted.
    Ok((most, if aborted > 0 { Next::Again } else { after }))
}

/// What became of an accepted connection. There is nothing else; `status` counts each of them.
#[derive(Debug)]
enum Ending {
    /// A worker has it.
    Handed,
    /// It was turned away.
    Refused(Because),
    /// It waits in the master, because it could not be handed over.
    Held {
        /// Why it could not.
        offered: Offered,
        /// Until when it may wait, if that is limited.
        until: Option<Moment>,
    },
}

/// Lets one accepted connection in, chooses its worker and sends it, or says what became of it instead.
#[inline]
fn hand_over(listener: &Listener, connection: OwnedFd, peer: &[u8]) -> Next {
    match ending(listener, connection.as_fd(), peer) {
        Ending::Handed => {
            // The worker has its own copy.
            if let Some(kicker) = listener.common.kicker.get() {
                kicker.close(connection);
            }
            Next::Again
        }
        Ending::Refused(because) => {
            refuse(listener, connection, because);
            Next::Again
        }
        Ending::Held { offered, until } => {
            hold_until(listener, TakenBack::new(connection, peer), until);
            if listener.has_no_place() {
                listener.common.admission_queue.join(listener);
            }
            wait_after(listener, &offered)
        }
    }
}

#[inline]
fn ending(listener: &Listener, connection: BorrowedFd<'_>, peer: &[u8]) -> Ending {
    if let Err(beyond) = admit(listener, peer) {
        return Ending::Refused(Because::Source(beyond));
    }
    let offered = if !is_full_still(listener) {
        // The policy chooses the worker, and its hand-off socket takes the descriptor.
        listener.workers.offer(Incoming { connection, peer }, Arrival::New)
    } else if when_full(listener) == WhenFull::Wait {
        Offered::NoRoom
    } else {
        return Ending::Refused(Because::Full);
    };
    if matches!(offered, Offered::Handed) {
        return Ending::Handed;
    }
    // One that has waited for as long as it may in the kernel's queue is not held first: that would cost a timer, and
    // under overload more connections come than timers end.
    let until = may_wait_until(listener, connection);
    let expired = until.is_some_and(|until| until <= clock::now()) && !listener.workers.is_empty();
    match offered {
        Offered::NoRoom if expired => Ending::Refused(Because::Expired),
        offered => Ending::Held { offered, until },
    }
}

/// Accepts one connection. On a socket that other processes hold, it never waits for long.
#[inline]
fn accept(socket: &Socket, kicker: Option<&Kicker>) -> Result<Accepted, CannotAccept> {
    let Some(kicker) = kicker else { return Ok(listen::accept(socket)?) };
    match kicker.during(|| listen::accept(socket))? {
        Accepted::Interrupted => Err(CannotAccept::Blocked),
        got => Ok(got),
    }
}
