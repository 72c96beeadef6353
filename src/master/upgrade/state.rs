//! Everything that the next program must know, as JSON; descriptors by their numbers.

mod resume;

use super::super::error::RunError;
use super::super::event::{EVENTS_MAX, Event};
use super::super::run::End;
use super::super::run::{Master, prefixed};
use super::super::signals::forward_signals;
use super::Host;
use super::Program;
use crate::adapt::Chosen;
use crate::adapt::preload::Shim;
use crate::aside::Aside;
use crate::config::{Config, DESCRIPTORS_OF_MASTER, DESCRIPTORS_PER_WORKER, WORKERS_MAX};
use crate::control::server::{self, ControlSocket};
use crate::core::claim::Claim;
use crate::core::fleet::{Drain, Fleet, Life, Occupant};
use crate::core::health::Health;
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::core::moment::Moment;
use crate::front::accounts::Front;
use crate::front::common::Common;
use crate::front::counters::Counters;
use crate::front::handoff::Handoff;
use crate::front::handoff::passing as handoffs;
use crate::front::listener::Listener;
use crate::front::listener::passing as listeners;
use crate::front::listeners::Listeners;
use crate::front::opens;
use crate::front::refused;
use crate::front::returned;
use crate::kernel::group;
use crate::kernel::shares::Shares;
use crate::lifecycle::failures::Failures;
use crate::lifecycle::health::Checks;
use crate::lifecycle::reload::Reloads;
use crate::lifecycle::{deaf, ending, ready};
use crate::provoked;
use crate::reports::Reports;
use crate::sys::descent::Kin;
use crate::sys::dispose::{self, Foreign};
use crate::sys::exec::{Kind, Number, Passing, Taking};
use crate::sys::guard::{self, Guard};
use crate::sys::taken::Taken;
use crate::sys::{fd, limits, rights, watch};
use crate::wire::address::Address;
use crate::wire::packet::RequestId;
use crate::workers::holders::Holders;
use crate::workers::leftovers::Leftovers;
use crate::workers::looks::Looks;
use crate::workers::output::{self, LastWords, Output, Stream};
use crate::workers::pool::Pool;
use crate::workers::rendezvous::Rendezvous;
use crate::workers::start::{OldShim, Starter};
use crate::workers::supervised::{self, Supervised};
use crate::workers::worker::{Executes, MayProbe, Request, Worker};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// Changes whenever a version could not read what another wrote.
pub const FORMAT: u32 = 1;

/// Longest state that is read.
const STATE_MAX: u64 = 256 << 20;

/// Everything that the next program must know.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    format: u32,
    version: String,
    since: Moment,
    upgrades: u32,
    name: String,
    /// The text of the configuration file at the start, whose `bind`, `mode` and so on stay.
    base_text: Option<String>,
    /// The text of the configuration file in force, of each generation, and of the next.
    pub text: Option<String>,
    texts: BTreeMap<Generation, Option<String>>,
    next_text: Option<Option<String>>,
    fleet: Fleet,
    counters: Vec<[u64; 4]>,
    accepted_before: u64,
    lost: u64,
    #[serde(default)]
    refused: refused::Passed,
    #[serde(default)]
    refused_returned: u64,
    #[serde(default)]
    opens: opens::passing::Passed,
    #[serde(default)]
    provoked: provoked::Passed,
    descriptors: u64,
    #[serde(default)]
    policy: limits::Chosen,
    last_words: Vec<(Slot, String)>,
    last_reload: Option<String>,
    handoffs: Vec<handoffs::Passed>,
    listeners: Vec<PassedListener>,
    workers: Vec<PassedWorker>,
    streams: Vec<output::Passed>,
    guard: guard::Passed,
    #[serde(rename = "door")]
    rendezvous: (String, Number),
    control: Option<server::Passed>,
    shim: Number,
    old_shims: Vec<Number>,
    /// The last worker that was started with each; programs before this was written down did not say.
    #[serde(default)]
    old_shims_newest: Vec<WorkerId>,
    #[serde(default)]
    earlier: Vec<(i32, u64)>,
    taken: Option<Number>,
    client: Option<Number>,
    /// What the process may do, and which descriptors it passes on; unknown to programs before this was written down.
    #[serde(default)]
    capabilities: u64,
    #[serde(default)]
    passed: Vec<Kind>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PassedListener {
    served: bool,
    listener: listeners::Passed,
}

