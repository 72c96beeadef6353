//! Putting together what `maitred status` shows.

use super::program::Program;
use super::sizing::Sizing;
use crate::adapt::Chosen;
use crate::clock;
use crate::config::{Config, Mode};
use crate::control::status;
use crate::core::fairness::Fairness;
use crate::core::fleet::{Fleet, Occupant, SlotState};
use crate::core::ids::{Slot, WorkerId};
use crate::core::moment::Moment;
use crate::front::accounts::Front;
use crate::front::counters::Counters;
use crate::front::listener::Phase;
use crate::kernel::group::Group;
use crate::kernel::shares::Counted;
use crate::lifecycle::reload::Reloads;
use crate::sys::process::Usage;
use crate::workers::pool::Pool;
use nix::unistd::Pid;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Everything that a status is made of.
pub struct View<'a> {
    pub config: &'a Config,
    pub since: Moment,
    pub fleet: &'a Fleet,
    pub workers: &'a Pool,
    pub front: &'a Front,
    pub reloads: &'a Reloads,
    pub last_words: &'a HashMap<Slot, String>,
    pub program: &'a Program,
    pub sizing: &'a Sizing,
}

impl View<'_> {
    /// The whole status except the usage of the machine, which [`add_usage`] fills in.
    pub fn status(&self) -> status::Status {
        let workers: Vec<_> =
            self.fleet.slots().iter().zip((0..).map(Slot)).map(|(state, slot)| self.worker(slot, state)).collect();
        let served: Vec<u64> = workers
            .iter()
            .map(|w| if self.config.mode == Mode::Shared { w.taken } else { w.handed.max(w.taken) })
            .collect();
        let policy = self.config.policy.name().to_owned();
        let mut groups = self.front.listeners.iter().filter_map(|l| l.group.as_ref()).map(Group::steering).peekable();
        let first = groups.peek().cloned();
        // A group that is not steered as wanted says more than the others.
        let steering = groups.find(|(_, reason)| reason.is_some()).or(first);
        let steered: u64 =
            (0..self.front.counters.len()).map(|slot| self.front.steered_to(Slot(slot as u32)).unwrap_or(0)).sum();
        // The master never accepts what the kernel steers. Counting it as accepted keeps the sums.
        let ledger = self.front.ledger();
        let in_kernel = if self.config.mode == Mode::Kernel { ledger.handed + steered } else { 0 };
        status::Status {
            name: self.config.name.clone(),
            pid: std::process::id() as i32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: self.config.mode.name(),
            policy: steering.as_ref().map_or(policy, |(kind, _)| kind.name().to_owned()),
            steering: steering.and_then(|(_, reason)| reason),
            depth: self.config.depth,
            admission: self.admission(),
            uptime_s: clock::now().since(self.since).as_secs_f64(),
            stopping: self.fleet.is_about_to_stop(),
            listeners: self
                .front
                .listeners
                .iter()
                .filter(|l| l.phase.get() != Phase::GivenUp)
                .map(|l| listener(l))
                .chain(self.front.datagrams.addresses().map(datagrams))
                .collect(),
            workers,
            scaling: self.sizing.status(self.config.range),
            leaving: self.leaving(),
            generation: self.fleet.generation().0,
            reloading: self.fleet.reloading().map(|generation| generation.0),
            last_reload: self.reloads.last.clone(),
            upgrades: self.program.upgrades,
            lines_lost: self.program.host.logs.lost(),
            log_left_out: self.front.common.provoked.left_out(),
            counts: status::Counts {
                front_wait: self.front.common.waits.0.borrow().clone(),
                events: self.program.recorder.journal.last(),
                ..self.program.recorder.counts.clone()
            },
            master: status::Used::default(),
            totals: status::Totals {
                accepted: self.front.accepted() + in_kernel,
                handed: ledger.handed + steered,
                returned: ledger.returned,
                rescued: ledger.rescued,
                refused: ledger.refused,
                lost: ledger.lost,
                held: ledger.held,
                unaccounted: self.front.unaccounted(),
            },
            fairness: Fairness::of(&served),
        }
    }

    fn admission(&self) -> status::Admission {
        let (asked, common) = (&self.front.common.admission, &self.front.common);
        let seconds = |time: Duration| time.as_secs_f64();
        let (refused, sources) = (&common.refused, common.opens.sources.borrow());
        status::Admission {
            max_open: asked.max_open,
            max_open_per_worker: asked.max_open_per_worker,
            when_full: asked.when_full.name().to_owned(),
            max_wait_s: asked.longest_wait().map(seconds),
            max_open_per_source: asked.max_open_per_source,
            max_rate_per_source: asked.max_rate_per_source,
            slow_start_s: asked.slow_start.map(seconds),
            defer_s: asked.defer.map(seconds),
            open: common.opens.is_counting().then(|| common.opens.total() as u64),
            recounts: common.opens.recounts.get(),
            full: self.front.listeners.iter().any(|listener| listener.is_full()),
            refused_full: refused.full.get(),
            refused_waited: refused.expired.get(),
            refused_source_open: refused.source_open.get(),
            refused_source_rate: refused.source_rate.get(),
            refused_returned: refused.returned.get(),
            answered_503: refused.answered.get(),
            sources: sources.known() as u64,
            sources_unknown: sources.unknown(),
        }
    }

    /// Why a slot does not serve as it should.
    fn reason(&self, slot: Slot) -> Option<String> {
        let state = self.fleet.slots().get(slot.index())?;
        let signs = state.main().map(|o| o.signs).filter(|signs| !signs.is_empty());
        let words = || self.last_words.get(&slot).cloned().unwrap_or_default();
        match signs {
            Some(signs) => Some(signs.names()),
            None if state.rests() => Some(format!("failed too often and rests: {}", words())),
            None if state.name() == "backoff" => Some(words()),
            None => None,
        }
    }

    /// Workers that are leaving while another worker has their slot.
    fn leaving(&self) -> Vec<status::Leaving> {
        let now = clock::now();
        let all = self.fleet.slots().iter().zip(0..).flat_map(|(state, slot)| state.leaving().map(move |o| (slot, o)));
        let row = |(slot, o): (u32, &Occupant)| status::Leaving {
            slot,
            id: o.worker.0,
            pid: self.workers.get(o.worker).map(|worker| worker.pid.as_raw()),
            generation: o.generation.0,
            state: o.name().to_owned(),
            since_s: now.since(o.since()).as_secs_f64(),
            queued: self.front.listeners.iter().map(|l| l.workers.queued_of(o.worker)).sum(),
            open: self.counted_open(o.worker),
        };
        all.map(row).collect()
    }

    /// What a worker has open, where that is counted.
    fn counted_open(&self, worker: WorkerId) -> u64 {
        u64::from(self.front.common.opens.open_at(worker))
    }

    fn worker(&self, slot: Slot, state: &SlotState) -> status::Worker {
        let occupant = state.main();
        let worker = occupant.and_then(|o| self.workers.get(o.worker));
        let counters = self.front.counters.get(slot.index());
        let get = |of: fn(&Counters) -> &Cell<u64>| counters.map_or(0, |c| of(c).get());
        let queued: u64 = self.front.listeners.iter().map(|l| queued_at(l, slot)).sum();
        let handed = get(|c| &c.handed) + self.front.steered_to(slot).unwrap_or(0);
        let (returned, rescued) = (get(|c| &c.returned), get(|c| &c.rescued));
        let counts_itself = worker.is_none_or(|worker| worker.adapter == Chosen::Preload);
        status::Worker {
            slot: slot.0,
            id: occupant.map(|o| o.worker).or(state.last_worker).map(|id| id.0),
            pid: worker.map(|w| w.pid.as_raw()),
            generation: worker.map_or(self.fleet.generation(), |w| w.generation).0,
            state: state.name().to_owned(),
            since_s: occupant.map_or(0.0, |o| clock::now().since(o.since()).as_secs_f64()),
            reason: self.reason(slot),
            adapter: worker.map_or("", |w| w.adapter.name()).to_owned(),
            handed,
            taken: match &self.workers.starter.taken {
                Some(taken) if counts_itself || self.config.mode == Mode::Shared => taken.get(slot.index()),
                _ => handed.saturating_sub(returned + rescued + queued),
            },
            weight: self.config.weights.of(slot),
            queued,
            open: occupant.map_or(0, |o| self.counted_open(o.worker)),
            returned,
            rescued,
            truncated: get(|c| &c.truncated),
            restarts: state.restarts,
            uptime_s: worker.map_or(0.0, |w| w.age().as_secs_f64()),
            rss_bytes: 0,
            cpu_s: 0.0,
        }
    }
}

