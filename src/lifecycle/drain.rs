//! Waits until a worker that gets nothing new has no connection open any more except idle ones, without its help. The
//! kernel says which connections it has and what went over them last, and reports when each is closed
//! ([`crate::sys::socket::closes`]).

use super::{Event, Events};
use crate::adapt::draining;
use crate::config::Mode;
use crate::config::life::StopFirst;
use crate::front::accounts::Front;
use crate::front::listener::Listener;
use crate::sys::process::{Looking, Open};
use crate::sys::socket::closes::{Closes, Heard};
use crate::sys::socket::listen;
use crate::sys::socket::sock_diag::Family;
use crate::sys::watch;
use crate::wire::address::Address;
use crate::workers::worker::Worker;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// Looks in a row that must find nothing: a connection is in no list while it is being accepted.
const QUIET_LOOKS: u32 = 2;
/// Pause between two of them.
const QUIET_PAUSE: Duration = Duration::from_millis(10);
/// How often the master looks again while it hears of closes: one may have come before it began to listen.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The same where nothing reports closes.
const LOOK_UNHEARD: Duration = Duration::from_millis(100);
/// Looks in one drain that may fail before it is given up to see anything.
const FAILED_LOOKS_MAX: u32 = 50;

/// All drains under way.
#[derive(Debug, Default)]
pub struct Drains {
    /// The drain that each open connection belongs to, by cookie.
    watched: RefCell<HashMap<u64, Rc<Drain>>>,
    under_way: Cell<usize>,
    hearing: RefCell<Option<Rc<AsyncFd<Closes>>>>,
    /// The ports of all drains since hearing began.
    ports: RefCell<HashSet<u16>>,
    /// Whether the log already says that closes cannot be heard.
    deaf: Cell<bool>,
}

/// The connections that one worker still has.
#[derive(Debug, Default)]
struct Drain {
    left: Cell<usize>,
    changed: Notify,
}

/// A drain under way; ends with its task.
struct UnderWay {
    drains: Rc<Drains>,
    drain: Rc<Drain>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.drains.under_way.set(self.drains.under_way.get() - 1);
        self.drains.watched.borrow_mut().retain(|_, drain| !Rc::ptr_eq(drain, &self.drain));
    }
}

impl Drains {
    fn begin(self: &Rc<Self>, ports: &HashSet<u16>) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        self.ports.borrow_mut().extend(ports);
        let hearing = self.hearing.borrow().clone();
        if let Some(closes) = hearing {
            // If this fails, the master hears of fewer closes, and looks for the rest.
            let _ = closes.get_ref().only(&self.ports.borrow());
        } else {
            let listening = Closes::listen().and_then(|closes| closes.only(&self.ports.borrow()).map(|()| closes));
            match listening.and_then(watch::readable) {
                Ok(closes) => {
                    let closes = Rc::new(closes);
                    self.hearing.replace(Some(Rc::clone(&closes)));
                    tokio::task::spawn_local(hear(Rc::clone(self), closes));
                }
                Err(error) if !self.deaf.replace(true) => {
                    info!(%error, "the kernel does not tell of closed connections here; looking for them instead");
                }
                Err(_) => {}
            }
        }
        UnderWay { drains: Rc::clone(self), drain: Rc::default() }
    }

    fn watch(&self, drain: &Rc<Drain>, open: &Open) {
        let mut watched = self.watched.borrow_mut();
        watched.retain(|_, other| !Rc::ptr_eq(other, drain));
        watched.extend(open.cookies.iter().map(|cookie| (*cookie, Rc::clone(drain))));
        drain.left.set(open.cookies.len());
    }

    /// Waits until some of these connections are closed, or it is time to look again.
    async fn wait(&self, drain: &Rc<Drain>, open: &Open) {
        self.watch(drain, open);
        let unheard = open.unix > 0 || self.hearing.borrow().is_none();
        let _ = timeout(if unheard { LOOK_UNHEARD } else { LOOK_AGAIN }, drain.changed.notified()).await;
    }
}

/// Counts closes, as long as any worker drains.
async fn hear(drains: Rc<Drains>, closes: Rc<AsyncFd<Closes>>) {
    while drains.under_way.get() > 0 {
        let Ok(Ok(mut ready)) = timeout(LOOK_AGAIN, closes.readable()).await else { continue };
        match closes.get_ref().hear() {
            Ok(Heard::Closed(cookie)) => {
                let closed = drains.watched.borrow_mut().remove(&cookie);
                if let Some(drain) = closed {
                    drain.left.set(drain.left.get().saturating_sub(1));
                    if drain.left.get() == 0 {
                        drain.changed.notify_one();
                    }
                }
            }
            Ok(Heard::Overrun) => {
                debug!("closes were missed, looking again");
                drains.watched.borrow().values().for_each(|drain| drain.changed.notify_one());
            }
            Ok(Heard::Nothing) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => {
                debug!(%error, "cannot hear of closes");
                sleep(LOOK_AGAIN).await;
            }
        }
    }
    drains.hearing.replace(None);
    drains.ports.borrow_mut().clear();
}

