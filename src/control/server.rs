//! The master's side of the control socket.

use super::{Refusal, Request};
use crate::core::visible;
use crate::master::event::{Event, Events};
use crate::sys::exec::{Number, Passing, Taking};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{debug, warn};

/// Clients that are served at once; further ones wait.
const CLIENTS_MAX: usize = 16;
/// Longest request.
const REQUEST_MAX: u64 = 4096;
/// How long a client may take to send its request or to read the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another master has this name.
    #[error("a maitred named {name:?} runs already (it holds {}); choose another --name, or stop it first", path.display())]
    Taken {
        /// The name that both want.
        name: String,
        /// The lock that the other one holds.
        path: PathBuf,
    },
    /// The directory is not this user's own.
    #[error("{} belongs to another user; set XDG_RUNTIME_DIR or give --control", .0.display())]
    ForeignDirectory(PathBuf),
    /// The system said no.
    #[error("cannot make the control socket {}: {source}; give another path with --control", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The control socket; removed when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    listener: Rc<UnixListener>,
    /// Clients that wait for an answer.
    clients: Rc<Cell<usize>>,
    /// Held as long as this master runs, so that a stale socket file is told from a live one.
    lock: Flock<File>,
}

impl ControlSocket {
    /// Takes the name. A socket file left over by a master that died is replaced.
    ///
    /// # Errors
    /// [`ControlError::Taken`] when another master with this name runs.
    pub fn bind(name: &str, path: &Path) -> Result<ControlSocket, ControlError> {
        let io = |source| ControlError::Io { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            make_private(dir, path)?;
        }
        let lock_path = path.with_extension("lock");
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path).map_err(io)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => ControlError::Taken { name: name.to_owned(), path: lock_path.clone() },
            errno => io(errno.into()),
        })?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
        Ok(ControlSocket { path: path.to_owned(), listener: Rc::new(listener), clients: Rc::default(), lock })
    }

    /// Answers clients from now on.
    pub fn serve(&self, events: Events) {
        tokio::task::spawn_local(accept(Rc::clone(&self.listener), Rc::clone(&self.clients), events));
    }

    /// Whether a client waits for an answer, who would be cut off now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.clients.get() > 0
    }

    /// Passes it on to the next program of this process.
    pub fn pass(&self, passing: &Passing) -> Passed {
        Passed { path: self.path.clone(), listener: passing.pass(&*self.listener), lock: passing.pass(&*self.lock) }
    }

    /// Takes over a control socket that was passed on.
    ///
    /// # Errors
    /// When a descriptor is missing, or the reactor cannot watch it.
    pub fn take(passed: Passed, taking: &Taking) -> io::Result<ControlSocket> {
        let listener = std::os::unix::net::UnixListener::from(taking.take(passed.listener)?);
        listener.set_nonblocking(true)?;
        // It is locked already, by the very same open file.
        let file = File::from(taking.take(passed.lock)?);
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
        let listener = Rc::new(UnixListener::from_std(listener)?);
        Ok(ControlSocket { path: passed.path, listener, clients: Rc::default(), lock })
    }
}

/// A control socket as it is passed on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    path: PathBuf,
    listener: Number,
    lock: Number,
}

/// Counts a client as long as it lives.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(clients: &Rc<Cell<usize>>) -> Counted {
        clients.set(clients.get() + 1);
        Counted(Rc::clone(clients))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // The lock file stays: removing it could take it from a master that has just opened it.
    }
}

/// Makes the directory of the default paths; one in a place that all users share must be ours.
fn make_private(dir: &Path, path: &Path) -> Result<(), ControlError> {
    let io = |source| ControlError::Io { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    let owner = std::fs::metadata(dir).map_err(io)?.uid();
    if dir == super::directory() && owner != nix::unistd::geteuid().as_raw() {
        return Err(ControlError::ForeignDirectory(dir.to_owned()));
    }
    Ok(())
}

async fn accept(listener: Rc<UnixListener>, clients: Rc<Cell<usize>>, events: Events) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let events = events.clone();
                let counted = Counted::new(&clients);
                tokio::task::spawn_local(async move {
                    serve(client, place, events).await;
                    drop(counted);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Hears one client and answers it. It holds its place only until it has said what it wants: what it
/// waits for then may take long, and the master bounds how many wait.
async fn serve(mut client: UnixStream, place: OwnedSemaphorePermit, events: Events) {
    let heard = tokio::time::timeout(CLIENT_TIMEOUT, hear(&mut client)).await;
    drop(place);
    let answer = match heard {
        // The answer is the next program's, so the client is the master's now.
        Ok(Ok(Request::Upgrade)) => match client.into_std() {
            Ok(client) => return drop(events.send(Event::Upgrade { client: Some(client.into()) }).await),
            Err(error) => return debug!(%error, "a control client is lost"),
        },
        Ok(Ok(request)) => ask(request, events).await,
        Ok(Err(error)) => Err(error),
        Err(_) => return debug!("a control client took too long"),
    };
    let answer = answer.unwrap_or_else(|error| serde_json::to_string(&Refusal { error }).unwrap_or_default());
    // Scripts that show it as it came are safe too.
    let mut answer = visible::json(&answer).into_owned();
    answer.push('\n');
    // A client that is gone needs no answer.
    let _ = tokio::time::timeout(CLIENT_TIMEOUT, client.write_all(answer.as_bytes())).await;
}

async fn hear(client: &mut UnixStream) -> Result<Request, String> {
    // The file's mode keeps others out already; this also covers a socket whose mode was changed.
    let peer = getsockopt(client, PeerCredentials).map_err(|errno| errno.to_string())?;
    let me = nix::unistd::geteuid().as_raw();
    if peer.uid() != me && peer.uid() != 0 {
        warn!(uid = peer.uid(), "refused a control client of another user");
        return Err(format!("this maitred belongs to user {me}"));
    }
    let mut line = String::new();
    let read = BufReader::new(client.take(REQUEST_MAX)).read_line(&mut line).await;
    read.map_err(|error| error.to_string())?;
    serde_json::from_str(&line).map_err(|error| format!("cannot understand the request: {error}"))
}

async fn ask(request: Request, events: Events) -> Result<String, String> {
    let (answer, answered) = oneshot::channel();
    let gone = "the master is ending";
    events.send(Event::Asked { request, answer }).await.map_err(|_| gone)?;
    answered.await.map_err(|_| gone.to_owned())
}
