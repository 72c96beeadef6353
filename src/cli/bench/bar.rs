//! The progress of a measurement, on a terminal.

use crate::bench::plan::Plan;
use crate::bench::record::Run;
use crate::bench::session::Progress;
use crate::bench::stop::Stop;
use crate::cli::say;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time between two steps of the progress bar.
const STEP: Duration = Duration::from_millis(100);

/// The progress bar on a terminal.
pub struct Bar {
    bar: ProgressBar,
    rounds: u32,
    expected: Option<u64>,
    /// Stops the thread that moves the bar of the run under way.
    moving: Option<(Stop, std::thread::JoinHandle<()>)>,
}

impl Bar {
    /// A bar for a whole measurement.
    pub fn new(plan: &Plan) -> Bar {
        let expected = match plan.load.volume {
            crate::bench::load::Volume::Connections(n) => Some(n),
            crate::bench::load::Volume::Duration(_) => None,
        };
        let bar = ProgressBar::new(expected.unwrap_or(0));
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = match expected {
            Some(_) => "{msg} [{bar:30}] {human_pos} of {human_len} connections, {elapsed}",
            None => "{msg} {spinner} {human_pos} connections, {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar { bar, rounds: plan.repeat, expected, moving: None }
    }

    fn rest(&mut self) {
        if let Some((stop, thread)) = self.moving.take() {
            stop.set();
            let _ = thread.join();
        }
    }
}

impl Progress for Bar {
    fn begin(&mut self, subject: &str, round: u32, ended: Arc<AtomicU64>) {
        self.rest();
        self.bar.set_message(format!("round {round} of {}, {subject}", self.rounds));
        self.bar.set_position(0);
        self.bar.reset_elapsed();
        if self.bar.is_hidden() {
            return;
        }
        let Ok(stop) = Stop::new() else { return };
        let (bar, over) = (self.bar.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("bench-progress".to_owned());
        let moving = thread.spawn(move || {
            while !over.wait(STEP) {
                bar.set_position(ended.load(Ordering::Relaxed));
                bar.tick();
            }
        });
        self.moving = moving.ok().map(|thread| (stop, thread));
    }

    fn end(&mut self, run: &Run) {
        self.rest();
        self.bar.set_position(self.expected.unwrap_or_else(|| run.endings.all()));
        if !self.bar.is_hidden() {
            let wrong = if run.invalid.is_empty() { "" } else { ", INVALID" };
            let rate = run.connections_per_s;
            let line = format!("round {} {}: {rate:.0} connections/s{wrong}", run.round, run.subject);
            self.bar.suspend(|| say::message(&line));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.rest();
        self.bar.finish_and_clear();
    }
}
