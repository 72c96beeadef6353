//! Notices workers that bypass the master: one that listens by itself, or that never takes what it is given. Logs
//! advice; nothing else notices, and the operator would only see a worker idle.

use super::{Event, Events};
use crate::adapt::Chosen;
use crate::config::PortZero;
use crate::core::fleet::{Fleet, Occupant};
use crate::core::ids::Slot;
use crate::front::accounts::Front;
use crate::sys::fd;
use crate::sys::process::{self, Sockets};
use crate::sys::socket::listen::ephemeral_ports;
use crate::sys::socket::sock_diag;
use crate::workers::pool::Pool;
use crate::workers::watching::LOOKS;
use crate::workers::worker::Worker;
use nix::unistd::Pid;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;
use tracing::warn;

/// A worker that is looked at.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    slot: Slot,
    group: Pid,
    adapter: Chosen,
}

impl Suspect {
    fn of(worker: &Worker) -> Suspect {
        Suspect { slot: worker.slot, group: worker.pid, adapter: worker.adapter }
    }
}

/// What a look at a worker found.
#[derive(Debug)]
pub struct Seen {
    /// Where it listens on a socket that is not the master's.
    listens_at: Option<SocketAddr>,
    io_uring: bool,
}

/// Where a worker with these sockets listens on one that is not the master's.
fn elsewhere(own: &Sockets, listening: &[(u64, SocketAddr)], ours: &HashSet<u64>) -> Option<SocketAddr> {
    let mut at = listening.iter().filter(|(inode, _)| own.inodes.contains(inode) && !ours.contains(inode));
    at.next().map(|(_, at)| *at)
}

/// Checks whether a worker takes part as it should.
pub fn look_at(worker: &Worker, fleet: &Fleet, front: &Front, events: &Events) {
    if worker.reported {
        return;
    }
    let id = worker.id;
    let starting = fleet.occupant(id).is_some_and(Occupant::is_starting);
    // This is costly, so it runs only where a bypass is possible.
    let may_bypass = starting || worker.adapter == Chosen::Inherit;
    if !may_bypass && never_took(worker).is_none() {
        return;
    }
    let (group, ours) = (worker.pid, inodes_of_listeners(front));
    let (aside, events) = (front.common.aside.clone(), events.clone());
    tokio::task::spawn_local(async move {
        let look = move || {
            let own = process::sockets(group);
            let listening = if may_bypass { sock_diag::listening().unwrap_or_default() } else { Vec::new() };
            Seen { listens_at: elsewhere(&own, &listening, &ours), io_uring: own.io_uring }
        };
        if let Ok(seen) = aside.run(look).await {
            let _ = events.send(Event::LookedAt { worker: id, seen }).await;
        }
    });
}

/// The check is done; logs a warning if the worker does not take part.
pub fn looked_at(worker: &mut Worker, seen: &Seen, fleet: &Fleet, port_zero: PortZero) {
    if worker.reported {
        return;
    }
    let (id, slot) = (worker.id, worker.slot);
    let starting = fleet.occupant(id).is_some_and(Occupant::is_starting);
    let after_s = worker.age().as_secs();
    if let Some(address) = seen.listens_at {
        let (adapter, advice) = (worker.adapter.name(), advice_on_bypass(worker.adapter, address, port_zero));
        warn!(slot = slot.0, worker = id.0, %address, adapter, "this worker listens by itself, so nobody shares its connections; {advice}");
    } else if starting && after_s >= LOOKS.iter().sum::<Duration>().as_secs() {
        warn!(
            slot = slot.0,
            worker = id.0,
            after_s,
            "this worker has not listened yet; is it a server? if it uses a socket that it inherits, see --adapter inherit"
        );
    } else if let Some(waiting) = never_took(worker) {
        let how = match seen.io_uring {
            true => "it accepts through io_uring, which no adapter sees; use --mode kernel or shared",
            false => "it is stuck, or it accepts in a way that the adapter does not see; compare --mode kernel",
        };
        warn!(slot = slot.0, worker = id.0, waiting, "this worker never took a connection; {how}");
    } else {
        return;
    }
    worker.reported = true;
}

fn inodes_of_listeners(front: &Front) -> HashSet<u64> {
    front.listeners.iter().flat_map(|l| l.sockets()).filter_map(|s| fd::inode(s.as_fd()).ok()).collect()
}

/// What to add to the report of a boot that failed: that another worker has the address for itself. The search runs
/// aside.
pub fn bypass(workers: &Pool, front: &Front, port_zero: PortZero) -> impl Future<Output = Option<String>> + use<> {
    let suspects: Vec<Suspect> = workers.values().map(Suspect::of).collect();
    let (ours, aside) = (inodes_of_listeners(front), front.common.aside.clone());
    async move {
        let look = move || {
            let listening = sock_diag::listening().ok()?;
            let at = |suspect: &Suspect| elsewhere(&process::sockets(suspect.group), &listening, &ours);
            suspects.into_iter().find_map(|suspect| at(&suspect).map(|address| (suspect, address)))
        };
        let (suspect, address) = aside.run(look).await.ok().flatten()?;
        let (slot, advice) = (suspect.slot.0, advice_on_bypass(suspect.adapter, address, port_zero));
        Some(format!("the worker in slot {slot} listens on {address} by itself; {advice}"))
    }
}

/// What to do about a worker that listens on a socket of its own there.
fn advice_on_bypass(adapter: Chosen, address: SocketAddr, port_zero: PortZero) -> String {
    let seen = match adapter {
        Chosen::Preload => "it does not call libc for that, or a static program is behind it: use --adapter seccomp",
        Chosen::Seccomp => {
            "its calls are not seen (io_uring, or a 32-bit program): use --adapter inherit or a --preset"
        }
        Chosen::Inherit => "it does not use the socket that it inherits: see --preset, or leave --adapter at auto",
        Chosen::Native => "it does not speak maitred's protocol: leave --adapter at auto",
    };
    let may_have_asked_for_zero = matches!(adapter, Chosen::Preload | Chosen::Seccomp)
        && port_zero == PortZero::Private
        && ephemeral_ports().contains(&address.port());
    match may_have_asked_for_zero {
        true => format!(
            "if it asks for port 0, that stays its own: share it with --bind {} or --share-port-zero; if it asks for \
             this port, {seen}",
            SocketAddr::new(address.ip(), 0)
        ),
        false => seen.to_owned(),
    }
}

/// How many connections wait for a worker that has not taken a single one.
fn never_took(worker: &Worker) -> Option<u32> {
    let handoffs = worker.requests.iter().filter_map(|request| request.handoff.as_ref());
    handoffs
        .map(|h| (h.queued(), h.sent()))
        .find(|&(queued, sent)| queued > 0 && u64::from(queued) == sent)
        .map(|(n, _)| n)
}
