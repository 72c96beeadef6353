//! For servers written in Rust: take connections from maitred, or listen alone when there is none.
//!
//! ```no_run
//! let listener = maitred::worker::Listener::bind("127.0.0.1:8080".parse().unwrap())?;
//! maitred::worker::ready()?;
//! while !maitred::worker::stopping() {
//!     let (stream, peer) = listener.accept()?;
//!     # drop((stream, peer));
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! With the feature `tokio` there is [`AsyncListener`], which with the feature `axum` is an `axum::serve::Listener`.
//! Unix sockets have [`UnixListener`] and [`AsyncUnixListener`]. A worker may have several listeners.
//!
//! Started without maitred, all of them are ordinary listeners, and what is told to the master goes nowhere. So the
//! same binary works with maitred and without.
//!
//! A thread reads what the master says, from the first listener or message on until the process ends: it answers
//! heartbeats, and it remembers that the worker was asked to end ([`stopping`], [`stop_requested`]).

mod channel;
mod listener;
mod session;
mod stop;
#[cfg(feature = "tokio")]
mod tokio_listener;

pub use listener::{Listener, UnixListener};
pub use stop::StopRequested;
#[cfg(feature = "tokio")]
pub use tokio_listener::{AsyncListener, AsyncUnixListener};

use std::io;

/// The slot of this worker, `0..N-1`, if maitred started it.
#[must_use]
pub fn slot() -> Option<u32> {
    std::env::var(crate::wire::environment::SLOT).ok()?.parse().ok()
}

/// Says that this worker is ready (`READY=1`), for `--ready notify`. Otherwise listening is enough.
///
/// # Errors
/// When the master is gone.
pub fn ready() -> io::Result<()> {
    channel::say("READY=1\n")
}

/// Reports the status of this worker in one line (`STATUS=`), for the log.
///
/// # Errors
/// `InvalidInput` when it is more than one line, or too long; or when the master is gone.
pub fn status(text: &str) -> io::Result<()> {
    if text.contains('\n') || text.len() > channel::STATUS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a status is one line of at most 1024 bytes"));
    }
    channel::say(&format!("STATUS={text}\n"))
}

/// Says that this worker is alive (`WATCHDOG=1`), for `--watchdog`.
///
/// # Errors
/// When the master is gone.
pub fn watchdog() -> io::Result<()> {
    channel::say("WATCHDOG=1\n")
}

/// Says that this worker is about to end by itself (`STOPPING=1`).
///
/// # Errors
/// When the master is gone.
pub fn leaving() -> io::Result<()> {
    channel::say("STOPPING=1\n")
}

/// Whether the master asked this worker to end (`STOP=1`), or is gone. No new connection comes then. Finish those that
/// are open and exit; once they are closed, the stop signal comes, too.
#[must_use]
pub fn stopping() -> bool {
    channel::begin();
    stop::is_requested()
}

/// Waits until [`stopping`] is true: as a future, with any runtime, or by [`StopRequested::wait`] in a thread. Without
/// maitred it waits for ever.
pub fn stop_requested() -> StopRequested {
    channel::begin();
    StopRequested::new()
}
