//! A connection of this process with itself, one end of which is handed to a worker: what the worker does with it
//! shows whether the worker works.

use crate::sys::socket::listen;
use crate::wire::address::Address;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// Connections of other processes that may come before this process's own; there are none unless a process tries to
/// disturb.
const STRANGERS_MAX: u32 = 16;

/// Both ends of such a connection.
#[derive(Debug)]
pub struct OwnPair {
    /// The end that stays here, non-blocking.
    pub ours: OwnedFd,
    /// The end for the worker, as `accept` would have returned it.
    pub theirs: OwnedFd,
    /// The peer's address that goes with it.
    pub peer: SockAddr,
}

/// Makes a connection of the same family as those that come in at `address`.
///
/// # Errors
/// When no descriptor is free, or the loopback interface is down.
pub fn connect(address: &Address) -> io::Result<OwnPair> {
    match address {
        Address::Tcp(SocketAddr::V4(_)) => connect_tcp(Domain::IPV4, (Ipv4Addr::LOCALHOST, 0).into()),
        // Where there is no ::1, IPv4 as an IPv6 socket sees it.
        Address::Tcp(SocketAddr::V6(_)) => connect_tcp(Domain::IPV6, (Ipv6Addr::LOCALHOST, 0).into())
            .or_else(|_| connect_tcp(Domain::IPV6, (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0).into())),
        Address::Unix(_) | Address::Abstract(_) => {
            let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
            ours.set_nonblocking(true)?;
            let peer = listen::peer_of(theirs.as_fd());
            Ok(OwnPair { ours: ours.into(), theirs: theirs.into(), peer })
        }
    }
}

fn connect_tcp(domain: Domain, at: SocketAddr) -> io::Result<OwnPair> {
    let listener = Socket::new(domain, Type::STREAM, None)?;
    listener.bind(&at.into())?;
    listener.listen(STRANGERS_MAX as i32)?;
    listener.set_nonblocking(true)?;
    let ours = Socket::new(domain, Type::STREAM, None)?;
    ours.set_nonblocking(true)?;
    // Over loopback the connection is established before the call returns, unless others took all the room.
    match ours.connect(&listener.local_addr()?) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let myself = ours.local_addr()?;
    for _ in 0..STRANGERS_MAX {
        let (theirs, peer) = listener.accept()?;
        if peer == myself {
            // As `accept` would have made it.
            theirs.set_nonblocking(false)?;
            return Ok(OwnPair { ours: ours.into(), theirs: theirs.into(), peer });
        }
    }
    Err(io::Error::other("strangers keep connecting to the loopback interface"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_is_written_at_one_end_comes_out_at_the_other() {
        let unix = Address::Abstract("x".to_owned());
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        for address in [unix, tcp("127.0.0.1:80"), tcp("[::]:80")] {
            let pair = connect(&address).unwrap();
            let (mut ours, mut theirs) = (Socket::from(pair.ours), Socket::from(pair.theirs));
            ours.write_all(b"hello").unwrap();
            let mut read = [0; 5];
            theirs.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"hello", "{address}");
        }
    }
}
