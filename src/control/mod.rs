//! The control socket: a Unix socket of mode 0600 that takes one request, as a line of JSON, and
//! answers with one line of JSON.

pub mod client;
mod desk;
pub mod journal;
pub mod server;
pub mod status;

use crate::core::fleet::{Manner, Resize};
use crate::logs::kept;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio::sync::oneshot;

/// What happens at the control socket.
#[derive(Debug)]
pub enum Event {
    /// A client asks for something and waits for the answer.
    Requested {
        /// What the client asked for.
        request: Request,
        /// Where the answer goes, a line of JSON without its end.
        answer: oneshot::Sender<String>,
    },
    /// A client asks for another binary, which will answer the client.
    UpgradeAsked {
        /// The connection of the client.
        client: OwnedFd,
    },
}

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Request {
    /// Report the status.
    Status {
        /// Whether it tells what the workers use of the machine.
        #[serde(default)]
        usage: Usage,
    },
    /// Replace all workers.
    Reload {
        /// How to replace them.
        manner: Manner,
        /// When to answer.
        until: Until,
    },
    /// Stop, as `TERM` does.
    Stop,
    /// Change the number of workers.
    Scale {
        /// The number.
        to: Size,
    },
    /// Send a signal to the workers.
    Signal {
        /// Its name, as in `SIGUSR1`.
        signal: String,
        /// Only to the worker in this slot.
        slot: Option<u32>,
    },
    /// Tell what happened after an event.
    Events {
        /// Which journal that event is of.
        #[serde(default)]
        journal: u64,
        /// Its number.
        #[serde(default)]
        after: u64,
    },
    /// Tell the last lines that were written.
    Lines {
        /// Which of them.
        wanted: kept::Wanted,
    },
    /// Replace the master's binary.
    Upgrade,
}

/// Whether a status tells what workers use of the machine: memory, processor time, connections that are counted in
/// `/proc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Usage {
    /// It does.
    #[default]
    Told,
    /// It does not: who asks many masters looks at the processes of all at once.
    LeftOut,
    /// It does not, nor what workers wrote before they ended: who asks is another user.
    ForOthers,
}

/// An answer in words.
#[must_use]
pub fn done(text: &str) -> String {
    serde_json::to_string(&Done { done: text.to_owned() }).unwrap_or_default()
}

/// A refusal, as the control socket answers it.
#[must_use]
pub fn refusal(why: &str) -> String {
    serde_json::to_string(&Refusal { error: why.to_owned() }).unwrap_or_default()
}

/// When a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// When it is accepted.
    Accepted,
    /// When it is done.
    Done,
}

/// A number of workers, as `scale` takes it: `4`, `+1` or `-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// This many.
    To(u32),
    /// So many more or fewer.
    By(i32),
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let size = match text.as_bytes() {
            [b'+' | b'-', ..] => text.parse().map(Size::By),
            _ => text.parse().map(Size::To),
        };
        size.map_err(|_| "expected a number of workers, +N or -N".to_owned())
    }
}

impl From<Size> for Resize {
    fn from(size: Size) -> Resize {
        match size {
            Size::To(workers) => Resize::To(workers),
            Size::By(more) => Resize::By(more),
        }
    }
}

/// What was done, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// In words.
    pub done: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why, for people.
    pub error: String,
}

/// The directory of a master's control socket, unless told otherwise: the one that systemd made for its unit
/// (`RuntimeDirectory=`, `systemd.exec(5)`), or the user's own.
#[must_use]
pub fn directory() -> PathBuf {
    directory_of_unit().unwrap_or_else(directory_of_user)
}

/// Where root's masters have their control sockets. Other users pass through it where --control-mode says so, and
/// cannot list it.
const DIRECTORY_OF_ROOT: &str = "/run/maitred";

/// Where clients look for masters by name, the nearest first.
#[must_use]
pub fn directories() -> Vec<PathBuf> {
    let roots = (!nix::unistd::geteuid().is_root()).then(|| PathBuf::from(DIRECTORY_OF_ROOT));
    directory_of_unit().into_iter().chain([directory_of_user()]).chain(roots).collect()
}

/// The first directory that `RUNTIME_DIRECTORY` names.
fn directory_of_unit() -> Option<PathBuf> {
    let named = std::env::var_os("RUNTIME_DIRECTORY")?;
    let first = named.as_bytes().split(|byte| *byte == b':').next()?;
    Some(PathBuf::from(OsStr::from_bytes(first))).filter(|path| path.is_absolute())
}

fn directory_of_user() -> PathBuf {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return PathBuf::from(DIRECTORY_OF_ROOT);
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => Path::new(&dir).join("maitred"),
        None => std::env::temp_dir().join(format!("maitred-{uid}")),
    }
}

/// Where the master of this name has its control socket, unless told otherwise.
#[must_use]
pub fn socket_path(name: &str) -> PathBuf {
    directory().join(file_name(name))
}

/// Where a client finds the master of this name: in the first directory that has such a socket.
#[must_use]
pub fn find_socket(name: &str) -> PathBuf {
    let paths = directories().into_iter().map(|directory| directory.join(file_name(name)));
    paths.into_iter().find(|path| path.symlink_metadata().is_ok()).unwrap_or_else(|| socket_path(name))
}

fn file_name(name: &str) -> String {
    format!("{name}.sock")
}
