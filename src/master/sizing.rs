//! How many workers there should be, where that is not fixed (`--workers A..B`): takes samples, and carries out what
//! [`crate::core::scaling`] decides.

use super::run::Master;
use crate::clock;
use crate::config::Mode;
use crate::control::status;
use crate::core::fleet::{self, Resize};
use crate::core::moment::Moment;
use crate::core::scaling::{Change, Load, Range, SAMPLE_EVERY, Sample, Scaling};
use crate::lifecycle::health;
use crate::reports::Reports;
use crate::sys::process::Usage;
use nix::unistd::Pid;
use std::collections::HashMap;
use tokio::task::JoinHandle;
use tracing::info;

/// What the number depends on.
#[derive(Debug)]
pub enum Event {
    /// It is time to look.
    Due,
    /// What the workers use of the machine.
    Measured(HashMap<Pid, Usage>),
}

/// What is remembered.
#[derive(Debug)]
pub struct Sizing {
    scaling: Scaling,
    last: Option<(Moment, Change)>,
    reports: Reports<Event>,
    /// Looks again and again.
    looks: Option<JoinHandle<()>>,
}

impl Sizing {
    /// Nothing is known.
    #[must_use]
    pub fn new(reports: Reports<Event>) -> Sizing {
        Sizing { scaling: Scaling::default(), last: None, reports, looks: None }
    }

    /// Looks as long as there is a range.
    pub fn begin(&mut self, range: Option<Range>) {
        match (range, &self.looks) {
            (None, _) => self.looks.take().into_iter().for_each(|looks| looks.abort()),
            (Some(_), Some(_)) => {}
            (Some(_), None) => self.looks = Some(tokio::task::spawn_local(look(self.reports.clone()))),
        }
    }

    /// For `status`.
    #[must_use]
    pub fn status(&self, range: Option<Range>) -> Option<status::Scaling> {
        let last = |(at, change): (Moment, Change)| status::Scaled {
            from: change.from,
            to: change.to,
            because: change.because.name().to_owned(),
            since_s: clock::now().since(at).as_secs_f64(),
        };
        range.map(|range| status::Scaling { min: range.min, max: range.max, last: self.last.map(last) })
    }
}

async fn look(reports: Reports<Event>) {
    loop {
        tokio::time::sleep(SAMPLE_EVERY).await;
        if reports.send(Event::Due).await.is_err() {
            return;
        }
    }
}

impl Master {
    pub(super) async fn handle_sizing(&mut self, event: Event) {
        match event {
            Event::Due => {
                let (ports, reports) = (self.front.ports(), self.sizing.reports.clone());
                health::measure(&self.workers, &self.front, ports, reports, Event::Measured);
            }
            Event::Measured(usage) => self.size(&usage).await,
        }
    }

    async fn size(&mut self, usage: &HashMap<Pid, Usage>) {
        let Some(range) = self.config.range else { return };
        if !self.fleet.is_settled() {
            return self.sizing.scaling.forget();
        }
        let (now, sample) = (clock::now(), self.sample(usage));
        let Some(change) = self.sizing.scaling.sample(now, &sample, &range) else { return };
        let Change { from, to, because } = change;
        info!(from, to, because = because.name(), "the number of workers should change");
        self.sizing.last = Some((now, change));
        self.program.recorder.why_scaled = Some(because.name());
        self.handle_fleet(fleet::Event::Resize(Resize::To(to))).await;
    }

    fn sample(&self, usage: &HashMap<Pid, Usage>) -> Sample {
        // In kernel mode each slot has a queue of its own, and there is no other.
        let waiting = match self.config.mode {
            Mode::Kernel => 0,
            Mode::Handoff | Mode::Shared => {
                self.front.listeners.iter().map(|listener| u64::from(listener.queued())).sum()
            }
        };
        let mut sample = Sample { waiting, ..Sample::default() };
        for state in self.fleet.slots() {
            let Some(worker) = state.serving().and_then(|occupant| self.workers.get(occupant.worker)) else { continue };
            let used = usage.get(&worker.pid).copied().unwrap_or_default();
            let (queued, taken) = health::waiting_and_taken(worker, &self.workers, &self.front);
            sample.workers.push(Load { queued, open: used.open, taken });
            sample.cpu_s += used.cpu_s;
        }
        sample
    }
}
