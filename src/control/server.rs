//! The master's side of the control socket.

use super::desk::{Desk, Place};
use super::{Event, Refusal, Request, Usage};
use crate::core::visible;
use crate::reports::Reports;
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::lock::{Lock, lock_within};
use crate::sys::process::trusted::{Absent, Access, Directory, Untrusted, is};
use crate::sys::socket::listen::{self, Peer};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tracing::{debug, warn};

/// Longest request.
const REQUEST_MAX: u64 = 4096;
/// How long a client may take to send its request or to read the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long another master may take to check whether a name is free. It does nothing else in that time.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections in the kernel's queue.
const QUEUE: i32 = 128;
/// Mode of the directory, if it has to be made, and of the socket.
const DIRECTORY_MODE: u32 = 0o700;
const MODE: u32 = 0o600;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another master has this name.
    #[error("a maitred named {name:?} runs already (it listens on {}); choose another --name, or stop it first", path.display())]
    Taken {
        /// The name that both want.
        name: String,
        /// The other one's socket.
        path: PathBuf,
    },
    /// Another user could replace our socket with their own.
    #[error(
        "cannot make a control socket there: {0}; set XDG_RUNTIME_DIR, or give a path in a directory of your own with --control"
    )]
    Directory(Untrusted),
    /// Something else is there, and it is not removed.
    #[error("{} is {what}; give another path with --control", path.display())]
    Occupied {
        /// The socket's path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// Another process holds the directory's lock and does not release it.
    #[error("another process holds a lock on {} (see lslocks); end it, or give another path with --control", .0.display())]
    Locked(PathBuf),
    /// The system refused.
    #[error("cannot make the control socket {}: {source}; give another path with --control", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The control socket; removed when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    /// The file that is ours, in case another file has this name by now.
    file: Option<FileId>,
    listener: Rc<UnixListener>,
    desk: Rc<Desk>,
    access: Access,
}

/// Device and inode.
type FileId = (u64, u64);

impl ControlSocket {
    /// Takes the name. Replaces the socket of a killed master of this user; anything else that is there stays.
    ///
    /// # Errors
    /// [`ControlError::Taken`] when another master with this name runs.
    pub fn bind(name: &str, path: &Path, access: Access) -> Result<ControlSocket, ControlError> {
        let io = |source| ControlError::Io { path: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(io)?;
        let (Some(parent), Some(file)) = (absolute.parent(), absolute.file_name()) else {
            return Err(io(io::Error::from_raw_os_error(libc::EISDIR)));
        };
        let directory = Directory::open(parent, Absent::Make(DIRECTORY_MODE)).map_err(|untrusted| match untrusted {
            Untrusted::Io { source, .. } => io(source),
            untrusted => ControlError::Directory(untrusted),
        })?;
        let path = directory.path().join(file);
        let io = |source| ControlError::Io { path: path.clone(), source };
        // Masters check one after the other whether the name is free. A name is taken if a master answers there, so no
        // lock is held for longer and nothing is left behind.
        let turn = take_turn(&directory)?;
        make_room(name, &path, &directory, file)?;
        let listener = listen::bind_unix_new(&path, Some(MODE)).map_err(io)?;
        if let Some(group) = access.group {
            nix::unistd::chown(&path, None, Some(nix::unistd::Gid::from_raw(group)))
                .map_err(|errno| io(errno.into()))?;
        }
        if let Some(mode) = access.mode {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(io)?;
        }
        listener.listen(QUEUE).map_err(io)?;
        listener.set_nonblocking(true).map_err(io)?;
        let id = directory.look(file).ok().map(|found| (found.st_dev, found.st_ino));
        drop(turn);
        let listener = std::os::unix::net::UnixListener::from(OwnedFd::from(listener));
        let listener = Rc::new(UnixListener::from_std(listener).map_err(io)?);
        Ok(ControlSocket { path, file: id, listener, desk: Rc::default(), access })
    }

    /// Lets other users pass through its directory to the socket, without seeing what else is there.
    ///
    /// # Errors
    /// That of `chmod(2)`.
    pub fn open_directory(&self) -> io::Result<()> {
        let Some(directory) = self.path.parent() else { return Ok(()) };
        let mode = directory.metadata()?.permissions().mode();
        match mode & 0o011 {
            0o011 => Ok(()),
            _ => std::fs::set_permissions(directory, Permissions::from_mode(mode & 0o7777 | 0o011)),
        }
    }

    /// Answers clients from now on.
    pub fn serve(&self, reports: Reports<Event>) {
        tokio::task::spawn_local(accept(Rc::clone(&self.listener), Rc::clone(&self.desk), self.access, reports));
    }

    /// Whether a client waits for an answer and would be cut off now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.desk.is_busy()
    }

