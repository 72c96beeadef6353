//! The next program: it takes what was written down and goes on.

use crate::adapt::preload::Shim;
use crate::admin::{Bound, TokenFile};
use crate::aside::Aside;
use crate::config::bind::Bind;
use crate::config::{Config, DESCRIPTORS_OF_MASTER, DESCRIPTORS_PER_WORKER, WORKERS_MAX};
use crate::control::server::ControlSocket;
use crate::core::fleet::{Drain, Life, Occupant};
use crate::core::ids::{Slot, WorkerId};
use crate::datagrams::Datagrams;
use crate::front::accounts::Front;
use crate::front::common::Common;
use crate::front::counters::Counters;
use crate::front::handoff::Handoff;
use crate::front::listener::Listener;
use crate::front::listeners::Listeners;
use crate::front::returned;
use crate::kernel::shares::Shares;
use crate::lifecycle::failures::Failures;
use crate::lifecycle::health::Checks;
use crate::lifecycle::reload::Reloads;
use crate::lifecycle::{deaf, ending, ready};
use crate::master::end::End;
use crate::master::error::RunError;
use crate::master::event::{EVENTS_MAX, Event};
use crate::master::pid_file::PidFile;
use crate::master::program::Host;
use crate::master::program::Program;
use crate::master::recorder::Recorder;
use crate::master::run::Master;
use crate::master::service::Manager;
use crate::master::signals::forward_signals;
use crate::master::sizing::Sizing;
use crate::reports::Reports;
use crate::sys::dispose::{self, Foreign};
use crate::sys::exec::Taking;
use crate::sys::process::descent::Kin;
use crate::sys::process::guard::Guard;
use crate::sys::process::limits;
use crate::sys::taken::Taken;
use crate::sys::{fd, watch};
use crate::triggers;
use crate::workers::form::Form;
use crate::workers::holders::Holders;
use crate::workers::leftovers::Leftovers;
use crate::workers::looks::Looks;
use crate::workers::output::{LastWords, Output, Stream};
use crate::workers::pool::Pool;
use crate::workers::rendezvous::Rendezvous;
use crate::workers::start::{OldShim, Starter};
use crate::workers::supervised::Supervised;
use crate::workers::worker::{Executes, MayProbe, Request, SharedUdp, Worker};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::state::*;

