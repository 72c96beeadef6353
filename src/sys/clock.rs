//! The clock that never goes back (`clock_gettime(2)`, `CLOCK_MONOTONIC`): every process of the machine sees the same
//! one, and so does a program that replaces another.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The time since the clock's origin.
#[must_use]
pub fn monotonic() -> Duration {
    // It cannot fail: every Linux has this clock.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
