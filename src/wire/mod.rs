//! What the master and a worker say to each other, as bytes: addresses, packets of the control
//! channel, the payload of a hand-off, names of environment variables.
//!
//! Nothing here touches a socket; `master` and `worker` do, with these words.

pub mod address;
pub mod environment;
pub mod packet;
pub mod peer;
