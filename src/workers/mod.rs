//! One worker as a process: how it is made ([`start`]), what it says and is told ([`channel`], or the [`rendezvous`]
//! for processes whose channel was closed, and its [`notify`] socket), what it writes ([`output`]), the calls that are
//! answered for it ([`supervised`]), the sockets that its processes still have ([`holders`]), how its health is probed
//! ([`probe`]), and what it leaves behind ([`leftovers`]).
//!
//! A worker's place in a listener belongs to the front; what a worker asked for and got there is kept here
//! ([`worker::Request`]).

pub mod channel;
mod environment;
pub mod form;
pub mod holders;
pub mod leftovers;
pub mod looks;
pub mod notify;
pub mod output;
pub mod pool;
pub mod probe;
pub mod receiver;
pub mod rendezvous;
pub mod start;
pub mod supervised;
pub mod unclaimed;
pub mod watching;
pub mod worker;

use crate::core::ids::WorkerId;
use crate::reports::Reports;
use crate::sys::dispose::Foreign;
use crate::sys::process::descent::Kin;
use crate::sys::process::spawn::SpawnError;
use crate::sys::seccomp::{Call, Notifier};
use crate::wire::packet::{Malformed, Packet, RequestId};
use leftovers::Left;

/// Where the events of workers are reported.
pub type Events = Reports<Event>;

/// What happens to a worker, as its process shows it.
#[derive(Debug)]
pub enum Event {
    /// A worker said something on its channel, or at the rendezvous.
    Packet(FromWorker),
    /// A worker said something that makes no sense.
    Malformed {
        /// The worker.
        worker: WorkerId,
        /// What is wrong with it.
        what: Malformed,
    },
    /// A supervised worker calls `bind` or `listen`, and waits.
    Called {
        /// The worker.
        worker: WorkerId,
        /// Its call.
        call: Call,
    },
    /// The processes of a worker that had a listening socket have closed it.
    LetGo {
        /// The worker that they belong to.
        worker: WorkerId,
        /// The request for that socket.
        request: RequestId,
    },
    /// It is time to check whether a worker takes part as it should.
    LookAt {
        /// The worker to look at.
        worker: WorkerId,
    },
    /// It is time to check whether a supervised worker closed a socket at which connections are pending.
    LookForClosed {
        /// The worker to look at.
        worker: WorkerId,
    },
    /// The process of a worker executes its program now, or cannot.
    Executed {
        /// The worker that it belongs to.
        worker: WorkerId,
        /// The supervision of its calls, or what kept it from its program.
        result: Result<Option<Notifier>, SpawnError>,
    },
    /// The first process of a worker was ended by a signal, and is still to be waited for.
    Signalled {
        /// The worker.
        worker: WorkerId,
    },
    /// The first process of a worker ended. It is not reaped yet.
    Ended {
        /// The worker that it belongs to.
        worker: WorkerId,
    },
    /// What is left of a worker whose first process ended with 0.
    LeftBehind {
        /// The worker.
        worker: WorkerId,
        /// The processes that are left.
        found: Vec<Left>,
    },
    /// All processes that came from here have ended, except those that cannot be killed.
    NobodyLeft {
        /// The processes that cannot be killed.
        but: Vec<Kin>,
    },
}

/// A worker's packet.
#[derive(Debug)]
pub struct FromWorker {
    /// The worker that said it.
    pub worker: WorkerId,
    /// What it says.
    pub packet: Packet,
    /// Descriptors that came with it.
    pub fds: Vec<Foreign>,
    /// The process that sent it, as the kernel says.
    pub sender: Option<nix::sys::socket::UnixCredentials>,
    /// The connection at the rendezvous on which it came, if not on the channel.
    pub rendezvous: Option<Foreign>,
}
