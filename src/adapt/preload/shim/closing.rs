//! The end of a listening socket: closed, shut down, or turned into a client's socket.

use super::abi::*;
use super::channel::request;
use super::descriptors::{high_copy, set_nonblocking};
use super::listening::{about, note, put_in_place};
use super::process::owns_memory;
use super::table::{Entry, State, find, lock};
use super::text::Packet;
use core::ffi::c_int;

/// `connect` on a bound socket: it turns out to be a client's socket. `Some` is a failure.
///
/// # Safety
/// As for `connect(2)`.
pub unsafe fn give_up_for_client(fd: c_int, entry: &'static Entry) -> Option<c_int> {
    let mut locked = lock();
    let detail = locked.detail(entry);
    let (name, len, own) = (detail.name, detail.name_len, detail.own);
    // Bound to a port that the kernel chose, by the program itself or by the master for it.
    let is_bound = detail.ephemeral || detail.adopted;
    let was = entry.state();
    drop(locked);
    match was {
        State::Ephemeral | State::Bound | State::SharedBound => {}
        // It listens (`__inet_stream_connect` in net/ipv4/af_inet.c; a Unix socket gives another error).
        State::Handoff if entry.family() != AF_UNIX => return Some(fail(EISCONN)),
        _ => return None,
    }
    if own >= 0 {
        let flags = kernel!(nr::FCNTL, fd, F_GETFL) & O_NONBLOCK != 0;
        put_in_place(fd, entry, own);
        set_nonblocking(fd, flags);
    }
    if was != State::Ephemeral {
        // Done at once: an address that a client uses cannot have a listener. The master's copy of the socket is
        // closed when this is answered, even if the answer is only the end of the connection that should bring it.
        let id = lock().detail(entry).id;
        let mut packet = Packet::default();
        if about(entry, &mut packet, "CLOSE", id)
            && let Ok(answer) = request(&mut packet, None)
        {
            answer.discard();
        }
    }
    drop(forget(fd));
    if is_bound {
        return None;
    }
    // SAFETY: `name` is an array of at least `len` bytes.
    let ret = unsafe { next::bind(fd, name.as_ptr(), len) };
    (ret < 0).then_some(ret)
}

/// The end of a pipe that the master watches, to be closed after the socket: the master then checks which processes
/// still have the socket.
#[must_use]
pub struct Hold(c_int);

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0 >= 0 {
            lock().discard(self.0);
        }
    }
}

/// Forgets one descriptor number of a listening socket; after the last one it tells the master.
pub fn forget(fd: c_int) -> Hold {
    let Some(entry) = find(fd).filter(|_| owns_memory()) else { return Hold(-1) };
    let mut locked = lock();
    if !locked.forget(fd) {
        return Hold(-1);
    }
    let detail = locked.detail(entry);
    let (own, hold, id, mine) = (detail.own, detail.hold, detail.id, detail.owner == getpid());
    let known = entry.state() != State::Ephemeral;
    if own >= 0 {
        locked.discard(own);
    }
    drop(locked);
    // Without a pipe, the master does not see which processes have the socket: a forked child that closes its copy
    // does not end the listening of the worker.
    if hold < 0 && mine && known {
        note(entry, "CLOSE", id);
    }
    lock().free(entry);
    Hold(hold)
}

/// Moves one of the shim's own descriptors away from a number that the program is about to use.
pub fn make_way(fd: c_int) {
    let copy = high_copy(fd);
    lock().moved(fd, copy);
}

/// `connect` to no address: a listening TCP socket stops listening and keeps its address (`tcp_disconnect` in
/// net/ipv4/tcp.c). HAProxy pauses like that.
pub fn disconnect(fd: c_int, entry: &'static Entry) -> c_int {
    const SHUT_RDWR: c_int = 2;
    match entry.state() {
        // A Unix socket has no such call (`unix_stream_connect` in net/unix/af_unix.c).
        _ if entry.family() == AF_UNIX => fail(EINVAL),
        State::Handoff if !shut(entry) => {
            kernel!(nr::SHUTDOWN, fd, SHUT_RDWR);
            0
        }
        State::Shared => {
            shut(entry);
            0
        }
        _ => 0,
    }
}

/// The program shut its listener down: no new connections come, and the waiting ones go to other workers. True when
/// the descriptor is the listening socket of all workers, which must stay open.
pub fn shut(entry: &'static Entry) -> bool {
    let id = lock().detail(entry).id;
    let shared = entry.state() == State::Shared;
    entry.set_state(if shared { State::SharedShut } else { State::Shut });
    note(entry, "CLOSE", id);
    shared
}
