//! Two measurements beside each other: what changed between them.

use super::Report;
use crate::bench::record::Run;
use crate::bench::verdict::{Compared, apart};

/// What became of the subjects that both measured.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// In words.
    pub text: String,
    /// Whether one of them is slower beyond the scatter.
    pub is_worse: bool,
}

/// Compares what was measured after with what was measured before.
///
/// # Errors
/// When they have no subject in common.
pub fn compare(before: &Report, after: &Report) -> Result<Comparison, String> {
    let of = |report: &Report, name: &str| -> Vec<Run> {
        report.runs.iter().filter(|run| run.subject == name).cloned().collect()
    };
    let (mut text, mut is_worse) = (String::new(), false);
    if before.load_line() != after.load_line() {
        text += &format!("different loads:\n  before: {}\n  after:  {}\n", before.load_line(), after.load_line());
    }
    if before.machine.line() != after.machine.line() {
        text += &format!("different machines: {}; {}\n", before.machine.line(), after.machine.line());
    }
    let mut common = 0;
    for summary in &after.summaries {
        let name = &summary.subject;
        let (then, now) = (of(before, name), of(after, name));
        if then.is_empty() {
            continue;
        }
        common += 1;
        let compared: Compared = apart(&now.iter().collect::<Vec<_>>(), &then.iter().collect::<Vec<_>>());
        is_worse |= compared.is_worse();
        let worse = if compared.is_worse() { " (worse)" } else { "" };
        text += &format!("{name}: {}{worse}\n", compared.words("before"));
    }
    if common == 0 { Err("they have no subject in common".to_owned()) } else { Ok(Comparison { text, is_worse }) }
}