impl Master {
    /// Goes on where another program was.
    ///
    /// # Errors
    /// When a descriptor is missing, or something that every master needs is not available.
    pub(in crate::master) fn resume(
        mut config: Config,
        host: Host,
        state: State,
    ) -> Result<(Master, mpsc::Receiver<Event>), RunError> {
        limits::policy_of_the_start(state.policy);
        let failed = super::failed();
        let taking = Taking::default();
        state.keep_base(&mut config).map_err(io::Error::other)?;
        config.name = state.name.clone();
        let config = Rc::new(config);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let packet_cost = fd::packet_cost()?;
        let common =
            Rc::new(Common::new(&config, packet_cost, Reports::wrapped(&sender, Event::Front), Aside::start()?));
        common.lost.set(state.lost);
        common.refused.take(state.refused);
        common.refused.returned.set(state.refused_returned);
        common.opens.take(state.opens);
        common.provoked.take(state.provoked);
        let output = Output::start(host.logs.out.clone(), host.logs.err.clone())?;
        dispose::start()?;
        if let Err(error) = limits::wake_without_preempting() {
            debug!(%error, "the master preempts its workers");
        }
        let counters: Vec<Rc<Counters>> = state.counters.iter().map(|counts| Rc::new(Counters::of(counts))).collect();
        let of_slot = |slot: Slot| counters.get(slot.index()).cloned().unwrap_or_default();
        let handoffs = state.handoffs.iter().map(|passed| {
            let counters = of_slot(passed.slot());
            let load = common.opens.load_of(passed.worker());
            Handoff::take_over(passed, &taking, counters, load, packet_cost).map(Rc::new)
        });
        let handoffs = handoffs.collect::<io::Result<Vec<_>>>()?;
        let mut listeners = Listeners::new(config.mode, Rc::clone(&common));
        let mut all = Vec::new();
        for passed in state.listeners {
            let listener = Listener::take(passed.listener, &taking, Rc::clone(&common), &handoffs)?;
            let listener = listeners.add_again(listener);
            all.push((listener, passed.served));
        }
        let (shim, old_shim) = Shim::take(state.shim, &taking)?;
        let newest_worker = state.workers.iter().map(|worker| worker.id).max().unwrap_or(WorkerId(0));
        let newest = state.old_shims_newest.into_iter().chain(std::iter::repeat(newest_worker));
        let old_shims = state.old_shims.into_iter().zip(newest);
        let old_shims = old_shims.map(|(number, newest)| Ok(OldShim { file: taking.take(number)?, newest }));
        let mut old_shims = old_shims.collect::<io::Result<Vec<_>>>()?;
        old_shims.extend(old_shim.map(|file| OldShim { file, newest: newest_worker }));
        let made = |text: &Option<String>| {
            // The trial could make it, so a failure now comes from a change since then.
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
        let hard = limits::descriptor_limit()?.hard;
        let spare = hard.saturating_sub(DESCRIPTORS_OF_MASTER) / DESCRIPTORS_PER_WORKER;
        let max_workers = WORKERS_MAX.min(u32::try_from(spare).unwrap_or(WORKERS_MAX));
        let mut reloads = Reloads { last: state.last_reload, ..Reloads::new(max_workers, state.base_text) };
        for (generation, text) in &state.texts {
            let same = *text == config.source.text;
            reloads.of.insert(*generation, if same { Rc::clone(&config) } else { made(text) });
        }
        reloads.next = state.next_text.as_ref().map(made);
        let workers = Reports::wrapped(&sender, Event::Worker);
        let starter = Starter {
            config: Rc::clone(&config),
            guard: Rc::new(Guard::take(state.guard, &taking, config.life.detached)?),
            leftovers: Leftovers::start(workers.clone())?,
            earlier: state.earlier.into_iter().filter_map(Kin::again).collect(),
            shim,
            old_shims,
            rendezvous: Rendezvous::take(state.rendezvous, &taking)?,
            output,
            form: Form::of(&config),
            descriptors: state.descriptors,
            taken: state.taken.map(|number| Taken::take(number, &taking)).transpose()?,
            common: Rc::clone(&common),
            events: workers,
        };
        let client = state.client.map(|number| taking.take(number)).transpose()?;
        let signals = forward_signals(&sender)?;
        if let Err(error) = triggers::begin(&config.triggers, &Reports::wrapped(&sender, Event::Trigger)) {
            warn!(%error, "no reload comes when files change");
        }
        common.begin_to_accept()?;
        let pid_file = match state.pid_file {
            Some(passed) => Some(PidFile::take(passed, &taking)?),
            // The version before this one did not pass it on.
            None => None,
        };
        let written = || config.pid_file.as_deref().map(PidFile::write).transpose();
        let pid_file = pid_file.map_or_else(written, |file| Ok(Some(file)));
        let pid_file = pid_file.unwrap_or_else(|error| {
            warn!(%error, "the pid file stays as it is");
            None
        });
        let control = state.control.map(|control| ControlSocket::take(control, &taking, config.access)).transpose()?;
        let program = Program {
            control,
            pid_file,
            has_served: true,
            since: state.since,
            // A failed upgrade does not count.
            upgrades: state.upgrades.saturating_sub(u32::from(failed.is_some())),
            ..Program::new(host, signals, Manager::find()?)
        };
        let datagrams = Datagrams::take(config.mode, state.datagrams, &taking)?;
        let mut master = Master {
            reloads,
            fleet: state.fleet,
            workers: Pool::of(starter, HashMap::new(), newest_worker),
            front: Front::new(config.mode, listeners, datagrams, counters, state.accepted_before),
            shares: Shares::new(Reports::wrapped(&sender, Event::Shares)),
            sizing: Sizing::new(Reports::wrapped(&sender, Event::Sizing)),
            checks: Checks::new(&config, Reports::wrapped(&sender, Event::Lifecycle)),
            failures: Failures::remembered(state.last_words),
            program,
            events: sender.clone(),
            end: End::default(),
            config,
        };
        for passed in state.workers {
            let worker = master.take_worker(passed, &taking, &all, &handoffs)?;
            master.workers.insert(worker);
        }
        for passed in state.streams {
            let words = |id| master.workers.get(id).map(|worker| Arc::clone(&worker.last_words));
            let stream = Stream::take(passed, &taking, master.workers.starter.form.clone(), words)?;
            master.workers.starter.output.add(stream);
        }
        let told = state.recorder.as_ref().map_or(0, |recorder| recorder.told);
        master.program.recorder = Recorder::go_on(state.recorder, master.workers.values());
        master.program.begin_to_tell(&master.config, told);
        let bind = |addresses: &[Bind], token: &TokenFile| match state.admin {
            // The version before this one had none.
            none if none.is_empty() => Bound::bind(addresses, token),
            passed => Bound::take(passed, token, &taking),
        };
        let requests = Reports::wrapped(&sender, Event::Control);
        if let Err(error) = master.program.serve_admin(&master.config, requests, bind) {
            warn!(%error, "the admin addresses are not served any more");
        }
        master.begin_again(&all, &sender)?;
        // As at a start: the limit may have been lowered.
        limits::raise_descriptor_limit()?;
        ending::clean_up_after_upgrade(&master.workers, master.scene(None));
        master.upgrade_done(client.as_ref(), &state.version, failed.as_deref());
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
                holders.watch(taking.take(number)?, passed.id, request.id, &self.workers.starter.events)?;
            }
            let address = request.address.unwrap_or_else(|| listener.address.clone());
            let (id, accepting, claim) = (request.id, request.accepting, request.claim);
            requests.push(Request { id, listener, handoff, own, accepting, address, claim, holders });
        }
        let mut datagrams = Vec::new();
        for PassedDatagram { id, address, claim, holders: ends } in passed.datagrams {
            let holders = Holders::default();
            for number in ends {
                holders.watch(taking.take(number)?, passed.id, id, &self.workers.starter.events)?;
            }
            datagrams.push(SharedUdp { id, address, claim, holders });
        }
        let config = self.reloads.of.get(&passed.generation).unwrap_or(&self.config);
        let supervised = passed
            .supervised
            .map(|s| Supervised::take_over(passed.id, s, taking, Rc::clone(&self.front.common), handoffs));
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
            last_out: Arc::default(),
            pidfd: watched(passed.pidfd)?,
            notify: Arc::new(Foreign::from(taking.take(passed.notify)?)),
            notification: passed.notification.map(watched).transpose()?,
            requests,
            datagrams,
            deaf_moment: None,
            looks: Looks::default(),
            outlived: false,
            ended: None,
            listened: passed.listened,
            tasks: Vec::new(),
            supervised: supervised.transpose()?,
            executes: Executes::Yes,
            uses_inherited: passed.uses_inherited,
            passed: passed.passed,
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
    fn begin_again(&mut self, listeners: &[(Rc<Listener>, bool)], sender: &mpsc::Sender<Event>) -> io::Result<()> {
        if let Some(control) = &self.program.control {
            control.serve(Reports::wrapped(sender, Event::Control));
        }
        self.workers.starter.rendezvous.serve(self.workers.starter.events.clone())?;
        for (listener, served) in listeners {
            if *served {
                self.front.listeners.serve(listener);
            }
            // Serves what workers that are gone returned, and what the others return.
            for draining in listener.workers.draining() {
                if self.workers.get(draining.worker).is_none() {
                    draining.finish();
                    tokio::task::spawn_local(returned::serve(Rc::clone(listener), draining));
                }
            }
        }
        self.front.common.opens.begin();
        let ids: Vec<WorkerId> = self.workers.ids().collect();
        for id in ids {
            let Some((worker, starter)) = self.workers.get_with_starter(id) else { continue };
            starter.attend(worker, None)?;
            for request in worker.requests.iter().filter(|request| request.accepting) {
                if let Some(handoff) = &request.handoff {
                    tokio::task::spawn_local(returned::serve(Rc::clone(&request.listener), Rc::clone(handoff)));
                }
            }
            worker.choose_target(if worker.leaves { MayProbe::No } else { MayProbe::Yes });
            let events = &self.checks.events;
            if self.fleet.occupant(id).is_some_and(Occupant::is_starting) {
                ready::await_readiness(worker, events);
                ready::ask_until_ready(worker, events);
                ready::begin_again(worker, events);
            }
            self.checks.probe_if_asked(worker, &self.fleet);
            deaf::lost_listener(worker, &self.fleet, events);
            let draining =
                matches!(self.fleet.occupant(id).map(|o| o.life), Some(Life::Draining { phase: Drain::Emptying, .. }));
            if draining {
                self.watch_drain_if_untaken_are_gone(id);
            }
        }
        Ok(())
    }
}
