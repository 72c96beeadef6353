//! Asking a running master.

use super::{Refusal, Request, directory, socket_path};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a master may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no maitred named {name:?} runs here ({}: {source}); {}", path.display(), running_ones(others))]
    NotRunning {
        /// The name asked for.
        name: String,
        /// Its socket.
        path: PathBuf,
        /// Names that do run.
        others: Vec<String>,
        /// What the system said.
        source: io::Error,
    },
    /// No name was given, and that leaves it open which one is meant.
    #[error("{}; name one of them", running_ones(.0))]
    Which(Vec<String>),
    /// The connection broke.
    #[error("the maitred behind {} did not answer", path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The master said no.
    #[error("{0}")]
    Refused(String),
    /// The answer is not what this version knows.
    #[error("cannot understand the answer; is the running maitred another version?")]
    Answer(#[source] serde_json::Error),
}

fn running_ones(names: &[String]) -> String {
    match names {
        [] => "none runs for this user".to_owned(),
        names => format!("running: {}", names.join(", ")),
    }
}

/// The names of the masters that run for this user.
#[must_use]
pub fn running() -> Vec<String> {
    let files = std::fs::read_dir(directory()).into_iter().flatten().flatten();
    let sockets = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "sock"));
    let live = sockets.filter(|path| UnixStream::connect(path).is_ok());
    let mut names: Vec<_> = live.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

/// The socket of the master that is meant: by path, by name, or the only one that runs.
///
/// # Errors
/// [`ClientError::Which`] when no name was given and not exactly one runs.
pub fn find(name: Option<&str>, control: Option<&Path>) -> Result<(String, PathBuf), ClientError> {
    if let Some(path) = control {
        return Ok((path.display().to_string(), path.to_owned()));
    }
    match name {
        Some(name) => Ok((name.to_owned(), socket_path(name))),
        None => match &running()[..] {
            [only] => Ok((only.clone(), socket_path(only))),
            names => Err(ClientError::Which(names.to_vec())),
        },
    }
}

/// How long the answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as it takes a master that is not hung.
    Short,
    /// For ever: what was asked for takes its time.
    Endless,
}

/// Sends a request and returns the answer, a line of JSON.
///
/// # Errors
/// [`ClientError`].
pub fn ask(name: &str, path: &Path, request: &Request, patience: Patience) -> Result<String, ClientError> {
    let mut socket = UnixStream::connect(path).map_err(|source| ClientError::NotRunning {
        name: name.to_owned(),
        path: path.to_owned(),
        others: running(),
        source,
    })?;
    let mut exchange = || -> io::Result<String> {
        socket.set_read_timeout((patience == Patience::Short).then_some(ANSWER_TIMEOUT))?;
        let line = serde_json::to_string(request)?;
        writeln!(socket, "{line}")?;
        let mut answer = String::new();
        if BufReader::new(&socket).read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    };
    let answer = exchange().map_err(|source| ClientError::Io { path: path.to_owned(), source })?;
    match serde_json::from_str::<Refusal>(&answer) {
        Ok(refusal) => Err(ClientError::Refused(refusal.error)),
        Err(_) => Ok(answer),
    }
}

/// Waits until the master behind this socket has ended.
///
/// # Errors
/// When it cannot be told who it is.
pub fn wait_for_end(name: &str, path: &Path) -> Result<(), ClientError> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    let Ok(socket) = UnixStream::connect(path) else { return Ok(()) };
    let fail = |source| ClientError::Io { path: path.to_owned(), source };
    let peer = getsockopt(&socket, PeerCredentials).map_err(|errno| fail(errno.into()))?;
    drop(socket);
    tracing::debug!(name, pid = peer.pid(), "waiting for its end");
    match crate::sys::reap::pidfd(nix::unistd::Pid::from_raw(peer.pid())) {
        Ok(pidfd) => crate::sys::reap::wait(std::os::fd::AsFd::as_fd(&pidfd)).map_err(fail),
        // It was faster.
        Err(_) => Ok(()),
    }
}
