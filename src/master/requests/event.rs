//! What becomes known for requests of workers.

use crate::core::ids::WorkerId;
use crate::lifecycle::ready::Signal;
use crate::sys::seccomp::Call;
use crate::wire::packet::RequestId;
use crate::workers::FromWorker;
use crate::workers::looks::Seen;
use std::collections::HashSet;

/// Something became known that is needed to answer a worker.
#[derive(Debug)]
pub enum Event {
    /// What a worker asked for could not be answered, even after all attempts.
    Unanswered { worker: WorkerId, request: RequestId, error: std::io::Error },
    /// The check whether a process of a worker has a listening socket is done.
    Looked { worker: WorkerId, request: RequestId, found: Found },
    /// The look that a request waited for is done.
    LookedFirst { worker: WorkerId, seen: Seen, again: std::time::Instant, deferred: Deferred },
    /// What was in the way of a request is closed now, or took too long.
    Closed { worker: WorkerId, deferred: Deferred },
    /// The sockets that processes had open (`open`) when a supervised worker had those in `had`.
    SocketsOpen { worker: WorkerId, had: HashSet<u64>, open: HashSet<u64> },
    /// The time is over in which a worker could ask again for an address on which none listens any more.
    GivenUp,
}

/// What a check whether a process has a listening socket found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A process has it.
    Held,
    /// No process has it, but descriptors are on their way from one process to another.
    PerhapsOnItsWay,
    /// It is closed.
    Closed,
}

/// What waits until something else is known or done.
#[derive(Debug)]
pub enum Deferred {
    /// What a worker said, starting with the request that has to wait.
    Packet(FromWorker),
    /// A call of a supervised worker.
    Called(Call),
    /// The readiness of a supervised worker.
    Ready(Signal),
}
