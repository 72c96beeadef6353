//! Times by the wall clock at which something is to happen, once each, also when the clock is set.

use std::time::{Duration, SystemTime};

/// A clock that is set back by more than this was wrong before. By less it is corrected, and the times that it shows
/// again have been.
pub const SET_BACK_MAX: Duration = Duration::from_secs(3600);

/// Remembers up to when the clock was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    seen: SystemTime,
}

impl Schedule {
    /// Begins now: times before are past.
    #[must_use]
    pub fn new(now: SystemTime) -> Schedule {
        Schedule { seen: now }
    }

    /// Whether a planned time has come since the last look. Several that have come at once, also because the clock
    /// was set forward or the machine slept, are one. `next` tells the first planned time after another.
    pub fn is_due(&mut self, now: SystemTime, next: impl Fn(SystemTime) -> Option<SystemTime>) -> bool {
        if now < self.seen {
            if self.seen.duration_since(now).is_ok_and(|back| back > SET_BACK_MAX) {
                self.seen = now;
            }
            return false;
        }
        let due = next(self.seen).is_some_and(|at| at <= now);
        self.seen = now;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Each full hour.
    fn hourly(after: SystemTime) -> Option<SystemTime> {
        let since = after.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        Some(at((since / HOUR + 1) * HOUR))
    }

    /// When something happened, of these looks at the clock.
    fn due(looks: &[u64]) -> Vec<u64> {
        let mut schedule = Schedule::new(at(looks[0]));
        looks.iter().copied().filter(|now| schedule.is_due(at(*now), hourly)).collect()
    }

    #[test]
    fn a_time_comes_once() {
        assert_eq!(due(&[HOUR - 2, HOUR - 1, HOUR, HOUR, HOUR + 1, 2 * HOUR - 1, 2 * HOUR + 5]), [HOUR, 2 * HOUR + 5]);
        assert!(due(&[HOUR, HOUR, HOUR + 1]).is_empty());
    }

    #[test]
    fn a_clock_that_steps_over_a_time_does_not_leave_it_out() {
        assert_eq!(due(&[HOUR - 10, HOUR + 600]), [HOUR + 600]);
        assert_eq!(due(&[HOUR - 10, 5 * HOUR + 7, 5 * HOUR + 8]), [5 * HOUR + 7]);
    }

    #[test]
    fn a_clock_that_is_set_back_brings_no_time_twice() {
        assert_eq!(due(&[HOUR - 1, HOUR + 1, HOUR - 60, HOUR, HOUR + 2, 2 * HOUR]), [HOUR + 1, 2 * HOUR]);
    }

    #[test]
    fn a_clock_that_was_wrong_by_years_does_not_stop_everything() {
        let far = 300_000 * HOUR + 5;
        assert_eq!(due(&[far, 10 * HOUR + 5, 11 * HOUR]), [11 * HOUR]);
    }

    #[test]
    fn where_no_time_comes_nothing_happens() {
        let mut schedule = Schedule::new(at(0));
        assert!(!schedule.is_due(at(1), |_| None));
    }
}
