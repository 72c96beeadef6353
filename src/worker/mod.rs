//! For servers written in Rust: take connections from maitred, or listen alone when there is none.
//!
//! ```no_run
//! let listener = maitred::worker::Listener::bind("127.0.0.1:8080".parse().unwrap())?;
//! loop {
//!     let (stream, peer) = listener.accept()?;
//!     # drop((stream, peer));
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! With tokio, [`AsyncListener`]; with the feature `axum`, that is an `axum::serve::Listener`.
//! Started without maitred, both are ordinary listeners, so one binary serves in both worlds.

mod asynchronous;
mod blocking;
mod session;

pub use asynchronous::AsyncListener;
pub use blocking::Listener;

/// The slot of this worker, `0..N-1`, if maitred started it.
#[must_use]
pub fn slot() -> Option<u32> {
    std::env::var(crate::wire::environment::SLOT).ok()?.parse().ok()
}
