//! For servers written in Rust that are workers of [maitred](https://crates.io/crates/maitred): one process in front of N
//! copies of any TCP server, which makes them a cluster.
//!
//! A server does not have to know of maitred to be its worker. One that does can say more than a socket can: that it is
//! ready, how it is, that it does not want a connection; and it is told when it should end. See [`worker`].
//!
//! ```toml
//! maitred = { version = "0.1", default-features = false, features = ["worker"] }
//! ```
//!
//! | feature | brings |
//! |---|---|
//! | `worker` | [`worker`], for threads |
//! | `tokio` | the same for tokio |
//! | `axum` | a listener for `axum::serve` |
//! | `cli` (default) | the program `maitred` |
//!
//! The manual of the program is in its repository, and in `maitred help`. Everything else in this crate belongs to the
//! program and changes without notice.

#![cfg_attr(
    not(test),
    // No panic is reachable from outside, and only `cli::say` prints.
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::string_slice,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
mod activity;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod adapt;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod admin;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod apps;
#[doc(hidden)]
#[cfg(feature = "cli")]
pub mod architecture;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod aside;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod bench;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod check;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
mod clock;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod config;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod control;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod core;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod datagrams;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod front;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod kernel;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod lifecycle;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod logs;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod manual;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod master;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod opens;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod provoked;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod reports;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[doc(hidden)]
pub mod sys;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod triggers;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[doc(hidden)]
pub mod wire;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod worker;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod workers;
