//! Pure decisions without side effects: no sockets, no clock, no randomness of its own.
//!
//! [`policy`] answers "which worker is next" and is called directly for each connection. [`fleet`] manages the
//! lifecycle of the workers: events in, actions out, with `now` as an argument, so that a test can run a year in a
//! millisecond.

pub mod apps;
pub mod backoff;
pub mod chance;
pub mod claim;
pub mod fairness;
pub mod fleet;
pub mod health;
pub mod histogram;
pub mod ids;
pub mod jitter;
pub mod ledger;
pub mod moment;
pub mod notice;
pub mod policy;
pub mod probes;
pub mod scaling;
pub mod schedule;
pub mod service;
pub mod slow_start;
pub mod source;
pub mod sources;
pub mod spread;
pub mod visible;
