//! What is found out for requests of workers.

use crate::core::ids::WorkerId;
use crate::lifecycle::ready::Signal;
use crate::sys::seccomp::Call;
use crate::wire::packet::RequestId;
use crate::workers::FromWorker;
use crate::workers::looks::Seen;
use std::collections::HashSet;

/// Something that was needed to answer a worker was found out.
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
}

/// What waits for a look.
#[derive(Debug)]
pub enum Deferred {
    /// What a worker said, from the request on that needs it.
    Packet(FromWorker),
    /// A call of a supervised worker.
    Called(Call),
    /// The readiness of a supervised worker.
    Ready(Signal),
}
