//! What becomes of a listening socket from which nothing can be accepted any more. Every process that also holds it
//! can shut it down, connect it, or make it block; and `accept(2)` may say what nobody expects. The socket listens
//! again, or one that only the master holds takes its place, or the address is given up: the other addresses go on.

use super::Event;
use super::accept::CannotAccept;
use super::listener::{HeldBy, Listener, Phase};
use crate::clock;
use crate::core::moment::Moment;
use crate::sys::{listen, watch};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Failures in a row after which an address is given up: with the pauses that is some thirteen seconds.
const FAILURES_MAX: u32 = 8;
/// Pause before a socket is mended for the second time in a row; twice as long each time after that. A holder that
/// shuts it down again and again gets no more of the master's time than this.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A socket that worked for so long starts anew with its failures.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// Calls that a holder made wait before the socket is replaced where that can be.
const BLOCKED_MAX: u32 = 3;
/// The longest pause after such a call, which took some 20 ms of the master's time; clients wait as long as this.
const BLOCKED_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Attempts in which a socket that was passed to the master listens again, before another takes its place.
const SAME_SOCKET_MAX: u32 = 3;

/// How often a listener's socket failed of late.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures {
    count: u32,
    last: Option<Moment>,
}

impl Failures {
    /// One more at this time.
    fn and_one(self, now: Moment) -> Failures {
        let forgiven = self.last.is_none_or(|last| now.since(last) >= FORGIVEN_AFTER);
        Failures { count: if forgiven { 1 } else { self.count + 1 }, last: Some(now) }
    }

    /// How long to wait before anything is tried.
    fn pause(self, why: &CannotAccept) -> Duration {
        let longest = match why {
            CannotAccept::Blocked => BLOCKED_PAUSE_MAX,
            CannotAccept::ShutDown | CannotAccept::Failed(_) => PAUSE_MAX,
        };
        match self.count {
            0 | 1 => Duration::ZERO,
            count => (PAUSE * 2u32.saturating_pow(count - 2).min(1 << 10)).min(longest),
        }
    }
}

/// Makes it possible to accept again.
///
/// # Errors
/// When the address must be given up.
pub async fn mend(listener: &Listener, mut why: CannotAccept) -> Result<(), io::Error> {
    loop {
        let failures = listener.failures.get().and_one(clock::now());
        listener.failures.set(failures);
        let (attempt, address) = (failures.count, &listener.address);
        // One that only blocks does listen.
        if attempt > FAILURES_MAX && !matches!(why, CannotAccept::Blocked) {
            return Err(why.into());
        }
        match attempt {
            1 => warn!(%address, error = %why, "cannot accept here any more, mending the socket"),
            _ => debug!(%address, error = %why, attempt, "cannot accept here any more, mending the socket again"),
        }
        // What came during a pause would be lost with the socket, so this is decided before.
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

/// Watches a listening socket on which the workers accept by themselves: one that a worker shuts down listens again.
/// Ends when the address is closed, or must be given up.
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
            let _ = listener.house.reports.send(Event::ListenerFailed { address, error }).await;
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
    /// One that only the master holds took its place.
    NewSocket,
}

/// Waits, unless the listener shall be closed.
async fn pause(listener: &Listener, time: Duration) {
    let mut sleeping = pin!(sleep(time));
    while listener.phase.get() != Phase::Closing {
        tokio::select! {
            () = &mut sleeping => return,
            () = listener.changed.notified() => {}
        }
    }
}

/// Whether another socket takes the place of one that a holder makes block, in which nobody waits at this moment: such
/// a call has just found nothing.
fn is_replaced_at_once(listener: &Listener, why: &CannotAccept, attempt: u32) -> bool {
    matches!(why, CannotAccept::Blocked)
        && attempt >= BLOCKED_MAX
        && listener.held_by.get() != HeldBy::Manager
        && listener.socket().is_some_and(|socket| listen::queued(socket.as_fd()) == 0)
}

/// One attempt; tells what was done.
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
        // Its next start is passed the very same socket, so that goes before another one, for as long as it is let.
        HeldBy::Manager if attempt <= SAME_SOCKET_MAX => again().or_else(|error| replace().map_err(|_| error)),
        _ => replace().or_else(|error| again().map_err(|_| error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_old_failures_are_forgiven() {
        let begun = clock::now();
        let mut failures = Failures::default();
        let mut pauses = Vec::new();
        for _ in 0..FAILURES_MAX {
            failures = failures.and_one(begun);
            pauses.push(failures.pause(&CannotAccept::ShutDown));
        }
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(pauses, [ms(0), ms(50), ms(100), ms(200), ms(400), ms(800), ms(1600), ms(3200)]);
        assert_eq!(failures.and_one(begun).count, FAILURES_MAX + 1);
        assert_eq!(failures.and_one(begun + FORGIVEN_AFTER).count, 1);
        let many = Failures { count: 40, ..failures };
        assert_eq!((many.pause(&CannotAccept::ShutDown), many.pause(&CannotAccept::Blocked)), (PAUSE_MAX, ms(200)));
    }
}
