//! What becomes of an accepted connection before a worker is chosen for it. It is handed over, or turned away
//! ([`super::refuse`]), or held until either is possible.

use super::incoming::Incoming;
use super::incoming::TakenBack;
use super::listener::{Listener, Phase};
use super::next::{Next, wait_after};
use super::refuse::refuse;
use super::refused::Because;
use super::worker_set::{Arrival, Offered};
use crate::clock;
use crate::config::admission::WhenFull;
use crate::core::sources::Beyond;
use crate::sys::listen;
use std::os::fd::{AsFd, OwnedFd};

/// Whether a connection that waits in the kernel's queue may be taken: to hand it over, to refuse it, or to hold it so
/// that the master knows how long it waits.
pub fn may_accept(listener: &Listener) -> bool {
    if listener.workers.is_empty() {
        return false;
    }
    let full = listener.is_full();
    let refuses = full && when_full(listener) != WhenFull::Wait;
    !full && listener.workers.has_room() || refuses || listener.common.admission.longest_wait().is_some()
}

/// What becomes of a connection for which there is no place. While the fleet stops, no connection waits for one: the
/// workers would be told to end only when the last has got it.
fn when_full(listener: &Listener) -> WhenFull {
    match listener.common.admission.when_full {
        WhenFull::Wait if listener.phase.get() == Phase::Closing => WhenFull::Reset,
        asked => asked,
    }
}

/// Hands one accepted connection over, or turns it away, or holds it until either is possible.
#[inline]
pub fn hand_over(listener: &Listener, connection: OwnedFd, peer: &[u8]) -> Next {
    if let Err(beyond) = admit(listener, peer) {
        refuse(listener, connection, Because::Source(beyond));
        return Next::Again;
    }
    if is_full_still(listener) {
        return match when_full(listener) {
            WhenFull::Reset | WhenFull::Unavailable => {
                refuse(listener, connection, Because::Full);
                Next::Again
            }
            WhenFull::Wait => hold_unless_expired(listener, connection, peer, &Offered::NoRoom),
        };
    }
    match listener.workers.offer(Incoming { connection: connection.as_fd(), peer }, Arrival::New) {
        Offered::Handed => {
            close(listener, connection);
            Next::Again
        }
        not_handed => hold_unless_expired(listener, connection, peer, &not_handed),
    }
}

/// Closes the master's copy of a connection that a worker has now.
#[inline]
fn close(listener: &Listener, connection: OwnedFd) {
    if let Some(kicker) = listener.common.kicker.get() {
        kicker.close(connection);
    }
}

/// Checks the limits of the connection's source.
#[inline]
fn admit(listener: &Listener, peer: &[u8]) -> Result<(), Beyond> {
    let Some(source) = listener.workers.choice.limited_source(peer) else { return Ok(()) };
    let opens = &listener.common.opens;
    let admit = || opens.sources.borrow_mut().admit(clock::now(), source);
    match admit() {
        Err(Beyond::Open) => {
            // The source may have closed one a moment ago.
            opens.catch_up();
            admit()
        }
        admitted => admitted,
    }
}

/// Whether there is no place, even after counting what was closed a moment ago.
#[inline]
fn is_full_still(listener: &Listener) -> bool {
    listener.is_full() && {
        listener.common.opens.catch_up();
        listener.is_full()
    }
}

/// Holds a connection that was not handed over, or turns it away at once if it has waited for as long as it may in the
/// kernel's queue. Holding each of them first would cost a timer, and under overload more connections come than timers
/// end.
fn hold_unless_expired(listener: &Listener, connection: OwnedFd, peer: &[u8], offered: &Offered) -> Next {
    hold(listener, TakenBack::new(connection, peer));
    if is_expired(listener) && matches!(offered, Offered::NoRoom) && !listener.workers.is_empty() {
        if let Some(held) = listener.held.take() {
            refuse(listener, held.connection, Because::Expired);
        }
        return Next::Again;
    }
    if listener.has_no_place() {
        listener.common.admission_queue.join(listener);
    }
    wait_after(listener, offered)
}

/// Whether the held connection has waited for as long as it may.
fn is_expired(listener: &Listener) -> bool {
    listener.held_until.get().is_some_and(|until| until <= clock::now())
}

/// Keeps a connection until it can be handed over.
pub fn hold(listener: &Listener, connection: TakenBack) {
    let until = listener.common.admission.longest_wait().map(|most| {
        let now = clock::now();
        let waited = listen::waited(connection.connection.as_fd()).unwrap_or_default();
        // Time in which there was no worker at all does not count.
        let served = listener.served_since.get().map_or(waited, |since| now.since(since));
        now + most.saturating_sub(waited.min(served))
    });
    listener.held_until.set(until);
    hold_on(listener, connection);
}

fn hold_on(listener: &Listener, connection: TakenBack) {
    let before = listener.held.replace(Some(connection));
    debug_assert!(before.is_none(), "the next is taken only when none is held");
}

/// Gives the held connection to a worker, or turns it away when it has waited for as long as it may.
pub fn place_held(listener: &Listener) -> Next {
    let Some(held) = listener.held.take() else { return Next::Again };
    let line = &listener.common.admission_queue;
    let full = is_full_still(listener);
    let offered = if full { Offered::NoRoom } else { listener.workers.offer(held.incoming(), Arrival::New) };
    let served = !listener.workers.is_empty();
    let because = if full && when_full(listener) != WhenFull::Wait {
        Some(Because::Full)
    } else {
        // While there is no worker at all, clients wait for one.
        (served && is_expired(listener)).then_some(Because::Expired)
    };
    let because = because.filter(|_| !matches!(offered, Offered::Handed));
    if let Some(because) = because {
        refuse(listener, held.connection, because);
    } else if !matches!(offered, Offered::Handed) {
        hold_on(listener, held);
        // A listener that waits for something else must not keep others from their place.
        if served && listener.has_no_place() {
            line.join(listener)
        } else {
            line.leave(listener)
        }
        return wait_after(listener, &offered);
    }
    line.leave(listener);
    Next::Again
}
