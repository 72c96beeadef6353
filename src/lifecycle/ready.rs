//! When a worker counts as ready, by the chosen measure.

use super::failures::Failures;
use super::{Event, Events};
use crate::adapt::Chosen;
use crate::config::Mode;
use crate::config::life::{Probe, Ready};
use crate::core::fleet::{self, Fleet, KillReason, Manner, Occupant};
use crate::core::ids::WorkerId;
use crate::core::moment::millis;
use crate::front::accounts::Front;
use crate::front::listener::Listener;
use crate::workers::pool::Pool;
use crate::workers::probe::{self, Found};
use crate::workers::worker::Worker;
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// How long a worker with inherited sockets must live to count as ready (einhorn's default too).
const SETTLES: Duration = Duration::from_secs(1);
/// Pause between two questions to a starting worker.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long one answer of a starting worker may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker of a new generation must go on listening to count as ready: some programs bind and listen, find
/// out what is wrong, and close.
const STAYS: Duration = Duration::from_millis(200);
/// How long a worker of a new generation may listen on some of the old addresses and not on the others.
const ALL_ADDRESSES: Duration = Duration::from_secs(2);

/// What a worker said or did that may count as readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It listens, or uses a socket that it inherited.
    Listens,
    /// It said `READY=1`.
    Notified,
    /// Something else that was waited for has come: an answer, a line, the end of a time.
    Waited,
}

/// Begins to wait for the readiness of a worker that was just forked.
pub fn await_readiness(worker: &mut Worker, events: &Events) {
    let id = worker.id;
    let lives_for = match &worker.config.life.ready {
        Ready::Delay(time) => Some(*time),
        Ready::Listen if worker.adapter == Chosen::Inherit => Some(SETTLES),
        Ready::Listen | Ready::Notify | Ready::Http(_) | Ready::Fd(_) => None,
    };
    if let Some(time) = lives_for {
        let events = events.clone();
        worker.tasks.push(tokio::task::spawn_local(async move {
            sleep(time).await;
            let _ = events.send(Event::Ready { worker: id, signal: Signal::Waited }).await;
        }));
    }
    if let Some(notification) = worker.notification.clone() {
        worker.tasks.push(tokio::task::spawn_local(await_line(notification, id, events.clone())));
    }
}

/// What follows from something that may count as readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing yet, or nothing any more.
    NotYet,
    /// The master must first see which of its sockets a supervised worker has closed.
    LookFirst,
    /// The worker may serve if it listens where it should: see [`may_serve`].
    Ready,
}

/// Something happened that may count as readiness.
pub fn counts(id: WorkerId, signal: Signal, workers: &mut Pool, fleet: &Fleet) -> Readiness {
    let Some(worker) = workers.get_mut(id) else { return Readiness::NotYet };
    let counts = match (&worker.config.life.ready, signal) {
        (_, Signal::Waited)
        | (Ready::Listen, Signal::Listens | Signal::Notified)
        | (Ready::Notify, Signal::Notified) => true,
        (Ready::Notify | Ready::Http(_) | Ready::Delay(_) | Ready::Fd(_), _) => false,
    };
    worker.ready |= counts;
    if !worker.ready || !fleet.occupant(id).is_some_and(Occupant::is_starting) {
        return Readiness::NotYet;
    }
    if signal == Signal::Waited && worker.supervised.is_some() && worker.looks.may_begin() {
        return Readiness::LookFirst;
    }
    Readiness::Ready
}

/// Whether a worker that is ready may serve now: it listens where the workers do whose place it takes, and goes on
/// listening. If not, this begins something that leads to [`Event::Ready`] or [`Event::Unfit`], unless it listens
/// nowhere.
pub fn may_serve(
    id: WorkerId,
    signal: Signal,
    workers: &mut Pool,
    fleet: &Fleet,
    front: &Front,
    events: &Events,
) -> bool {
    if workers.get(id).is_none_or(Worker::is_deaf) {
        return false;
    }
    let missing = addresses_missing(id, workers, fleet);
    let Some(worker) = workers.get_mut(id) else { return false };
    if !missing.is_empty() {
        await_addresses(worker, &missing, events);
        return false;
    }
    if (signal != Signal::Waited || worker.may_be_deaf()) && see_whether_it_stays(worker, fleet, front, events) {
        return false;
    }
    let (slot, uptime_ms) = (worker.slot.0, millis(worker.age()));
    match (&worker.config.life.ready, signal) {
        (_, Signal::Listens) => {}
        // It went on listening for a moment.
        (Ready::Listen, Signal::Waited) if worker.listened => {
            for request in worker.requests.iter().filter(|request| request.accepting) {
                let address = &request.listener.address;
                info!(slot, worker = id.0, %address, uptime_ms, "worker ready");
            }
        }
        _ => info!(slot, worker = id.0, uptime_ms, "worker counts as ready"),
    }
    true
}

/// Lets the old generation serve a moment longer, in case a new worker closes what it has just listened on. Returns
/// false when there is no old worker.
fn see_whether_it_stays(worker: &mut Worker, fleet: &Fleet, front: &Front, events: &Events) -> bool {
    let (id, events) = (worker.id, events.clone());
    if fleet.reloading() != Some(worker.generation) {
        return false;
    }
    // In kernel mode the old worker has left before; what comes meanwhile waits.
    let others_serve = front.mode() == Mode::Kernel
        || fleet.slots().get(worker.slot.index()).is_some_and(|slot| slot.serving().is_some());
    if others_serve {
        worker.tasks.push(tokio::task::spawn_local(async move {
            sleep(STAYS).await;
            let _ = events.send(Event::Ready { worker: id, signal: Signal::Waited }).await;
        }));
    }
    others_serve
}

