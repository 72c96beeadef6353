//! Waiting until one of many full hand-off sockets has room again.
//!
//! A worker that takes a connection frees memory of the sender's socket, which epoll reports as
//! `EPOLLOUT`. Watching that all the time would wake the master once for every connection; so the
//! sockets sit in an epoll set of their own, which the master looks at only while all are full.
//! Edge-triggered, because what matters is "something was taken", not "there is space".

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Events that are cleared in one call.
const EVENTS: usize = 64;

/// The set of hand-off sockets of one listener.
#[derive(Debug)]
pub struct RoomWatch(Epoll);

impl RoomWatch {
    /// An empty set.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn new() -> io::Result<RoomWatch> {
        Ok(RoomWatch(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Adds a hand-off socket's sending side. Closing that side removes it.
    ///
    /// # Errors
    /// When the kernel has no memory or the user watches too much (`epoll(7)`, `max_user_watches`).
    pub fn add(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, 0);
        Ok(self.0.add(socket, event)?)
    }

    /// Forgets what was taken until now; only what is taken from here on makes the set readable.
    pub fn clear(&self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        while let Ok(n) = self.0.wait(&mut events, EpollTimeout::ZERO) {
            if n < EVENTS {
                break;
            }
        }
    }
}

impl AsFd for RoomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl AsRawFd for RoomWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}
