//! Ways in for the fuzz targets of `tests/fuzz`, to readers that are private otherwise. Only `cargo fuzz` builds
//! this (`--cfg fuzzing`).

use crate::{cli, master, sys, workers};
use std::io;
use std::os::fd::OwnedFd;

/// What a configuration file means.
///
/// # Errors
/// What is said to its owner.
pub fn configuration(text: &str) -> Result<(), String> {
    cli::meaning_of_file(text)
}

/// The state that an upgrade passes on. Whether it is understood.
#[must_use]
pub fn state(bytes: &[u8]) -> bool {
    master::upgrade::is_state(bytes)
}

/// What a worker answers to a probe.
pub fn probe(bytes: &[u8]) {
    // Whatever it finds.
    let _ = workers::probe::status(bytes);
}

/// What files of `/proc` tell of a process.
pub fn proc(bytes: &[u8]) {
    sys::rights::read_any(bytes);
    sys::foreign::read_any(bytes);
}

/// The kernel's answers about sockets.
pub fn sock_diag(bytes: &[u8]) {
    sys::socket::sock_diag::read_any(bytes);
}

/// A file without a name that may be executed.
///
/// # Errors
/// That of `memfd_create(2)`.
pub fn executable_in_memory() -> io::Result<OwnedFd> {
    Ok(nix::sys::memfd::memfd_create("program", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?)
}
