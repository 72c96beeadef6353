//! Whether a connection is let in: the limits, and the one connection that waits in the master until it can be handed
//! over or must be turned away ([`super::refuse`]).

use super::incoming::TakenBack;
use super::listener::{Listener, Phase};
use super::next::{Next, wait_after};
use super::refuse::refuse;
use super::refused::Because;
use super::waits;
use super::worker_set::{Arrival, Offered};
use crate::clock;
use crate::config::admission::WhenFull;
use crate::core::moment::Moment;
use crate::core::sources::Beyond;
use crate::sys::socket::listen;
use std::os::fd::{AsFd, BorrowedFd};

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
pub fn when_full(listener: &Listener) -> WhenFull {
    match listener.common.admission.when_full {
        WhenFull::Wait if listener.phase.get() == Phase::Closing => WhenFull::Reset,
        asked => asked,
    }
}

/// Checks the limits of the connection's source.
#[inline]
pub fn admit(listener: &Listener, peer: &[u8]) -> Result<(), Beyond> {
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
pub fn is_full_still(listener: &Listener) -> bool {
    listener.is_full() && {
        listener.common.opens.catch_up();
        listener.is_full()
    }
}

/// Whether the held connection has waited for as long as it may.
fn is_expired(listener: &Listener) -> bool {
    listener.held_until.get().is_some_and(|until| until <= clock::now())
}

/// Until when a connection may wait, if that is limited.
pub fn may_wait_until(listener: &Listener, connection: BorrowedFd<'_>) -> Option<Moment> {
    listener.common.admission.longest_wait().map(|most| {
        let now = clock::now();
        let waited = listen::waited(connection).unwrap_or_default();
        // Time in which there was no worker at all does not count.
        let served = listener.served_since.get().map_or(waited, |since| now.since(since));
        now + most.saturating_sub(waited.min(served))
    })
}

/// Keeps a connection until it can be handed over.
pub fn hold(listener: &Listener, connection: TakenBack) {
    let until = may_wait_until(listener, connection.connection.as_fd());
    hold_until(listener, connection, until);
}

/// The same, when it is known until when it may wait.
pub fn hold_until(listener: &Listener, connection: TakenBack, until: Option<Moment>) {
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
    waits::left(listener);
    line.leave(listener);
    Next::Again
}
