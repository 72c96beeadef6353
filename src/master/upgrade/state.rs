//! Everything that the next program must know, as JSON; descriptors by their numbers.

use super::super::aside::Aside;
use super::super::door::Door;
use super::super::drain::Drains;
use super::super::error::RunError;
use super::super::event::{EVENTS_MAX, Event};
use super::super::group;
use super::super::handoff::{self, Counters, Handoff};
use super::super::health::rhythm;
use super::super::holders::Holders;
use super::super::leftovers::Leftovers;
use super::super::listener::{self, House, Listener};
use super::super::listeners::Listeners;
use super::super::opens;
use super::super::output::{self, LastWords, Output, Stream};
use super::super::provoked;
use super::super::refuse;
use super::super::reload::Reloads;
use super::super::returned;
use super::super::run::{Master, prefixed};
use super::super::shares::Shares;
use super::super::signals::forward_signals;
use super::super::start::Starter;
use super::super::supervised::{self, Supervised};
use super::super::worker::{Asked, Executes, Request, Worker};
use super::Host;
use crate::adapt::Chosen;
use crate::adapt::preload::Shim;
use crate::config::{Config, DESCRIPTORS_OF_MASTER, DESCRIPTORS_PER_WORKER, WORKERS_MAX};
use crate::control::server::{self, ControlSocket};
use crate::core::claim::Claim;
use crate::core::fleet::{Drain, Fleet, Life, Occupant};
use crate::core::health::Health;
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::core::moment::Moment;
use crate::sys::descent::Kin;
use crate::sys::dispose::{self, Foreign};
use crate::sys::exec::{Kind, Number, Passing, Taking};
use crate::sys::guard::{self, Guard};
use crate::sys::taken::Taken;
use crate::sys::{clock, fd, limits, rights, watch};
use crate::wire::address::Address;
use crate::wire::packet::RequestId;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
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
    refused: refuse::Passed,
    #[serde(default)]
    refused_returned: u64,
    #[serde(default)]
    opens: opens::Passed,
    #[serde(default)]
    provoked: provoked::Passed,
    descriptors: u64,
    #[serde(default)]
    policy: limits::Chosen,
    last_words: Vec<(Slot, String)>,
    last_reload: Option<String>,
    handoffs: Vec<handoff::Passed>,
    listeners: Vec<PassedListener>,
    workers: Vec<PassedWorker>,
    streams: Vec<output::Passed>,
    guard: guard::Passed,
    door: (String, Number),
    control: Option<server::Passed>,
    shim: Number,
    old_shims: Vec<Number>,
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
    listener: listener::Passed,
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
        let all: Vec<Rc<Listener>> = self.listeners.iter().cloned().collect();
        let listeners = all.iter().map(|listener| PassedListener {
            served: self.listeners.is_served(listener),
            listener: listener.pass(passing, &mut |handoff| table.place(handoff)),
        });
        let listeners = listeners.collect();
        let workers: Vec<_> =
            self.workers.values().map(|worker| pass_worker(worker, passing, &all, &mut table)).collect();
        let whose = |words: &Arc<LastWords>| {
            self.workers.values().find(|worker| Arc::ptr_eq(&worker.last_words, words)).map(|worker| worker.id)
        };
        let shim = self.starter.shim.pass(passing);
        let mut state = State {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: self.since,
            upgrades: self.upgrades + 1,
            name: self.config.name.clone(),
            base_text: self.base_text.clone(),
            text: self.config.source.text.clone(),
            texts: self.reloads.of.iter().map(|(g, config)| (*g, config.source.text.clone())).collect(),
            next_text: self.reloads.next.as_ref().map(|config| config.source.text.clone()),
            fleet: self.fleet.clone(),
            counters: self
                .counters
                .iter()
                .map(|c| [c.handed.get(), c.returned.get(), c.rescued.get(), c.truncated.get()])
                .collect(),
            accepted_before: self.accepted_before,
            lost: self.house.lost.get(),
            refused: self.house.refused.pass(),
            refused_returned: self.house.refused.returned.get(),
            opens: self.house.opens.pass(),
            provoked: self.house.provoked.pass(),
            descriptors: self.starter.descriptors,
            policy: limits::policy_chosen(),
            last_words: self.last_words.iter().map(|(slot, words)| (*slot, words.clone())).collect(),
            last_reload: self.reloads.last.clone(),
            handoffs: table.0.iter().map(|handoff| handoff.pass(passing)).collect(),
            listeners,
            workers,
            streams: streams.iter().map(|stream| stream.pass(passing, whose)).collect(),
            guard: self.starter.guard.pass(passing),
            door: self.starter.door.pass(passing),
            control: self.control.as_ref().map(|control| control.pass(passing)),
            shim,
            earlier: self.starter.earlier.iter().map(Kin::identity).collect(),
            old_shims: self.starter.old_shims.iter().map(|file| passing.pass(file)).collect(),
            taken: self.starter.taken.as_ref().map(|taken| taken.pass(passing)),
            client: self
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

    /// Goes on where another program was.
    ///
    /// # Errors
    /// When a descriptor is missing, or something that every master needs cannot be had.
    pub(in super::super) fn resume(
        mut config: Config,
        host: Host,
        state: State,
    ) -> Result<(Master, mpsc::Receiver<Event>), RunError> {
        limits::policy_of_the_start(state.policy);
        let taking = Taking::default();
        state.keep_base(&mut config).map_err(io::Error::other)?;
        config.name = state.name.clone();
        let config = Rc::new(config);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let packet_cost = fd::packet_cost()?;
        let house = Rc::new(House::new(&config, packet_cost, sender.clone(), Aside::start()?));
        house.lost.set(state.lost);
        house.refused.take(state.refused);
        house.refused.returned.set(state.refused_returned);
        house.opens.take(state.opens);
        house.provoked.take(state.provoked);
        let output = Output::start()?;
        dispose::start()?;
        if let Err(error) = limits::wake_without_preempting() {
            debug!(%error, "the master preempts its workers");
        }
        let counters: Vec<Rc<Counters>> = state.counters.iter().map(|counts| Rc::new(Counters::of(counts))).collect();
        let of_slot = |slot: Slot| counters.get(slot.index()).cloned().unwrap_or_default();
        let handoffs = state.handoffs.iter().map(|passed| {
            let counters = of_slot(passed.slot());
            let load = house.opens.load_of(passed.worker());
            Handoff::take_over(passed, &taking, counters, load, packet_cost).map(Rc::new)
        });
        let handoffs = handoffs.collect::<io::Result<Vec<_>>>()?;
        let mut listeners = Listeners::new(config.mode, Rc::clone(&house));
        let mut all = Vec::new();
        for passed in state.listeners {
            let listener = Listener::take(passed.listener, &taking, Rc::clone(&house), &handoffs)?;
            let listener = listeners.add_again(listener);
            all.push((listener, passed.served));
        }
        let (shim, old_shim) = Shim::take(state.shim, &taking)?;
        let old_shims =
            state.old_shims.into_iter().map(|number| taking.take(number)).collect::<io::Result<Vec<_>>>()?;
        let made = |text: &Option<String>| {
            // The check has made it, so what fails now is a change of the moment.
            match (config.source.make)(text.clone()) {
                Ok(mut made) => {
                    made.keep_from(&config);
                    Rc::new(made)
                }
                Err(error) => {
                    warn!(error, "the configuration of a generation cannot be made again; it gets the one in force");
                    Rc::clone(&config)
                }
            }
        };
        let mut reloads = Reloads { last: state.last_reload, ..Reloads::default() };
        for (generation, text) in &state.texts {
            let same = *text == config.source.text;
            reloads.of.insert(*generation, if same { Rc::clone(&config) } else { made(text) });
        }
        reloads.next = state.next_text.as_ref().map(made);
        let starter = Starter {
            config: Rc::clone(&config),
            guard: Rc::new(Guard::take(state.guard, &taking, config.life.detached)?),
            leftovers: Leftovers::start(sender.clone())?,
            earlier: state.earlier.into_iter().filter_map(Kin::again).collect(),
            shim,
            old_shims: old_shims.into_iter().chain(old_shim).collect(),
            door: Door::take(state.door, &taking)?,
            output,
            prefixed: prefixed(&config),
            descriptors: state.descriptors,
            taken: state.taken.map(|number| Taken::take(number, &taking)).transpose()?,
            house: Rc::clone(&house),
        };
        let hard = limits::descriptor_limit()?.hard;
        let spare = hard.saturating_sub(DESCRIPTORS_OF_MASTER) / DESCRIPTORS_PER_WORKER;
        let client = state.client.map(|number| taking.take(number)).transpose()?;
        let signals = forward_signals(&sender)?;
        house.begin_to_accept()?;
        let mut master = Master {
            since: state.since,
            rhythm: Rc::new(Cell::new(rhythm(&config.life))),
            looked_at: clock::now(),
            looked_at_rest: false,
            signals,
            base_text: state.base_text,
            reloads,
            max_workers: WORKERS_MAX.min(u32::try_from(spare).unwrap_or(WORKERS_MAX)),
            drains: Rc::<Drains>::default(),
            memory_looked_at: clock::now(),
            last_words: state.last_words.into_iter().collect(),
            failed_because: None,
            starter,
            house,
            listeners,
            accepted_before: state.accepted_before,
            unaccounted: Cell::new(0),
            sockets_at_stop: HashSet::new(),
            newest_worker: state.workers.iter().map(|worker| worker.id).max().unwrap_or(WorkerId(0)),
            closing: 0,
            fleet: state.fleet,
            workers: HashMap::new(),
            shares: Shares::default(),
            counters,
            finished: false,
            failure: None,
            boot_failure: None,
            control: state.control.map(|control| ControlSocket::take(control, &taking)).transpose()?,
            upgrade: None,
            upgrades: state.upgrades,
            host,
            config,
        };
        for passed in state.workers {
            let worker = master.take_worker(passed, &taking, &all, &handoffs)?;
            master.workers.insert(worker.id, worker);
        }
        for passed in state.streams {
            let words = |id| master.workers.get(&id).map(|worker| Arc::clone(&worker.last_words));
            let stream = Stream::take(passed, &taking, master.starter.prefixed, words)?;
            master.starter.output.add(stream);
        }
        master.begin_again(&all, sender)?;
        master.clean_up_after_upgrade();
        master.upgrade_done(client.as_ref(), &state.version);
        Ok((master, events))
    }

    fn take_worker(
        &self,
        passed: PassedWorker,
        taking: &Taking,
        listeners: &[(Rc<Listener>, bool)],
        handoffs: &[Rc<Handoff>],
    ) -> io::Result<Worker> {
        let missing = || io::Error::other("a listener or hand-off socket of a worker is missing");
        let watched = |number| taking.take(number).and_then(watch::readable).map(Rc::new);
        let mut requests = Vec::new();
        for request in passed.requests {
            let listener = listeners.get(request.listener).map(|(l, _)| Rc::clone(l)).ok_or_else(missing)?;
            let handoff = request.handoff.map(|place| handoffs.get(place).cloned().ok_or_else(missing)).transpose()?;
            let own = request.own.map(|number| taking.take(number).map(Foreign::from)).transpose()?;
            let holders = Holders::default();
            for number in request.holders {
                holders.watch(taking.take(number)?, passed.id, request.id, &self.house.events)?;
            }
            let address = request.address.unwrap_or_else(|| listener.address.clone());
            let (id, accepting, claim) = (request.id, request.accepting, request.claim);
            requests.push(Request { id, listener, handoff, own, accepting, address, claim, holders });
        }
        let config = self.reloads.of.get(&passed.generation).unwrap_or(&self.config);
        let supervised =
            passed.supervised.map(|s| Supervised::take_over(passed.id, s, taking, Rc::clone(&self.house), handoffs));
        Ok(Worker {
            id: passed.id,
            slot: passed.slot,
            generation: passed.generation,
            config: Rc::clone(config),
            pid: Pid::from_raw(passed.pid),
            adapter: passed.adapter,
            since: passed.since,
            token: passed.token,
            channel_inode: passed.channel_inode,
            channel: Rc::new(watch::readable(Foreign::from(taking.take(passed.channel)?))?),
            last_words: Arc::new(LastWords::again(passed.last_words)),
            pidfd: watched(passed.pidfd)?,
            notify: Arc::new(Foreign::from(taking.take(passed.notify)?)),
            notification: passed.notification.map(watched).transpose()?,
            requests,
            deaf_moment: None,
            listened: passed.listened,
            tasks: Vec::new(),
            supervised: supervised.transpose()?,
            executes: Executes::Yes,
            uses_inherited: passed.uses_inherited,
            reported: passed.reported,
            ready: passed.ready,
            awaits_addresses: false,
            asked: false,
            admitted: passed.admitted,
            leaves: passed.leaves,
            target: Rc::default(),
            health: passed.health,
        })
    }

    /// Begins everything again that was under way.
    fn begin_again(&mut self, listeners: &[(Rc<Listener>, bool)], sender: mpsc::Sender<Event>) -> io::Result<()> {
        if let Some(control) = &self.control {
            control.serve(sender.clone());
        }
        self.starter.door.serve(sender.clone())?;
        for (listener, served) in listeners {
            if *served {
                self.listeners.serve(listener);
            }
            // What workers that are gone sent back, and what the others send.
            for orphan in listener.seats.orphans() {
                if !self.workers.contains_key(&orphan.worker) {
                    orphan.finish();
                    tokio::task::spawn_local(returned::serve(Rc::clone(listener), orphan));
                }
            }
        }
        self.house.opens.begin();
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            self.starter.attend(worker, None)?;
            for request in worker.requests.iter().filter(|request| request.accepting) {
                if let Some(handoff) = &request.handoff {
                    tokio::task::spawn_local(returned::serve(Rc::clone(&request.listener), Rc::clone(handoff)));
                }
            }
            worker.choose_target(if worker.leaves { Asked::No } else { Asked::Yes });
            if self.fleet.occupant(id).is_some_and(Occupant::is_starting) {
                self.await_readiness(id);
                self.ask_until_ready(id);
            }
            self.probe_if_asked(id);
            self.lost_listener(id);
            let draining =
                matches!(self.fleet.occupant(id).map(|o| o.life), Some(Life::Draining { phase: Drain::Emptying, .. }));
            if draining {
                self.watch_drain_if_untaken_are_gone(id);
            }
        }
        Ok(())
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
mod tests {
    use super::*;
    use serde_json::Value;

    /// What each version wrote, a master with two workers and three addresses say. A version that writes something
    /// else keeps the file of the one before and adds its own.
    const WRITTEN: [(&str, &str); 1] = [("0.1.0", include_str!("golden/0.1.0.json"))];

    /// Whether all that stands in one also stands in the other.
    fn lost(before: &Value, after: &Value, at: &str) -> Vec<String> {
        match (before, after) {
            (Value::Object(before), Value::Object(after)) => before
                .iter()
                .flat_map(|(key, value)| lost(value, after.get(key).unwrap_or(&Value::Null), &format!("{at}.{key}")))
                .collect(),
            (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
                let each = before.iter().zip(after).enumerate();
                each.flat_map(|(index, (before, after))| lost(before, after, &format!("{at}[{index}]"))).collect()
            }
            _ if before == after => Vec::new(),
            _ => vec![format!("{at}: {before} became {after}")],
        }
    }

    #[test]
    fn the_state_that_any_version_wrote_is_understood_and_nothing_of_it_lost() {
        for (version, text) in WRITTEN {
            let state = understand(text.as_bytes()).unwrap_or_else(|error| panic!("{version}: {error}"));
            assert_eq!((state.version.as_str(), state.workers.len()), (version, 2));
            let again = serde_json::to_value(&state).unwrap();
            let lost = lost(&serde_json::from_str(text).unwrap(), &again, "");
            assert!(lost.is_empty(), "{version}: {lost:#?}");
        }
    }

    #[test]
    fn a_state_of_another_format_is_refused() {
        let other = WRITTEN[0].1.replacen("\"format\": 1", "\"format\": 999", 1);
        assert!(matches!(understand(other.as_bytes()), Err(StateError::Format { found: 999 })));
    }
}
