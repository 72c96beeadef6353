//! The whole measurement: rounds, in each of which every subject has its turn, so that a slow minute
//! of the machine hits all alike.

use super::error::BenchError;
use super::plan::{Plan, Subject};
use super::run::{Run, measure};
use super::stop::Stop;
use super::subject::{Ended, Stage};
use std::sync::atomic::AtomicU64;

/// Who is told how far it is.
pub trait Progress {
    /// A run begins; the counter grows with its connections.
    fn begin(&mut self, subject: &str, round: u32, ended: std::sync::Arc<AtomicU64>);
    /// It is over.
    fn end(&mut self, run: &Run);
}

/// How a measurement ended.
#[derive(Debug)]
pub enum Finish {
    /// With all that was planned.
    Complete,
    /// By Ctrl-C.
    CutShort,
    /// By something that makes the rest pointless.
    Failed(BenchError),
}

/// Measures all that is planned, as far as it gets. Call from the main thread.
pub fn run(plan: &Plan, descriptors: u64, stop: &Stop, progress: &mut dyn Progress) -> (Vec<Run>, Finish) {
    let mut runs = Vec::new();
    let finish = match rounds(plan, descriptors, stop, progress, &mut runs) {
        Ok(()) if stop.is_set() => Finish::CutShort,
        Ok(()) => Finish::Complete,
        // What was underway when Ctrl-C came may well fail.
        Err(_) if stop.is_set() => Finish::CutShort,
        Err(error) => Finish::Failed(error),
    };
    (runs, finish)
}

fn rounds(
    plan: &Plan,
    descriptors: u64,
    stop: &Stop,
    progress: &mut dyn Progress,
    runs: &mut Vec<Run>,
) -> Result<(), BenchError> {
    let mut stage =
        Stage::new(plan, descriptors).map_err(|source| BenchError::Own { what: "prepare to start servers", source })?;
    for round in 1..=plan.repeat {
        for subject in &plan.subjects {
            if let Some(run) = turn(plan, &mut stage, subject, round, stop, progress)? {
                progress.end(&run);
                runs.push(run);
            }
            if stop.is_set() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// One subject's turn in a round.
fn turn(
    plan: &Plan,
    stage: &mut Stage<'_>,
    subject: &Subject,
    round: u32,
    stop: &Stop,
    progress: &mut dyn Progress,
) -> Result<Option<Run>, BenchError> {
    let ended = std::sync::Arc::new(AtomicU64::new(0));
    progress.begin(&subject.name(), round, std::sync::Arc::clone(&ended));
    let Some(running) = stage.start(subject, stop)? else { return Ok(None) };
    let measured = measure(plan, round, &running, stop, &ended);
    let end = stage.end(running);
    let mut run = measured?;
    if let (Some(run), Ended::Badly(why)) = (&mut run, end) {
        run.invalid.push(format!("it did not end well: {why}"));
    }
    Ok(run)
}
