//! A program may use the listening socket that it inherits instead of one of its own. It works without the shim, but
//! the master needs to know when: before that the worker is not ready.

use super::abi::{SO_ACCEPTCONN, socket_option};
use super::channel::tell;
use super::text::Packet;
use super::{settings, taken};
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether an inherited socket was seen in use.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// The program listens on, inspects or accepts from `fd`, which is not one of ours. If it is a listening socket, it
/// must be inherited: the master learns that the program has come this far.
pub fn used(fd: c_int) {
    let expected = settings::has_inherited() && !IN_USE.load(Relaxed);
    if expected && socket_option(fd, SO_ACCEPTCONN) == Some(1) {
        IN_USE.store(true, Relaxed);
        if let Some(count) = settings::count() {
            taken::start(count);
        }
        let mut packet = Packet::default();
        packet.push(b"READY=1\n");
        tell(&mut packet);
    }
}

/// Counts a connection that came through a socket that is not one of ours.
pub fn count(connection: c_int) -> c_int {
    if IN_USE.load(Relaxed) { taken::count(connection) } else { connection }
}
