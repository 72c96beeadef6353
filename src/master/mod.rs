//! The loop that joins [`crate::core`] and [`crate::sys`].
//!
//! A connection goes one straight way: [`accept`] takes it from the kernel, [`admission`] lets it in, [`seats`] asks the
//! policy whose turn it is, [`handoff`] sends it. Those are direct calls with no table of
//! connections and no allocation, unless something needs to know what is open ([`opens`]). The life of workers goes another way: everything that happens is
//! an [`event::Event`], [`run`] handles one at a time and carries out what
//! [`crate::core::fleet`] decides.

pub mod accept;
pub mod admission;
pub mod answer;
pub mod aside;
pub mod bind;
pub mod bustle;
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
pub mod group;
pub mod handoff;
mod health;
pub mod holders;
mod leftovers;
pub mod listener;
pub mod listeners;
mod look;
mod mend;
mod notify;
pub mod opens;
pub mod output;
mod prepare;
mod probe;
pub mod provoked;
mod ready;
mod reception;
pub mod refuse;
mod reload;
mod requests;
pub mod returned;
pub mod returns;
mod rights;
pub mod run;
pub mod seats;
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
