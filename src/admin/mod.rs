//! Seen from outside: metrics, probes, events, and a page to look at, over HTTP. One app's master serves its own, and
//! `maitred admin` and `up --admin` those of all apps of the machine.
//!
//! It lives on a thread of its own, and asks masters as any client does: what happens here holds up no connection.

mod access;
mod answers;
mod apps;
mod connections;
mod metrics;
mod page;
mod stream;
mod token;

pub use apps::Source;

use crate::apps::places;
use crate::config::bind::Bind;
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::socket::listen::{self, Sharing};
use crate::wire::address::Address;
use access::Reach;
use answers::Admin;
use apps::Apps;
use connections::Place;
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use tracing::{error, info};

/// Connections in the kernel's queue.
const QUEUE: i32 = 128;
/// Threads that ask masters at their control sockets: each hangs as long as its master does.
const ASKING_MAX: usize = 64;

pub use token::{Token, TokenError};

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// An address cannot be had.
    #[error("cannot serve --admin {address}: {source}{}", advice(source))]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is no place for a token.
    #[error("there is no home directory in which a token could be kept; name a file with --admin-token-file")]
    NoHome,
    /// No thread can be made.
    #[error("cannot serve --admin: {0}")]
    Thread(io::Error),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has it (see ss -ltnp): choose another address",
        io::ErrorKind::PermissionDenied => "; choose a port above 1023, or a directory that is yours",
        _ => "",
    }
}

/// Where the token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFile {
    /// The operator's.
    Given(PathBuf),
    /// Ours, made if it is not there.
    Kept(PathBuf),
}

impl TokenFile {
    /// The operator's, or the one that is kept for the app with this name.
    ///
    /// # Errors
    /// When there is no place for one.
    pub fn of(given: Option<PathBuf>, name: &str) -> Result<TokenFile, AdminError> {
        let kept = || places::token(name).map(TokenFile::Kept);
        given.map(TokenFile::Given).or_else(kept).ok_or(AdminError::NoHome)
    }

    fn token(&self) -> Result<Token, TokenError> {
        match self {
            TokenFile::Given(path) => Token::read(path),
            TokenFile::Kept(path) => Token::kept(path),
        }
    }
}

/// Addresses that are bound, and the token. They serve nobody yet.
#[derive(Debug)]
pub struct Bound {
    places: Vec<Place>,
    token: Token,
}

/// The thread that serves. It ends when this is dropped.
#[derive(Debug)]
pub struct Serving {
    /// Copies of the sockets, for the next program of this process.
    sockets: Vec<Place>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bound {
    /// Binds the addresses, and reads or makes the token.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn bind(addresses: &[Bind], token: &TokenFile) -> Result<Bound, AdminError> {
        let places = addresses.iter().map(sockets).collect::<Result<Vec<_>, _>>()?;
        Ok(Bound { places: places.into_iter().flatten().collect(), token: token.token()? })
    }

    /// Takes over sockets that another program of this process bound.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn take(passed: Vec<Passed>, token: &TokenFile, taking: &Taking) -> Result<Bound, AdminError> {
        let place = |passed: Passed| {
            let Passed { address, reach, path, socket } = passed;
            let socket = taking.take(socket).map_err(|source| AdminError::Bind { address: address.clone(), source })?;
            Ok::<_, AdminError>(Place { address, socket: socket.into(), reach, path })
        };
        let places = passed.into_iter().map(place).collect::<Result<Vec<_>, _>>()?;
        Ok(Bound { places, token: token.token()? })
    }

    /// Serves them from now on.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn serve(self, source: Source) -> Result<Serving, AdminError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(ASKING_MAX).build();
        let runtime = runtime.map_err(AdminError::Thread)?;
        for place in &self.places {
            info!(address = %place.address, "serving metrics, probes, events and the page");
        }
        let sockets =
            self.places.iter().map(Place::copy).collect::<io::Result<Vec<_>>>().map_err(AdminError::Thread)?;
        let admin = Arc::new(Admin::new(Apps::of(source), self.token));
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            let served = runtime.block_on(async {
                tokio::select! {
                    served = connections::serve(self.places, admin) => served,
                    _ = stopped => Ok(()),
                }
            });
            if let Err(error) = served {
                error!(%error, "metrics, probes, events and the page are not served any more");
            }
            // Nobody waits for a master that hangs.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("admin".into()).spawn(serve).map_err(AdminError::Thread)?;
        Ok(Serving { sockets, stop: Some(stop), thread: Some(thread) })
    }
}

impl Serving {
    /// Passes its sockets on to the next program of this process.
    pub fn pass(&self, passing: &Passing) -> Vec<Passed> {
        let pass = |place: &Place| Passed {
            address: place.address.clone(),
            reach: place.reach,
            path: place.path.clone(),
            socket: passing.pass(&place.socket),
        };
        self.sockets.iter().map(pass).collect()
    }
}

/// A socket as it is passed on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    address: String,
    reach: Reach,
    path: Option<PathBuf>,
    socket: Number,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It has nothing to finish.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The sockets of an address.
fn sockets(bind: &Bind) -> Result<Vec<Place>, AdminError> {
    match bind {
        // One socket for both families, or without IPv6 for the other one.
        Bind::Any(port) => {
            let bound = tcp(([0u16; 8], *port).into());
            let absent = |error: &AdminError| matches!(error, AdminError::Bind { source, .. } if source.raw_os_error() == Some(libc::EAFNOSUPPORT));
            Ok(vec![if bound.as_ref().is_err_and(absent) { tcp(([0u8; 4], *port).into())? } else { bound? }])
        }
        Bind::Tcp(addresses) => addresses.iter().map(|address| tcp(*address)).collect(),
        Bind::Unix { path, mode } => {
            let address = format!("unix:{}", path.display());
            let bound = listen::bind_unix(path, Some(mode.unwrap_or(0o600)));
            let mut place = place(address, bound, Reach::File)?;
            place.path = Some(path.clone());
            Ok(vec![place])
        }
        Bind::Abstract(_) | Bind::Inherited(_) => {
            let source = io::ErrorKind::Unsupported.into();
            Err(AdminError::Bind { address: format!("{bind:?}"), source })
        }
    }
}

fn tcp(address: SocketAddr) -> Result<Place, AdminError> {
    let reach = if address.ip().is_loopback() { Reach::Machine } else { Reach::Network };
    let bound = listen::bind(&Address::Tcp(address), Sharing::Alone);
    let shown = bound.as_ref().ok().and_then(|socket| listen::local_address(socket).ok());
    let shown = shown.map_or(address.to_string(), |address| address.to_string().trim_start_matches("tcp:").to_owned());
    place(shown, bound, reach)
}

fn place(address: String, bound: io::Result<Socket>, reach: Reach) -> Result<Place, AdminError> {
    let ready = bound.and_then(|socket| {
        socket.listen(QUEUE)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    let socket = ready.map_err(|source| AdminError::Bind { address: address.clone(), source })?;
    Ok(Place { address, socket, reach, path: None })
}
