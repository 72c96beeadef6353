//! Listening sockets: making, adopting, accepting, and what the kernel tells about them.

mod bind;
mod options;
mod settings;

pub use bind::{
    Peer, Sharing, adopt, adopt_datagram, bind, bind_beside, bind_instead, bind_unix, bind_unix_new, claim,
    is_free_for_datagrams, peer_at,
};
pub use options::{copy_options, reuse, with_options_of};
pub use settings::{BACKLOG, ephemeral_ports, longest_queue};

use crate::sys::dispose::Foreign;
use crate::wire::address::Address;
use nix::sys::socket::{getsockopt, sockopt};
use options::set_int_option;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The result of an attempt to accept.
#[derive(Debug)]
pub enum Accepted {
    /// A connection and its peer's address.
    Connection(OwnedFd, SockAddr),
    /// No connection waits.
    Empty,
    /// A signal ended a call that waited (`EINTR`).
    Interrupted,
    /// The peer or the network ended the connection before it was accepted; the next one may be there.
    Aborted(io::Error),
    /// Descriptors or memory ran out, here or in the whole system (`EMFILE`, `ENFILE`, `ENOBUFS`,
    /// `ENOMEM`). Trying again at once would spin.
    Exhausted(io::Error),
}

/// Accepts one connection, close-on-exec and blocking, as a plain `accept` gives it.
///
/// # Errors
/// Only errors that say that the listener itself is unusable.
#[inline]
pub fn accept(listener: &Socket) -> io::Result<Accepted> {
    let error = match listener.accept() {
        Ok((socket, peer)) => return Ok(Accepted::Connection(socket.into(), peer)),
        Err(error) => error,
    };
    Ok(match error.raw_os_error() {
        Some(libc::EAGAIN) => Accepted::Empty,
        Some(libc::EINTR) => Accepted::Interrupted,
        // Errors of the connection, not of the listener (`accept(2)`, "Error handling").
        Some(
            libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::EPERM,
        ) => Accepted::Aborted(error),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Accepted::Exhausted(error),
        _ => return Err(error),
    })
}

/// A peer's address as the kernel wrote it.
#[must_use]
pub fn peer_bytes(peer: &SockAddr) -> &[u8] {
    // SAFETY: a SockAddr is a sockaddr_storage of which `len` bytes are used; it is initialised.
    unsafe { std::slice::from_raw_parts(peer.as_ptr().cast(), peer.len() as usize) }
}

/// The peer's address of a connection; only a family when it has none any more.
#[must_use]
pub fn peer_of(connection: BorrowedFd<'_>) -> SockAddr {
    let socket = socket2::SockRef::from(&connection);
    socket.peer_addr().unwrap_or_else(|_| SockAddr::from(std::net::SocketAddr::from(([0, 0, 0, 0], 0))))
}

/// The number that the kernel gives a socket and never uses again (`SO_COOKIE`, `socket(7)`); nothing where
/// it has none.
#[must_use]
pub fn cookie(socket: BorrowedFd<'_>) -> Option<u64> {
    socket2::SockRef::from(&socket).cookie().ok()
}

/// Whether a descriptor can be a connection that was accepted at an address, as a returned one must be: a connected
/// stream with the listener's own port or name. Any other descriptor would make another worker wait for something
/// that no client sent. A listener that takes connections to any address (`IP_TRANSPARENT`, `ip(7)`, for privileged
/// processes) has no port that all of them share.
#[must_use]
pub fn is_accepted_at(fd: BorrowedFd<'_>, address: &Address) -> bool {
    let listening = getsockopt(&fd, sockopt::AcceptConn).unwrap_or(true);
    let socket = socket2::SockRef::from(&fd);
    if listening || !socket.r#type().is_ok_and(|kind| kind == Type::STREAM) {
        return false;
    }
    match (address, socket.local_addr().ok()) {
        (Address::Tcp(address), Some(name)) => {
            let port = name.as_socket().map(|name| name.port());
            port == Some(address.port()) || port.is_some() && socket.ip_transparent_v4().unwrap_or(false)
        }
        (Address::Unix(_) | Address::Abstract(_), Some(name)) => address_of(&name).as_ref() == Some(address),
        (_, None) => false,
    }
}

/// Whether a socket belongs to the network namespace in which this process makes its own sockets (`SO_NETNS_COOKIE`,
/// `socket(7)`, Linux 5.14); where the kernel does not say, it is assumed to.
#[must_use]
pub fn is_of_this_network(socket: BorrowedFd<'_>) -> bool {
    let own = Socket::new(Domain::IPV4, Type::STREAM, None).ok().and_then(|own| network(own.as_fd()));
    own.is_none() || network(socket).is_none_or(|theirs| Some(theirs) == own)
}

