//! The control socket: a Unix socket of mode 0600 that takes one request, as a line of JSON, and
//! answers with one line of JSON.

pub mod client;
pub mod server;
pub mod status;

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Request {
    /// How are you?
    Status,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why, for people.
    pub error: String,
}

/// The directory in which masters of this user have their control sockets.
#[must_use]
pub fn directory() -> PathBuf {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return PathBuf::from("/run/maitred");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => Path::new(&dir).join("maitred"),
        None => std::env::temp_dir().join(format!("maitred-{uid}")),
    }
}

/// Where the master of this name has its control socket, unless told otherwise.
#[must_use]
pub fn socket_path(name: &str) -> PathBuf {
    directory().join(format!("{name}.sock"))
}
