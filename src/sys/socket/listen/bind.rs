//! Binds listening sockets: new ones, replacements of old ones, and those that workers made.

use super::*;

/// Which other sockets may be bound to the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// None: a second master is told that the address is taken.
    Alone,
    /// Further sockets of this master, one for each slot (`SO_REUSEPORT`). The kernel would let a second
    /// master of the same user in as well, so the first socket is bound only if one without that
    /// option could be.
    Group,
}

/// Makes a socket bound to a TCP address or an abstract name, with `SO_REUSEADDR`.
///
/// # Errors
/// That of `bind(2)` above all.
pub fn bind(address: &Address, sharing: Sharing) -> io::Result<Socket> {
    let name = name_of(address)?;
    let domain = Domain::from(i32::from(name.family()));
    let socket = Socket::new(domain, Type::STREAM, None)?;
    if domain == Domain::IPV6 {
        // `[::]` means both families, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    bind_socket(&socket, &name, sharing)?;
    Ok(socket)
}

/// Makes one more socket of the group that `first` is in, with the same options.
///
/// # Errors
/// That of `bind(2)` above all.
pub fn bind_beside(first: &Socket) -> io::Result<Socket> {
    let name = first.local_addr()?;
    let domain = Domain::from(i32::from(name.family()));
    let socket = Socket::new(domain, Type::STREAM, None)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(first.only_v6()?)?;
    }
    copy_options(first.as_fd(), socket.as_fd());
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&name)?;
    Ok(socket)
}

/// Makes a socket of this process that replaces one that others hold, with its options, bound but not yet listening.
/// The old one is shut down: two sockets cannot listen on one address.
///
/// # Errors
/// That of `bind(2)`, above all when another holder of the old socket listens on it once more.
pub fn bind_instead(old: &Socket, address: &Address, sharing: Sharing) -> io::Result<Socket> {
    let name = name_of(address)?;
    let socket = Socket::new(Domain::from(i32::from(name.family())), Type::STREAM, None)?;
    if name.is_ipv6() {
        socket.set_only_v6(old.only_v6().unwrap_or(false))?;
    }
    copy_options(old.as_fd(), socket.as_fd());
    // The kernel lets two sockets that do not listen have the same address, if both have this option.
    let _ = old.set_reuse_address(true);
    let _ = old.shutdown(std::net::Shutdown::Both);
    bind_socket(&socket, &name, sharing)?;
    Ok(socket)
}

/// Binds a worker's own socket, which thereby becomes the listener with all options that the
/// worker set. One that is bound already (to a port that the kernel chose) stays as it is. A socket
/// file gets the mode that the worker's own mask gives it.
///
/// # Errors
/// That of `bind(2)` above all.
pub fn adopt(own: &Foreign, address: &Address, umask: Option<u32>, sharing: Sharing) -> io::Result<Socket> {
    // The original is closed when all is done, in a closing thread; this copy becomes the listener.
    let socket = Socket::from(own.as_fd().try_clone_to_owned()?);
    if socket.r#type()? != Type::STREAM {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if socket.peer_addr().is_ok() {
        // As the kernel's own `bind` answers for a connection.
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if is_bound(&socket) {
        // Sharing the address can still be allowed.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(sharing == Sharing::Group)?;
    } else {
        let (name, _directory) = match address {
            Address::Unix(path) => name_of_file(path)?,
            Address::Tcp(_) | Address::Abstract(_) => (name_of(address)?, None),
        };
        match umask {
            Some(mask) => with_umask(mask, || bind_socket(&socket, &name, sharing))?,
            None => bind_socket(&socket, &name, sharing)?,
        }
    }
    Ok(socket)
}

/// Binds a worker's own socket, which stays the worker's.
///
/// # Errors
/// That of `bind(2)` above all.
pub fn claim(own: &Foreign, address: &Address, sharing: Sharing) -> io::Result<()> {
    bind_socket(&Socket::from(own.as_fd().try_clone_to_owned()?), &name_of(address)?, sharing)
}

/// Binds a worker's own UDP socket, which all workers share from then on; a group has one for each slot.
///
/// # Errors
/// That of `bind(2)` above all.
pub fn adopt_datagram(own: &Foreign, address: std::net::SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::from(own.as_fd().try_clone_to_owned()?);
    if socket.r#type()? != Type::DGRAM {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let before = socket.reuse_port()?;
    if sharing == Sharing::Group {
        socket.set_reuse_port(true)?;
    }
    let bound = socket.bind(&SockAddr::from(address));
    if bound.is_err() {
        // The socket stays the worker's, as it was.
        socket.set_reuse_port(before)?;
    }
    bound.map(|()| socket)
}

