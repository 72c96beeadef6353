//! Opening a client's connection.

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How many loopback addresses clients come from, in turn. One address has 28 231 ports by default
/// (`net.ipv4.ip_local_port_range`), and each is taken for a minute by `TIME_WAIT`; sixteen last for
/// 7 500 connections a second for ever, and for 450 000 at once.
const SOURCES: u8 = 16;

/// Where connections come from and where they go.
#[derive(Debug)]
pub struct Route {
    target: SockAddr,
    domain: Domain,
    sources: Vec<SockAddr>,
    next: usize,
}

impl Route {
    /// A route to `address`, from several addresses if it is on the IPv4 loopback.
    #[must_use]
    pub fn new(address: SocketAddr) -> Route {
        let sources = match address.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => (1..=SOURCES).collect(),
            _ => Vec::new(),
        };
        let source = |last| SockAddr::from(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)));
        Route {
            target: address.into(),
            domain: Domain::for_address(address),
            sources: sources.into_iter().map(source).collect(),
            next: 0,
        }
    }

    /// Begins a connection. On loopback it is established when this returns, unless the server's
    /// queue is full.
    ///
    /// # Errors
    /// Those of `socket(2)`, `bind(2)` and `connect(2)`.
    pub fn open(&mut self) -> io::Result<Socket> {
        let socket = Socket::new(self.domain, Type::STREAM.nonblocking(), None)?;
        if !self.sources.is_empty() {
            // Which port, is decided when the other end is known: only then may one be used again
            // towards another end (ip(7)).
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&self.sources[self.next])?;
            self.next = (self.next + 1) % self.sources.len();
        }
        match socket.connect(&self.target) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    }
}
