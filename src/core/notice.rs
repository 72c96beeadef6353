//! How the master notices that connections close: by the kernel's events, or by asking the kernel about each
//! connection at short intervals. While any process listens for close events, each close costs the machine several
//! microseconds of processor time in the kernel's work queues, for both ends of a local connection alike; asking costs
//! about one microsecond for each open connection. So asking suits few connections that come and go fast, and events
//! suit many that stay.

use std::time::Duration;

/// Pause between two rounds of asking. A connection that closed since the last round still counts as open: at 20 000
/// closes a second and with four workers, about ten for each worker.
pub const ASK_EVERY: Duration = Duration::from_millis(2);
/// The most connections that are asked about.
pub const ASK_MAX: usize = 1024;
/// The cost of a close that is reported by an event, in microseconds. Hand-offs ran at 0.84 of their rate while a
/// process listened for the events and dropped them (two cores). That is 17 for both ends of a connection; if the
/// client is on another machine there is only one end. This value is in between.
const EVENT_US: f64 = 12.0;
/// The cost of a question in microseconds, answer included.
const QUESTION_US: f64 = 2.0;
/// Closes a second below which events are good enough in any case.
const FEW: f64 = 1000.0;

/// How much cheaper asking must be before anything changes.
const CLEARLY: f64 = 1.2;

/// How closes are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notice {
    /// The kernel sends events.
    #[default]
    Hear,
    /// The master asks the kernel.
    Ask,
}

impl Notice {
    /// The method that is clearly cheaper for this many open connections and closes a second; no change if neither is.
    #[must_use]
    pub fn cheaper(self, open: usize, closes_per_second: f64) -> Notice {
        let hearing = closes_per_second * EVENT_US;
        // Connections that closed since the last round are asked about once more.
        let asked = open as f64 + closes_per_second * ASK_EVERY.as_secs_f64();
        let asking = asked * QUESTION_US / ASK_EVERY.as_secs_f64();
        if closes_per_second < FEW || open > ASK_MAX || hearing < asking {
            Notice::Hear
        } else if hearing > asking * CLEARLY {
            Notice::Ask
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(open: usize, closes_per_second: f64, expected: Notice) {
        for before in [Notice::Hear, Notice::Ask] {
            assert_eq!(before.cheaper(open, closes_per_second), expected, "{open} open, {closes_per_second}/s");
        }
    }

    #[test]
    fn few_that_come_and_go_fast_are_asked_for() {
        check(64, 20_000.0, Notice::Ask);
        check(10, 5_000.0, Notice::Ask);
    }

    #[test]
    fn many_that_stay_and_quiet_times_are_heard() {
        check(200, 400.0, Notice::Hear);
        check(0, 0.0, Notice::Hear);
        check(10_000, 20_000.0, Notice::Hear);
        check(500, 5_000.0, Notice::Hear);
    }

    #[test]
    fn the_bounds_belong_to_one_side_each() {
        // A thousand closes a second are no longer few, and 1024 open connections may still be asked about.
        check(0, 999.0, Notice::Hear);
        check(0, 1_000.0, Notice::Ask);
        check(1024, 1_000_000.0, Notice::Ask);
        check(1025, 1_000_000.0, Notice::Hear);
        // Where both cost the same, and where asking is not clearly cheaper, nothing changes.
        for closes_per_second in [6_400.0, 8_000.0] {
            assert_eq!(Notice::Ask.cheaper(64, closes_per_second), Notice::Ask);
            assert_eq!(Notice::Hear.cheaper(64, closes_per_second), Notice::Hear);
        }
    }

    #[test]
    fn in_between_nothing_changes() {
        for before in [Notice::Hear, Notice::Ask] {
            assert_eq!(before.cheaper(64, 7_500.0), before);
        }
    }
}