/// The cookie of a socket's network namespace.
fn network(socket: BorrowedFd<'_>) -> Option<u64> {
    /// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h).
    const NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), (&raw mut cookie).cast());
    // SAFETY: the kernel writes at most `len` bytes to `cookie`.
    let ret = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, NETNS_COOKIE, value, &raw mut len) };
    (ret == 0).then_some(cookie)
}

/// Whether only one interface reaches a socket (`SO_BINDTODEVICE`).
#[must_use]
pub fn is_bound_to_interface(socket: BorrowedFd<'_>) -> bool {
    socket2::SockRef::from(&socket).device().is_ok_and(|name| name.is_some_and(|name| !name.is_empty()))
}

/// The local address of a connection that the kernel finds by its two addresses; nothing for one that is bound to an
/// interface, since the interface would have to be known, too.
#[must_use]
pub fn askable(connection: BorrowedFd<'_>) -> Option<SocketAddr> {
    let local = socket2::SockRef::from(&connection).local_addr().ok()?.as_socket()?;
    let plain = match local {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(local) => local.scope_id() == 0,
    };
    plain.then_some(local)
}

/// Gives a socket a name in the abstract namespace, by which its peer knows it (`getpeername(2)`).
///
/// # Errors
/// That of `bind(2)`.
pub fn name_abstractly(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    socket2::SockRef::from(&socket).bind(&SockAddr::unix(format!("\0{name}"))?)
}

/// Lets a socket that was shut down listen again at its address (`listen(2)` after `shutdown(2)` works with TCP). If
/// the kernel had chosen the port itself, it took the port away, so the port is requested again first: otherwise the
/// socket would listen on another one.
///
/// # Errors
/// That of `bind(2)` or `listen(2)`: a Unix socket cannot listen again, nor can one that was connected.
pub fn listen_again(socket: &Socket, address: &Address, backlog: u32) -> io::Result<()> {
    if !is_at(socket, address) {
        socket.bind(&name_of(address)?)?;
    }
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    // Another holder may have bound it elsewhere in between.
    if is_at(socket, address) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)) }
}

/// Whether a socket is bound to this address.
fn is_at(socket: &Socket, address: &Address) -> bool {
    local_address(socket).is_ok_and(|at| at == *address)
}

/// Whether `listen(2)` was called on it.
#[must_use]
pub fn is_listening(socket: &Socket) -> bool {
    getsockopt(socket, sockopt::AcceptConn).unwrap_or(false)
}

/// Whether a descriptor is a stream socket of a kind that the master manages: TCP, which several paths may carry
/// (MPTCP), or Unix.
#[must_use]
pub fn is_stream(fd: BorrowedFd<'_>) -> bool {
    let socket = socket2::SockRef::from(&fd);
    let managed = [None, Some(socket2::Protocol::TCP), Some(socket2::Protocol::MPTCP)];
    socket.r#type().is_ok_and(|kind| kind == Type::STREAM) && socket.protocol().is_ok_and(|p| managed.contains(&p))
}

/// Whether a socket was made by this process's own user.
#[must_use]
pub fn is_of_this_user(socket: BorrowedFd<'_>) -> bool {
    nix::sys::stat::fstat(socket).is_ok_and(|found| found.st_uid == nix::unistd::geteuid().as_raw())
}

/// Whether it can be in a group of sockets among which a program steers: the kernel supports only plain TCP there.
#[must_use]
pub fn is_steerable(fd: BorrowedFd<'_>) -> bool {
    socket2::SockRef::from(&fd).protocol().is_ok_and(|protocol| protocol == Some(socket2::Protocol::TCP))
}

fn name_of(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Tcp(addr) => Ok(SockAddr::from(*addr)),
        Address::Unix(path) => SockAddr::unix(path),
        Address::Abstract(name) => SockAddr::unix(format!("\0{name}")),
    }
}

/// Bytes of a path in a socket's name (unix(7)); one of them is for the zero at its end.
const SUN_PATH: usize = 108;