#[derive(Debug, Serialize, Deserialize)]
struct PassedWorker {
    id: WorkerId,
    slot: Slot,
    generation: Generation,
    pid: i32,
    adapter: Chosen,
    since: Moment,
    token: String,
    #[serde(default)]
    channel_inode: u64,
    channel: Number,
    pidfd: Number,
    notify: Number,
    notification: Option<Number>,
    requests: Vec<PassedRequest>,
    supervised: Option<supervised::Passed>,
    uses_inherited: bool,
    #[serde(default)]
    listened: bool,
    reported: bool,
    ready: bool,
    admitted: bool,
    leaves: bool,
    health: Health,
    last_words: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PassedRequest {
    id: RequestId,
    listener: usize,
    handoff: Option<usize>,
    accepting: bool,
    own: Option<Number>,
    #[serde(default)]
    address: Option<Address>,
    #[serde(default)]
    claim: Claim,
    #[serde(default)]
    holders: Vec<Number>,
}

/// A state that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The descriptor is not there, or cannot be read.
    #[error("cannot read the state of the old binary: {0}")]
    Read(#[from] io::Error),
    /// It is not what this version knows.
    #[error("cannot understand the state of the old binary: {0}")]
    Understand(#[from] serde_json::Error),
    /// It says that it is of another format.
    #[error("the state of the old binary has format {found}, and this version knows {FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
}

/// Reads the state at a descriptor.
///
/// # Errors
/// [`StateError`].
pub fn read(number: i32) -> Result<State, StateError> {
    let mut text = Vec::new();
    let file = std::fs::File::from(fd::inherited(number)?);
    // The writer's place in the file is shared, so it is read from its beginning.
    io::Seek::rewind(&mut &file)?;
    file.take(STATE_MAX).read_to_end(&mut text)?;
    understand(&text)
}

/// Understands the state's text.
pub(crate) fn understand(text: &[u8]) -> Result<State, StateError> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    let OnlyFormat { format } = serde_json::from_slice(text)?;
    if format != FORMAT {
        return Err(StateError::Format { found: format });
    }
    Ok(serde_json::from_slice(text)?)
}

impl State {
    /// Whether this process has what the old program passes on, and may do what that may: the privileges that a file
    /// gives (`setcap(8)`) are those of the new file.
    ///
    /// # Errors
    /// Why not.
    pub fn is_here(&self) -> Result<(), String> {
        let missing = self.capabilities & !rights::own_capabilities().map_err(|error| error.to_string())?;
        if missing > 0 {
            let names = (0..u64::BITS).filter(|bit| missing >> bit & 1 == 1).map(rights::capability_name);
            let names = names.collect::<Vec<_>>().join(",");
            return Err(format!(
                "the new binary would run without {names}, which this process has; give them to the file with setcap"
            ));
        }
        self.passed.iter().try_for_each(Kind::is_here).map_err(|error| format!("not everything is passed on: {error}"))
    }

    /// Whether this program could go on from here, as far as that can be known before it does. `config` is
    /// what the text in force says.
    ///
    /// # Errors
    /// Why not.
    pub fn is_understood(&self, config: &Config) -> Result<(), String> {
        let made = |text: &Option<String>| (config.source.make)(text.clone()).map(drop);
        made(&self.base_text)?;
        self.texts.values().chain(&self.next_text).try_for_each(made)?;
        let groups = self.listeners.iter().filter_map(|passed| passed.listener.group());
        match groups.into_iter().all(group::Passed::is_understood) {
            true => Ok(()),
            false => Err("the steering program of the old version is another one".to_owned()),
        }
    }

