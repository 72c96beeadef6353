//! Requests of the control socket, and signals that mean the same.

use super::run::Master;
use super::status::add_usage;
use crate::control::status::Used;
use crate::control::{self, Size, Until, Usage, done, refusal};
use crate::core::fleet::{self, Manner, Stop};
use crate::core::ids::Generation;
use crate::lifecycle::ending;
use crate::lifecycle::health::rhythm;
use crate::lifecycle::reload::ReloadError;
use crate::sys::process;
use crate::triggers;
use nix::sys::signal::Signal;
use serde::Serialize;
use std::rc::Rc;
use tokio::sync::oneshot;
use tracing::{info, warn};

impl Master {
    /// Answers a request of the control socket.
    pub(super) async fn answer(&mut self, request: control::Request, answer: oneshot::Sender<String>) {
        match request {
            control::Request::Status { usage } => self.tell_status(usage, answer),
            control::Request::Reload { manner, until } => self.reload_asked(manner, until, answer).await,
            control::Request::Scale { to } => self.scale_asked(to, answer).await,
            control::Request::Stop => {
                info!("asked to stop");
                let _ = answer.send(done("stopping"));
                self.handle_fleet(fleet::Event::StopAsked(Stop::Graceful)).await;
            }
            control::Request::Signal { signal, slot } => {
                let _ = answer.send(self.signal_workers(&signal, slot));
            }
            control::Request::Events { journal, after } => {
                let events = self.program.recorder.journal.clone();
                self.answer_aside(answer, move || to_json(&events.after(journal, after)));
            }
            control::Request::Lines { wanted } => {
                let kept = self.program.host.logs.out.kept().clone();
                self.answer_aside(answer, move || to_json(&kept.lines(&wanted)));
            }
            // It comes as an event of its own, with the client.
            control::Request::Upgrade => {}
        }
    }

    /// Reading `/proc` takes a while, so it happens in the background.
    fn tell_status(&self, usage: Usage, answer: oneshot::Sender<String>) {
        self.front.common.opens.ask_now();
        let (mut status, groups, ports) = (self.view().status(), self.workers.groups(), self.front.ports());
        self.front.check_sum();
        if usage == Usage::ForOthers {
            status.workers.iter_mut().for_each(|worker| worker.reason = None);
            status.last_reload = None;
        }
        self.answer_aside(answer, move || {
            if usage == Usage::Told {
                add_usage(&mut status, &process::usage(&groups, &ports));
                let used = process::own_usage();
                status.master = Used { rss_bytes: used.rss_bytes, cpu_s: used.cpu_s };
            }
            to_json(&status)
        });
    }

    /// Answers with what takes a while to make.
    fn answer_aside(&self, answer: oneshot::Sender<String>, make: impl FnOnce() -> String + Send + 'static) {
        let made = match self.front.common.aside.place() {
            Ok(place) => place.run(make),
            Err(busy) => return drop(answer.send(refusal(&busy.to_string()))),
        };
        tokio::task::spawn_local(async move {
            let text = made.await.unwrap_or_else(|broke_off| refusal(&broke_off.to_string()));
            // A client that is gone needs no answer.
            let _ = answer.send(text);
        });
    }

    /// `maitred signal`.
    fn signal_workers(&self, signal: &str, slot: Option<u32>) -> String {
        let Ok(signal) = signal.parse::<Signal>() else { return refusal(&format!("{signal:?} is no signal")) };
        let meant = self.workers.values().filter(|worker| slot.is_none_or(|slot| worker.slot.0 == slot));
        let signalled = meant.map(|worker| ending::signal(worker, signal)).count();
        match (signalled, slot) {
            (0, Some(slot)) => refusal(&format!("there is no worker in slot {slot}")),
            (0, None) => refusal("there is no worker"),
            (1, _) => done(&format!("{signal} is sent to 1 worker")),
            (some, _) => done(&format!("{signal} is sent to {some} workers")),
        }
    }

    async fn begin_reload(&mut self, manner: Manner) -> Result<(), ReloadError> {
        let asked = self.reloads.read_again(manner, &self.config, &self.workers.starter, &self.fleet)?;
        self.handle_fleet(asked).await;
        Ok(())
    }

    /// `HUP`.
    pub(super) async fn reload_by_signal(&mut self) {
        if let Some(manager) = &mut self.program.manager {
            manager.reload_asked();
        }
        if let Err(error) = self.begin_reload(Manner::Rolling).await {
            warn!(%error, "cannot reload; the running workers serve on");
        }
    }

    /// Files have changed, or its time has come.
    pub(super) async fn reload_by_itself(&mut self, event: triggers::Event) {
        match event {
            triggers::Event::Changed { path, changes } => {
                info!(path = %path.display(), changes, "files have changed, reloading");
            }
            triggers::Event::Due => info!("its time has come (--restart-cron), reloading"),
        }
        if let Err(error) = self.begin_reload(Manner::Rolling).await {
            warn!(%error, "cannot reload; the running workers serve on");
        }
    }

    /// `maitred reload` and `restart`.
    async fn reload_asked(&mut self, manner: Manner, until: Until, answer: oneshot::Sender<String>) {
        let may_wait = match until {
            Until::Done => self.reloads.may_wait(),
            Until::Accepted => Ok(()),
        };
        let begun = match may_wait {
            Ok(()) => self.begin_reload(manner).await,
            crowded => crowded,
        };
        let text = match (begun, until) {
            (Err(error), _) => {
                warn!(%error, "cannot reload; the running workers serve on");
                refusal(&format!("{error}; the running workers serve on"))
            }
            (Ok(()), Until::Accepted) => match self.fleet.reloading() {
                Some(generation) => done(&format!("reloading: generation {generation} starts")),
                None => done("the reload waits for its turn"),
            },
            (Ok(()), Until::Done) => return self.reloads.wait(answer, &self.fleet),
        };
        // A client that is gone needs no answer.
        let _ = answer.send(text);
    }

    /// The new generation serves: its configuration is in force.
    pub(super) fn reload_done(&mut self, generation: Generation) {
        if let Some(config) = self.reloads.done(generation, &mut self.fleet) {
            self.checks.rhythm.set(rhythm(&config.life));
            self.workers.starter.config = Rc::clone(&config);
            self.config = config;
            self.sizing.begin(self.config.range);
        }
    }

    /// `maitred scale`.
    async fn scale_asked(&mut self, size: Size, answer: oneshot::Sender<String>) {
        let before = self.fleet.wanted();
        let outside = |workers: u32| self.config.range.filter(|range| !(range.min..=range.max).contains(&workers));
        let text = match self.fleet.size_after(size.into()).map(|workers| (workers, outside(workers))) {
            Ok((workers, Some(range))) => {
                refusal(&format!("{workers} workers are outside of --workers {}..{}", range.min, range.max))
            }
            Ok((workers, None)) => {
                self.handle_fleet(fleet::Event::Resize(size.into())).await;
                done(&format!("{before} workers become {workers}"))
            }
            Err(refused) => refusal(&refused.to_string()),
        };
        let _ = answer.send(text);
    }
}

fn to_json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_else(|error| refusal(&error.to_string()))
}
