//! The messages between the master and a worker, as bytes: addresses, packets of the control channel, the payload of a
//! hand-off, names of environment variables.
//!
//! Nothing here touches a socket; `master` and `worker` do, and use these definitions.

pub mod address;
pub mod environment;
pub mod packet;
pub mod peer;
