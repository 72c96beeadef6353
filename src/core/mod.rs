//! Decides, touches nothing: no socket, no clock, no randomness of its own.
//!
//! [`policy`] answers "which worker is next", called directly on a connection's way. [`fleet`]
//! lives the lives of the workers: events in, actions out, with `now` as an argument, so that a
//! test can run a year in a millisecond.

pub mod backoff;
pub mod chance;
pub mod claim;
pub mod fairness;
pub mod fleet;
pub mod health;
pub mod ids;
pub mod jitter;
pub mod ledger;
pub mod moment;
pub mod notice;
pub mod policy;
pub mod probes;
pub mod slow_start;
pub mod source;
pub mod sources;
pub mod spread;
pub mod visible;
