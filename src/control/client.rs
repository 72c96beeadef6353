//! Sends requests to a running master.

use super::status::Status;
use super::{Refusal, Request, Usage, directories};
use crate::sys::process::trusted::{Absent, Directory, Untrusted};
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a master may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often, and how soon, a master is asked again that closed the connection without an answer.
const ASKED_WHILE_IT_ENDS: u32 = 25;
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Longest answer. A master with as many workers and listeners as there can be answers with some megabytes.
const ANSWER_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No master listens there.
    #[error("no maitred named {name:?} runs here ({}: {source}); {}", path.display(), running_ones(others))]
    NotRunning {
        /// The name asked for.
        name: String,
        /// Its socket.
        path: PathBuf,
        /// Names of the masters that run.
        others: Vec<String>,
        /// What the system said.
        source: io::Error,
    },
    /// No name was given, so it is unclear which master is meant.
    #[error("{}; {}", running_ones(.0), which(.0))]
    Which(Vec<String>),
    /// The connection broke.
    #[error("the maitred behind {} did not answer", path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was asked for its status, and did not answer in the time allowed.
    #[error(
        "the maitred behind {} has not answered within {}; it is stopped or hangs", path.display(),
        humantime::format_duration(ANSWER_TIMEOUT)
    )]
    Silent {
        /// Its socket.
        path: PathBuf,
    },
    /// It was told to do something, and did not answer in the time allowed.
    #[error(
        "still under way: the maitred behind {} has the request and has not answered within {}; it may carry it out \
         all the same, see maitred status", path.display(), humantime::format_duration(ANSWER_TIMEOUT)
    )]
    UnderWay {
        /// Its socket.
        path: PathBuf,
    },
    /// The process that listens there belongs to another user.
    #[error("user {uid} listens on {}, who is neither you nor root; nothing was asked", path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// The user that the process belongs to.
        uid: u32,
    },
    /// Any user could have put the sockets there.
    #[error("{0}; no maitred is looked for there: set XDG_RUNTIME_DIR, or give --control")]
    Directory(Untrusted),
    /// The master refused.
    #[error("{0}")]
    Refused(String),
    /// This version does not understand the answer.
    #[error("cannot understand the answer; is the running maitred another version?")]
    Answer(#[source] serde_json::Error),
}

fn running_ones(names: &[String]) -> String {
    match names {
        [] => "no maitred runs for this user".to_owned(),
        names => format!("running: {}", names.join(", ")),
    }
}

/// What to do where no master was named.
fn which(names: &[String]) -> &'static str {
    match names {
        [] => "start one with `maitred -- COMMAND`, or give --control",
        _ => "name one of them",
    }
}

