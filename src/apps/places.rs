//! Where the state and the logs of apps lie: `$XDG_STATE_HOME/maitred`, for root `/var/lib/maitred` and
//! `/var/log/maitred`.

use nix::unistd::{Uid, User, geteuid};
use std::path::{Path, PathBuf};

/// The directory with a file for each app; none if this user has no home.
#[must_use]
pub fn state() -> Option<PathBuf> {
    match geteuid().is_root() {
        true => Some("/var/lib/maitred/apps".into()),
        false => Some(of_user()?.join("apps")),
    }
}

/// The directory with a file for each `maitred up` that runs; none if this user has no home.
#[must_use]
pub fn ups() -> Option<PathBuf> {
    state().map(|apps| apps.with_file_name("up"))
}

/// The file with the token of an app's admin address; none if this user has no home.
#[must_use]
pub fn token(name: &str) -> Option<PathBuf> {
    state().map(|apps| apps.with_file_name("tokens").join(format!("{name}.token")))
}

/// The directory with the logs of one app; none if this user has no home.
#[must_use]
pub fn logs(name: &str) -> Option<PathBuf> {
    match geteuid().is_root() {
        true => Some(Path::new("/var/log/maitred").join(name)),
        false => Some(of_user()?.join("logs").join(name)),
    }
}

/// The file that `maitred save` writes: `$XDG_CONFIG_HOME/maitred/maitred.toml`, for root in `/etc/maitred`; none if this
/// user has no home.
#[must_use]
pub fn saved() -> Option<PathBuf> {
    match geteuid().is_root() {
        true => Some("/etc/maitred/maitred.toml".into()),
        false => Some(of_config()?.join("maitred/maitred.toml")),
    }
}

/// The directory of this user's configuration; none if this user has no home.
#[must_use]
pub fn of_config() -> Option<PathBuf> {
    absolute("XDG_CONFIG_HOME").or_else(|| home().map(|home| home.join(".config")))
}

fn of_user() -> Option<PathBuf> {
    let state = absolute("XDG_STATE_HOME").or_else(|| home().map(|home| home.join(".local/state")));
    state.map(|state| state.join("maitred"))
}

fn absolute(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn home() -> Option<PathBuf> {
    absolute("HOME").or_else(|| User::from_uid(Uid::effective()).ok()?.map(|user| user.dir))
}
