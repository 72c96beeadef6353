//! Everything that can happen to the master, as one closed list.

use super::requests::event as request;
use super::sizing;
use crate::core::fleet::Stop;
use crate::{control, front, kernel, lifecycle, triggers, workers};
use tokio::sync::mpsc;

/// Events that may wait. A sender that has one more waits itself, so a worker that floods its channel slows down only
/// itself.
pub const EVENTS_MAX: usize = 256;

/// Where events go.
pub type Events = mpsc::Sender<Event>;

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// Something became known that is needed to answer a worker.
    Request(request::Event),
    /// Something happened to a worker.
    Worker(workers::Event),
    /// Something became known about a worker.
    Lifecycle(lifecycle::Event),
    /// In kernel mode, something that the slots' shares depend on.
    Shares(kernel::shares::Event),
    /// Something happened at the front, which handles the connections.
    Front(front::Event),
    /// A child ended, perhaps one that is not a worker.
    ChildEnded,
    /// Something happened at the control socket.
    Control(control::Event),
    /// A signal asks the master to stop.
    Stop(Stop),
    /// `TTIN`.
    More,
    /// `TTOU`.
    Fewer,
    /// `HUP`.
    Reload,
    /// Something that the number of workers depends on.
    Sizing(sizing::Event),
    /// Something asks for a reload by itself.
    Trigger(triggers::Event),
    /// `WINCH` without a terminal.
    Pause,
    /// `USR1`.
    ReopenLogs,
    /// `USR2`.
    Upgrade,
    /// The trial of the new binary is done.
    Checked { result: Result<String, String> },
    /// The workers have had their time to start.
    LookAround,
    /// A signal that has no effect yet.
    Unheeded { signal: &'static str, because: &'static str },
}