/// Addresses that the workers of the old generation serve and this worker of the new one does not. If it took their
/// place, their clients would have no worker. A restart is the way to other addresses.
fn addresses_missing(id: WorkerId, workers: &Pool, fleet: &Fleet) -> Vec<Rc<Listener>> {
    let Some(worker) = workers.get(id).filter(|w| fleet.reloading() == Some(w.generation)) else {
        return Vec::new();
    };
    if fleet.reload_manner() == Some(Manner::Restart) {
        return Vec::new();
    }
    // In its own slot: another slot may have addresses of its own.
    let old = fleet.slots().get(worker.slot.index()).and_then(|slot| slot.serving());
    let Some(old) = old.and_then(|o| workers.get(o.worker)) else { return Vec::new() };
    let accepting = old.requests.iter().filter(|r| r.accepting).map(|r| Rc::clone(&r.listener));
    let (occasional, chosen): (Vec<_>, Vec<_>) = accepting.partition(|listener| is_occasional(listener));
    let mut served = if chosen.is_empty() { occasional } else { chosen };
    served.retain(|l| !worker.serves(l));
    served
}

/// Gives a worker of a new generation a moment to listen where the old one does, then gives it up.
fn await_addresses(worker: &mut Worker, missing: &[Rc<Listener>], events: &Events) {
    let (id, events) = (worker.id, events.clone());
    if !std::mem::replace(&mut worker.awaits_addresses, true) {
        let addresses: Vec<_> = missing.iter().map(|l| l.address.to_string()).collect();
        debug!(worker = id.0, ?addresses, "ready, but it does not serve all addresses yet");
        worker.tasks.push(tokio::task::spawn_local(async move {
            sleep(ALL_ADDRESSES).await;
            let _ = events.send(Event::Unfit { worker: id }).await;
        }));
    }
}

/// A worker of a new generation has had its moment to listen where the old one does.
pub fn unfit(id: WorkerId, workers: &Pool, fleet: &Fleet, failures: &mut Failures) -> Option<fleet::Event> {
    let missing = addresses_missing(id, workers, fleet);
    let starting = fleet.occupant(id).is_some_and(Occupant::is_starting);
    let worker = workers.get(id).filter(|_| starting && !missing.is_empty())?;
    let missing: Vec<_> = missing.iter().map(|l| l.address.to_string()).collect();
    let listens_on: Vec<_> =
        worker.requests.iter().filter(|r| r.accepting).map(|r| r.listener.address.to_string()).collect();
    warn!(
        slot = worker.slot.0,
        worker = id.0,
        ?missing,
        ?listens_on,
        "a new worker does not listen where the old ones do, so it cannot take their place; use restart to change addresses"
    );
    failures.failed_because = Some(format!(
        "the new worker listens on {listens_on:?} and not on {missing:?}, where the old ones do; use `maitred restart` to change addresses"
    ));
    Some(fleet::Event::Condemned(id, KillReason::Elsewhere))
}

/// A worker listens. If it must answer first, asks it until it does.
pub fn ask_until_ready(worker: &mut Worker, events: &Events) {
    let (id, events) = (worker.id, events.clone());
    let Ready::Http(path) = &worker.config.life.ready else { return };
    if std::mem::replace(&mut worker.asked, true) {
        return;
    }
    let target = Rc::clone(&worker.target);
    let probe = Probe::Http(path.clone());
    let slot = worker.slot.0;
    worker.tasks.push(tokio::task::spawn_local(async move {
        let mut said = 0u32;
        loop {
            match probe::ask(&target, &probe, ANSWER_TIMEOUT).await {
                Found::Well => break,
                Found::Unwell(why) => {
                    said += 1;
                    if said.is_power_of_two() {
                        info!(slot, worker = id.0, %why, "a starting worker is not ready yet");
                    }
                }
                Found::NotAsked => {}
            }
            sleep(ASK_AGAIN).await;
        }
        let _ = events.send(Event::Ready { worker: id, signal: Signal::Waited }).await;
    }));
}

/// Whether a worker opened an address for a purpose of its own, so that the next need not open it: at a port of the
/// kernel's choice, or when it had served for a while.
fn is_occasional(listener: &Listener) -> bool {
    listener.key.asked.is_ephemeral() || listener.opened_late.get()
}

/// Waits for a line on the notification descriptor (s6's `notification-fd`).
async fn await_line(notification: Rc<AsyncFd<OwnedFd>>, worker: WorkerId, events: Events) {
    loop {
        let Ok(mut ready) = notification.readable().await else { return };
        let mut buffer = [0; 256];
        match nix::unistd::read(notification.get_ref(), &mut buffer) {
            Ok(0) => return debug!(worker = worker.0, "the notification descriptor was closed"),
            Ok(read) if buffer.get(..read).is_some_and(|came| came.contains(&b'\n')) => break,
            Ok(_) => {}
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(_) => return,
        }
    }
    let _ = events.send(Event::Ready { worker, signal: Signal::Waited }).await;
}
