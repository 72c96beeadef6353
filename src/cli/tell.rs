//! The common part of the commands that change a running master: how they find it, and how the answer is shown.

use super::say::{self, complain};
use crate::control::client::{self, ClientError, Patience};
use crate::control::{Done, Request};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct Whom {
    /// Name of the maitred; may be left out when only one runs
    pub name: Option<String>,

    /// Path of the control socket, if it is not where the name says
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

/// Sends a request and prints the result, or the reason of a failure.
pub fn tell(whom: &Whom, request: &Request, patience: Patience) -> ExitCode {
    report(ask(whom, request, patience))
}

/// Sends a request and reads the answer.
///
/// # Errors
/// [`ClientError`].
pub fn ask(whom: &Whom, request: &Request, patience: Patience) -> Result<String, ClientError> {
    let (name, path) = client::find(whom.name.as_deref(), whom.control.as_deref())?;
    ask_there(&name, &path, request, patience)
}

/// Like [`ask`], when the path of the master's socket is known.
///
/// # Errors
/// [`ClientError`].
pub fn ask_there(name: &str, path: &Path, request: &Request, patience: Patience) -> Result<String, ClientError> {
    let answer = client::ask(name, path, request, patience)?;
    let done: Done = serde_json::from_str(&answer).map_err(ClientError::Answer)?;
    Ok(done.done)
}

/// Prints the result, or the reason of a failure.
pub fn report(result: Result<String, ClientError>) -> ExitCode {
    match result {
        Ok(done) => say::lines(&format!("{done}\n"), ExitCode::SUCCESS),
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}
