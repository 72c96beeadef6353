//! Options of sockets: what is copied from one to another.

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Options that an accepted connection inherits from its listener, or that act on the listener
/// itself: what a worker sets on its own socket must reach the listener that serves in its place.
const INHERITED: [(libc::c_int, libc::c_int); 14] = [
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
];

/// What a socket says about sharing its address: `SO_REUSEADDR`, `SO_REUSEPORT` and `IPV6_V6ONLY`.
#[must_use]
pub fn reuse(socket: BorrowedFd<'_>) -> (bool, bool, bool) {
    let socket = socket2::SockRef::from(&socket);
    let set = |option: io::Result<bool>| option.unwrap_or(false);
    (set(socket.reuse_address()), set(socket.reuse_port()), set(socket.only_v6()))
}

/// A fresh socket of the same family with the options of `like`, bound to nothing.
///
/// # Errors
/// When no descriptor is free.
pub fn with_options_of(like: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let socket = Socket::new(socket2::SockRef::from(&like).domain()?, Type::STREAM, None)?;
    let (reuse_address, reuse_port, only_v6) = reuse(like);
    if socket.domain()? == Domain::IPV6 {
        socket.set_only_v6(only_v6)?;
    }
    if !matches!(socket.domain()?, Domain::UNIX) {
        socket.set_reuse_address(reuse_address)?;
        socket.set_reuse_port(reuse_port)?;
    }
    copy_options(like, socket.as_fd());
    Ok(socket.into())
}

/// Copies those options of `from` that differ on `to`. An option that the kernel refuses is skipped: the listener
/// works without it.
pub fn copy_options(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    for (level, option) in INHERITED {
        let (wanted, present) = (int_option(from, level, option), int_option(to, level, option));
        if let Some(value) = wanted.filter(|_| wanted != present) {
            let _ = set_int_option(to, level, option, value);
        }
    }
    if let (Ok(wanted), Ok(present)) = (getsockopt(&from, sockopt::Linger), getsockopt(&to, sockopt::Linger))
        && (wanted.l_onoff, wanted.l_linger) != (present.l_onoff, present.l_linger)
    {
        let _ = nix::sys::socket::setsockopt(&to, sockopt::Linger, &wanted);
    }
    // The kernel reports twice what was asked (`socket(7)`); a size left at its default is tuned by
    // TCP itself and must stay so.
    let fresh = Socket::new(Domain::IPV4, Type::STREAM, None);
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        let Ok(fresh) = &fresh else { break };
        let wanted = int_option(from, libc::SOL_SOCKET, option);
        if let Some(value) = wanted.filter(|_| wanted != int_option(fresh.as_fd(), libc::SOL_SOCKET, option)) {
            let _ = set_int_option(to, libc::SOL_SOCKET, option, value / 2);
        }
    }
}

fn int_option(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`.
    let ret = unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len) };
    (ret == 0).then_some(value)
}

pub(super) fn set_int_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`.
    let ret = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
