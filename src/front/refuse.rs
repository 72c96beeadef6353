//! Turning connections away: reset, or answered with a fixed HTTP 503, as `--when-full` says.

use super::counters::count;
use super::listener::Listener;
use super::refused::Because;
use crate::clock;
use crate::config::admission::WhenFull;
use crate::sys::dispose::{self, Foreign};
use crate::sys::watch;
use socket2::{SockRef, Socket};
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use tracing::warn;

/// Connections that were answered with 503 and are still read from. If they were closed while more of the request
/// comes, they would be reset, and the client might not see its answer.
const LINGERING_MAX: usize = 256;
/// How long they are read from.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a request that are read and discarded at once.
const DISCARD: usize = 16 * 1024;
/// How often that happens for one connection.
const DISCARDS_MAX: u32 = 16;
/// Least time between two log lines about the same subject.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The answer.
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 24\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\ntoo busy, try again soon";

/// Turns away a connection that no worker has had.
pub fn refuse(listener: &Listener, connection: OwnedFd, because: Because) {
    note(listener, because);
    match listener.common.admission.when_full {
        // It was promised a place, and waited; a reset says most clearly that there is none.
        WhenFull::Wait | WhenFull::Reset => reset(connection.as_fd()),
        WhenFull::Unavailable => answer(listener, connection),
    }
}

/// Turns away a connection that a worker returned and may still have a copy of.
pub fn refuse_returned(listener: &Listener, connection: Foreign, because: Because) {
    note(listener, because);
    match listener.common.admission.when_full {
        WhenFull::Wait | WhenFull::Reset => reset(connection.as_fd()),
        WhenFull::Unavailable => {
            // This connection does not linger: the worker decides how long its close takes.
            if say_unavailable(&SockRef::from(&connection)) {
                count(&listener.common.refused.answered);
            }
        }
    }
}

fn note(listener: &Listener, because: Because) {
    let refused = &listener.common.refused;
    count(refused.of(because));
    let now = clock::now();
    if refused.said.get().is_none_or(|said| now.since(said) >= SAY_EVERY) {
        refused.said.set(Some(now));
        let (refused, open) = (refused.total(), listener.common.opens.total());
        warn!(listener = %listener.address, ?because, refused, open, "turning connections away");
    }
}

/// Makes the close a reset, which waits for nothing.
fn reset(connection: BorrowedFd<'_>) {
    // If it fails the client gets an end of file instead.
    let _ = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
}

/// Answers what was asked so far. Returns false when the client is gone.
fn say_unavailable(socket: &Socket) -> bool {
    // A fresh connection's buffer is empty, so the answer fits at once or the client is gone.
    let said = discard(socket) != Discarded::End
        && socket.send_with_flags(UNAVAILABLE, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL).is_ok();
    if said {
        let _ = socket.shutdown(Shutdown::Write);
    }
    said
}

fn answer(listener: &Listener, connection: OwnedFd) {
    // It has the listener's SO_LINGER, and the close would wait for a client that reads nothing.
    dispose::no_linger(connection.as_fd());
    let socket = Socket::from(connection);
    if !say_unavailable(&socket) {
        return;
    }
    let common = &listener.common;
    count(&common.refused.answered);
    // A connection that was accepted on the reserve descriptor gives it back at once.
    if common.refused.lingering.get() >= LINGERING_MAX || !common.reserve.is_there() {
        return;
    }
    let Ok(socket) = watch::readable(OwnedFd::from(socket)) else { return };
    let common = Rc::clone(common);
    common.refused.lingering.set(common.refused.lingering.get() + 1);
    tokio::task::spawn_local(async move {
        let _ = timeout(LINGER, linger(&socket)).await;
        common.refused.lingering.set(common.refused.lingering.get() - 1);
    });
}

/// Discards what a client still sends until it has closed its side, or has sent more than a request.
async fn linger(socket: &AsyncFd<OwnedFd>) {
    let mut reads = 0;
    while reads < DISCARDS_MAX
        && let Ok(mut ready) = socket.readable().await
    {
        match discard(&SockRef::from(socket.get_ref())) {
            Discarded::Nothing => ready.clear_ready(),
            Discarded::Something => {
                reads += 1;
                tokio::task::yield_now().await;
            }
            Discarded::End => return,
        }
    }
}

/// What there was to discard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Discarded {
    /// Nothing yet.
    Nothing,
    /// Something.
    Something,
    /// The client has closed its side, or is gone.
    End,
}

fn discard(socket: &Socket) -> Discarded {
    let mut buffer = [MaybeUninit::uninit(); DISCARD];
    match socket.recv_with_flags(&mut buffer, libc::MSG_DONTWAIT) {
        Ok(0) => Discarded::End,
        Ok(_) => Discarded::Something,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Discarded::Nothing,
        Err(_) => Discarded::End,
    }
}
