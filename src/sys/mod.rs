//! The kernel, one file per family of system calls, each with a safe interface.
//!
//! All unsafe code of the crate lives here and in the preload shim. Nothing here makes decisions.

#![allow(unsafe_code, reason = "this is where it is allowed; every block says why it is sound")]

#[cfg(feature = "cli")]
pub mod clock;
pub mod dispose;
#[cfg(feature = "cli")]
pub mod exec;
pub mod fd;
#[cfg(feature = "cli")]
pub mod foreign;
pub mod interrupt;
#[cfg(feature = "cli")]
pub mod lock;
#[cfg(feature = "cli")]
pub mod memfd;
#[cfg(feature = "cli")]
pub mod outlet;
#[cfg(feature = "cli")]
pub mod process;
#[cfg(feature = "cli")]
pub mod reserve;
#[cfg(feature = "cli")]
pub mod rights;
#[cfg(feature = "cli")]
pub mod seccomp;
#[cfg(feature = "cli")]
pub mod secret;
#[cfg(feature = "cli")]
pub mod socket;
#[cfg(feature = "cli")]
pub mod taken;
#[cfg(feature = "tokio")]
pub mod watch;