/// Connections that are pending for a slot's worker: handed over, or at the slot's own socket.
fn queued_at(listener: &crate::front::listener::Listener, slot: Slot) -> u64 {
    let at_socket = listener.group.as_ref().map_or(0, |group| group.queued_at(slot));
    listener.workers.queued_at(slot) + at_socket
}

fn listener(listener: &crate::front::listener::Listener) -> status::Listener {
    status::Listener {
        address: listener.address.to_string(),
        backlog: listener.backlog.get(),
        accepted: listener.accepted.get() + listener.group.as_ref().map_or(0, Group::steered),
        queued: listener.queued(),
    }
}

fn datagrams(address: SocketAddr) -> status::Listener {
    status::Listener { address: format!("udp:{address}"), backlog: 0, accepted: 0, queued: 0 }
}

/// Fills in what `/proc` tells; what is counted stays.
pub fn add_usage(status: &mut status::Status, usage: &HashMap<Pid, Usage>) {
    let counted = status.admission.open.is_some();
    for worker in &mut status.workers {
        let found = worker.pid.and_then(|pid| usage.get(&Pid::from_raw(pid)));
        if let Some(usage) = found {
            if !counted {
                worker.open = usage.open;
            }
            worker.rss_bytes = usage.rss_bytes;
            worker.cpu_s = usage.cpu_s;
        }
    }
    for worker in &mut status.leaving {
        let found = worker.pid.and_then(|pid| usage.get(&Pid::from_raw(pid)));
        if !counted {
            worker.open = found.map_or(0, |usage| usage.open);
        }
    }
}
