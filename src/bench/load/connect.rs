//! Opens a client's connection and chooses its source address.

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How many loopback addresses clients use in turn. One address has 28 231 ports by default
/// (`net.ipv4.ip_local_port_range`), and `TIME_WAIT` occupies each for a minute; sixteen addresses suffice for 7 500
/// connections a second indefinitely, and for 450 000 at once.
const SOURCES: u32 = 16;
/// The first of these. If the user sets the number of addresses, the usual address of servers is left out.
const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const FIRST_ASKED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Address `index` of the clients' addresses when the user sets their number.
#[must_use]
pub fn source(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_ASKED.to_bits() + index)
}

/// Where connections come from and where they go.
#[derive(Debug)]
pub struct Route {
    target: SockAddr,
    domain: Domain,
    sources: Vec<SockAddr>,
    order: Order,
}

/// Which address is next.
#[derive(Debug)]
enum Order {
    /// In turn; this one is next.
    Turns(usize),
    /// At random: if used in turn, addresses would seem to be recognized by round-robin whenever their number is a
    /// multiple of the number of workers.
    Lots(SmallRng),
}

impl Route {
    /// A route to `address`, from several addresses if it is on the IPv4 loopback: from `asked` of them at random, if
    /// that is set.
    #[must_use]
    pub fn new(address: SocketAddr, asked: Option<u32>, seed: u64) -> Route {
        let sources: Vec<Ipv4Addr> = match (address.ip(), asked) {
            (IpAddr::V4(ip), Some(asked)) if ip.is_loopback() => (0..asked).map(source).collect(),
            (IpAddr::V4(ip), None) if ip.is_loopback() => {
                (0..SOURCES).map(|index| Ipv4Addr::from_bits(FIRST.to_bits() + index)).collect()
            }
            _ => Vec::new(),
        };
        let any_port = |source| SockAddr::from(SocketAddr::from((source, 0)));
        Route {
            target: address.into(),
            domain: Domain::for_address(address),
            sources: sources.into_iter().map(any_port).collect(),
            order: match asked {
                Some(_) => Order::Lots(SmallRng::seed_from_u64(seed)),
                None => Order::Turns(0),
            },
        }
    }

    /// Begins a connection, and returns the index of its source address. On loopback it is established when this
    /// returns, unless the server's queue is full.
    ///
    /// # Errors
    /// Those of `socket(2)`, `bind(2)` and `connect(2)`.
    pub fn open(&mut self) -> io::Result<(Socket, usize)> {
        let source = match &mut self.order {
            Order::Turns(next) => *next,
            Order::Lots(random) => random.random_range(0..self.sources.len().max(1)),
        };
        let socket = Socket::new(self.domain, Type::STREAM.nonblocking(), None)?;
        if !self.sources.is_empty() {
            // Chooses the port only when the other end is known: only then may a port be used again towards another
            // end (ip(7)).
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&self.sources[source])?;
            if let Order::Turns(next) = &mut self.order {
                *next = (source + 1) % self.sources.len();
            }
        }
        match socket.connect(&self.target) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok((socket, source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn clients_come_from_as_many_addresses_as_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut route = Route::new(listener.local_addr().unwrap(), Some(3), 1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let (_socket, index) = route.open().unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip(), source(index as u32));
            seen.insert(peer.ip());
        }
        assert_eq!(seen, [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last).into()).into());
        assert_eq!(source(300), Ipv4Addr::new(127, 0, 1, 46));
    }
}
