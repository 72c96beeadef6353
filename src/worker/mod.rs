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
//! With the feature `tokio` there is [`AsyncListener`], which with the feature `axum` is an `axum::serve::Listener`. Unix
//! sockets have [`UnixListener`] and [`AsyncUnixListener`]. A worker may have several listeners.
//!
//! Started without maitred all of them are ordinary listeners, and what is told to the master goes nowhere; so one
//! binary serves in both worlds.
//!
//! A thread reads what the master says, from the first listener or word on to the end of the process: it answers
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

/// Says that this worker is ready (`READY=1`), for `--ready notify`. A worker that listens need not say so otherwise.
///
/// # Errors
/// When the master is gone.
pub fn ready() -> io::Result<()> {
    channel::say("READY=1\n")
}

/// Says in a line how this worker is (`STATUS=`), for the log.
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

/// Whether the master asked this worker to end (`STOP=1`), or is gone. No new connection comes then; finish those that
/// are open and exit. The stop signal comes, too, when they are closed.
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
