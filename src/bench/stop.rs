//! Tells several threads to end, and wakes those that sleep in the kernel.

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A flag that many threads can wait for; its descriptor is readable once it is set.
#[derive(Clone, Debug)]
pub struct Stop(Arc<(EventFd, AtomicBool)>);

impl Stop {
    /// A flag that is not set.
    ///
    /// # Errors
    /// That of `eventfd(2)`.
    pub fn new() -> io::Result<Stop> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Stop(Arc::new((event, AtomicBool::new(false)))))
    }

    /// Sets it permanently.
    pub fn set(&self) {
        self.0.1.store(true, Ordering::SeqCst);
        // A full counter is readable, too.
        let _ = self.0.0.write(1);
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.1.load(Ordering::SeqCst)
    }

    /// Waits at most this long; true if it is set.
    #[must_use]
    pub fn wait(&self, most: Duration) -> bool {
        let until = Instant::now() + most;
        while !self.is_set() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Interrupted or not, the flag and the clock decide what to do.
            let mut watched = [PollFd::new(self.0.0.as_fd(), PollFlags::POLLIN)];
            let _ = ppoll(&mut watched, Some(TimeSpec::from_duration(left)), None);
        }
        true
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_wakes_when_it_is_set() {
        let stop = Stop::new().unwrap();
        assert!(!stop.wait(Duration::ZERO));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.wait(Duration::from_secs(60)));
            stop.set();
            assert!(waiting.join().unwrap());
        });
        assert!(stop.wait(Duration::from_secs(60)));
    }
}
