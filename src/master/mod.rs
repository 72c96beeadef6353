//! The loop that joins [`crate::core`] and [`crate::sys`].
//!
//! Connections go a way of their own ([`crate::front`]). The life of workers goes through here: everything that happens
//! is an [`event::Event`], [`run`] handles one at a time and carries out what [`crate::core::fleet`] decides.

pub mod answer;
pub mod bind;
mod calls;
pub mod channel;
mod claims;
pub mod deferred;
pub mod door;
mod drain;
mod ending;
pub mod error;
pub mod event;
mod failures;
mod health;
pub mod holders;
mod leftovers;
mod look;
mod notify;
pub mod output;
mod prepare;
mod probe;
mod ready;
mod reception;
mod reload;
mod requests;
mod rights;
pub mod run;
mod shares;
pub mod signals;
pub mod start;
pub mod status;
mod steering;
pub mod supervised;
pub mod upgrade;
pub mod worker;

#[cfg(fuzzing)]
pub(crate) fn read_probe(bytes: &[u8]) {
    let _ = probe::status(bytes);
}
