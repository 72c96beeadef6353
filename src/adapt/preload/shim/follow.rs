//! Listening sockets that this program did not create itself: those that its predecessor had open at `exec`, or that
//! another process of the worker sent.
//!
//! The descriptor carries its own identity. The other end of a hand-off socket has a name, which `getpeername`
//! returns; a shared listening socket is bound and not connected. The master knows by the inode which request the
//! socket belongs to, and whether `listen` was called.

use super::abi::*;
use super::channel::request;
use super::descriptors::move_up;
use super::environment::HANDOFF_NAME;
use super::process::owns_memory;
use super::table::{Entry, State, find, lock};
use super::text::{Packet, name_of, value};
use super::{numbers, paths, settings, taken};
use core::ffi::{c_int, c_uint};

/// Checks every descriptor that this program has open when it begins.
pub fn start() {
    if settings::active() {
        numbers::each(|fd| {
            recognise(fd);
        });
    }
}

/// The entry of a descriptor that is not in the table, if it is a listening socket of this worker.
pub fn recognise(fd: c_int) -> Option<&'static Entry> {
    if !settings::active() || !owns_memory() || find(fd).is_some() || !may_be_ours(fd) {
        return None;
    }
    let mut packet = Packet::default();
    packet.line("FOLLOW", format_args!("{}", inode(fd)?));
    let answer = request(&mut packet, None).ok()?;
    let entry = enter(fd, answer.text(), answer.fds);
    if entry.is_none() {
        answer.discard();
    }
    entry
}

/// Whether it is worth asking the master: the end of a hand-off socket, or a socket that could listen.
fn may_be_ours(fd: c_int) -> bool {
    match socket_option(fd, SO_TYPE) {
        Some(SOCK_SEQPACKET) => {
            let Ok((name, len)) = name_by(nr::GETPEERNAME, fd) else { return false };
            // The family, and the zero byte of the abstract namespace.
            let begins = name.get(3..3 + HANDOFF_NAME.len()) == Some(HANDOFF_NAME.as_bytes());
            len > 3 && name[..2] == AF_UNIX.to_ne_bytes() && name[2] == 0 && begins
        }
        Some(SOCK_STREAM) if !settings::by_handoff() => {
            let Ok((name, len)) = name_by(nr::GETSOCKNAME, fd) else { return false };
            let port = || u16::from_be_bytes([name[2], name[3]]);
            let bound = match u16::from_ne_bytes([name[0], name[1]]) {
                AF_INET | AF_INET6 => port() != 0,
                AF_UNIX => len > 2,
                _ => false,
            };
            bound && name_by(nr::GETPEERNAME, fd).is_err()
        }
        _ => false,
    }
}

/// A socket's name, or its peer's.
fn name_by(call: i64, fd: c_int) -> Result<([u8; ADDRESS_MAX], usize), c_int> {
    let mut name = [0u8; ADDRESS_MAX];
    let mut len = ADDRESS_MAX as c_uint;
    match kernel!(call, fd, name.as_mut_ptr(), &raw mut len) as c_int {
        0 => Ok((name, len as usize)),
        n => Err(-n),
    }
}

/// Records the master's answer about the socket: in hand-off mode it brings a socket with the options and the end of a
/// pipe, otherwise only the end of a pipe.
fn enter(fd: c_int, text: &[u8], [first, second]: [c_int; 2]) -> Option<&'static Entry> {
    let name = value(text, "FOLLOWS").and_then(name_of)?;
    let id = value(text, "ID")?.parse().ok()?;
    if let Some(count) = value(text, "COUNT") {
        taken::start(count);
    }
    let listens = value(text, "LISTENS") == Some("1");
    let (state, own, hold) = match (value(text, "VIA"), listens) {
        (Some("handoff"), true) => (State::Handoff, first, second),
        (Some("handoff"), false) => (State::Bound, first, second),
        (_, true) => (State::Shared, -1, first),
        (_, false) => (State::SharedBound, -1, first),
    };
    let mut locked = lock();
    if let Some(entry) = locked.named(id) {
        // Another number of a socket that this process already knows by its first number; or another thread was
        // faster.
        if find(fd).is_none() {
            locked.alias(entry, fd);
        }
        drop(locked);
        [own, hold].into_iter().filter(|fd| *fd >= 0).for_each(close);
        return Some(entry);
    }
    let entry = locked.insert(fd, name.family, state)?;
    let [own, hold] = [own, hold].map(|fd| if fd < 0 { fd } else { move_up(fd) });
    [own, hold].into_iter().filter(|fd| *fd >= 0).for_each(|fd| locked.protect(fd));
    let detail = locked.detail(entry);
    (detail.id, detail.own, detail.hold) = (id, own, hold);
    // Other processes have the socket, too: without a pipe the master checks itself which ones still do.
    detail.owner = 0;
    (detail.name, detail.name_len, detail.ephemeral) = (name.bytes, name.len as c_uint, false);
    drop(locked);
    if let Some(path) = value(text, "FOLLOWS").and_then(|address| address.strip_prefix("unix:/")) {
        paths::remember_absolute(path);
    }
    Some(entry)
}
