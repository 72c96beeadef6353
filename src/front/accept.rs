//! The accept loop of one listener: kernel queue → policy → worker.
//!
//! Accepts in bounded bursts until the kernel has nothing more. When all workers are full it stops accepting, and the
//! kernel's queue holds the rest. Connections that ended or draining workers never took go first.

use super::Event;
use super::admission::{hand_over, hold, may_accept, place_held};
use super::counters::count;
use super::failures::CannotAccept;
use super::handoff::Handoff;
use super::incoming::NotTaken;
use super::listener::{HeldBy, Listener, Phase};
use super::mend::mend;
use super::next::{EXHAUSTED_PAUSE, Next, wait_after};
use super::room::WatchedRoom;
use super::worker_set::{Arrival, Offered};
use crate::clock;
use crate::sys::dispose::dispose;
use crate::sys::kick::Kicker;
use crate::sys::listen::{self, Accepted, Waiting};
use crate::sys::watch;
use crate::wire::address::Address;
use socket2::Socket;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Connections accepted before other tasks of the master get their turn (Envoy starved its other
/// listeners by accepting until `EAGAIN`, envoy#16213).
const BURST: u32 = 64;
/// Pause while no descriptor is free because those that were just handed over still wait to be closed.
const CLOSING_PAUSE: Duration = Duration::from_millis(5);

/// While ended or draining workers have untaken connections: how soon the loop looks for those again. The master does
/// not always hear of a worker that takes them itself.
const ORPHANS_RECHECK: Duration = Duration::from_millis(5);

/// Gives the listener's connections to the workers until it is closed.
pub async fn serve(listener: Rc<Listener>) {
    let served = serve_until_closed(&listener).await;
    listener.close();
    listener.common.admission_queue.leave(&listener);
    let end = match served {
        Err(error) if listener.phase.get() == Phase::Open => {
            listener.phase.set(Phase::GivenUp);
            Event::ListenerFailed { address: listener.address.to_string(), error }
        }
        _ => Event::ListenerClosed,
    };
    // The receiver ends before its senders only when the process does.
    let _ = listener.common.reports.send(end).await;
    // Draining workers may still have connections that they have not taken. Until the master ends, this task must
    // notice when they have taken them.
    loop {
        let waited = match place_waiting(&listener).await {
            Next::Pause(time) => {
                sleep(time).await;
                Ok(())
            }
            Next::AwaitRoom => await_room(&listener).await,
            Next::Again | Next::AwaitConnection if listener.workers.is_draining() => {
                sleep(ORPHANS_RECHECK).await;
                Ok(())
            }
            Next::Again | Next::AwaitConnection => {
                listener.changed.notified().await;
                Ok(())
            }
        };
        if waited.is_err() {
            sleep(EXHAUSTED_PAUSE).await;
        }
    }
}

/// Accepts, and mends the socket when another holder made it useless. An error says that the address must be given up.
async fn serve_until_closed(listener: &Rc<Listener>) -> io::Result<()> {
    loop {
        match accept_until_closed(listener).await {
            Ok(()) => return Ok(()),
            // What waited is gone with the socket's queue, and nothing new is wanted.
            Err(_) if listener.phase.get() == Phase::Closing => return Ok(()),
            Err(why) => mend(listener, why).await?,
        }
    }
}

/// Accepts on the socket that the listener has now. The reactor never forgets a hang-up, so a socket that listens again
/// gets a new watch.
async fn accept_until_closed(listener: &Rc<Listener>) -> Result<(), CannotAccept> {
    let Some(socket) = listener.socket() else { return Ok(()) };
    socket.set_nonblocking(true)?;
    let watched = watch::readable(socket)?;
    // How many connections to take after the order to close: those that waited then. Later ones are refused.
    let mut remaining = None;
    loop {
        if listener.phase.get() == Phase::Closing && listener.workers.is_empty() {
            // No worker is left that could take what waits.
            return Ok(());
        }
        let mut next = place_waiting(listener).await;
        if next == Next::AwaitRoom && listener.held.borrow().is_none() && listener.is_full() {
            // Untaken connections wait for a worker, but those that come now may be refused.
            next = Next::Again;
        }
        if next == Next::Again && !may_accept(listener) {
            next = Next::AwaitRoom;
        }
        if next == Next::Again && listener.phase.get() == Phase::Closing {
            let left = remaining.get_or_insert_with(|| waiting_in_kernel(listener));
            let (accepted, after) = burst(listener, watched.get_ref(), BURST.min(*left))?;
            *left -= accepted;
            let last = *left == 0 || after == Next::AwaitConnection;
            if last && listener.held.borrow().is_none() {
                return Ok(());
            }
            next = after;
        } else if next == Next::Again {
            let mut guard = tokio::select! {
                ready = watched.readable() => ready?,
                () = listener.changed.notified() => continue,
                () = recheck(), if listener.workers.is_draining() => continue,
            };
            next = burst(listener, watched.get_ref(), BURST)?.1;
            if next == Next::AwaitConnection {
                listener.saturated.take();
                if guard.ready().is_read_closed() {
                    // A hang-up, which the reactor never forgets; a Unix socket then only says that no connection
                    // waits.
                    return Err(CannotAccept::ShutDown);
                }
                guard.clear_ready();
            }
        }
        match next {
            Next::Again => tokio::task::yield_now().await,
            Next::AwaitConnection => {}
            Next::AwaitRoom => {
                if let Err(error) = await_room(listener).await {
                    debug!(listener = %listener.address, %error, "cannot wait for room");
                    sleep(EXHAUSTED_PAUSE).await;
                }
            }
            Next::Pause(time) => sleep(time).await,
        }
    }
}

/// Created only when it is polled: a timer has a cost even if it is not waited for.
async fn recheck() {
    sleep(ORPHANS_RECHECK).await;
}

/// Connections in the kernel's queue; where the kernel does not tell, as many as fit into the queue.
fn waiting_in_kernel(listener: &Listener) -> u32 {
    match listener.address {
        Address::Tcp(_) => listener.queued(),
        Address::Unix(_) | Address::Abstract(_) => listener.backlog.get(),
    }
}

/// Accepts up to `most` connections and hands them over.
fn burst(listener: &Listener, socket: &Socket, most: u32) -> Result<(u32, Next), CannotAccept> {
    listener.common.opens.catch_up();
    listener.common.activity.begin();
    let kicker = listener.common.kicker.get();
    kicker.iter().for_each(|kicker| kicker.attend());
    let kicker = kicker.filter(|_| listener.held_by.get() != HeldBy::Master);
    // On a socket that other processes hold, accept only what is known to wait, since the call could block.
    let waiting = kicker.map_or(Ok(Waiting::Unknown), |_| listen::waiting(socket))?;
    let (most, after) = match waiting {
        Waiting::Known(waiting) if waiting < most => (waiting, Next::AwaitConnection),
        Waiting::Known(_) | Waiting::Unknown => (most, Next::Again),
    };
    let mut aborted = 0;
    for accepted in 0..most {
        if !may_accept(listener) {
            return Ok((accepted, Next::AwaitRoom));
        }
        let mut got = accept(socket, kicker)?;
        if let Accepted::Exhausted(_) = got {
            // One connection at a time still goes through, on the reserve descriptor.
            let _ = listener.common.reserve.free_one();
            got = accept(socket, kicker)?;
        }
        match got {
            Accepted::Connection(connection, peer) => {
                listener.accepted.set(listener.accepted.get() + 1);
                if listener.exhausted.replace(false) {
                    info!(listener = %listener.address, "accepting again");
                }
                let next = hand_over(listener, connection, listen::peer_bytes(&peer));
                listener.common.reserve.refill();
                if next != Next::Again {
                    return Ok((accepted + 1, next));
                }
            }
            Accepted::Empty | Accepted::Interrupted => return Ok((accepted, Next::AwaitConnection)),
            Accepted::Aborted(error) => {
                aborted += 1;
                if aborted == BURST {
                    // Not one connection among so many attempts: something forbids them, and will go on doing so.
                    warn!(listener = %listener.address, %error, "every connection fails when it is accepted, pausing");
                    return Ok((accepted, Next::Pause(EXHAUSTED_PAUSE)));
                }
            }
            Accepted::Exhausted(error) => {
                let pause_ms = EXHAUSTED_PAUSE.as_millis();
                // One line for the whole time in which nothing is accepted.
                if !listener.exhausted.replace(true) {
                    warn!(listener = %listener.address, %error, pause_ms, "cannot accept, pausing; raise the limit with ulimit -n");
                }
                listener.common.reserve.refill();
                return Ok((accepted, Next::Pause(EXHAUSTED_PAUSE)));
            }
        }
    }
    // A failed attempt may have taken none of the connections that were counted.
    Ok((most, if aborted > 0 { Next::Again } else { after }))
}

/// Accepts one connection. On a socket that other processes hold, it never waits for long.
#[inline]
fn accept(socket: &Socket, kicker: Option<&Kicker>) -> Result<Accepted, CannotAccept> {
    let Some(kicker) = kicker else { return Ok(listen::accept(socket)?) };
    match kicker.during(|| listen::accept(socket))? {
        Accepted::Interrupted => Err(CannotAccept::Blocked),
        got => Ok(got),
    }
}

/// Gives the held connection, and those in the queues of ended and draining workers, to other workers.
async fn place_waiting(listener: &Listener) -> Next {
    if listener.held.borrow().is_some() || listener.workers.is_draining() {
        listener.common.activity.begin();
    }
    let held = place_held(listener);
    // A connection that was handed over once has its place, so it need not wait for one behind the held connection.
    let waits_for_a_place = held == Next::AwaitRoom && listener.has_no_place() && listener.workers.has_room();
    if held != Next::Again && !waits_for_a_place || !listener.workers.is_draining() {
        return held;
    }
    let next = rescue(listener);
    listener.common.reserve.refill();
    for worker in listener.workers.drop_drained() {
        let _ = listener.common.reports.send(Event::HandoffEmptied { worker }).await;
    }
    if held == Next::Again { next } else { held }
}

/// Moves connections from draining queues to workers with room.
fn rescue(listener: &Listener) -> Next {
    let draining = listener.workers.draining();
    let rescued = draining.iter().map(|draining| rescue_from(listener, draining));
    // The first reason to stop holds for all.
    rescued.into_iter().find(|next| *next != Next::Again).unwrap_or(Next::Again)
}

fn rescue_from(listener: &Listener, draining: &Handoff) -> Next {
    let mut rescued = 0u32;
    let next = loop {
        if !listener.workers.has_room() {
            break Next::AwaitRoom;
        }
        if !listener.common.reserve.free_one() {
            break Next::Pause(CLOSING_PAUSE);
        }
        match draining.take_back() {
            Ok(taken) => {
                rescued += 1;
                draining.failing.set(false);
                listener.common.returns.forget(taken.connection.as_fd());
                let offered = listener.workers.offer(taken.incoming(), Arrival::New);
                if matches!(offered, Offered::Handed) {
                    // The worker that had it in its queue may have a copy, and may have prepared it.
                    dispose(taken.connection);
                } else {
                    if listener.held.borrow().is_none() {
                        hold(listener, taken);
                    } else if !draining.untake(&taken) {
                        count(&listener.common.lost);
                    }
                    break wait_after(listener, &offered);
                }
            }
            Err(NotTaken::Nothing | NotTaken::Ended) => break Next::Again,
            Err(why @ NotTaken::Lost) => {
                count(&listener.common.lost);
                warn!(worker = draining.worker.0, %why, "a connection was lost while it was taken back");
            }
            Err(NotTaken::Failed(error)) => {
                // Nothing was taken out, and the next attempt would fail in the same way.
                if !draining.failing.replace(true) {
                    warn!(worker = draining.worker.0, %error, "cannot take connections back, trying again");
                }
                break Next::Pause(EXHAUSTED_PAUSE);
            }
        }
    };
    if rescued > 0 {
        let (slot, worker) = (draining.slot.0, draining.worker.0);
        info!(listener = %listener.address, slot, worker, rescued, "gave untaken connections to other workers");
    }
    next
}

/// Begins or continues to watch what workers take. That would wake the master once for each connection, so it ends when
/// the kernel's queue is empty.
fn watch_room(listener: &Listener) -> io::Result<Rc<AsyncFd<WatchedRoom>>> {
    let mut saturated = listener.saturated.borrow_mut();
    if let Some(watched) = &*saturated {
        return Ok(Rc::clone(watched));
    }
    let watched = Rc::new(watch::readable(WatchedRoom(Rc::clone(&listener.workers.room)))?);
    Ok(Rc::clone(saturated.insert(watched)))
}

/// Waits until a worker takes a connection, or something about the workers changes.
async fn await_room(listener: &Listener) -> io::Result<()> {
    if listener.workers.is_empty() && !listener.workers.is_draining() {
        listener.changed.notified().await;
        return Ok(());
    }
    let watched = watch_room(listener)?;
    let (_attention, freed) = listener.common.opens.freed();
    let moved = listener.common.admission_queue.moved.notified();
    // What was taken before this line shows in the queues; what is taken after it wakes the loop. The same holds for
    // what was closed.
    tokio::select! {
        biased;
        before = watched.readable() => before?.clear_ready(),
        () = std::future::ready(()) => {}
    }
    if !listener.workers.room.remembers() {
        listener.workers.room.read();
    }
    listener.common.opens.catch_up();
    for worker in listener.workers.drop_drained() {
        let _ = listener.common.reports.send(Event::HandoffEmptied { worker }).await;
    }
    if listener.workers.has_room() && !listener.is_full() {
        return Ok(());
    }
    let held_until = listener.held_until.get().filter(|_| listener.held.borrow().is_some());
    let left = held_until.filter(|_| !listener.workers.is_empty()).map(|until| until.since(clock::now()));
    tokio::select! {
        ready = watched.readable() => ready?.clear_ready(),
        () = listener.changed.notified() => {}
        () = freed => {}
        () = moved => {}
        () = async { sleep(left.unwrap_or_default()).await }, if left.is_some() => {}
    }
    Ok(())
}