    /// Waits until no client waits for an answer.
    pub async fn rests(&self) {
        self.desk.empties().await;
    }

    /// Passes it on to the next program of this process.
    pub fn pass(&self, passing: &Passing) -> Passed {
        Passed { path: self.path.clone(), listener: passing.pass(&*self.listener), lock: None, file: self.file }
    }

    /// Takes over a control socket that was passed on.
    ///
    /// # Errors
    /// When a descriptor is missing, or the reactor cannot watch it.
    pub fn take(passed: Passed, taking: &Taking, access: Access) -> io::Result<ControlSocket> {
        let Passed { path, listener, lock, file } = passed;
        let listener = std::os::unix::net::UnixListener::from(taking.take(listener)?);
        listener.set_nonblocking(true)?;
        if let Some(lock) = lock {
            // An earlier version held a lock as long as it ran. The lock is not needed any more.
            let lock_path = path.with_extension("lock");
            let lock = nix::sys::stat::fstat(taking.take(lock)?)?;
            remove_if(&lock_path, Some((lock.st_dev, lock.st_ino)));
        }
        let found = || path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
        let file = file.or_else(found);
        let listener = Rc::new(UnixListener::from_std(listener)?);
        Ok(ControlSocket { path, file, listener, desk: Rc::default(), access })
    }
}

/// A control socket as it is passed on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    path: PathBuf,
    listener: Number,
    /// The lock file of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<Number>,
    #[serde(default)]
    file: Option<FileId>,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        remove_if(&self.path, self.file);
    }
}

/// Removes a file if it still is this one. No other user can change the directory.
fn remove_if(path: &Path, file: Option<FileId>) {
    let found = path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
    if found.is_some() && found == file {
        let _ = std::fs::remove_file(path);
    }
}

/// Waits until no other master of this directory is checking whether its name is free.
fn take_turn(directory: &Directory) -> Result<OwnedFd, ControlError> {
    use nix::fcntl::{OFlag, openat};
    let io = |source| ControlError::Io { path: directory.path().to_owned(), source };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = openat(directory, ".", flags, nix::sys::stat::Mode::empty()).map_err(|errno| io(errno.into()))?;
    // In a directory like /tmp any process can hold a lock, and for ever.
    match lock_within(opened.as_fd(), Lock::Exclusive, TURN_TIMEOUT).map_err(io)? {
        true => Ok(opened),
        false => Err(ControlError::Locked(directory.path().to_owned())),
    }
}

/// Removes what an earlier master of ours left there, and nothing else.
fn make_room(name: &str, path: &Path, directory: &Directory, file: &OsStr) -> Result<(), ControlError> {
    let io = |source| ControlError::Io { path: path.to_owned(), source };
    let occupied = |what| ControlError::Occupied { path: path.to_owned(), what };
    let found: FileStat = match directory.look(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(io)?,
    };
    if !is(&found, SFlag::S_IFSOCK) {
        return Err(occupied("there already and no socket"));
    }
    match listen::peer_at(path).map_err(io)? {
        Peer::Somebody => Err(ControlError::Taken { name: name.to_owned(), path: path.to_owned() }),
        Peer::OtherKind => Err(occupied("the socket of something else")),
        Peer::Nobody if found.st_uid != geteuid().as_raw() => Err(occupied("a socket of another user")),
        Peer::Nobody => directory.remove(file).map_err(io),
    }
}

