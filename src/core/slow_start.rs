//! How a new worker's share grows: linearly from nearly nothing to its full share, as with nginx's `slow_start` and
//! HAProxy's `slowstart`. Its caches are cold, and under least-connections it would otherwise get everything at once.

use std::time::Duration;

/// A full share, in the units of [`share`].
pub const SHARE_MAX: u32 = 256;

/// The share, of [`SHARE_MAX`], of a worker that has served for `age`, when shares grow over the time `growth`.
///
/// ```
/// use maitred::core::slow_start::share;
/// use std::time::Duration;
/// let after = |secs| share(Duration::from_secs(secs), Duration::from_secs(8));
/// assert_eq!([after(0), after(2), after(4), after(8), after(100)], [1, 64, 128, 256, 256]);
/// ```
#[must_use]
pub fn share(age: Duration, growth: Duration) -> u32 {
    if age >= growth {
        return SHARE_MAX;
    }
    ((age.as_secs_f64() / growth.as_secs_f64() * f64::from(SHARE_MAX)) as u32).clamp(1, SHARE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_in_a_straight_line() {
        let after = |ms| share(Duration::from_millis(ms), Duration::from_secs(8));
        assert_eq!([after(0), after(1), after(1_000), after(2_000), after(7_999)], [1, 1, 32, 64, 255]);
        assert_eq!([after(8_000), after(8_001), after(100_000)], [SHARE_MAX; 3]);
        assert_eq!(share(Duration::ZERO, Duration::ZERO), SHARE_MAX);
    }
}
