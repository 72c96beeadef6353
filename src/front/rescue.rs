//! Connections that wait in the master or in the hand-off sockets of ended and draining workers: they go to other workers
//! first, and the loop waits for room when no worker has any.

use super::Event;
use super::admission::{hold, place_held};
use super::counters::count;
use super::handoff::Handoff;
use super::incoming::NotTaken;
use super::listener::Listener;
use super::next::{EXHAUSTED_PAUSE, Next, wait_after};
use super::room::WatchedRoom;
use super::worker_set::{Arrival, Offered};
use crate::clock;
use crate::sys::dispose::dispose;
use crate::sys::watch;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tracing::{info, warn};

/// Pause while no descriptor is free because what was given on a moment ago waits to be closed.
const CLOSING_PAUSE: Duration = Duration::from_millis(5);

/// Gives the held connection, and those in the queues of ended and draining workers, to other workers.
pub async fn place_waiting(listener: &Listener) -> Next {
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
pub async fn await_room(listener: &Listener) -> io::Result<()> {
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
