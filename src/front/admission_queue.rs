//! The order in which listeners get the next place.

use std::cell::RefCell;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Listeners whose held connection waits for a place among `--max-open`, in the order in which they began to wait.
/// Without it, the first listener to wake would take every place, and the clients of another address would get none.
#[derive(Debug, Default)]
pub struct AdmissionQueue {
    /// The listeners by their memory addresses, which are only compared.
    waiting: RefCell<VecDeque<*const ()>>,
    /// Notified when a listener leaves the queue.
    pub moved: Notify,
}

impl AdmissionQueue {
    /// How many listeners wait before this one, or would if it came now.
    #[must_use]
    pub fn before<L>(&self, listener: &L) -> usize {
        let waiting = self.waiting.borrow();
        waiting.iter().position(|other| std::ptr::eq(*other, address(listener))).unwrap_or(waiting.len())
    }

    /// Lets a listener wait behind the others, if it does not yet.
    pub fn join<L>(&self, listener: &L) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|other| std::ptr::eq(*other, address(listener))) {
            waiting.push_back(address(listener));
        }
    }

    /// Removes a listener, and lets those behind it move up.
    pub fn leave<L>(&self, listener: &L) {
        let mut waiting = self.waiting.borrow_mut();
        let before = waiting.len();
        waiting.retain(|other| !std::ptr::eq(*other, address(listener)));
        if waiting.len() < before {
            self.moved.notify_waiters();
        }
    }
}

fn address<L>(listener: &L) -> *const () {
    std::ptr::from_ref(listener).cast()
}
