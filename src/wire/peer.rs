//! The payload of a hand-off: the peer's socket address as `accept(2)` would have filled it.
//!
//! The master passes on the very bytes that the kernel gave it; only a Rust worker reads them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Longest payload (`struct sockaddr_storage`).
pub const PEER_MAX: usize = 128;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The peer's IP address and port; `None` for a Unix socket, whose peers have no such name.
///
/// ```
/// use maitred::wire::peer::{decode, encode};
/// let peer = "[::1]:4711".parse().unwrap();
/// let (bytes, len) = encode(peer);
/// assert_eq!(decode(&bytes[..len]), Some(peer));
/// ```
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        AF_INET => {
            let ip = rest.first_chunk::<4>()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(*ip), port).into())
        }
        AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk::<4>()?;
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let scope = rest.first_chunk::<4>().map_or(0, |s| u32::from_ne_bytes(*s));
            Some(SocketAddrV6::new(Ipv6Addr::from(*ip), port, u32::from_be_bytes(*flow), scope).into())
        }
        _ => None,
    }
}

/// `peer` as a `struct sockaddr_in` or `sockaddr_in6`, and its length.
#[must_use]
pub fn encode(peer: SocketAddr) -> ([u8; PEER_MAX], usize) {
    let mut bytes = [0; PEER_MAX];
    bytes[2..4].copy_from_slice(&peer.port().to_be_bytes());
    match peer {
        SocketAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
            bytes[4..8].copy_from_slice(&v4.ip().octets());
            (bytes, 16)
        }
        SocketAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
            bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
            bytes[8..24].copy_from_slice(&v6.ip().octets());
            bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (bytes, 28)
        }
    }
}

/// The same address in the other IP family's form, if that is what a socket of `family` speaks: an
/// IPv6 socket sees IPv4 peers at `::ffff:a.b.c.d`.
#[must_use]
pub fn in_family(peer: SocketAddr, family: u16) -> SocketAddr {
    match (peer, family) {
        (SocketAddr::V4(v4), AF_INET6) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        (SocketAddr::V6(v6), AF_INET) => (v6.ip().to_canonical(), v6.port()).into(),
        (peer, _) => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_peer_has_the_family_of_the_socket() {
        let (v4, mapped) = ("1.2.3.4:5".parse().unwrap(), "[::ffff:1.2.3.4]:5".parse().unwrap());
        assert_eq!([in_family(v4, AF_INET6), in_family(mapped, AF_INET)], [mapped, v4]);
        assert_eq!([in_family(v4, AF_INET), in_family(mapped, AF_INET6)], [v4, mapped]);
    }

    proptest! {
        #[test]
        fn a_peer_survives_being_written_and_read(ip: std::net::IpAddr, port: u16) {
            let peer = SocketAddr::new(ip, port);
            let (bytes, len) = encode(peer);
            prop_assert_eq!(decode(&bytes[..len]), Some(peer));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn the_bytes_are_those_that_the_kernel_uses() {
        let peer: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let (bytes, len) = encode(peer);
        let kernel = socket2::SockAddr::from(peer);
        assert_eq!(len, kernel.len() as usize);
        assert_eq!(decode(&bytes[..len]), kernel.as_socket());
    }
}
