//! The whole measurement: rounds in which every subject has its turn, so that a slow minute of the machine affects all
//! alike.

use super::error::BenchError;
use super::plan::{Plan, Subject};
use super::record::Run;
use super::run::measure;
use super::stop::Stop;
use super::subject::{Ended, Stage};
use std::sync::atomic::AtomicU64;

/// Receives the progress.
pub trait Progress {
    /// A run begins; the counter grows with its connections.
    fn begin(&mut self, subject: &str, round: u32, ended: std::sync::Arc<AtomicU64>);
    /// The run is over.
    fn end(&mut self, run: &Run);
}

/// How a measurement ended.
#[derive(Debug)]
pub enum Finish {
    /// Everything that was planned was measured.
    Complete,
    /// Ctrl-C interrupted it.
    CutShort,
    /// A failure made the rest pointless.
    Failed(BenchError),
    /// Some of the peers could not be measured.
    Without(Vec<BenchError>),
}

/// Measures everything that is planned, as far as possible. Call it from the main thread.
pub fn run(plan: &Plan, descriptors: u64, stop: &Stop, progress: &mut dyn Progress) -> (Vec<Run>, Finish) {
    let mut runs = Vec::new();
    let finish = match rounds(plan, descriptors, stop, progress, &mut runs) {
        Ok(_) if stop.is_set() => Finish::CutShort,
        Ok(missing) if !missing.is_empty() => Finish::Without(missing),
        Ok(_) => Finish::Complete,
        // A run that Ctrl-C interrupted may well fail.
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
) -> Result<Vec<BenchError>, BenchError> {
    let mut subjects = plan.subjects.clone();
    let mut missing = Vec::new();
    let mut stage =
        Stage::new(plan, descriptors).map_err(|source| BenchError::Own { what: "prepare to start servers", source })?;
    for round in 1..=plan.repeat {
        for subject in std::mem::take(&mut subjects) {
            match turn(plan, &mut stage, &subject, round, stop, progress) {
                Ok(Some(run)) => {
                    progress.end(&run);
                    runs.push(run);
                }
                Ok(None) => {}
                // If one peer does not work, the others are still measured.
                Err(error) if matches!(subject, Subject::Peer { .. }) && plan.subjects.len() > 1 => {
                    missing.push(error);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if stop.is_set() {
                return Ok(missing);
            }
            subjects.push(subject);
        }
    }
    Ok(missing)
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
