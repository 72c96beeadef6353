//! Why a listener cannot accept, and how long to wait before it is mended.

use crate::core::moment::Moment;
use std::io;
use std::time::Duration;

/// Failures in a row after which an address is given up; with the pauses that takes some thirteen seconds.
pub const FAILURES_MAX: u32 = 8;
/// Pause before a socket is mended for the second time in a row; it doubles each time after that. A holder that shuts
/// it down again and again gets no more of the master's time than this.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A socket that worked for this long starts again without failures.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// The longest pause after a call that blocked, which took some 20 ms of the master's time; clients wait as long as
/// this.
const BLOCKED_PAUSE_MAX: Duration = Duration::from_millis(200);

/// Why nothing can be accepted from a socket any more.
#[derive(Debug, thiserror::Error)]
pub enum CannotAccept {
    /// `EINVAL`: it does not listen.
    #[error("another process that has the socket shut it down, or connected it")]
    ShutDown,
    /// A call waited for a connection.
    #[error("another process that has the socket makes it block, and takes connections from it")]
    Blocked,
    /// Any other error of the system.
    #[error(transparent)]
    Failed(io::Error),
}

impl From<io::Error> for CannotAccept {
    fn from(error: io::Error) -> CannotAccept {
        match error.raw_os_error() {
            Some(libc::EINVAL) => CannotAccept::ShutDown,
            _ => CannotAccept::Failed(error),
        }
    }
}

impl From<CannotAccept> for io::Error {
    fn from(why: CannotAccept) -> io::Error {
        match why {
            CannotAccept::Failed(error) => error,
            CannotAccept::ShutDown | CannotAccept::Blocked => io::Error::other(why.to_string()),
        }
    }
}

/// How often a listener's socket failed recently.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures {
    /// Failures in a row.
    pub(super) count: u32,
    last: Option<Moment>,
}

impl Failures {
    /// Adds one failure at this time.
    #[must_use]
    pub fn and_one(self, now: Moment) -> Failures {
        let forgiven = self.last.is_none_or(|last| now.since(last) >= FORGIVEN_AFTER);
        Failures { count: if forgiven { 1 } else { self.count + 1 }, last: Some(now) }
    }

    /// How long to wait before anything is tried.
    #[must_use]
    pub fn pause(self, why: &CannotAccept) -> Duration {
        let longest = match why {
            CannotAccept::Blocked => BLOCKED_PAUSE_MAX,
            CannotAccept::ShutDown | CannotAccept::Failed(_) => PAUSE_MAX,
        };
        match self.count {
            0 | 1 => Duration::ZERO,
            count => (PAUSE * 2u32.saturating_pow(count - 2).min(1 << 10)).min(longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_old_failures_are_forgiven() {
        let begun = Moment::at(FORGIVEN_AFTER);
        let mut failures = Failures::default();
        let mut pauses = Vec::new();
        for _ in 0..FAILURES_MAX {
            failures = failures.and_one(begun);
            pauses.push(failures.pause(&CannotAccept::ShutDown));
        }
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(pauses, [ms(0), ms(50), ms(100), ms(200), ms(400), ms(800), ms(1600), ms(3200)]);
        assert_eq!(failures.and_one(begun).count, FAILURES_MAX + 1);
        assert_eq!(failures.and_one(begun + FORGIVEN_AFTER).count, 1);
        let many = Failures { count: 40, ..failures };
        assert_eq!((many.pause(&CannotAccept::ShutDown), many.pause(&CannotAccept::Blocked)), (PAUSE_MAX, ms(200)));
    }
}
