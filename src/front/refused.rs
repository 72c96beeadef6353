//! How many connections were turned away, and why.

use crate::core::moment::Moment;
use crate::core::sources::Beyond;
use serde::{Deserialize, Serialize};
use std::cell::Cell;

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// As many connections are open as the limit allows.
    Full,
    /// It waited for as long as it may.
    Expired,
    /// Its source is beyond a limit.
    Source(Beyond),
    /// Workers returned it too often.
    Returned,
}

/// Connections that were turned away.
#[derive(Debug, Default)]
pub struct Refused {
    /// Because as many connections were open as the limit allows.
    pub full: Cell<u64>,
    /// Because they had waited for as long as they may.
    pub expired: Cell<u64>,
    /// Because their source had as many open as it may.
    pub source_open: Cell<u64>,
    /// Because their source connected too often.
    pub source_rate: Cell<u64>,
    /// Because workers had returned them too often.
    pub returned: Cell<u64>,
    /// Of all of these, those that were answered with 503.
    pub answered: Cell<u64>,
    pub(super) lingering: Cell<usize>,
    pub(super) said: Cell<Option<Moment>>,
}

/// The counters as they are passed on to the next program of this process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Passed([u64; 5]);

impl Refused {
    /// All connections that were turned away.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.full.get() + self.expired.get() + self.source_open.get() + self.source_rate.get() + self.returned.get()
    }

    /// Passes the counters on.
    pub fn pass(&self) -> Passed {
        Passed([&self.full, &self.expired, &self.source_open, &self.source_rate, &self.answered].map(Cell::get))
    }

    /// Continues to count from what was passed on.
    pub fn take(&self, Passed([full, expired, source_open, source_rate, answered]): Passed) {
        self.full.set(full);
        self.expired.set(expired);
        self.source_open.set(source_open);
        self.source_rate.set(source_rate);
        self.answered.set(answered);
    }

    /// The counter of a reason.
    pub(super) fn of(&self, because: Because) -> &Cell<u64> {
        match because {
            Because::Full => &self.full,
            Because::Expired => &self.expired,
            Because::Source(Beyond::Open) => &self.source_open,
            Because::Source(Beyond::Rate) => &self.source_rate,
            Because::Returned => &self.returned,
        }
    }
}
