//! What the commands that change a running master share: whom they mean, and how the answer is shown.

use super::say::{self, complain};
use crate::control::client::{self, ClientError, Patience};
use crate::control::{Done, Request};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct Whom {
    /// Which maitred; may be left out when only one runs
    pub name: Option<String>,

    /// Path of the control socket, if it is not where the name says
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

/// Sends a request and prints what was done, or why not.
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

/// As [`ask`], where it is known where the master listens.
///
/// # Errors
/// [`ClientError`].
pub fn ask_there(name: &str, path: &Path, request: &Request, patience: Patience) -> Result<String, ClientError> {
    let answer = client::ask(name, path, request, patience)?;
    let done: Done = serde_json::from_str(&answer).map_err(ClientError::Answer)?;
    Ok(done.done)
}

/// Prints what was done, or why not.
pub fn report(result: Result<String, ClientError>) -> ExitCode {
    match result {
        Ok(done) => say::lines(&format!("{done}\n"), ExitCode::SUCCESS),
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}
