//! What time it is for [`core`](crate::core), which asks no clock itself.

use crate::core::moment::Moment;
use crate::sys::clock;

/// This moment.
#[must_use]
pub fn now() -> Moment {
    Moment::at(clock::monotonic())
}
