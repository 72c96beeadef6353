//! `maitred signal`: sends a signal to the workers of a running master.

use super::tell::{self, Them};
use super::workers::signal;
use crate::control::Request;
use crate::control::client::Patience;
use clap::Args;
use nix::sys::signal::Signal;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct SignalArgs {
    /// Names, patterns (`web-*`) or `all`, which may be left out when only one runs; then the signal: HUP, SIGUSR1, 10
    #[arg(required = true, value_names = ["NAME", "SIG"])]
    what: Vec<String>,

    /// Only to the worker in this slot
    #[arg(long, value_name = "N")]
    slot: Option<u32>,

    /// Path of the control socket, if it is not where the name says
    #[arg(long, value_name = "PATH")]
    control: Option<std::path::PathBuf>,
}

/// Sends the request.
pub fn main(args: &SignalArgs) -> ExitCode {
    let mut names = args.what.clone();
    let signal = match signal(&names.pop().unwrap_or_default()) {
        Ok(signal) => signal,
        Err(error) => {
            super::say::complain(&error);
            return ExitCode::from(super::USAGE);
        }
    };
    let request = Request::Signal { signal: Signal::as_str(signal).to_owned(), slot: args.slot };
    tell::each(&Them::new(names, args.control.clone()), |one| {
        tell::ask_there(&one.name, &one.path, &request, Patience::Short).map_err(|error| error.to_string())
    })
}
