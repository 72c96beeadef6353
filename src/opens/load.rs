//! How much a worker has to do.

use std::cell::Cell;

/// Connections that one worker has open.
#[derive(Debug, Default)]
pub struct Load(pub(super) Cell<u32>);

impl Load {
    /// How many there are.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.get()
    }
}
