//! Waits until one of many full hand-off sockets has room again, and remembers which are full meanwhile.
//!
//! A worker that takes a connection frees memory of the sender's socket, which epoll reports as `EPOLLOUT`. Watching
//! that all the time would wake the master once for every connection; so the sockets are in an epoll set of their
//! own, which the master checks only while one of them is full. The set is edge-triggered, because what matters is
//! "something was taken", not "there is space".

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::{Rc, Weak};

/// Events that are read in one call.
const EVENTS: usize = 64;

/// The set of hand-off sockets of one listener.
#[derive(Debug)]
pub struct RoomWatch {
    set: Epoll,
    /// By the number under which each is watched.
    watched: RefCell<Vec<Weak<Watched>>>,
    /// How many are remembered as full.
    full: Rc<Cell<usize>>,
}

/// One of the sockets in the set.
#[derive(Debug)]
pub struct Watched {
    is_full: Cell<bool>,
    /// Whether an event was read that says that something was taken since the last query of how much waits.
    took: Cell<bool>,
    full: Rc<Cell<usize>>,
}

impl Watched {
    /// Remembers whether it is full, until the set says that something was taken.
    #[inline]
    pub fn set_full(&self, full: bool) {
        if self.is_full.replace(full) != full {
            self.full.set(if full { self.full.get() + 1 } else { self.full.get().saturating_sub(1) });
        }
    }

    /// Call this before a query of how much waits: what was taken before is in the answer.
    #[inline]
    pub fn is_asked(&self) {
        self.took.set(false);
    }

    /// Whether something was taken since then, as far as events were read. Events that were not read yet are still to
    /// come.
    #[inline]
    #[must_use]
    pub fn took(&self) -> bool {
        self.took.get()
    }

    /// Whether it was full at the last check, and nothing was taken since.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full.get()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.set_full(false);
    }
}

impl RoomWatch {
    /// An empty set.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn new() -> io::Result<RoomWatch> {
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(RoomWatch { set, watched: RefCell::default(), full: Rc::default() })
    }

    /// Adds a hand-off socket's sending side. Closing that side removes it.
    ///
    /// # Errors
    /// When the kernel has no memory or the user watches too many descriptors (`epoll(7)`, `max_user_watches`).
    pub fn add(&self, socket: BorrowedFd<'_>) -> io::Result<Rc<Watched>> {
        let mut all = self.watched.borrow_mut();
        let free = all.iter().position(|watched| watched.strong_count() == 0);
        let number = free.unwrap_or(all.len());
        self.set.add(socket, EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, number as u64))?;
        let watched =
            Rc::new(Watched { is_full: Cell::new(false), took: Cell::new(false), full: Rc::clone(&self.full) });
        match all.get_mut(number) {
            Some(place) => *place = Rc::downgrade(&watched),
            None => all.push(Rc::downgrade(&watched)),
        }
        Ok(watched)
    }

    /// Marks each socket from which something was taken as not full. Costs a call only while one is full. Returns
    /// whether one is not full any more.
    #[inline]
    pub fn catch_up(&self) -> bool {
        let before = self.full.get();
        if before > 0 {
            self.read();
        }
        self.full.get() < before
    }

    /// Whether one is remembered as full.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.full.get() > 0
    }

    /// Does the same as `catch_up` in any case; only what is taken from here on makes the set readable.
    pub fn read(&self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let all = self.watched.borrow();
        while let Ok(n) = self.set.wait(&mut events, EpollTimeout::ZERO) {
            for event in events.iter().take(n) {
                let number = usize::try_from(event.data()).ok();
                let watched = number.and_then(|number| all.get(number)).and_then(Weak::upgrade);
                if let Some(watched) = watched {
                    watched.set_full(false);
                    watched.took.set(true);
                }
            }
            if n < EVENTS {
                break;
            }
        }
    }
}

impl AsFd for RoomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.0.as_fd()
    }
}

impl AsRawFd for RoomWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.set.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;

    #[test]
    fn full_is_remembered_until_something_is_taken() {
        let room = RoomWatch::new().unwrap();
        let pairs = [fd::pair().unwrap(), fd::pair().unwrap()];
        let watched = pairs.each_ref().map(|(send, _)| room.add(send.as_fd()).unwrap());
        for (send, _) in &pairs {
            fd::send_packet(send.as_fd(), "x", &[]).unwrap();
        }
        // The first events say only that they can be written to at all.
        room.read();
        watched.iter().for_each(|watched| watched.set_full(true));
        room.catch_up();
        assert!(watched.iter().all(|watched| watched.is_full()), "nothing was taken");
        fd::receive(pairs[1].1.as_fd(), &mut [0; 8]).unwrap();
        room.catch_up();
        assert_eq!(watched.each_ref().map(|watched| watched.is_full()), [true, false]);
        assert!(watched[1].took());
        watched[1].is_asked();
        room.catch_up();
        assert!(!watched[1].took(), "nothing more was taken");
        drop(watched);
        assert_eq!(room.full.get(), 0, "who is gone is not full");
    }

    #[test]
    fn a_place_is_used_again() {
        let room = RoomWatch::new().unwrap();
        for _ in 0..10 {
            let (send, _receive) = fd::pair().unwrap();
            drop(room.add(send.as_fd()).unwrap());
        }
        assert_eq!(room.watched.borrow().len(), 1);
    }
}
