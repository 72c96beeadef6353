//! Learns that TCP connections were closed, whichever process holds them: the kernel tells every subscriber
//! (`SKNLGRP_INET_TCP_DESTROY`, `sock_diag(7)`, Linux 4.2), about 0.1 ms after the close.

use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt;
use socket2::SockFilter;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Groups of `sock_diag` (`enum sknetlink_groups` in linux/sock_diag.h).
const GROUPS: [libc::c_int; 2] = [INET_TCP_DESTROY, INET6_TCP_DESTROY];
const INET_TCP_DESTROY: libc::c_int = 1;
const INET6_TCP_DESTROY: libc::c_int = 3;

/// Room for the events of some thousand closes that come at once; the kernel limits it to `net.core.rmem_max`.
const BUFFER: usize = 4 << 20;
/// One event is far shorter.
const EVENT_MAX: usize = 4096;

/// More ports than this are not filtered: a jump skips 255 instructions at most.
const PORTS_MAX: usize = 200;
/// Where the local port is in an event: after `struct nlmsghdr` and four bytes of `struct inet_diag_msg`.
const PORT: u32 = 20;
/// Where an event has its kind (`struct nlmsghdr`), and the kind of an event about a socket (linux/sock_diag.h).
const KIND: usize = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Where the cookie is: after the ports, two addresses of 16 bytes and the interface (`struct inet_diag_sockid`).
const COOKIE: usize = PORT as usize + 2 * 2 + 2 * 16 + 4;

/// A program that lets events of these ports through and drops the others (`BPF_LD`, `BPF_JMP` and
/// `BPF_RET` of linux/filter.h).
fn filter(ports: &HashSet<u16>) -> Vec<SockFilter> {
    const LOAD_HALF: u16 = 0x28;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let mut program = vec![SockFilter::new(LOAD_HALF, 0, 0, PORT)];
    for (port, behind) in ports.iter().zip((1..=ports.len()).rev()) {
        program.push(SockFilter::new(IF_EQUAL, behind as u8, 0, u32::from(*port)));
    }
    program.extend([SockFilter::new(RETURN, 0, 0, 0), SockFilter::new(RETURN, 0, 0, u32::MAX)]);
    program
}

/// The socket on which closes are reported.
#[derive(Debug)]
pub struct Closes(Socket);

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The connection with this cookie (`SO_COOKIE`) is closed.
    Closed(u64),
    /// Events were lost: ask the kernel which connections are left.
    Overrun,
    /// Something else.
    Nothing,
}

impl Closes {
    /// Subscribes to all closes from now on.
    ///
    /// # Errors
    /// When the kernel has no such events, or refuses them.
    pub fn listen() -> io::Result<Closes> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        let closes = Closes(socket);
        closes.join()?;
        // Above the system's limit with CAP_NET_ADMIN, otherwise within it.
        let options = socket2::SockRef::from(&closes);
        if nix::sys::socket::setsockopt(&closes, sockopt::RcvBufForce, &BUFFER).is_err() {
            let _ = options.set_recv_buffer_size(BUFFER);
        }
        Ok(closes)
    }

    /// Subscribes again, after [`Closes::leave`].
    ///
    /// # Errors
    /// That of `setsockopt(2)`.
    pub fn join(&self) -> io::Result<()> {
        GROUPS.into_iter().try_for_each(|group| self.membership(libc::NETLINK_ADD_MEMBERSHIP, group))
    }

    /// Unsubscribes for now; while there is no subscriber, closes cost the kernel less.
    ///
    /// # Errors
    /// That of `setsockopt(2)`.
    pub fn leave(&self) -> io::Result<()> {
        GROUPS.into_iter().try_for_each(|group| self.membership(libc::NETLINK_DROP_MEMBERSHIP, group))
    }

    fn membership(&self, change: libc::c_int, group: libc::c_int) -> io::Result<()> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel reads one integer.
        let ret =
            unsafe { libc::setsockopt(self.as_raw_fd(), libc::SOL_NETLINK, change, (&raw const group).cast(), length) };
        if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// From now on receives closes only of connections with these local ports; of all connections if there are too
    /// many ports.
    ///
    /// # Errors
    /// That of `setsockopt(2)`.
    pub fn only(&self, ports: &HashSet<u16>) -> io::Result<()> {
        let socket = socket2::SockRef::from(self);
        if ports.len() <= PORTS_MAX {
            return socket.attach_filter(&filter(ports));
        }
        match socket.detach_filter() {
            // There was none.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            done => done,
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn hear(&self) -> io::Result<Heard> {
        let mut buffer = [0; EVENT_MAX];
        let size = match self.0.recv(&mut &mut buffer[..], 0) {
            Ok(size) => size.min(EVENT_MAX),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Heard::Overrun),
            Err(error) => return Err(error),
        };
        // Parsed by hand, as in the filter: this is done for every connection that closes, and the crate's parser
        // allocates for fields that are of no use here.
        let bytes = buffer.get(..size).unwrap_or_default();
        let kind = bytes.get(KIND..).and_then(|rest| rest.first_chunk()).map(|kind| u16::from_ne_bytes(*kind));
        let cookie = bytes.get(COOKIE..).and_then(|rest| rest.first_chunk()).map(|cookie| u64::from_ne_bytes(*cookie));
        Ok(match (kind, cookie) {
            (Some(SOCK_DIAG_BY_FAMILY), Some(cookie)) => Heard::Closed(cookie),
            _ => Heard::Nothing,
        })
    }
}

/// Wakes once when an event can be read, and only when that was asked for. If the socket were watched all the time,
/// every close would wake the master, although the master reads the events by itself before it chooses a worker.
#[derive(Debug)]
pub struct Bell(Epoll);

impl Bell {
    /// A bell for these closes that is not armed yet.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn new(closes: &Closes) -> io::Result<Bell> {
        let bell = Bell(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        bell.0.add(closes, EpollEvent::new(EpollFlags::EPOLLONESHOT, 0))?;
        Ok(bell)
    }

    /// Lets it become readable when an event can be read.
    ///
    /// # Errors
    /// That of `epoll_ctl(2)`.
    pub fn arm(&self, closes: &Closes) -> io::Result<()> {
        let mut once = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, 0);
        Ok(self.0.modify(closes, &mut once)?)
    }

    /// Acknowledges an event: the bell is not readable any more until it is armed again.
    pub fn answer(&self) {
        let _ = self.0.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

impl AsFd for Closes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self` is.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl AsRawFd for Closes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// Makes a connection to a listener and closes it; returns the cookie of the accepted side.
    fn come_and_go(listener: &TcpListener) -> u64 {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let cookie = socket2::SockRef::from(&accepted).cookie().unwrap();
        drop((client, accepted));
        cookie
    }

    #[test]
    fn only_closes_at_the_ports_that_were_named_are_heard() {
        let [named, other] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let closes = Closes::listen().unwrap();
        closes.only(&HashSet::from([named.local_addr().unwrap().port()])).unwrap();
        let [unheard, first, last] = [&other, &named, &named].map(come_and_go);
        let (mut heard, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(10));
        while !heard.contains(&last) {
            match closes.hear() {
                Ok(Heard::Closed(cookie)) => heard.push(cookie),
                Ok(_) => {}
                Err(error) => {
                    assert!(error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline, "{error}")
                }
            }
        }
        assert!(heard.contains(&first) && !heard.contains(&unheard), "{heard:?}");
    }
}
