//! What the loop of a listener does next.

use super::listener::Listener;
use super::worker_set::Offered;
use std::time::Duration;
use tracing::warn;

/// Pause after descriptors or memory ran out; nothing reports when there are some again.
pub const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Pause after the user's limit of descriptors in flight was met. Any process of the user may hold them, so no event of
/// the master reports when one arrives.
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(5);

/// What the loop has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// There may be more at once.
    Again,
    /// Wait for a connection: the kernel has none.
    AwaitConnection,
    /// Wait until a worker takes one.
    AwaitRoom,
    /// Wait for this long.
    Pause(Duration),
}

/// What to wait for after a connection could not be handed over.
pub fn wait_after(listener: &Listener, offered: &Offered) -> Next {
    match offered {
        Offered::Handed => Next::Again,
        Offered::NoRoom => Next::AwaitRoom,
        Offered::TooManyInFlight => Next::Pause(IN_FLIGHT_PAUSE),
        Offered::Failed(error) => {
            warn!(listener = %listener.address, %error, "cannot hand a connection over, trying again");
            Next::Pause(EXHAUSTED_PAUSE)
        }
    }
}
