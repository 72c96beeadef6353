//! How long a slot waits before its worker is forked again.

use std::time::Duration;

/// First wait. Long enough that a command which exits at once costs next to nothing, short enough to go unnoticed
/// after a real crash.
pub const BASE: Duration = Duration::from_millis(100);
/// Longest wait, the same as einhorn's: an operator who fixes the cause should see the effect soon.
pub const CAP: Duration = Duration::from_secs(30);
/// A worker that was ready for this long is healthy: its next failure counts as the first.
pub const HEALTHY: Duration = Duration::from_secs(10);

/// The wait before the attempt that follows `failures` failures in a row: `BASE · 2^(failures-1)`,
/// at most [`CAP`], less up to a quarter by `random` so that many slots do not come back in step
/// (exponential backoff with jitter; M. Brooker, AWS Architecture Blog, 2015).
///
/// ```
/// use maitred::core::backoff::{BASE, CAP, delay};
/// assert_eq!(delay(1, 0), BASE);
/// assert_eq!(delay(1_000, 0), CAP);
/// assert!(delay(3, u32::MAX) >= BASE * 3);
/// ```
#[must_use]
pub fn delay(failures: u32, random: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = BASE.saturating_mul(1 << doublings).min(CAP);
    full - full.mul_f64(0.25 * f64::from(random) / f64::from(u32::MAX))
}
