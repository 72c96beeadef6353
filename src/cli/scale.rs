//! `maitred scale`: changes the number of workers.

use super::USAGE;
use super::say::complain;
use super::tell::{Whom, tell};
use crate::control::client::Patience;
use crate::control::{Request, Size};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// Name of the maitred, which may be left out when only one runs; then N, +N or -N
    #[arg(required = true, num_args = 1..=2, value_names = ["NAME", "N|+N|-N"], allow_negative_numbers = true)]
    what: Vec<String>,

    /// Path of the control socket, if it is not where the name says
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

/// Sends the request.
pub fn main(args: &ScaleArgs) -> ExitCode {
    let (name, size) = match &args.what[..] {
        [name, size] => (Some(name.clone()), &**size),
        rest => (None, rest.first().map_or("", |size| size)),
    };
    match size.parse::<Size>() {
        Ok(to) => {
            let whom = Whom { name, control: args.control.clone() };
            tell(&whom, &Request::Scale { to }, Patience::Short)
        }
        Err(error) => {
            complain(&format!("cannot scale to {size:?}: {error}"));
            ExitCode::from(USAGE)
        }
    }
}
