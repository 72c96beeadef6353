//! The common part of the commands that change a running master: how they find it, and how the answer is shown.

use super::say::{self, complain};
use crate::apps::select::select;
use crate::apps::state::{self, StateError};
use crate::control;
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

#[derive(Debug, Args)]
pub struct Them {
    /// Names, patterns (`web-*`) or `all`; may be left out when only one runs
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Path of the control socket, if it is not where the name says
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

impl Them {
    /// Those with these names, or the one behind this socket.
    pub fn new(names: Vec<String>, control: Option<PathBuf>) -> Them {
        Them { names, control }
    }
}

/// One of those that a command is about.
pub struct One {
    /// Its name.
    pub name: String,
    /// Where its control socket is, or would be.
    pub path: PathBuf,
    /// Whether it was started in the background and is remembered.
    pub remembered: bool,
}

impl One {
    /// The one with this name. An app that was started in the background knows where its control socket is.
    ///
    /// # Errors
    /// When what is remembered of it cannot be read, and nothing has a socket where the name says.
    pub fn named(name: &str) -> Result<One, StateError> {
        let usual = control::find_socket(name);
        let control = match state::app(name) {
            Ok(app) => app.map(|app| app.control),
            // As with the home of somebody else in the environment. What runs is found without it.
            Err(StateError::Directory(_)) if usual.exists() => None,
            Err(error @ StateError::Directory(_)) => {
                complain(&error);
                None
            }
            Err(error) => return Err(error),
        };
        let remembered = control.is_some();
        Ok(One { name: name.to_owned(), path: control.unwrap_or(usual), remembered })
    }
}

/// Finds a master by its control socket, or its name, or because it is the only one that runs.
///
/// # Errors
/// Says why there is none.
pub fn find(name: Option<&str>, control: Option<&Path>) -> Result<One, String> {
    let said = |error: StateError| error.to_string();
    match (name, control) {
        (Some(name), None) => One::named(name).map_err(said),
        (_, None) => One::named(&client::only().map_err(|error| error.to_string())?).map_err(said),
        (_, Some(path)) => Ok(One { name: path.display().to_string(), path: path.to_owned(), remembered: false }),
    }
}

/// Does something to each of them, one after the other, and prints the results. A failure does not keep the others from
/// their turn.
pub fn each(them: &Them, act: impl Fn(&One) -> Result<String, String>) -> ExitCode {
    let chosen = match chosen(them) {
        Ok(chosen) => chosen,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    let mut code = ExitCode::SUCCESS;
    let several = chosen.len() > 1;
    for (name, one) in chosen {
        let before = if several { format!("{name}: ") } else { String::new() };
        // What cannot be read of it is said before anything is done.
        match one.and_then(|one| act(&one)) {
            Ok(said) => drop(say::lines(&format!("{before}{said}\n"), ExitCode::SUCCESS)),
            Err(said) => {
                complain(&format_args!("{before}{said}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// A name, and the one that has it, or what is wrong with that one.
type Named = (String, Result<One, String>);

/// Those that are meant.
fn chosen(them: &Them) -> Result<Vec<Named>, String> {
    if them.names.is_empty() || them.control.is_some() {
        let one = find(them.names.first().map(String::as_str), them.control.as_deref())?;
        return Ok(vec![(one.name.clone(), Ok(one))]);
    }
    let mut there = client::running().unwrap_or_default();
    match state::apps() {
        Ok((apps, _)) => there.extend(apps.into_iter().map(|app| app.name)),
        // What runs is found without it.
        Err(error) if !there.is_empty() => complain(&error),
        Err(error) => return Err(error.to_string()),
    }
    there.sort();
    there.dedup();
    let with_one = |name: String| {
        let one = One::named(&name).map_err(|error| error.to_string());
        (name, one)
    };
    Ok(select(&them.names, &there)?.into_iter().map(with_one).collect())
}

/// Sends a request and prints the result, or the reason of a failure.
pub fn tell(whom: &Whom, request: &Request, patience: Patience) -> ExitCode {
    report(
        find(whom.name.as_deref(), whom.control.as_deref())
            .and_then(|one| ask_there(&one.name, &one.path, request, patience).map_err(|error| error.to_string())),
    )
}

/// Sends a request to the master at this socket and reads the answer.
///
/// # Errors
/// [`ClientError`].
pub fn ask_there(name: &str, path: &Path, request: &Request, patience: Patience) -> Result<String, ClientError> {
    let answer = client::ask(name, path, request, patience)?;
    let done: Done = serde_json::from_str(&answer).map_err(ClientError::Answer)?;
    Ok(done.done)
}

/// Prints the result, or the reason of a failure.
pub fn report(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(done) => say::lines(&format!("{done}\n"), ExitCode::SUCCESS),
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}
