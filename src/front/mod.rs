//! The path of a connection: [`accept`] takes it from the kernel, [`admission`] lets it in, [`worker_set`] asks the
//! policy which worker is next, [`handoff`] sends it. Those are direct calls with no table of connections and no
//! allocation, unless something needs to know what is open ([`crate::opens`]). A connection that cannot be let in is
//! turned away ([`refuse`]); one that a worker does not want comes back ([`returned`]).

pub mod accept;
pub mod accounts;
pub mod admission;
pub mod admission_queue;
pub mod choice;
mod closing;
pub mod common;
pub mod counters;
mod even_out;
mod failures;
pub mod handoff;
pub mod incoming;
pub mod listener;
pub mod listeners;
mod mend;
pub mod next;
pub mod refuse;
pub mod refused;
mod rescue;
pub mod returned;
pub mod returning;
pub mod returns;
mod room;
pub mod waits;
pub mod worker_set;

use crate::core::ids::WorkerId;

/// Events of that path for the code that looks after the workers.
#[derive(Debug)]
pub enum Event {
    /// A hand-off socket that gets nothing new is empty.
    HandoffEmptied {
        /// The worker it belongs to.
        worker: WorkerId,
    },
    /// A listener took its last connection and is closed.
    ListenerClosed,
    /// A listener cannot be used any more.
    ListenerFailed {
        /// Where it listened.
        address: String,
        /// The error.
        error: std::io::Error,
    },
}
