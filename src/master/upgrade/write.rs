//! Writing down everything that the next program must know.

use crate::front::handoff::Handoff;
use crate::front::listener::Listener;
use crate::master::hook::Hook;
use crate::master::run::Master;
use crate::sys::exec::Passing;
use crate::sys::process::descent::Kin;
use crate::sys::process::{directory, limits};
use crate::sys::rights;
use crate::workers::output::{LastWords, Stream};
use crate::workers::worker::{Request, SharedUdp, Worker};
use std::io::{self};
use std::rc::Rc;
use std::sync::Arc;

use super::state::*;
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
            directory: directory::named(),
            base_text: self.reloads.base_text.clone(),
            text: self.config.source.text.clone(),
            texts: self.reloads.of.iter().map(|(g, config)| (*g, config.source.text.clone())).collect(),
            next_text: self.reloads.next.as_ref().map(|config| config.source.text.clone()),
            fleet: self.fleet.clone(),
            datagrams: self.front.datagrams.pass(passing),
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
            pid_file: self.program.pid_file.as_ref().map(|file| file.pass(passing)),
            admin: self.program.admin.as_ref().map(|admin| admin.pass(passing)).unwrap_or_default(),
            recorder: Some(self.program.recorder.pass(self.program.hook.as_ref().map_or(0, Hook::told))),
            last_words: self.failures.last_words.iter().map(|(slot, words)| (*slot, words.clone())).collect(),
            last_reload: self.reloads.last.clone(),
            handoffs: table.0.iter().map(|handoff| handoff.pass(passing)).collect(),
            listeners,
            workers,
            streams: streams.iter().map(|stream| stream.pass(passing, whose)).collect(),
            guard: self.workers.starter.guard.pass(passing),
            rendezvous: self.workers.starter.rendezvous.pass(passing),
            control: self.program.control.as_ref().map(|control| control.pass(passing)),
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
    let datagram = |d: &SharedUdp| PassedDatagram {
        id: d.id,
        address: d.address,
        claim: d.claim,
        holders: d.holders.ends().iter().map(|end| passing.pass(end.get_ref())).collect(),
    };
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
        datagrams: worker.datagrams.iter().map(datagram).collect(),
        supervised: worker.supervised.as_ref().map(|s| s.pass(passing, &mut |handoff| table.place(handoff))),
        uses_inherited: worker.uses_inherited,
        passed: worker.passed,
        listened: worker.listened,
        reported: worker.reported,
        ready: worker.ready,
        admitted: worker.admitted,
        leaves: worker.leaves,
        health: worker.health.clone(),
        last_words: worker.last_words.now(),
    }
}
