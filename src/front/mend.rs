//! Repairs a listening socket from which nothing can be accepted any more. Every process that also holds it can shut it
//! down, connect it, or make it block, and `accept(2)` may return an unexpected error. The socket listens again, or one
//! that only the master holds takes its place, or the address is given up. The other addresses go on.

use super::Event;
use super::failures::{CannotAccept, FAILURES_MAX};
use super::listener::{HeldBy, Listener, Phase};
use crate::clock;
use crate::sys::socket::listen;
use crate::sys::watch;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Calls that a holder made block, after which the socket is replaced where that is possible.
const BLOCKED_MAX: u32 = 3;
/// Attempts to make a socket that was passed to the master listen again, before another takes its place.
const SAME_SOCKET_MAX: u32 = 3;

/// Makes it possible to accept again.
///
/// # Errors
/// When the address must be given up.
pub async fn mend(listener: &Listener, mut why: CannotAccept) -> Result<(), io::Error> {
    loop {
        let failures = listener.failures.get().and_one(clock::now());
        listener.failures.set(failures);
        let (attempt, address) = (failures.count, &listener.address);
        // A socket that only blocks does listen.
        if attempt > FAILURES_MAX && !matches!(why, CannotAccept::Blocked) {
            return Err(why.into());
        }
        match attempt {
            1 => warn!(%address, error = %why, "cannot accept here any more, mending the socket"),
            _ => debug!(%address, error = %why, attempt, "cannot accept here any more, mending the socket again"),
        }
        // What came during a pause would be lost with the socket, so this is decided first.
        if !is_replaced_at_once(listener, &why, attempt) {
            pause(listener, failures.pause(&why)).await;
        }
        if listener.phase.get() == Phase::Closing {
            return Ok(());
        }
        match try_to(listener, &why, attempt) {
            Ok(how) => {
                match (how, attempt) {
                    (Mended::NewSocket, _) | (_, 1) => info!(%address, ?how, "accepting again"),
                    _ => debug!(%address, ?how, attempt, "accepting again"),
                }
                return Ok(());
            }
            Err(error) => why = CannotAccept::Failed(error),
        }
    }
}

/// Watches a listening socket on which the workers accept by themselves. If a worker shuts it down, the master makes it
/// listen again. Ends when the address is closed, or must be given up.
pub async fn keep_listening(listener: Rc<Listener>) {
    while let Some(socket) = listener.socket() {
        let Ok(watched) = watch::shut(socket) else { return };
        if watch::is_shut(&watched).await.is_err() {
            return;
        }
        drop(watched);
        if let Err(error) = listen_again(&listener).await {
            if listener.phase.get() != Phase::Closing {
                listener.phase.set(Phase::GivenUp);
            }
            listener.close();
            let address = listener.address.to_string();
            let _ = listener.common.reports.send(Event::ListenerFailed { address, error }).await;
            return;
        }
    }
}

async fn listen_again(listener: &Listener) -> io::Result<()> {
    loop {
        let failures = listener.failures.get().and_one(clock::now());
        listener.failures.set(failures);
        pause(listener, failures.pause(&CannotAccept::ShutDown)).await;
        let Some(socket) = listener.socket().filter(|_| listener.phase.get() != Phase::Closing) else { return Ok(()) };
        match listen::listen_again(&socket, &listener.address, listener.backlog.get()) {
            Ok(()) => {
                let (address, attempt) = (&listener.address, failures.count);
                match attempt {
                    1 => warn!(%address, "a worker shut the listening socket of all down; listening again"),
                    _ => debug!(%address, attempt, "a worker shut the listening socket of all down again"),
                }
                return Ok(());
            }
            Err(error) if failures.count > FAILURES_MAX => return Err(error),
            Err(_) => {}
        }
    }
}

/// How it became possible to accept again.
#[derive(Clone, Copy, Debug)]
enum Mended {
    /// The file does not block any more.
    Unblocked,
    /// The same socket listens again.
    SameSocket,
    /// A socket that only the master holds took its place.
    NewSocket,
}

/// Waits, unless the listener is to be closed.
async fn pause(listener: &Listener, time: Duration) {
    let mut sleeping = pin!(sleep(time));
    while listener.phase.get() != Phase::Closing {
        tokio::select! {
            () = &mut sleeping => return,
            () = listener.changed.notified() => {}
        }
    }
}

/// Whether another socket takes the place of one that a holder makes block and in which no connection waits at this
/// moment: such a call has just found nothing.
fn is_replaced_at_once(listener: &Listener, why: &CannotAccept, attempt: u32) -> bool {
    matches!(why, CannotAccept::Blocked)
        && attempt >= BLOCKED_MAX
        && listener.held_by.get() != HeldBy::Manager
        && listener.socket().is_some_and(|socket| listen::queued(socket.as_fd()) == 0)
}

/// Makes one attempt; returns what was done.
fn try_to(listener: &Listener, why: &CannotAccept, attempt: u32) -> io::Result<Mended> {
    let Some(old) = listener.socket() else { return Err(io::ErrorKind::NotConnected.into()) };
    if matches!(why, CannotAccept::Blocked) && !is_replaced_at_once(listener, why, attempt) {
        return old.set_nonblocking(true).map(|()| Mended::Unblocked);
    }
    let again = || {
        listen::listen_again(&old, &listener.address, listener.backlog.get())?;
        old.set_nonblocking(true).map(|()| Mended::SameSocket)
    };
    let replace = || listener.replace_socket(&old).map(|()| Mended::NewSocket);
    match listener.held_by.get() {
        // The manager passes the very same socket to the next start, so that socket goes first, in the first attempts.
        HeldBy::Manager if attempt <= SAME_SOCKET_MAX => again().or_else(|error| replace().map_err(|_| error)),
        _ => replace().or_else(|error| again().map_err(|_| error)),
    }
}