impl Drains {
    /// Reports the worker as empty when it has no connection left, except idle ones: neither one that waits for it nor
    /// an open one. One that is told to stop first counts as empty at once.
    pub fn watch_worker(self: &Rc<Self>, worker: &mut Worker, front: &Front, events: &Events) {
        let stops_first = match worker.config.life.stop_first {
            StopFirst::Signal => true,
            StopFirst::Auto => draining::drains_itself(&worker.config.command),
            StopFirst::No => false,
        };
        if stops_first {
            let (id, events) = (worker.id, events.clone());
            tokio::task::spawn_local(async move {
                let _ = events.send(Event::Drained { worker: id }).await;
            });
            return;
        }
        let (ports, families, paths) = served(front);
        // In kernel mode connections may wait at the slot's own socket.
        let listeners: Vec<Rc<Listener>> = front.listeners.iter().filter(|l| l.group.is_some()).cloned().collect();
        let (id, events, drains, mode) = (worker.id, events.clone(), Rc::clone(self), front.mode());
        let (slot, group) = (worker.slot, worker.pid);
        let idle_after = worker.config.life.idle_after;
        let aside = front.common.aside.clone();
        let task = async move {
            let under_way = drains.begin(&ports);
            let mut looking = Looking::new(group, ports, families, paths, idle_after);
            let (mut quiet, mut announced, mut idle, mut failed) = (0, false, 0, 0);
            while quiet < QUIET_LOOKS {
                let queued: u64 = listeners.iter().filter_map(|l| l.group.as_ref()).map(|g| g.queued_at(slot)).sum();
                if mode == Mode::Kernel && queued > 0 {
                    quiet = 0;
                    sleep(QUIET_PAUSE).await;
                    continue;
                }
                let looked = aside.run(move || {
                    let open = looking.look();
                    (looking, open)
                });
                let open;
                (looking, open) = match looked.await {
                    Ok(looked) => looked,
                    Err(error) => return debug!(%error, "nobody looks any more"),
                };
                match open {
                    Ok(open) if open.is_quiet() => {
                        (quiet, idle) = (quiet + 1, open.idle);
                        sleep(QUIET_PAUSE).await;
                    }
                    Ok(open) => {
                        quiet = 0;
                        if !std::mem::replace(&mut announced, true) {
                            let open = open.cookies.len() + open.unix;
                            info!(slot = slot.0, worker = id.0, open, "draining, until its connections are closed");
                        }
                        under_way.drains.wait(&under_way.drain, &open).await;
                    }
                    // No descriptor may be free for a moment.
                    Err(error) if failed < FAILED_LOOKS_MAX && what_is_missing(&error).is_none() => {
                        failed += 1;
                        quiet = 0;
                        sleep(LOOK_AGAIN).await;
                    }
                    Err(error) => {
                        // The worker's time will run out; until then nothing is broken off.
                        let advice = what_is_missing(&error);
                        warn!(slot = slot.0, worker = id.0, %error, advice, "cannot see the connections of a draining worker; it gets all of --grace");
                        return;
                    }
                }
            }
            if idle > 0 {
                info!(slot = slot.0, worker = id.0, idle, "drained, except for idle connections");
            }
            let _ = events.send(Event::Drained { worker: id }).await;
        };
        worker.tasks.push(tokio::task::spawn_local(task));
    }
}

/// The ports, with their families, and the socket files that connections come in on.
fn served(front: &Front) -> (HashSet<u16>, Vec<Family>, HashSet<PathBuf>) {
    let (mut ports, mut families, mut paths) = (HashSet::new(), HashSet::new(), HashSet::new());
    for listener in front.listeners.iter() {
        match &listener.address {
            Address::Tcp(address) => {
                ports.insert(address.port());
                families.insert(if address.is_ipv4() { Family::V4 } else { Family::V6 });
            }
            Address::Unix(path) => {
                paths.insert(path.clone());
                // What was accepted there has the name by which it was bound.
                if let Some(Ok(Address::Unix(bound))) = listener.socket().map(|socket| listen::local_address(&socket)) {
                    paths.insert(bound);
                }
            }
            Address::Abstract(name) => drop(paths.insert(format!("@{name}").into())),
        }
    }
    (ports, families.into_iter().collect(), paths)
}

/// What to do where the system will hide connections however often one looks.
fn what_is_missing(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => Some("a unit with RestrictAddressFamilies= must allow AF_NETLINK"),
        // `/proc/PID/fd` belongs to the other user, and shows only who could trace the process (`proc_pid_fd(5)`).
        Some(libc::EACCES | libc::EPERM) => Some(
            "a master that is not root needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to see those of another --user",
        ),
        _ => None,
    }
}
