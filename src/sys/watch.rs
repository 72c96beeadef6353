//! Registering a descriptor with the reactor.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches whether a socket is shut down, and nothing else: what arrives there wakes no task.
///
/// # Errors
/// As for [`readable`].
pub fn shut<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: as in `readable`.
    unsafe { Ok(AsyncFd::register_with_interest(inner, Interest::PRIORITY)?) }
}

/// Waits until a socket that [`shut`] watches is shut down (`EPOLLHUP`).
///
/// # Errors
/// When the reactor ends.
pub async fn is_shut<T: AsRawFd>(watched: &AsyncFd<T>) -> io::Result<()> {
    loop {
        let mut ready = watched.ready(Interest::PRIORITY).await?;
        if ready.ready().is_read_closed() {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// Watches whether something can be read.
///
/// # Errors
/// When the reactor cannot watch one more descriptor, or cannot watch this kind.
pub fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `AsFd` promises that the descriptor stays open and the same for as long as `inner`
    // lives, which the AsyncFd takes over.
    unsafe { Ok(AsyncFd::register_with_interest(inner, Interest::READABLE)?) }
}
