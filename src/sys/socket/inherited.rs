//! Sockets that were left open for this process when it was started: those that `--bind fd://N` names, and those that
//! a service manager passes (`sd_listen_fds(3)`).
//!
//! They are taken before this process opens anything of its own, since only then is an open number known to be
//! inherited; later, `fd://11` could be the master's own control socket. Each number is taken once and has one owner.

use crate::sys::socket::listen;
use crate::sys::socket::stored::{self, Stored};
use crate::wire::environment::{LISTEN_FDNAMES, LISTEN_FDS, LISTEN_PID};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{self, Display};
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// The first number that a service manager passes (`SD_LISTEN_FDS_START`).
pub const FIRST: RawFd = 3;
/// Most sockets that are taken from a service manager; as many addresses may be held.
pub const PASSED_MAX: i32 = 1024;

/// The sockets, by number.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: BTreeMap<RawFd, Socket>,
    /// Those that an earlier master had, and a manager kept.
    stored: Vec<Socket>,
}

/// What named a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// `--bind fd://N`.
    Bind,
    /// `LISTEN_FDS`.
    Manager,
}

impl Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NamedBy::Bind => "--bind",
            NamedBy::Manager => LISTEN_FDS,
        })
    }
}

/// Why a socket that was named cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotInherited {
    /// The same number was asked for twice.
    #[error("--bind names fd://{0} twice; one socket is one address, leave one of them out")]
    Twice(RawFd),
    /// `LISTEN_FDS` is no number of descriptors.
    #[error(
        "{LISTEN_FDS}={0:?} is no number of descriptors from 0 to {PASSED_MAX}; whoever starts maitred sets it, \
         together with {LISTEN_PID}: correct it there, or unset both"
    )]
    Count(String),
    /// There is no descriptor with this number.
    #[error(
        "cannot use descriptor {0} (named by {1}): nothing is open there; whoever starts maitred must pass the socket \
         under that number, without close-on-exec"
    )]
    Missing(RawFd, NamedBy),
    /// It is not a socket to listen on.
    #[error("cannot use descriptor {0} (named by {1}): it is {2}; pass a TCP or Unix stream socket that is bound")]
    Unfit(RawFd, NamedBy, &'static str),
    /// It cannot be examined.
    #[error("cannot use descriptor {0} (named by {1}): {2}")]
    Unknown(RawFd, NamedBy, io::Error),
}

impl Inherited {
    /// Takes the sockets under the numbers that `--bind` names and those that a service manager passed. Call this
    /// once in the life of the process, before anything else is opened.
    ///
    /// # Errors
    /// [`NotInherited`] for the first socket that cannot be used.
    pub fn take(named: &[RawFd]) -> Result<Inherited, NotInherited> {
        let passed = passed_count()?;
        let mut sockets = BTreeMap::new();
        for &number in named {
            if sockets.contains_key(&number) {
                return Err(NotInherited::Twice(number));
            }
            sockets.insert(number, one(number, NamedBy::Bind)?);
        }
        let names = std::env::var(LISTEN_FDNAMES).unwrap_or_default();
        let names = names.split(':').chain(std::iter::repeat(""));
        let mut stored = Vec::new();
        for (number, name) in (FIRST..FIRST + passed).zip(names) {
            let Entry::Vacant(place) = sockets.entry(number) else { continue };
            match one(number, NamedBy::Manager) {
                // One that is of no use any more is no reason not to start.
                found if stored::is_name(name) => stored.extend(found.ok()),
                found => drop(place.insert(found?)),
            }
        }
        Ok(Inherited { sockets, stored })
    }

    /// The socket with this number, which the caller then owns.
    pub fn remove(&mut self, number: RawFd) -> Option<Socket> {
        self.sockets.remove(&number)
    }

    /// Those that an earlier master had, and a service manager kept since.
    pub fn stored(&mut self) -> Stored {
        Stored::new(std::mem::take(&mut self.stored))
    }

    /// The sockets that were not removed.
    pub fn rest(self) -> impl Iterator<Item = (RawFd, Socket)> {
        self.sockets.into_iter()
    }
}

/// How many sockets a service manager passed to this process itself.
fn passed_count() -> Result<i32, NotInherited> {
    let pid = std::env::var(LISTEN_PID).ok().and_then(|value| value.trim().parse().ok());
    let Some(text) = std::env::var_os(LISTEN_FDS).filter(|_| pid == Some(Pid::this().as_raw())) else { return Ok(0) };
    let count =
        text.to_str().and_then(|text| text.trim().parse().ok()).filter(|count| (0..=PASSED_MAX).contains(count));
    count.ok_or_else(|| NotInherited::Count(text.to_string_lossy().into_owned()))
}

fn one(number: RawFd, by: NamedBy) -> Result<Socket, NotInherited> {
    let fd = crate::sys::fd::inherited(number).map_err(|error| match error.raw_os_error() {
        Some(libc::EBADF) => NotInherited::Missing(number, by),
        _ => NotInherited::Unknown(number, by, error),
    })?;
    let unfit = |what| NotInherited::Unfit(number, by, what);
    is_fit(fd).map_err(|why| match why {
        Unfit::Is(what) => unfit(what),
        Unfit::Unknown(error) => NotInherited::Unknown(number, by, error),
    })
}

enum Unfit {
    Is(&'static str),
    Unknown(io::Error),
}

fn is_fit(fd: OwnedFd) -> Result<Socket, Unfit> {
    let socket = Socket::from(fd);
    match socket.r#type() {
        Ok(Type::STREAM) => {}
        Ok(_) => return Err(Unfit::Is("no stream socket")),
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => return Err(Unfit::Is("no socket")),
        Err(error) => return Err(Unfit::Unknown(error)),
    }
    if !matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6 | Domain::UNIX)) {
        return Err(Unfit::Is("a socket of a family that maitred does not serve"));
    }
    if getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false) {
        return Ok(socket);
    }
    if socket.peer_addr().is_ok() {
        return Err(Unfit::Is("a connection"));
    }
    // Listening on it would let the kernel choose an address that was not asked for.
    let is_bound = listen::local_address(&socket).is_ok_and(|address| !address.is_ephemeral());
    if is_bound { Ok(socket) } else { Err(Unfit::Is("a socket that is bound to no address")) }
}
