//! When a worker counts as ready, by the chosen measure.

use super::{Event, Events};
use crate::adapt::Chosen;
use crate::config::bind::Bind;
use crate::config::life::{Probe, Ready};
use crate::core::fleet::{Fleet, Manner, Occupant};
use crate::core::ids::WorkerId;
use crate::core::moment::millis;
use crate::front::listener::{Listener, Origin};
use crate::wire::address::Address;
use crate::workers::pool::Pool;
use crate::workers::probe::{self, Found};
use crate::workers::worker::Worker;
use nix::errno::Errno;
use nix::unistd::Pid;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tracing::{debug, info};

/// How long a worker with inherited sockets must live to count as ready (einhorn's default too).
const SETTLES: Duration = Duration::from_secs(1);
/// Pause between two questions to a starting worker.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long one answer of a starting worker may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker that listens, but on no address of `--bind`, may take to listen there as well. After that the other
/// address is what it serves, and the log warns.
const OPERATORS_ADDRESS: Duration = Duration::from_secs(1);

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
        Ready::Listen | Ready::ListenOn(_) | Ready::Notify | Ready::Http(_) | Ready::Fd(_) => None,
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
pub fn counts(id: WorkerId, signal: Signal, workers: &mut Pool, fleet: &Fleet, events: &Events) -> Readiness {
    let Some(worker) = workers.get_mut(id) else { return Readiness::NotYet };
    let counts = match (&worker.config.life.ready, signal) {
        (Ready::ListenOn(address), _) => {
            let mut accepting = worker.requests.iter().filter(|request| request.accepting);
            accepting.any(|request| address.covers(&request.address))
        }
        (Ready::Listen, Signal::Listens) => listens_where_it_should(worker, events),
        (Ready::Listen, Signal::Waited) if listens_for_itself(worker) => {
            let (slot, listens_on) = (worker.slot.0, addresses_of(worker));
            info!(slot, worker = id.0, listens_on, "a starting worker listens on no address of --bind yet");
            // The next address that it listens on gets a moment of its own.
            worker.asked = false;
            false
        }
        (_, Signal::Waited) | (Ready::Listen | Ready::Notify, Signal::Notified) => true,
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

/// Whether a worker listens on an address of the operator's, if there are such: many servers first open one for their
/// own purposes (a debugger, metrics). Otherwise it gets a moment.
fn listens_where_it_should(worker: &mut Worker, events: &Events) -> bool {
    let mut accepting = worker.requests.iter().filter(|request| request.accepting);
    if worker.config.bind.is_empty() || accepting.any(|request| request.listener.origin == Origin::Operator) {
        return true;
    }
    give_a_moment(worker, events);
    false
}

/// Whether a worker listens, but only on Unix sockets, while `--bind` has none: those are for its own processes (tsx,
/// pm2 and forever open one first).
fn listens_for_itself(worker: &Worker) -> bool {
    let is_tcp = |bind: &Bind| matches!(bind, Bind::Any(_) | Bind::Tcp(_));
    let mut accepting = worker.requests.iter().filter(|request| request.accepting).peekable();
    accepting.peek().is_some()
        && accepting.all(|request| !matches!(request.address, Address::Tcp(_)))
        && !worker.config.bind.is_empty()
        && worker.config.bind.iter().all(is_tcp)
        && worker.datagrams.is_empty()
}

/// Where a worker listens, for the log.
fn addresses_of(worker: &Worker) -> String {
    let accepting = worker.requests.iter().filter(|request| request.accepting);
    accepting.map(|request| request.listener.address.to_string()).collect::<Vec<_>>().join(", ")
}

/// A worker shares a UDP address. If it listens on nothing else, that is its readiness a moment later.
pub fn await_datagrams(worker: &mut Worker, events: &Events) {
    if worker.config.life.ready == Ready::Listen && !worker.ready {
        give_a_moment(worker, events);
    }
}

/// Once [`OPERATORS_ADDRESS`] is over, what the worker listens on by then is its readiness. It has one such moment.
fn give_a_moment(worker: &mut Worker, events: &Events) {
    if std::mem::replace(&mut worker.asked, true) {
        return;
    }
    let (id, events) = (worker.id, events.clone());
    worker.tasks.push(tokio::task::spawn_local(async move {
        sleep(OPERATORS_ADDRESS).await;
        let _ = events.send(Event::Ready { worker: id, signal: Signal::Waited }).await;
    }));
}

/// A worker was starting under the program before this one: what it has done so far may be its readiness.
pub fn begin_again(worker: &mut Worker, events: &Events) {
    if !worker.datagrams.is_empty() {
        await_datagrams(worker, events);
    }
    if worker.requests.iter().any(|request| request.accepting) {
        let (id, events) = (worker.id, events.clone());
        worker.tasks.push(tokio::task::spawn_local(async move {
            let _ = events.send(Event::Ready { worker: id, signal: Signal::Listens }).await;
        }));
    }
}

/// Whether a worker that is ready may serve now: it listens where the workers do whose place it takes, and goes on
/// listening. If not, it has until its boot timeout to do so.
pub fn may_serve(id: WorkerId, signal: Signal, workers: &mut Pool, fleet: &Fleet, events: &Events) -> bool {
    if workers.get(id).is_none_or(Worker::is_deaf) {
        return false;
    }
    let missing = addresses_missing(id, workers, fleet);
    let Some(worker) = workers.get_mut(id) else { return false };
    if !missing.is_empty() {
        if !std::mem::replace(&mut worker.awaits_addresses, true) {
            let addresses: Vec<_> = missing.iter().map(|l| l.address.to_string()).collect();
            debug!(worker = id.0, ?addresses, "ready, but it does not serve all addresses yet");
        }
        return false;
    }
    worker.awaits_addresses = false;
    if (signal != Signal::Waited || worker.may_be_deaf()) && see_whether_it_stays(worker, fleet, events) {
        return false;
    }
    let (slot, uptime_ms) = (worker.slot.0, millis(worker.age()));
    match (&worker.config.life.ready, signal) {
        (_, Signal::Listens) => {}
        // It went on listening for a moment.
        (Ready::Listen | Ready::ListenOn(_), Signal::Waited) if worker.listened => {
            for request in worker.requests.iter().filter(|request| request.accepting) {
                let address = &request.listener.address;
                info!(slot, worker = id.0, %address, uptime_ms, "worker ready");
            }
        }
        _ => info!(slot, worker = id.0, uptime_ms, "worker counts as ready"),
    }
    true
}

/// During a reload, waits for `--min-ready`, in case a new worker closes what it has just listened on, or ends: some
/// programs find out late what is wrong. The old worker serves on meanwhile, or what comes waits. Returns false when
/// there is nothing to wait for.
fn see_whether_it_stays(worker: &mut Worker, fleet: &Fleet, events: &Events) -> bool {
    let (id, events, stays) = (worker.id, events.clone(), worker.config.life.min_ready);
    let waits = fleet.reloading() == Some(worker.generation) && !stays.is_zero();
    if waits {
        worker.tasks.push(tokio::task::spawn_local(async move {
            sleep(stays).await;
            let _ = events.send(Event::Ready { worker: id, signal: Signal::Waited }).await;
        }));
    }
    waits
}

/// Shared addresses that the workers of the old generation serve and this worker of the new one does not. If it took
/// their place, their clients would have no worker. A restart is the way to other addresses.
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
    let accepting = accepting.filter(|listener| is_shared(listener, old, workers, fleet));
    let (occasional, chosen): (Vec<_>, Vec<_>) = accepting.partition(|listener| is_occasional(listener, fleet));
    let mut served = if chosen.is_empty() { occasional } else { chosen };
    served.retain(|l| !worker.serves(l));
    served
}

/// Whether an address is one for clients: the operator's, or one that several slots serve. With a single slot that
/// cannot be seen; then any counts, except one that is named after a process.
fn is_shared(listener: &Rc<Listener>, by: &Worker, workers: &Pool, fleet: &Fleet) -> bool {
    if listener.origin == Origin::Operator {
        return true;
    }
    let others = || workers.values().filter(|worker| worker.slot != by.slot);
    match fleet.slots().len() {
        0 | 1 => !is_named_after_a_process(&listener.address, by),
        _ => others().any(|worker| worker.serves(listener)),
    }
}

/// Whether a socket file has the number of one of the worker's processes in its name (`tsx` opens such a pipe).
fn is_named_after_a_process(address: &Address, of: &Worker) -> bool {
    let Address::Unix(path) = address else { return false };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut numbers = name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<i32>().ok());
    numbers.any(|number| nix::unistd::getpgid(Some(Pid::from_raw(number))) == Ok(of.pid))
}

/// Why a worker was not ready in time, if it listens elsewhere than those whose place it should take.
#[must_use]
pub fn listens_elsewhere(id: WorkerId, workers: &Pool, fleet: &Fleet) -> Option<String> {
    let worker = workers.get(id).filter(|worker| worker.awaits_addresses)?;
    let missing = addresses_missing(id, workers, fleet);
    let on = addresses_of(worker);
    let missing = missing.iter().map(|l| l.address.to_string()).collect::<Vec<_>>().join(", ");
    Some(format!(
        "the new worker listens on {on} and not on {missing}, where the old ones do; use `maitred restart` to change addresses"
    ))
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
/// kernel's choice, or when it had served for a while and there is no other slot that did the same.
fn is_occasional(listener: &Listener, fleet: &Fleet) -> bool {
    listener.key.asked.is_ephemeral() || (fleet.slots().len() <= 1 && listener.opened_late.get())
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
