//! Whether one process may bind a TCP socket to an address where it already has one. This is the kernel's own rule
//! (`inet_csk_bind_conflict` in net/ipv4/inet_connection_sock.c), applied to the sockets of one worker. The kernel
//! does not see those sockets, because the master's sockets take their place.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// The options of a socket at the time its address is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// `SO_REUSEADDR`.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// `IPV6_V6ONLY`.
    pub only_v6: bool,
}

/// The state of a socket that is already bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is only bound.
    Bound,
    /// `listen` was called.
    Listens,
}

/// Whether the kernel would refuse `asks` with `EADDRINUSE` because of a socket of the same user.
///
/// Both addresses carry the ports that they really have. If two sockets share an address only by `SO_REUSEADDR`, the
/// first one that listens keeps it.
#[must_use]
pub fn conflicts(asks: (SocketAddr, Claim), has: (SocketAddr, Claim, Held)) -> bool {
    let ((asked, new), (bound, old, held)) = (asks, has);
    if !overlaps((asked, new.only_v6), (bound, old.only_v6)) {
        return false;
    }
    let both_reuse_port = new.reuse_port && old.reuse_port;
    let both_reuse_address = new.reuse_address && old.reuse_address;
    !(both_reuse_port || both_reuse_address && held == Held::Bound)
}

/// The same for two UDP sockets (`inet_rcv_saddr_equal` and `udp_lib_lport_inuse` in net/ipv4/udp.c).
#[must_use]
pub fn datagrams_conflict((asked, new): (SocketAddr, Claim), (bound, old): (SocketAddr, Claim)) -> bool {
    let shared = new.reuse_port && old.reuse_port || new.reuse_address && old.reuse_address;
    overlaps((asked, new.only_v6), (bound, old.only_v6)) && !shared
}

/// Whether a client could reach both sockets (`ipv6_rcv_saddr_equal` in net/ipv4/inet_hashtables.c).
fn overlaps((a, a_only_v6): (SocketAddr, bool), (b, b_only_v6): (SocketAddr, bool)) -> bool {
    let receives = |wide: SocketAddr, only_v6: bool, narrow: SocketAddr, narrow_only_v6: bool| match wide.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && narrow.ip().to_canonical().is_ipv4() && !narrow_only_v6,
        IpAddr::V6(ip) => ip.is_unspecified() && !(only_v6 && narrow.ip().to_canonical().is_ipv4()),
    };
    a.port() == b.port()
        && (a.ip().to_canonical() == b.ip().to_canonical()
            || receives(a, a_only_v6, b, b_only_v6)
            || receives(b, b_only_v6, a, a_only_v6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_datagram_sockets_share_an_address_by_either_option() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (plain, address, port) = (
            Claim::default(),
            Claim { reuse_address: true, ..Claim::default() },
            Claim { reuse_port: true, ..Claim::default() },
        );
        let one = at("127.0.0.1:53");
        assert!(datagrams_conflict((one, plain), (one, plain)));
        assert!(datagrams_conflict((one, plain), (at("0.0.0.0:53"), address)));
        assert!(datagrams_conflict((one, port), (one, address)));
        assert!(!datagrams_conflict((one, address), (one, address)));
        assert!(!datagrams_conflict((one, port), (one, port)));
        assert!(!datagrams_conflict((one, plain), (at("127.0.0.2:53"), plain)));
        assert!(!datagrams_conflict((one, plain), (at("127.0.0.1:54"), plain)));
    }
    use socket2::{Domain, Socket, Type};
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn socket(ip: IpAddr, claim: Claim) -> Socket {
        let socket = Socket::new(if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }, Type::STREAM, None).unwrap();
        if ip.is_ipv6() {
            socket.set_only_v6(claim.only_v6).unwrap();
        }
        socket.set_reuse_address(claim.reuse_address).unwrap();
        socket.set_reuse_port(claim.reuse_port).unwrap();
        socket
    }

    /// A port below the range from which the kernel chooses, so that no other test uses it on any address.
    fn free_port() -> u16 {
        use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
        static NEXT: AtomicU16 = AtomicU16::new(0);
        loop {
            let port = 20_000 + (std::process::id() as u16 % 50) * 200 + NEXT.fetch_add(1, Relaxed) % 200;
            if std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok() {
                return port;
            }
        }
    }

    #[test]
    fn it_is_what_the_kernel_itself_does() {
        let v4 = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)].map(IpAddr::V4);
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let v6 = [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, mapped].map(IpAddr::V6);
        let claims = |ip: IpAddr| {
            (0..8u8)
                .map(|bits| Claim { reuse_address: bits & 1 > 0, reuse_port: bits & 2 > 0, only_v6: bits & 4 > 0 })
                .filter(
                    // A socket that takes only IPv6 cannot be bound to a mapped address.
                    move |claim| !claim.only_v6 || ip.is_ipv6() && ip != IpAddr::V6(mapped),
                )
        };
        let all = || v4.into_iter().chain(v6).flat_map(|ip| claims(ip).map(move |claim| (ip, claim)));
        let mut checked = 0;
        for (ip, claim) in all() {
            for held in [Held::Bound, Held::Listens] {
                let port = free_port();
                let first = socket(ip, claim);
                first.bind(&SocketAddr::new(ip, port).into()).unwrap();
                if held == Held::Listens {
                    first.listen(1).unwrap();
                }
                for (ip2, claim2) in all() {
                    let second = socket(ip2, claim2).bind(&SocketAddr::new(ip2, port).into());
                    let asked = (SocketAddr::new(ip2, port), claim2);
                    let expected = conflicts(asked, (SocketAddr::new(ip, port), claim, held));
                    let refused = second.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EADDRINUSE));
                    assert_eq!(refused, expected, "{asked:?} where {ip} {claim:?} is {held:?}: {second:?}");
                    checked += 1;
                }
            }
        }
        assert!(checked > 1000, "{checked}");
    }
}
