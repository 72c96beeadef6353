//! A connection on its way to a worker.

use std::os::fd::BorrowedFd;

/// A connection that is offered.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The connection.
    pub connection: BorrowedFd<'a>,
    /// Its peer's address, as the kernel wrote it.
    pub peer: &'a [u8],
}