/// The name of a socket file for the kernel, which takes 107 bytes (`sun_path`, unix(7)). A program with a long working
/// directory uses a relative name; here the directory is opened instead, and must stay open while the name is used.
fn name_of_file(path: &Path) -> io::Result<(SockAddr, Option<OwnedFd>)> {
    if path.as_os_str().len() < SUN_PATH {
        return Ok((SockAddr::unix(path)?, None));
    }
    let directory = crate::sys::socket::socket_file::open_directory(path)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    let name = SockAddr::unix(short.join(path.file_name().unwrap_or_default()))?;
    Ok((name, Some(directory)))
}

/// Where a socket is really bound, as the control channel names it.
///
/// # Errors
/// When it is bound to nothing that has a name.
pub fn local_address(socket: &Socket) -> io::Result<Address> {
    address_of(&socket.local_addr()?).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

fn address_of(name: &SockAddr) -> Option<Address> {
    let unix = || name.as_pathname().map(|p| Address::Unix(p.to_owned()));
    let abstract_name = || {
        let bytes = name.as_abstract_namespace()?;
        Some(Address::Abstract(String::from_utf8_lossy(bytes).into_owned()))
    };
    name.as_socket().map(Address::Tcp).or_else(unix).or_else(abstract_name)
}

/// The same for a socket that other code owns.
///
/// # Errors
/// As for [`local_address`].
pub fn local_address_of(socket: BorrowedFd<'_>) -> io::Result<Address> {
    local_address(&socket2::SockRef::from(&socket))
}

/// Connections that wait in the kernel's accept queue (`tcpi_unacked` of a listening socket); 0 for
/// families that do not tell.
#[must_use]
pub fn queued(listener: BorrowedFd<'_>) -> u32 {
    tcp_info(listener).map_or(0, |info| info.tcpi_unacked)
}

/// What can be accepted from a socket that another process also holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// This many connections: accepting no more than these never waits, whatever the mode of the file is.
    Known(u32),
    /// The kernel does not tell; the file was made non-blocking a moment ago.
    Unknown,
}

/// How many connections wait at a listening socket of which another process may clear `O_NONBLOCK` (`tcpi_unacked`).
/// It is one call, like the `accept` that it saves, which would only say that there are no more.
///
/// # Errors
/// `EINVAL`, as from `accept(2)`, when the socket does not listen any more: another holder shut it down, or connected
/// it.
pub fn waiting(listener: &Socket) -> io::Result<Waiting> {
    match tcp_info(listener.as_fd()) {
        Some(info) if info.tcpi_state == TCP_LISTEN => Ok(Waiting::Known(info.tcpi_unacked)),
        Some(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        None => crate::sys::fd::set_nonblocking(listener.as_fd()).map(|()| Waiting::Unknown),
    }
}

/// `TCP_LISTEN` (include/net/tcp_states.h).
const TCP_LISTEN: u8 = 10;

/// What TCP knows about a socket; nothing for other families.
fn tcp_info(socket: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    // SAFETY: a zeroed tcp_info is valid, and the kernel writes at most `len` bytes of it.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        let ret = libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut info).cast(), &raw mut len);
        (ret == 0).then_some(info)
    }
}

/// Makes the kernel hold back a connection until its first bytes are there, or until about this time has passed
/// (`TCP_DEFER_ACCEPT`, `tcp(7)`; the kernel counts in repetitions of its part of the handshake). Sockets of other
/// families have no such option and stay as they are.
///
/// # Errors
/// That of `setsockopt(2)`.
pub fn defer(listener: &Socket, time: Duration) -> io::Result<()> {
    if !matches!(listener.domain()?, Domain::IPV4 | Domain::IPV6) {
        return Ok(());
    }
    let seconds = libc::c_int::try_from(time.as_secs()).unwrap_or(libc::c_int::MAX);
    set_int_option(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// How long ago a connection came to which nothing has been written yet (`tcpi_last_data_sent`, which begins to count
/// when the connection does; the client cannot reset it); nothing for other families.
#[must_use]
pub fn waited(connection: BorrowedFd<'_>) -> Option<Duration> {
    tcp_info(connection).map(|info| Duration::from_millis(u64::from(info.tcpi_last_data_sent)))
}

/// Drops every packet that comes to a listening socket from now on: no new connection gets in, and what waits in its
/// queue stays (`SO_ATTACH_FILTER`, socket(7); `tcp_v4_rcv` in net/ipv4/tcp_ipv4.c). Clients try again until the socket
/// is closed, and are refused then.
///
/// # Errors
/// That of `setsockopt(2)`.
pub fn drop_everything(socket: &Socket) -> io::Result<()> {
    // "Return 0": keep no byte of the packet.
    socket.attach_filter(&[socket2::SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0)])
}
