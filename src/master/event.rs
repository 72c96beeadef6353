//! Everything that can happen to the master, as one closed list.

use super::deferred::Deferred;
use super::look;
use super::ready::Signal;
use super::shares::Look;
use crate::core::fleet::{Exit, Stop};
use crate::core::ids::WorkerId;
use crate::core::probes::Condition;
use crate::sys::descent::Kin;
use crate::sys::process::Usage;
use crate::wire::packet::RequestId;
use crate::workers::looks::Seen;
use crate::{control, front, workers};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
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
    /// It was looked.
    LookedAt { worker: WorkerId, seen: look::Seen },
    /// It was looked whether a process of a worker has a listening socket.
    Looked { worker: WorkerId, request: RequestId, held: bool },
    /// What was needed to decide a request was looked up.
    LookedFirst { worker: WorkerId, seen: Seen, again: std::time::Instant, deferred: Deferred },
    /// Sockets that processes had open when a supervised worker had these.
    SocketsOpen { worker: WorkerId, had: HashSet<u64>, open: HashSet<u64> },
    /// An address that nobody listens on any more had its moment to be asked for again.
    GivenUp,
    /// A worker that stopped listening had its moment to listen again.
    Deaf { worker: WorkerId },
    /// What a worker that ended while it started had to say was heard.
    WordsHeard { worker: WorkerId, exit: Exit, daemons: Option<Vec<Kin>>, bypass: Option<String> },
    /// A worker was killed, and had its time to die.
    Unkillable { worker: WorkerId },
    /// Something happened to a worker.
    Worker(workers::Event),
    /// Something happened on the way of the connections.
    Front(front::Event),
    /// A draining worker has no connection left.
    Drained { worker: WorkerId },
    /// Something that may count as readiness.
    Ready { worker: WorkerId, signal: Signal },
    /// A worker of a new generation had its moment to listen where the old one does.
    Unfit { worker: WorkerId },
    /// It is time to look after the workers.
    LookAfter,
    /// What memory they use.
    Memory { usage: HashMap<Pid, Usage> },
    /// It is time to look what the workers have open.
    LookAtLoads,
    /// What they had open.
    Loads(Look),
    /// The shares of fresh workers have grown.
    Grown,
    /// A worker's probes changed their mind.
    Probed { worker: WorkerId, now: Condition },
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
