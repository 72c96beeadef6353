//! Registering a descriptor with the reactor.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches whether something can be read.
///
/// # Errors
/// When the reactor cannot watch one descriptor more, or cannot watch this kind.
pub fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `AsFd` promises that the descriptor stays open and the same for as long as `inner`
    // lives, which the AsyncFd takes over.
    unsafe { Ok(AsyncFd::register_with_interest(inner, Interest::READABLE)?) }
}