/// Whether an address is free for the first of a group of UDP sockets: with `SO_REUSEPORT`, the kernel would also let a
/// second master of the same user in.
///
/// # Errors
/// That of `bind(2)`.
pub fn is_free_for_datagrams(address: std::net::SocketAddr) -> io::Result<()> {
    let probe = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        probe.set_only_v6(true)?;
    }
    probe.bind(&SockAddr::from(address))
}

/// Whether it has a port already.
fn is_bound(socket: &Socket) -> bool {
    socket.local_addr().is_ok_and(|name| name.as_socket().is_some_and(|address| address.port() != 0))
}

fn bind_socket(socket: &Socket, name: &SockAddr, sharing: Sharing) -> io::Result<()> {
    if name.is_unix() {
        return socket.bind(name);
    }
    let before = (socket.reuse_address()?, socket.reuse_port()?);
    let bound = bind_with_company(socket, name, sharing);
    if bound.is_err() {
        // The socket stays the worker's, as it was.
        socket.set_reuse_address(before.0)?;
        socket.set_reuse_port(before.1)?;
    }
    bound
}

fn bind_with_company(socket: &Socket, name: &SockAddr, sharing: Sharing) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::Group)?;
    let chosen = name.as_socket().is_some_and(|address| address.port() != 0);
    if sharing == Sharing::Group && chosen {
        let probe = Socket::new(socket.domain()?, Type::STREAM, None)?;
        if socket.domain()? == Domain::IPV6 {
            probe.set_only_v6(socket.only_v6()?)?;
        }
        probe.set_reuse_address(true)?;
        probe.bind(name)?;
    }
    socket.bind(name)
}

/// Makes a Unix socket at `path`. A socket file on which no process listens any more is removed first. Anything else
/// at the path is left there, and the call fails.
///
/// # Errors
/// `AddrInUse` when a process listens there; `AlreadyExists` when it is no socket.
pub fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Socket> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match peer_at(path)? {
            Peer::Nobody => remove_dead(path, (found.dev(), found.ino()))?,
            Peer::Somebody | Peer::OtherKind => return Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
        },
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    bind_unix_new(path, mode)
}

/// Removes the file that was looked at a moment ago, but not another one that has its name by now.
fn remove_dead(path: &Path, file: (u64, u64)) -> io::Result<()> {
    use nix::fcntl::AtFlags;
    let directory = crate::sys::socket::socket_file::open_directory(path)?;
    let name = path.file_name().unwrap_or_default();
    let found = nix::sys::stat::fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if (found.st_dev, found.st_ino) != file {
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    }
    Ok(nix::unistd::unlinkat(&directory, name, nix::unistd::UnlinkatFlags::NoRemoveDir)?)
}

/// Makes a Unix socket at a path where nothing is.
///
/// # Errors
/// `AddrInUse` when something is there, whatever it is: a link is not followed there (`bind(2)`).
pub fn bind_unix_new(path: &Path, mode: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let (name, _directory) = name_of_file(path)?;
    match mode {
        None => socket.bind(&name)?,
        // By the mask and not by chmod, which a link put there meanwhile could redirect.
        Some(mode) => with_umask(0o777 & !mode, || socket.bind(&name))?,
    }
    Ok(socket)
}

/// What listens on a socket file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process, whose queue may be full.
    Somebody,
    /// A process, with a socket of another type than stream.
    OtherKind,
    /// No process any more.
    Nobody,
}

/// Finds out what listens on a socket file; does not wait for a server whose queue is full.
///
/// # Errors
/// When that cannot be found out, for example without the right to connect.
pub fn peer_at(path: &Path) -> io::Result<Peer> {
    let (name, _directory) = name_of_file(path)?;
    let connected = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?.connect(&name);
    match connected {
        Ok(()) => Ok(Peer::Somebody),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(Peer::Somebody),
            Some(libc::EPROTOTYPE) => Ok(Peer::OtherKind),
            Some(libc::ECONNREFUSED) => Ok(Peer::Nobody),
            _ => Err(error),
        },
    }
}

/// Runs `act` under another file mode mask. The mask belongs to the whole process, but no other thread of the master
/// makes files.
fn with_umask<T>(mask: u32, act: impl FnOnce() -> T) -> T {
    use nix::sys::stat::{Mode, umask};
    let before = umask(Mode::from_bits_truncate(mask));
    let done = act();
    umask(before);
    done
}
