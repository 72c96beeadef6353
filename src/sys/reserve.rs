//! A descriptor that is kept for the moment when all others are used up.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

/// The descriptor, if one was available.
#[derive(Debug)]
pub struct Reserve(RefCell<Option<OwnedFd>>);

impl Reserve {
    /// Takes one.
    #[must_use]
    pub fn new() -> Reserve {
        let reserve = Reserve(RefCell::new(None));
        reserve.refill();
        reserve
    }

    /// Takes one again, if that is possible now.
    pub fn refill(&self) {
        let mut kept = self.0.borrow_mut();
        if kept.is_none() {
            *kept = std::fs::File::open("/dev/null").ok().map(OwnedFd::from);
        }
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Makes sure that a number is free, which uses up the reserve. Without a free number, no packet that brings a
    /// descriptor may be received: the kernel would take the packet out and drop what came with it (`scm_detach_fds`
    /// in net/core/scm.c).
    #[must_use]
    pub fn free_one(&self) -> bool {
        self.refill();
        self.0.take().is_some()
    }
}

impl Default for Reserve {
    fn default() -> Reserve {
        Reserve::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_again_after_it_was_given_up() {
        let reserve = Reserve::new();
        assert!(reserve.is_there());
        assert!(reserve.free_one() && !reserve.is_there());
        // Without the reserve a number is free nevertheless, and `free_one` notices that.
        assert!(reserve.free_one());
        reserve.refill();
        assert!(reserve.is_there());
    }
}
