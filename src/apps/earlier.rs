//! The master that had a name before: it may still be about to end.

use crate::apps::state::App;
use crate::control::client::{self, ClientError};
use std::path::{Path, PathBuf};

/// Why the name is not free.
#[derive(Debug, thiserror::Error)]
pub enum NotFree {
    /// It runs.
    #[error(
        "{name} runs already (pid {pid}); maitred restart {name} or maitred reload {name} replace its workers, and \
         another name is given with --name"
    )]
    Runs {
        /// The name.
        name: String,
        /// The master.
        pid: i32,
    },
    /// It runs, and nobody can ask it.
    #[error(
        "{name} runs already (pid {pid}), but its control socket is gone: {}; maitred stop {name} ends it", control.display()
    )]
    Hidden {
        /// The name.
        name: String,
        /// The master.
        pid: i32,
        /// Where its socket was.
        control: PathBuf,
    },
    /// It cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Waits until the name is free, if a master of that name is stopping.
///
/// # Errors
/// [`NotFree`].
pub fn wait(name: &str, control: &Path) -> Result<(), NotFree> {
    match client::status(name, control) {
        Err(ClientError::NotRunning { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(status) if status.stopping => Ok(client::wait_for_end(name, control)?),
        Ok(status) => Err(NotFree::Runs { name: name.to_owned(), pid: status.pid }),
    }
}

/// The same for an app that is remembered: it may run though its control socket was removed.
///
/// # Errors
/// [`NotFree`].
pub fn wait_for_app(app: &App) -> Result<(), NotFree> {
    wait(&app.name, &app.control)?;
    match app.process() {
        None => Ok(()),
        Some(pid) => Err(NotFree::Hidden { name: app.name.clone(), pid: pid.as_raw(), control: app.control.clone() }),
    }
}
