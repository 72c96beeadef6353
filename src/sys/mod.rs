//! The kernel, one file per family of system calls, each with a safe face.
//!
//! All unsafe code of the crate lives here and in the preload shim. Nothing here decides.

#![allow(unsafe_code, reason = "this is where it is allowed; every block says why it is sound")]

pub mod allocations;
pub mod bpf;
pub mod census;
pub mod clock;
pub mod closes;
pub mod credentials;
pub mod descent;
pub mod dispose;
pub mod exec;
pub mod fd;
pub mod foreign;
pub mod guard;
pub mod inherited;
pub mod interrupt;
pub mod keep;
pub mod kick;
pub mod library;
pub mod limits;
pub mod listen;
pub mod lock;
pub mod memfd;
pub mod needs;
pub mod outlet;
pub mod own_pair;
pub mod process;
pub mod reap;
pub mod reserve;
pub mod rights;
pub mod room;
pub mod seccomp;
pub mod secret;
pub mod sock_diag;
pub mod socket_file;
pub mod spawn;
pub mod sweep;
pub mod taken;
pub mod trusted;
pub mod watch;
