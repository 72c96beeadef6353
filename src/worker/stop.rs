//! Whether the worker was asked to end, and what waits for that.

use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

static STOP: Mutex<Stop> = Mutex::new(Stop { requested: false, waiting: Vec::new() });
static REQUESTED: Condvar = Condvar::new();

#[derive(Debug)]
struct Stop {
    requested: bool,
    waiting: Vec<Waker>,
}

fn stop() -> MutexGuard<'static, Stop> {
    STOP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The worker was asked to end, or the master that could ask is gone.
pub fn request() {
    let mut stop = stop();
    stop.requested = true;
    stop.waiting.drain(..).for_each(Waker::wake);
    REQUESTED.notify_all();
}

/// Whether the worker was asked to end.
pub fn is_requested() -> bool {
    stop().requested
}

/// Waits until the worker is asked to end.
#[derive(Debug)]
#[must_use = "it waits only when it is awaited, or by `wait`"]
pub struct StopRequested(());

impl StopRequested {
    pub(super) fn new() -> StopRequested {
        StopRequested(())
    }

    /// Waits in this thread.
    pub fn wait(self) {
        let mut stop = stop();
        while !stop.requested {
            stop = REQUESTED.wait(stop).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Future for StopRequested {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut stop = stop();
        if stop.requested {
            return Poll::Ready(());
        }
        if !stop.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            stop.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}
