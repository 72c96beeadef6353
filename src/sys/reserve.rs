//! A descriptor that is kept for the moment in which all others are used up.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

/// The descriptor, where one was to be had.
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

    /// Makes sure that a number is free, which costs the reserve. Without one nothing may be received that brings a
    /// descriptor: the kernel would take the packet out and drop what came with it (`scm_detach_fds` in
    /// net/core/scm.c).
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
        // Without it one is free nevertheless, and that is seen.
        assert!(reserve.free_one());
        reserve.refill();
        assert!(reserve.is_there());
    }
}
