//! Noticing workers that have room again.

use crate::sys::socket::room::RoomWatch;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;

/// A listener's set of hand-off sockets in the form that the reactor needs.
#[derive(Debug)]
pub struct WatchedRoom(pub(super) Rc<RoomWatch>);

impl AsFd for WatchedRoom {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for WatchedRoom {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