/// The names of the masters that run for this user.
///
/// # Errors
/// [`ClientError::Directory`] when other users could have put sockets there.
pub fn running() -> Result<Vec<String>, ClientError> {
    let mut names = Vec::new();
    for path in directories() {
        let directory = match Directory::open(&path, Absent::Refuse) {
            Ok(directory) => directory,
            Err(Untrusted::Io { .. }) => continue,
            Err(untrusted) => return Err(ClientError::Directory(untrusted)),
        };
        let files = std::fs::read_dir(directory.path()).into_iter().flatten().flatten();
        let sockets = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "sock"));
        let live = sockets.filter(|path| is_live(path));
        names.extend(live.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Whether a master that this user may ask listens there. Never waits for one that is stopped.
fn is_live(path: &Path) -> bool {
    let connected = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
        .and_then(|socket| SockAddr::unix(path).and_then(|name| socket.connect(&name)).map(|()| socket));
    match connected {
        Ok(socket) => peer(&socket).is_ok_and(|peer| is_trusted(peer.uid(), path)),
        // Its queue is full: so many clients ask already that it takes no more for now.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// The name of the only master that runs.
///
/// # Errors
/// [`ClientError::Which`] when not exactly one runs.
pub fn only() -> Result<String, ClientError> {
    match &running()?[..] {
        [only] => Ok(only.clone()),
        names => Err(ClientError::Which(names.to_vec())),
    }
}

/// Connects to a master that may be asked. Sends nothing to any other process, and reads nothing from it.
fn connect(name: &str, path: &Path) -> Result<UnixStream, ClientError> {
    let not_running = |source| ClientError::NotRunning {
        name: name.to_owned(),
        path: path.to_owned(),
        others: running().unwrap_or_default(),
        source,
    };
    let io = |source| ClientError::Io { path: path.to_owned(), source };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(io)?;
    // Connecting waits as writing does while the queue is full (`unix_stream_connect`, net/unix/af_unix.c).
    socket.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(io)?;
    match SockAddr::unix(path).and_then(|address| socket.connect(&address)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(ClientError::Silent { path: path.to_owned() });
        }
        Err(error) => return Err(not_running(error)),
    }
    let peer = peer(&socket).map_err(io)?;
    match is_trusted(peer.uid(), path) {
        true => Ok(UnixStream::from(socket)),
        false => Err(ClientError::Stranger { path: path.to_owned(), uid: peer.uid() }),
    }
}

/// The process at the other end (`SO_PEERCRED`, `unix(7)`): the one that called `listen` there.
fn peer(socket: &Socket) -> io::Result<UnixCredentials> {
    Ok(getsockopt(socket, PeerCredentials)?)
}

/// Whether this user's commands may go to a process of user `uid`. Root may reach every user's if it says where.
fn is_trusted(uid: u32, path: &Path) -> bool {
    let me = geteuid();
    let by_name = || directories().iter().any(|directory| path.parent() == Some(directory));
    uid == 0 || uid == me.as_raw() || me.is_root() && !by_name()
}

/// How long the answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as a master needs that does not hang.
    Short,
    /// No limit: the request may take its time.
    Endless,
}

/// Sends a request and returns the answer, a line of JSON.
///
/// # Errors
/// [`ClientError`].
pub fn ask(name: &str, path: &Path, request: &Request, patience: Patience) -> Result<String, ClientError> {
    let mut socket = connect(name, path)?;
    let deadline = (patience == Patience::Short).then(|| Instant::now() + ANSWER_TIMEOUT);
    let mut exchange = || -> io::Result<String> {
        let line = serde_json::to_string(request)?;
        writeln!(socket, "{line}")?;
        read_line(&mut socket, deadline)
    };
    let answer = exchange().map_err(|source| match (source.kind(), request) {
        (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Request::Status { .. }) => {
            ClientError::Silent { path: path.to_owned() }
        }
        (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, _) => ClientError::UnderWay { path: path.to_owned() },
        _ => ClientError::Io { path: path.to_owned(), source },
    })?;
    match serde_json::from_str::<Refusal>(&answer) {
        Ok(refusal) => Err(ClientError::Refused(refusal.error)),
        Err(_) => Ok(answer),
    }
}

/// Asks a master for its status.
///
/// # Errors
/// [`ClientError`].
pub fn status(name: &str, path: &Path) -> Result<Status, ClientError> {
    status_with(name, path, Usage::Told)
}

/// The same, with what the workers use or without it.
///
/// # Errors
/// [`ClientError`].
pub fn status_with(name: &str, path: &Path, usage: Usage) -> Result<Status, ClientError> {
    let mut left = ASKED_WHILE_IT_ENDS;
    let answer = loop {
        match ask(name, path, &Request::Status { usage }, Patience::Short) {
            // It may be about to end: then nobody listens there in a moment.
            Err(ClientError::Io { .. }) if left > 0 => left -= 1,
            answer => break answer?,
        }
        std::thread::sleep(ASKED_AGAIN_AFTER);
    };
    serde_json::from_str(&answer).map_err(ClientError::Answer)
}

/// Reads the answer, which is one line, until the deadline.
fn read_line(socket: &mut UnixStream, deadline: Option<Instant>) -> io::Result<String> {
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
        }
        let read = match socket.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let read = buffer.get(..read).unwrap_or_default();
        answer.extend_from_slice(read);
        let ends = read.contains(&b'\n');
        if read.is_empty() && answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if ends || read.is_empty() {
            return String::from_utf8(answer).map_err(io::Error::other);
        }
        if answer.len() > ANSWER_MAX {
            return Err(io::Error::other("the answer does not end"));
        }
    }
}

/// Waits until the master behind this socket has ended.
///
/// # Errors
/// When the master's process cannot be identified.
pub fn wait_for_end(name: &str, path: &Path) -> Result<(), ClientError> {
    let fail = |source| ClientError::Io { path: path.to_owned(), source };
    let socket = match connect(name, path) {
        Ok(socket) => Socket::from(socket),
        Err(ClientError::NotRunning { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let peer = peer(&socket).map_err(fail)?;
    drop(socket);
    tracing::debug!(name, pid = peer.pid(), "waiting for its end");
    match crate::sys::foreign::pidfd(nix::unistd::Pid::from_raw(peer.pid())) {
        Ok(pidfd) => crate::sys::process::reap::wait(std::os::fd::AsFd::as_fd(&pidfd)).map_err(fail),
        // It has ended already.
        Err(_) => Ok(()),
    }
}
