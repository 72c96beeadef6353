//! How long connections wait in the front, from `accept` until a worker has them in its queue. One in [`SAMPLED`] is
//! timed, so that it costs the way of a connection nothing: two looks at the clock (about 50 ns) each 64 connections.

use super::listener::Listener;
use crate::clock;
use crate::core::histogram::Histogram;
use std::cell::RefCell;

/// One of so many connections of a listener is timed.
pub const SAMPLED: u64 = 64;
/// Bounds in seconds: a hand-off takes microseconds, one that finds all workers full waits.
const BOUNDS_S: [f64; 12] = [2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 60.0];

/// The times so far.
#[derive(Debug)]
pub struct Waits(pub RefCell<Histogram>);

impl Default for Waits {
    fn default() -> Waits {
        Waits(RefCell::new(Histogram::new(&BOUNDS_S)))
    }
}

/// A connection was accepted, the listener's n-th.
#[inline]
pub fn accepted(listener: &Listener, number: u64) {
    // While one is held, that one is timed, or none.
    if number.is_multiple_of(SAMPLED) && listener.timed.get().is_none() && listener.held.borrow().is_none() {
        listener.timed.set(Some(clock::now()));
    }
}

/// A connection left the front: a worker has it, or it was turned away. The one that is timed may still be held.
#[inline]
pub fn left(listener: &Listener) {
    if listener.timed.get().is_some() && listener.held.borrow().is_none() {
        let since = listener.timed.take().map(|since| clock::now().since(since));
        since.into_iter().for_each(|wait| listener.common.waits.0.borrow_mut().count(wait));
    }
}
