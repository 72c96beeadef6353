//! `maitred stop`: does the same as `TERM`. `maitred delete`: also forgets the app.

use super::tell::{self, One, Them};
use crate::apps::state::{self, App, StateError, Store, Wanted};
use crate::control::Request;
use crate::control::client::{self, ClientError, Patience};
use crate::logs::Log;
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    them: Them,

    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    them: Them,
}

/// Sends the request to stop.
pub fn main(args: &StopArgs) -> ExitCode {
    tell::each(&args.them, |one| {
        let said = stop_and_remember(one)?;
        if !args.wait {
            return Ok(said);
        }
        client::wait_for_end(&one.name, &one.path).map_err(|error| error.to_string())?;
        Ok(format!("{} has ended", one.name))
    })
}

/// Asks it to stop, and remembers that.
///
/// # Errors
/// Says what failed.
pub fn stop_and_remember(one: &One) -> Result<String, String> {
    // It is stopped also if that cannot be remembered.
    let remembered = want_stopped(one);
    let said = stop(one)?;
    remembered.map_err(|error| format!("{said}; but it will count as failed: {error}"))?;
    Ok(said)
}

/// Stops, and forgets.
pub fn delete(args: &DeleteArgs) -> ExitCode {
    tell::each(&args.them, |one| {
        stop(one)?;
        client::wait_for_end(&one.name, &one.path).map_err(|error| error.to_string())?;
        if !one.remembered {
            return Ok(format!("{} has ended; it was not remembered", one.name));
        }
        let app = forget(one).map_err(|error| error.to_string())?;
        let logs = app.map(|app| Log::ALL.map(|log| log.of(&app).display().to_string()).join(" "));
        Ok(format!("{} is forgotten; its logs stay: {}", one.name, logs.unwrap_or_default()))
    })
}

fn forget(one: &One) -> Result<Option<App>, StateError> {
    let Some(store) = Store::find()? else { return Ok(None) };
    // A command that waited for its start sees that it has ended, and lets it go.
    let held = store.hold_soon(&one.name)?;
    let app = held.get()?;
    held.forget()?;
    Ok(app)
}

/// Asks it to stop.
fn stop(one: &One) -> Result<String, String> {
    match tell::ask_there(&one.name, &one.path, &Request::Stop, Patience::Short) {
        // It ended before it could answer.
        Err(ClientError::Io { .. }) => Ok("stopping".to_owned()),
        Err(ClientError::NotRunning { .. }) if one.remembered => {
            let app = state::app(&one.name).map_err(|error| error.to_string())?;
            match app.and_then(|app| app.master.filter(|master| master.running().is_some())) {
                Some(master) => master.end().map_err(|error| format!("cannot end {}: {error}", one.name)).map(|()| {
                    format!("{} has ended; its control socket was gone, so it was told by a signal", one.name)
                }),
                None => Ok(format!("{} does not run", one.name)),
            }
        }
        said => said.map_err(|error| error.to_string()),
    }
}

/// What its user wants holds also for who starts apps again, after a reboot say.
fn want_stopped(one: &One) -> Result<(), StateError> {
    match Store::find()? {
        Some(store) if one.remembered => store.want(&one.name, Wanted::Stopped),
        _ => Ok(()),
    }
}