async fn accept(listener: Rc<UnixListener>, desk: Rc<Desk>, access: Access, reports: Reports<Event>) {
    let mut failed: u64 = 0;
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let (place, dismissed) = desk.enter();
                tokio::task::spawn_local(serve(client, access, place, dismissed, Rc::clone(&desk), reports.clone()));
                // Comes before the next client, which may dismiss this one: it may have said what it wants already.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                failed += 1;
                if failed.is_power_of_two() {
                    warn!(%error, failed, "cannot accept on the control socket");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Reads the request of one client and answers it. The answer may take long, so a client that waits for it does not
/// count as one that says nothing.
async fn serve(
    mut client: UnixStream,
    access: Access,
    place: Place,
    dismissed: oneshot::Receiver<()>,
    desk: Rc<Desk>,
    reports: Reports<Event>,
) {
    let heard = tokio::select! {
        biased;
        heard = tokio::time::timeout(CLIENT_TIMEOUT, hear(&mut client, access)) => heard,
        _ = dismissed => Ok(Err("too many clients of the control socket say nothing; ask again".to_owned())),
    };
    place.has_spoken();
    let turn = match heard {
        Ok(Ok(Request::Status { usage: Usage::ForOthers })) => desk.answer_other(),
        _ => desk.answer(),
    };
    let answer = match heard {
        Ok(Ok(_)) if turn.is_none() => Err("too many clients wait for answers already; ask again later".to_owned()),
        // The next program answers, so the master takes the client now.
        Ok(Ok(Request::Upgrade)) => match client.into_std() {
            Ok(client) => {
                // A master that ends has no next program, and the client sees that it is gone.
                let _ = reports.send(Event::UpgradeAsked { client: client.into() }).await;
                return;
            }
            Err(error) => return debug!(%error, "a control client is lost"),
        },
        Ok(Ok(request)) => ask(request, reports).await,
        Ok(Err(error)) => Err(error),
        Err(_) => return debug!("a control client took too long"),
    };
    let answer = answer.unwrap_or_else(|error| serde_json::to_string(&Refusal { error }).unwrap_or_default());
    // Scripts that print the answer as it came are safe, too.
    let mut answer = visible::json(&answer).into_owned();
    answer.push('\n');
    // A client that is gone needs no answer.
    let _ = tokio::time::timeout(CLIENT_TIMEOUT, client.write_all(answer.as_bytes())).await;
    drop((turn, place));
}

async fn hear(client: &mut UnixStream, access: Access) -> Result<Request, String> {
    // The file's mode keeps others out already; this also covers a socket whose mode was changed.
    let peer = getsockopt(client, PeerCredentials).map_err(|errno| errno.to_string())?;
    let me = nix::unistd::geteuid().as_raw();
    let is_owner = peer.uid() == me || peer.uid() == 0;
    if !is_owner && !access.is_shared() {
        warn!(uid = peer.uid(), "refused a control client of another user");
        return Err(format!("this maitred belongs to user {me}"));
    }
    let mut line = String::new();
    let read = BufReader::new(client.take(REQUEST_MAX)).read_line(&mut line).await;
    read.map_err(|error| error.to_string())?;
    let request = serde_json::from_str(&line).map_err(|error| format!("cannot understand the request: {error}"))?;
    match request {
        _ if is_owner => Ok(request),
        Request::Status { .. } => Ok(Request::Status { usage: Usage::ForOthers }),
        _ => Err(format!("this maitred belongs to user {me}; others may ask for its status, and for nothing else")),
    }
}

async fn ask(request: Request, reports: Reports<Event>) -> Result<String, String> {
    let (answer, answered) = oneshot::channel();
    let gone = "the master is ending";
    reports.send(Event::Requested { request, answer }).await.map_err(|_| gone)?;
    answered.await.map_err(|_| gone.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_versions_passed_on_is_understood() {
        let passed: Passed = serde_json::from_str(r#"{"path":"/x.sock","listener":5,"lock":6}"#).unwrap();
        assert!(passed.lock.is_some() && passed.file.is_none());
        let passed = Passed { lock: None, file: Some((1, 2)), ..passed };
        let again: Passed = serde_json::from_str(&serde_json::to_string(&passed).unwrap()).unwrap();
        assert_eq!((again.lock.is_none(), again.file), (true, Some((1, 2))));
    }

    #[test]
    fn only_the_very_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "").unwrap();
        let id = path.symlink_metadata().map(|found| (found.dev(), found.ino())).ok();
        for other in [None, Some((1, 1))] {
            remove_if(&path, other);
            assert!(path.exists());
        }
        remove_if(&path, id);
        assert!(!path.exists());
        remove_if(&path, None);
    }
}
