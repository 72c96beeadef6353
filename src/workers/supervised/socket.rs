//! The sockets of a supervised worker.

use crate::front::handoff::Handoff;
use crate::sys::seccomp::Call;
use crate::wire::address::Address;
use crate::wire::packet::RequestId;
use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What is known of a socket of the worker, by its inode.
#[derive(Debug)]
pub enum Known {
    /// `bind` succeeded, and `listen` did not come yet.
    Bound(Address),
    /// The master's socket for it is ready to replace it.
    Prepared {
        /// The id of the request.
        request: RequestId,
        /// The socket that `listen` will put in place of the worker's; `None` when the worker's own is the listener.
        socket: Option<OwnedFd>,
    },
    /// It listens.
    Listening {
        /// The id of the request.
        request: RequestId,
    },
}

/// A listening socket of the worker that really is a hand-off socket.
#[derive(Debug)]
pub struct HandoffSocket {
    /// Where its connections come from.
    pub handoff: Rc<Handoff>,
    /// What `getsockname` says.
    pub name: Vec<u8>,
    /// The family that the worker asked for.
    pub family: u16,
    /// Calls of `accept` that wait for a connection, the oldest first.
    pub waiting: RefCell<VecDeque<Call>>,
    /// One more call waits.
    pub called: Notify,
    /// Serves these calls, from the first on.
    pub watcher: OnceCell<JoinHandle<()>>,
}

impl HandoffSocket {
    /// A socket that no call has used yet.
    #[must_use]
    pub fn new(handoff: Rc<Handoff>, name: Vec<u8>, family: u16) -> HandoffSocket {
        let (waiting, called, watcher) = (RefCell::default(), Notify::new(), OnceCell::new());
        HandoffSocket { handoff, name, family, waiting, called, watcher }
    }
}
