//! Everything that can happen to the master, as one closed list.

use super::requests::event as request;
use crate::core::fleet::Stop;
use crate::{control, front, kernel, lifecycle, workers};
use tokio::sync::mpsc;

/// Events that may wait; whoever has one more waits in turn, so that a worker which floods its
/// channel slows itself and nobody else.
pub const EVENTS_MAX: usize = 256;

/// Where events go.
pub type Events = mpsc::Sender<Event>;

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// Something that was needed to answer a worker was found out.
    Request(request::Event),
    /// Something happened to a worker.
    Worker(workers::Event),
    /// Something was found out about a worker.
    Lifecycle(lifecycle::Event),
    /// In kernel mode, something that the slots' shares follow from.
    Shares(kernel::shares::Event),
    /// Something happened on the way of the connections.
    Front(front::Event),
    /// A child ended, perhaps one that is not a worker.
    ChildEnded,
    /// Something happened at the control socket.
    Control(control::Event),
    /// A signal asks for the end.
    Stop(Stop),
    /// `TTIN`.
    More,
    /// `TTOU`.
    Fewer,
    /// `HUP`.
    Reload,
    /// `WINCH` without a terminal.
    Pause,
    /// `USR2`.
    Upgrade,
    /// The other binary was tried.
    Checked { result: Result<String, String> },
    /// The workers have had their time to start.
    LookAround,
    /// A signal that has no effect yet.
    Unheeded { signal: &'static str, because: &'static str },
}
