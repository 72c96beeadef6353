//! Socket addresses, as a worker's calls have them.

use crate::wire::address::Address;
use crate::wire::peer::{self, PEER_MAX};
use std::net::SocketAddr;

/// The bytes of an address as `getsockname` returns them, in the family that was asked for.
#[must_use]
pub fn name_bytes(address: &Address, family: u16) -> Vec<u8> {
    let unix = |path: &[u8]| {
        let family = (libc::AF_UNIX as u16).to_ne_bytes();
        [&family[..], path].concat().into_iter().take(PEER_MAX).collect()
    };
    match address {
        Address::Tcp(address) => {
            let (bytes, length) = peer::encode(peer::in_family(*address, family));
            bytes.get(..length).unwrap_or_default().to_vec()
        }
        Address::Unix(path) => unix(&[path.as_os_str().as_encoded_bytes(), &[0]].concat()),
        Address::Abstract(name) => unix(&[&[0], name.as_bytes()].concat()),
    }
}

/// The address in a `struct sockaddr` that a worker gave; `None` for what we do not manage. A relative path starts at
/// `directory`.
#[must_use]
pub fn address_of(bytes: &[u8], directory: impl FnOnce() -> Option<std::path::PathBuf>) -> Option<(Address, u16)> {
    use std::os::unix::ffi::OsStrExt;
    let family = u16::from_ne_bytes(*bytes.first_chunk::<2>()?);
    let inet = |least| if bytes.len() >= least { peer::decode(bytes) } else { None };
    let tcp = |address: SocketAddr| (Address::Tcp(address), family);
    match i32::from(family) {
        libc::AF_INET => inet(16).map(tcp),
        libc::AF_INET6 => inet(24).map(tcp),
        libc::AF_UNIX => {
            let path = bytes.get(2..)?;
            if let Some(name) = path.strip_prefix(&[0]) {
                let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
                return Some((Address::Abstract(name.to_owned()), family));
            }
            let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.get(..end)?));
            if path.as_os_str().is_empty() {
                return None;
            }
            let absolute = if path.is_absolute() { path.to_owned() } else { directory()?.join(path) };
            Some((Address::Unix(absolute), family))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_as_the_kernel_would() {
        let here = || Some("/srv".into());
        let v4 = peer::encode("127.0.0.1:80".parse().unwrap());
        assert_eq!(address_of(&v4.0[..v4.1], here), Some(("tcp:127.0.0.1:80".parse().unwrap(), libc::AF_INET as u16)));
        assert_eq!(address_of(&v4.0[..15], here), None);
        let unix = |path: &[u8]| [&(libc::AF_UNIX as u16).to_ne_bytes()[..], path].concat();
        let read = |path: &[u8]| address_of(&unix(path), here).map(|(address, _)| address.to_string());
        assert_eq!(read(b"x.sock\0junk").as_deref(), Some("unix:/srv/x.sock"));
        assert_eq!(read(b"\0name").as_deref(), Some("unix:@name"));
        assert_eq!([read(b""), read(b"\0"), read(b"\0\xff")], [None, None, None]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = address_of(&bytes, || None);
        }

        #[test]
        fn a_name_is_read_as_it_was_written(ip: std::net::IpAddr, port: u16) {
            let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
            let address = Address::Tcp((ip, port).into());
            prop_assert_eq!(address_of(&name_bytes(&address, family), || None), Some((address, family)));
        }
    }
}
