//! Every connection that the master accepted is somewhere, or has ended in one way: it is with a worker, turned away,
//! held, being processed by a task, or lost. The sum shows whether this holds.

/// The counts at a moment when nothing is half done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Connections that the master accepted.
    pub accepted: u64,
    /// Hand-offs to workers, repeated ones included.
    pub handed: u64,
    /// Connections that workers sent back.
    pub returned: u64,
    /// Connections that were taken back.
    pub rescued: u64,
    /// Connections that were turned away.
    pub refused: u64,
    /// Connections that no worker could be given.
    pub lost: u64,
    /// Connections that the master keeps because no worker can have them yet.
    pub held: u64,
}

impl Ledger {
    /// Accepted connections that are nowhere and did not end; if below 0, more ended than came. 0 unless something is
    /// wrong.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        let came = [self.accepted, self.returned, self.rescued];
        let went = [self.handed, self.refused, self.lost, self.held];
        let sum = |counts: &[u64]| counts.iter().fold(0u64, |sum, count| sum.wrapping_add(*count));
        // The difference is small even where the sums are not.
        sum(&came).wrapping_sub(sum(&went)) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_one_place() {
        let ledger = Ledger { accepted: 10, handed: 9, returned: 2, rescued: 1, refused: 1, lost: 1, held: 2 };
        assert_eq!(ledger.unaccounted(), 0);
        assert_eq!(Ledger { accepted: 12, ..ledger }.unaccounted(), 2, "two are nowhere");
        assert_eq!(Ledger { lost: 4, ..ledger }.unaccounted(), -3, "three ended twice");
        assert_eq!(Ledger { accepted: u64::MAX, handed: u64::MAX, ..Ledger::default() }.unaccounted(), 0);
    }
}
