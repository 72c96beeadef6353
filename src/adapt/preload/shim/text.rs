//! Encodes and decodes packets of the control channel and socket addresses.
//!
//! A packet is UTF-8 text with one `KEY=VALUE` per line. An address is `tcp:127.0.0.1:80`, `tcp:[::1]:80` or
//! `unix:/path`.

use super::abi::{ADDRESS_MAX, AF_INET, AF_INET6, AF_UNIX, AT_FDCWD, kernel, nr, raw};
use core::fmt::Write;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Longest address of a Unix socket (`struct sockaddr_un`).
const UNIX_MAX: usize = 110;

/// Longest packet.
pub const PACKET_MAX: usize = 1024;

/// A packet being written; text that does not fit is cut, and [`Packet::complete`] reports it.
pub struct Packet {
    bytes: [u8; PACKET_MAX],
    len: usize,
    cut: bool,
}

impl Default for Packet {
    fn default() -> Packet {
        Packet { bytes: [0; PACKET_MAX], len: 0, cut: false }
    }
}

impl Packet {
    pub fn push(&mut self, bytes: &[u8]) {
        let room = PACKET_MAX - self.len;
        self.cut |= bytes.len() > room;
        let n = bytes.len().min(room);
        self.bytes[self.len..self.len + n].copy_from_slice(&bytes[..n]);
        self.len += n;
    }

    pub fn line(&mut self, key: &str, value: core::fmt::Arguments<'_>) {
        self.push(key.as_bytes());
        self.push(b"=");
        // Writing to a Packet cannot fail; truncation is recorded in it.
        let _ = self.write_fmt(value);
        self.push(b"\n");
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn complete(&self) -> bool {
        !self.cut
    }
}

impl Write for Packet {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// The value of `key` in a packet.
pub fn value<'a>(packet: &'a [u8], key: &str) -> Option<&'a str> {
    packet.split(|&b| b == b'\n').find_map(|line| {
        let value = line.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
        core::str::from_utf8(value).ok()
    })
}

/// The family of a socket address of `len` bytes at `addr`.
///
/// # Safety
/// `addr` must be readable for `len` bytes.
pub unsafe fn family_of(addr: *const u8, len: u32) -> Option<u16> {
    // SAFETY: at least two bytes are readable; the pointer need not be aligned.
    (!addr.is_null() && len >= 2).then(|| unsafe { addr.cast::<u16>().read_unaligned() })
}

/// An address as the program passes it to `bind`.
#[allow(clippy::large_enum_variant, reason = "lives on the stack for one call; there is no heap here")]
pub enum Requested {
    Ip(SocketAddr),
    /// The same for UDP.
    Datagram(SocketAddr),
    /// Absolute path, in a buffer with its length.
    Path([u8; ADDRESS_MAX * 3], usize),
    /// Abstract name without its leading zero byte.
    Abstract([u8; ADDRESS_MAX], usize),
}

impl Requested {
    /// Reads a `sockaddr`. `None` for addresses that maitred leaves alone: other families, unnamed Unix sockets, names
    /// that do not fit into a line of text.
    ///
    /// # Safety
    /// `addr` must be readable for `len` bytes.
    pub unsafe fn read(addr: *const u8, len: u32) -> Option<Requested> {
        if addr.is_null() || len as usize > ADDRESS_MAX {
            return None;
        }
        // SAFETY: the caller vouches for `len` readable bytes.
        let bytes = unsafe { core::slice::from_raw_parts(addr, len as usize) };
        let (family, rest) = bytes.split_first_chunk::<2>()?;
        match u16::from_ne_bytes(*family) {
            AF_INET => {
                let (port, rest) = rest.split_first_chunk::<2>()?;
                let (ip, _) = rest.split_first_chunk::<4>()?;
                let v4 = SocketAddrV4::new(Ipv4Addr::from(*ip), u16::from_be_bytes(*port));
                Some(Requested::Ip(SocketAddr::V4(v4)))
            }
            AF_INET6 => {
                let (port, rest) = rest.split_first_chunk::<2>()?;
                let (_flow, rest) = rest.split_first_chunk::<4>()?;
                let (ip, rest) = rest.split_first_chunk::<16>()?;
                let scope = rest.first_chunk::<4>().map_or(0, |s| u32::from_ne_bytes(*s));
                let v6 = SocketAddrV6::new(Ipv6Addr::from(*ip), u16::from_be_bytes(*port), 0, scope);
                Some(Requested::Ip(SocketAddr::V6(v6)))
            }
            AF_UNIX => Requested::read_unix(rest),
            _ => None,
        }
    }

    fn read_unix(name: &[u8]) -> Option<Requested> {
        let printable = |name: &[u8]| !name.is_empty() && name.iter().all(|b| (0x20..0x7f).contains(b));
        match name.first()? {
            0 => {
                let name = &name[1..];
                let mut buffer = [0; ADDRESS_MAX];
                printable(name).then(|| buffer[..name.len()].copy_from_slice(name));
                printable(name).then_some(Requested::Abstract(buffer, name.len()))
            }
            _ => {
                let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
                let (path, len) = absolute(&name[..end])?;
                printable(&path[..len]).then_some(Requested::Path(path, len))
            }
        }
    }

    pub fn port(&self) -> Option<u16> {
        match self {
            Requested::Ip(addr) | Requested::Datagram(addr) => Some(addr.port()),
            Requested::Path(..) | Requested::Abstract(..) => None,
        }
    }

