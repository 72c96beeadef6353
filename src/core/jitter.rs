//! Chance that needs no source: a number that depends on who asks, so that many workers do not do the
//! same at the same moment.

use super::ids::WorkerId;

/// The part of a limit at which this worker meets it: from 0.9 to 1.
///
/// `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014) of the worker's id.
///
/// ```
/// use maitred::core::{ids::WorkerId, jitter::share};
/// assert!((1..1000).all(|id| (0.9..=1.0).contains(&share(WorkerId(id), 7))));
/// assert_ne!(share(WorkerId(1), 7), share(WorkerId(2), 7));
/// ```
#[must_use]
pub fn share(worker: WorkerId, seed: u64) -> f64 {
    let mut z = worker.0.wrapping_add(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    1.0 - 0.1 * ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
