//! The loop that joins [`crate::core`] and [`crate::sys`].
//!
//! Connections are handled elsewhere ([`crate::front`]). The life of workers is handled here: everything that happens
//! is an [`event::Event`]; [`run`] handles one at a time and carries out what [`crate::core::fleet`] decides.

pub mod bind;
mod commands;
mod end;
pub mod error;
pub mod event;
pub mod hook;
mod lifecycle;
pub mod pid_file;
mod prepare;
pub mod program;
mod recorder;
mod requests;
pub mod run;
pub mod service;
pub mod signals;
mod sizing;
pub mod status;
mod steering;
pub mod upgrade;
