//! What the answers to probes say about a worker: it becomes unhealthy after some bad answers in a row, and healthy
//! again after some good ones, as in load balancers (`rise` and `fall` in HAProxy's configuration manual).

/// A worker's condition according to its probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is healthy.
    Well,
    /// It is not.
    Unwell,
}

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A good answer.
    Good,
    /// No answer, or a bad one.
    Bad,
    /// Nothing was asked, so nothing follows.
    NotAsked,
}

/// The probes of one worker so far.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    condition: Condition,
    good: u32,
    bad: u32,
    rise: u32,
    fall: u32,
}

impl Probes {
    /// The history of a worker in this condition: it takes `fall` bad answers in a row to become unhealthy, and `rise`
    /// good ones to become healthy.
    #[must_use]
    pub fn of(condition: Condition, rise: u32, fall: u32) -> Probes {
        Probes { condition, good: 0, bad: 0, rise, fall }
    }

    /// Its current condition.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// Consecutive bad answers.
    #[must_use]
    pub fn bad(&self) -> u32 {
        self.bad
    }

    /// Records one more answer; returns the new condition if it changes.
    pub fn heard(&mut self, answer: Answer) -> Option<Condition> {
        match answer {
            Answer::Good => (self.good, self.bad) = (self.good.saturating_add(1), 0),
            Answer::Bad => (self.good, self.bad) = (0, self.bad.saturating_add(1)),
            Answer::NotAsked => {}
        }
        let now = match self.condition {
            Condition::Well if self.bad >= self.fall => Condition::Unwell,
            Condition::Unwell if self.good >= self.rise => Condition::Well,
            Condition::Well | Condition::Unwell => return None,
        };
        self.condition = now;
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_after_bad_ones_in_a_row_and_rises_after_good_ones() {
        use Answer::{Bad, Good, NotAsked};
        let mut probes = Probes::of(Condition::Well, 2, 3);
        let mut hear = |answers: &[Answer]| answers.iter().map(|answer| probes.heard(*answer)).collect::<Vec<_>>();
        assert_eq!(hear(&[Bad, Bad, Good, Bad, Bad, NotAsked]), [None; 6]);
        assert_eq!(hear(&[Bad, Bad]), [Some(Condition::Unwell), None]);
        assert_eq!(probes.bad(), 4);
        let mut hear = |answers: &[Answer]| answers.iter().map(|answer| probes.heard(*answer)).collect::<Vec<_>>();
        assert_eq!(hear(&[Good, Bad, Good, NotAsked]), [None; 4]);
        assert_eq!(hear(&[Good, Good]), [Some(Condition::Well), None]);
        assert_eq!((probes.condition(), probes.bad()), (Condition::Well, 0));
    }
}
