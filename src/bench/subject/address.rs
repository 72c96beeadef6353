//! Where a subject listens, and where it can be reached.

use std::net::{Ipv4Addr, SocketAddr};

/// Whether a listener on `there` is reached by connecting to `asked`.
pub(super) fn covers(there: SocketAddr, asked: SocketAddr) -> bool {
    there.port() == asked.port() && (there.ip() == asked.ip() || there.ip().is_unspecified())
}

/// The address to connect to for a listener on this address.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        _ if !address.ip().is_unspecified() => address,
        // A socket on `::` serves IPv4, too, unless it was told not to; but it certainly serves IPv6.
        SocketAddr::V6(_) => (std::net::Ipv6Addr::LOCALHOST, address.port()).into(),
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, address.port()).into(),
    }
}
