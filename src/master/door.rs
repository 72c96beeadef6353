//! The other way to the master, for processes whose wrapper closed the control channel: an abstract
//! Unix socket. A connection carries one packet with the worker's token in it, and takes the answer.

use super::channel::{self, Said};
use super::event::{Event, Events, FromWorker};
use crate::core::ids::WorkerId;
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::watch;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// Visitors that are heard at once; further ones wait.
const VISITORS_MAX: usize = 64;
/// How long a visitor may take to say what it wants.
const VISIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The secrets by which visitors say whose they are.
pub type Tokens = Rc<RefCell<HashMap<String, WorkerId>>>;

/// The abstract socket.
#[derive(Debug)]
pub struct Door {
    name: String,
    socket: OwnedFd,
    /// Who may come in.
    pub tokens: Tokens,
    places: Arc<Semaphore>,
}

impl Door {
    /// Opens the door under a name that nobody can have taken before.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn open() -> io::Result<Door> {
        let name = format!("maitred-{}-{}", std::process::id(), secret()?);
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
        socket.listen(VISITORS_MAX as i32)?;
        socket.set_nonblocking(true)?;
        let places = Arc::new(Semaphore::new(VISITORS_MAX));
        Ok(Door { name, socket: socket.into(), tokens: Tokens::default(), places })
    }

    /// The socket's abstract name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether somebody is being heard, who would be cut off now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.places.available_permits() < VISITORS_MAX
    }

    /// Passes it on to the next program of this process: its name and its socket.
    pub fn pass(&self, passing: &Passing) -> (String, Number) {
        (self.name.clone(), passing.pass(&self.socket))
    }

    /// Takes over a door that was passed on; those who may come in are told later.
    ///
    /// # Errors
    /// When the descriptor is missing.
    pub fn take((name, number): (String, Number), taking: &Taking) -> io::Result<Door> {
        let places = Arc::new(Semaphore::new(VISITORS_MAX));
        Ok(Door { name, socket: taking.take(number)?, tokens: Tokens::default(), places })
    }

    /// Hears visitors from now on.
    ///
    /// # Errors
    /// When the reactor cannot watch the socket.
    pub fn serve(&self, events: Events) -> io::Result<()> {
        let socket = watch::readable(self.socket.try_clone()?)?;
        tokio::task::spawn_local(accept(socket, Arc::clone(&self.places), Rc::clone(&self.tokens), events));
        Ok(())
    }
}

/// 128 random bits in hexadecimal.
///
/// # Errors
/// When the system has no randomness to give.
pub fn secret() -> io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn accept(socket: AsyncFd<OwnedFd>, places: Arc<Semaphore>, tokens: Tokens, events: Events) {
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match accept_visitor(socket.get_ref().as_fd()) {
            Ok(visitor) => {
                let (tokens, events) = (Rc::clone(&tokens), events.clone());
                tokio::task::spawn_local(async move {
                    let _place = place;
                    if tokio::time::timeout(VISIT_TIMEOUT, hear(visitor, &tokens, &events)).await.is_err() {
                        debug!("a visitor said nothing");
                    }
                });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => {
                warn!(%error, "cannot let a worker's process in");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Says that somebody knocked who should not, but not each time: anybody on the machine can knock.
fn strange(what: &str) {
    static KNOCKS: AtomicU64 = AtomicU64::new(0);
    let knocks = KNOCKS.fetch_add(1, Ordering::Relaxed) + 1;
    if knocks.is_power_of_two() {
        warn!(knocks, "{what}");
    }
}

fn accept_visitor(door: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (visitor, _) = SockRef::from(&door).accept()?;
    visitor.set_nonblocking(true)?;
    Ok(visitor.into())
}

/// Reads the visitor's packet and passes it on if its token is a worker's.
async fn hear(visitor: OwnedFd, tokens: &Tokens, events: &Events) {
    let Ok(visitor) = watch::readable(visitor) else { return };
    loop {
        let Ok(mut ready) = visitor.readable().await else { return };
        match channel::read(visitor.get_ref().as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Ok(Some(Said::Packet { packet, fds, sender })) => {
                let worker = packet.token.as_ref().and_then(|token| tokens.borrow().get(token).copied());
                match worker {
                    Some(worker) => {
                        drop(ready);
                        let door = Some(visitor.into_inner());
                        let _ = events.send(Event::Packet(FromWorker { worker, packet, fds, sender, door })).await;
                    }
                    None => strange("a process without a worker's token knocked"),
                }
                return;
            }
            Ok(Some(Said::Malformed(_))) => {
                strange("a process knocked and said nonsense");
                return;
            }
            Ok(None) | Err(_) => return,
        }
    }
}
