//! Everything that can happen to the master, as one closed list.

use super::deferred::Deferred;
use crate::core::fleet::Stop;
use crate::core::ids::WorkerId;
use crate::wire::packet::RequestId;
use crate::workers::looks::Seen;
use crate::{control, front, kernel, lifecycle, workers};
use std::collections::HashSet;
use tokio::sync::mpsc;

/// Events that may wait; whoever has one more waits in turn, so that a worker which floods its
/// channel slows itself and nobody else.
pub const EVENTS_MAX: usize = 256;

/// Where events go.
pub type Events = mpsc::Sender<Event>;

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// What a worker asked for could not be answered, however often it was tried.
    Unanswered { worker: WorkerId, request: RequestId, error: std::io::Error },
    /// It was looked whether a process of a worker has a listening socket.
    Looked { worker: WorkerId, request: RequestId, held: bool },
    /// What was needed to decide a request was looked up.
    LookedFirst { worker: WorkerId, seen: Seen, again: std::time::Instant, deferred: Deferred },
    /// Sockets that processes had open when a supervised worker had these.
    SocketsOpen { worker: WorkerId, had: HashSet<u64>, open: HashSet<u64> },
    /// An address that nobody listens on any more had its moment to be asked for again.
    GivenUp,
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
