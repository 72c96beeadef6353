//! One worker as a process: how it is made ([`start`]), what it says and is told ([`channel`], or the [`rendezvous`] for
//! those whose channel was closed, and its [`notify`] socket), what it writes ([`output`]), the calls that are answered
//! for it ([`supervised`]), the sockets that its processes still have ([`holders`]), how it is asked whether it is well
//! ([`probe`]), and what it leaves behind ([`leftovers`]).
//!
//! A worker's place in a listener belongs to the front; what a worker asked for and got there is kept here
//! ([`worker::Request`]).

pub mod channel;
mod environment;
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
use crate::sys::descent::Kin;
use crate::sys::dispose::Foreign;
use crate::sys::seccomp::{Call, Notifier};
use crate::sys::spawn::SpawnError;
use crate::wire::packet::{Malformed, Packet, RequestId};
use leftovers::Left;

/// Where it is reported what happens to workers.
pub type Events = Reports<Event>;

/// What happens to a worker, as its process shows it.
#[derive(Debug)]
pub enum Event {
    /// It said something on its channel, or at the rendezvous.
    Packet(FromWorker),
    /// It said something that makes no sense.
    Malformed {
        /// Who.
        worker: WorkerId,
        /// What is wrong with it.
        what: Malformed,
    },
    /// A supervised worker calls `bind` or `listen`, and waits.
    Called {
        /// Who.
        worker: WorkerId,
        /// Its call.
        call: Call,
    },
    /// The processes of a worker that had a listening socket have closed it.
    LetGo {
        /// Whose.
        worker: WorkerId,
        /// The request for that socket.
        request: RequestId,
    },
    /// It is time to look whether it takes part as it should.
    LookAt {
        /// At whom.
        worker: WorkerId,
    },
    /// It is time to look whether a supervised worker closed a socket that connections wait at.
    LookForClosed {
        /// At whom.
        worker: WorkerId,
    },
    /// Its process executes its program now, or cannot.
    Executed {
        /// Whose.
        worker: WorkerId,
        /// The supervision of its calls, or what kept it from its program.
        result: Result<Option<Notifier>, SpawnError>,
    },
    /// Its first process ended; it is not reaped yet.
    Ended {
        /// Whose.
        worker: WorkerId,
    },
    /// Who is left of a worker whose first process ended with 0.
    LeftBehind {
        /// Of whom.
        worker: WorkerId,
        /// Who is left.
        found: Vec<Left>,
    },
    /// All that came from here has ended, but those that cannot be killed.
    NobodyLeft {
        /// Those.
        but: Vec<Kin>,
    },
}

/// A worker's packet.
#[derive(Debug)]
pub struct FromWorker {
    /// Who said it.
    pub worker: WorkerId,
    /// What it says.
    pub packet: Packet,
    /// Descriptors that came with it.
    pub fds: Vec<Foreign>,
    /// Who sent it, as the kernel says.
    pub sender: Option<nix::sys::socket::UnixCredentials>,
    /// The connection at the rendezvous on which it came, if not on the channel.
    pub rendezvous: Option<Foreign>,
}