    /// Writes the address as a line of a packet.
    pub fn write(&self, packet: &mut Packet, key: &str) {
        match self {
            Requested::Ip(addr) => packet.line(key, format_args!("tcp:{addr}")),
            Requested::Datagram(addr) => packet.line("DATAGRAM", format_args!("{addr}")),
            Requested::Path(path, len) => {
                packet.push(key.as_bytes());
                packet.push(b"=unix:");
                packet.push(&path[..*len]);
                packet.push(b"\n");
            }
            Requested::Abstract(name, len) => {
                packet.push(key.as_bytes());
                packet.push(b"=unix:@");
                packet.push(&name[..*len]);
                packet.push(b"\n");
            }
        }
    }
}

/// `path`, prefixed with the working directory if it is relative.
pub fn absolute(path: &[u8]) -> Option<([u8; ADDRESS_MAX * 3], usize)> {
    let mut buffer = [0u8; ADDRESS_MAX * 3];
    let mut len = 0;
    if path.first() != Some(&b'/') {
        let n = kernel!(nr::GETCWD, buffer.as_mut_ptr(), buffer.len());
        // The kernel counts the terminating zero, which the slash replaces.
        len = usize::try_from(n).ok()?.checked_sub(1)?;
        *buffer.get_mut(len)? = b'/';
        len += 1;
    }
    buffer.get_mut(len..len + path.len())?.copy_from_slice(path);
    Some((buffer, len + path.len()))
}

/// The target of `/proc/self/fd/DIR`, joined with `path`, for the `*at` calls.
pub fn absolute_at(dir: i32, path: &[u8]) -> Option<([u8; ADDRESS_MAX * 3], usize)> {
    if dir == AT_FDCWD || path.first() == Some(&b'/') {
        return absolute(path);
    }
    let mut link = Packet::default();
    let _ = write!(link, "/proc/self/fd/{dir}\0");
    let mut buffer = [0u8; ADDRESS_MAX * 3];
    let n = kernel!(nr::READLINKAT, AT_FDCWD, link.bytes().as_ptr(), buffer.as_mut_ptr(), buffer.len());
    let len = usize::try_from(n).ok()?;
    *buffer.get_mut(len)? = b'/';
    buffer.get_mut(len + 1..len + 1 + path.len())?.copy_from_slice(path);
    Some((buffer, len + 1 + path.len()))
}

/// A `sockaddr` as bytes, and its family.
pub struct Name {
    pub bytes: [u8; ADDRESS_MAX],
    pub len: usize,
    pub family: u16,
}

/// The `sockaddr` of an address in the master's notation.
pub fn name_of(address: &str) -> Option<Name> {
    let mut bytes = [0u8; ADDRESS_MAX];
    let (family, len) = if let Some(name) = address.strip_prefix("unix:") {
        let (first, name) = match name.strip_prefix('@') {
            Some(name) => (3, name),
            None => (2, name),
        };
        // A path is terminated, an abstract name is not.
        let len = first + name.len() + usize::from(first == 2);
        if len > UNIX_MAX {
            return None;
        }
        bytes.get_mut(first..first + name.len())?.copy_from_slice(name.as_bytes());
        (AF_UNIX, len)
    } else {
        match address.strip_prefix("tcp:")?.parse().ok()? {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                set_port(&mut bytes, AF_INET, v4.port());
                (AF_INET, 16)
            }
            SocketAddr::V6(v6) => {
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                set_port(&mut bytes, AF_INET6, v6.port());
                (AF_INET6, 28)
            }
        }
    };
    bytes[..2].copy_from_slice(&family.to_ne_bytes());
    Some(Name { bytes, len, family })
}

/// Replaces the port in a stored `sockaddr` of an IP family.
pub fn set_port(name: &mut [u8; ADDRESS_MAX], family: u16, port: u16) {
    if family == AF_INET || family == AF_INET6 {
        name[2..4].copy_from_slice(&port.to_be_bytes());
    }
}

/// The port of `tcp:HOST:PORT` in the master's notation.
pub fn port_of(address: &str) -> Option<u16> {
    address.strip_prefix("tcp:")?.parse::<SocketAddr>().ok().map(|a| a.port())
}

/// A peer's address in the family of the program's socket: a dual-stack listener and a worker that bound `0.0.0.0` (or
/// the other way round) see the same peer differently.
pub fn in_family(peer: &[u8], family: u16) -> ([u8; ADDRESS_MAX], usize) {
    let mut out = [0u8; ADDRESS_MAX];
    let n = peer.len().min(ADDRESS_MAX);
    out[..n].copy_from_slice(&peer[..n]);
    // SAFETY: `peer` is a slice.
    let asked = unsafe { Requested::read(peer.as_ptr(), peer.len() as u32) };
    let Some(Requested::Ip(addr)) = asked else { return (out, n) };
    match (addr.ip(), family) {
        (IpAddr::V4(v4), AF_INET6) => {
            out = [0; ADDRESS_MAX];
            out[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
            out[2..4].copy_from_slice(&addr.port().to_be_bytes());
            out[8..24].copy_from_slice(&v4.to_ipv6_mapped().octets());
            (out, 28)
        }
        (IpAddr::V6(v6), AF_INET) => {
            let v4 = v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            out = [0; ADDRESS_MAX];
            out[..2].copy_from_slice(&AF_INET.to_ne_bytes());
            out[2..4].copy_from_slice(&addr.port().to_be_bytes());
            out[4..8].copy_from_slice(&v4.octets());
            (out, 16)
        }
        _ => (out, n),
    }
}