    /// Puts back what cannot change while a master runs.
    fn keep_base(&self, config: &mut Config) -> Result<(), String> {
        let base = (config.source.make)(self.base_text.clone())?;
        config.keep_from(&base);
        config.control = base.control;
        Ok(())
    }
}

/// Hand-off sockets by their place in a table.
#[derive(Default)]
struct Table(Vec<Rc<Handoff>>);

impl Table {
    fn place(&mut self, handoff: &Rc<Handoff>) -> usize {
        let known = self.0.iter().position(|other| Rc::ptr_eq(other, handoff));
        known.unwrap_or_else(|| {
            self.0.push(Rc::clone(handoff));
            self.0.len() - 1
        })
    }
}

impl Master {
    /// Writes everything down.
    ///
    /// # Errors
    /// When something has a name that cannot be written as text.
    pub(super) fn state(&self, passing: &Passing, streams: &[Stream]) -> io::Result<Vec<u8>> {
        let mut table = Table::default();
        let all: Vec<Rc<Listener>> = self.front.listeners.iter().cloned().collect();
        let listeners = all.iter().map(|listener| PassedListener {
            served: self.front.listeners.is_served(listener),
            listener: listener.pass(passing, &mut |handoff| table.place(handoff)),
        });
        let listeners = listeners.collect();
        let workers: Vec<_> =
            self.workers.values().map(|worker| pass_worker(worker, passing, &all, &mut table)).collect();
        let whose = |words: &Arc<LastWords>| {
            self.workers.values().find(|worker| Arc::ptr_eq(&worker.last_words, words)).map(|worker| worker.id)
        };
        let shim = self.workers.starter.shim.pass(passing);
        let mut state = State {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: self.program.since,
            upgrades: self.program.upgrades + 1,
            name: self.config.name.clone(),
            base_text: self.reloads.base_text.clone(),
            text: self.config.source.text.clone(),
            texts: self.reloads.of.iter().map(|(g, config)| (*g, config.source.text.clone())).collect(),
            next_text: self.reloads.next.as_ref().map(|config| config.source.text.clone()),
            fleet: self.fleet.clone(),
            counters: self
                .front
                .counters
                .iter()
                .map(|c| [c.handed.get(), c.returned.get(), c.rescued.get(), c.truncated.get()])
                .collect(),
            accepted_before: self.front.accepted_before,
            lost: self.front.common.lost.get(),
            refused: self.front.common.refused.pass(),
            refused_returned: self.front.common.refused.returned.get(),
            opens: self.front.common.opens.pass(),
            provoked: self.front.common.provoked.pass(),
            descriptors: self.workers.starter.descriptors,
            policy: limits::policy_chosen(),
            last_words: self.failures.last_words.iter().map(|(slot, words)| (*slot, words.clone())).collect(),
            last_reload: self.reloads.last.clone(),
            handoffs: table.0.iter().map(|handoff| handoff.pass(passing)).collect(),
            listeners,
            workers,
            streams: streams.iter().map(|stream| stream.pass(passing, whose)).collect(),
            guard: self.workers.starter.guard.pass(passing),
            rendezvous: self.workers.starter.rendezvous.pass(passing),
            control: self.control.as_ref().map(|control| control.pass(passing)),
            shim,
            earlier: self.workers.starter.earlier.iter().map(Kin::identity).collect(),
            old_shims: self.workers.starter.old_shims.iter().map(|shim| passing.pass(&shim.file)).collect(),
            old_shims_newest: self.workers.starter.old_shims.iter().map(|shim| shim.newest).collect(),
            taken: self.workers.starter.taken.as_ref().map(|taken| taken.pass(passing)),
            client: self
                .program
                .upgrade
                .as_ref()
                .and_then(|upgrade| upgrade.client.as_ref())
                .map(|client| passing.pass(client)),
            capabilities: rights::own_capabilities().unwrap_or_default(),
            passed: Vec::new(),
        };
        state.passed = passing.kinds()?;
        Ok(serde_json::to_vec(&state)?)
    }
}

fn pass_worker(worker: &Worker, passing: &Passing, listeners: &[Rc<Listener>], table: &mut Table) -> PassedWorker {
    let request = |r: &Request| {
        let listener = listeners.iter().position(|l| Rc::ptr_eq(l, &r.listener))?;
        let handoff = r.handoff.as_ref().map(|handoff| table.place(handoff));
        let own = r.own.as_ref().map(|own| passing.pass(own));
        let holders = r.holders.ends().iter().map(|end| passing.pass(end.get_ref())).collect();
        let (id, accepting, address, claim) = (r.id, r.accepting, Some(r.address.clone()), r.claim);
        Some(PassedRequest { id, listener, handoff, accepting, own, address, claim, holders })
    };
    let requests = worker.requests.iter().filter_map(request).collect();
    PassedWorker {
        id: worker.id,
        slot: worker.slot,
        generation: worker.generation,
        pid: worker.pid.as_raw(),
        adapter: worker.adapter,
        since: worker.since,
        token: worker.token.clone(),
        channel_inode: worker.channel_inode,
        channel: passing.pass(worker.channel.get_ref()),
        pidfd: passing.pass(worker.pidfd.get_ref()),
        notify: passing.pass(&*worker.notify),
        notification: worker.notification.as_ref().map(|n| passing.pass(n.get_ref())),
        requests,
        supervised: worker.supervised.as_ref().map(|s| s.pass(passing, &mut |handoff| table.place(handoff))),
        uses_inherited: worker.uses_inherited,
        listened: worker.listened,
        reported: worker.reported,
        ready: worker.ready,
        admitted: worker.admitted,
        leaves: worker.leaves,
        health: worker.health.clone(),
        last_words: worker.last_words.now(),
    }
}

#[cfg(test)]
mod tests;
