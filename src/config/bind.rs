//! The values of `--bind`: `:80`, `127.0.0.1:80`, `[::]:80`, `localhost:80`, `unix:/path?mode=660`,
//! `unix:@name`, `fd://3`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// An address to bind before the first worker starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Every address of the machine, IPv6 and IPv4 (`:80`).
    Any(u16),
    /// One address, or all addresses of a host name.
    Tcp(Vec<SocketAddr>),
    /// A socket file and its mode.
    Unix { path: PathBuf, mode: Option<u32> },
    /// An abstract Unix socket (Linux).
    Abstract(String),
    /// A listening socket that this process inherited.
    Inherited(i32),
}

/// An invalid value of `--bind`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BindError {
    /// Not a known form.
    #[error("expected HOST:PORT, :PORT, [IPV6]:PORT, unix:PATH or fd://N")]
    Form,
    /// Something like `8080`.
    #[error("a port needs a colon before it: \":{0}\" for all addresses, or \"127.0.0.1:{0}\"")]
    BarePort(u16),
    /// Not a number up to 65535.
    #[error("{0:?} is no port; ports are 0 to 65535")]
    Port(String),
    /// Something like `::1:80`.
    #[error("an IPv6 address needs brackets, as in \"[::1]:80\"")]
    Brackets,
    /// A name that does not resolve.
    #[error("cannot find the host {host:?}: {why}")]
    Host { host: String, why: String },
    /// Something after `?` that is not `mode=`.
    #[error("expected ?mode=OCTAL after the path, as in \"unix:/run/app.sock?mode=660\"")]
    Mode,
    /// Not an absolute path, or too long for a socket.
    #[error("a Unix socket needs an absolute path of at most 107 bytes")]
    Path,
    /// Not a descriptor number.
    #[error("{0:?} is no descriptor number; the first one that a service manager passes is fd://3")]
    Descriptor(String),
}

impl FromStr for Bind {
    type Err = BindError;

    fn from_str(text: &str) -> Result<Bind, BindError> {
        if let Some(number) = text.strip_prefix("fd://") {
            return match number.parse() {
                Ok(number) if number >= 3 => Ok(Bind::Inherited(number)),
                _ => Err(BindError::Descriptor(number.to_owned())),
            };
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            return unix(rest);
        }
        if let Ok(port) = text.parse() {
            return Err(BindError::BarePort(port));
        }
        let (host, port) = text.rsplit_once(':').ok_or(BindError::Form)?;
        let port: u16 = port.parse().map_err(|_| BindError::Port(port.to_owned()))?;
        if host.is_empty() {
            return Ok(Bind::Any(port));
        }
        if let Ok(address) = text.parse() {
            return Ok(Bind::Tcp(vec![address]));
        }
        if host.contains(':') {
            return Err(BindError::Brackets);
        }
        let found = (host, port).to_socket_addrs();
        let found = found.map_err(|error| BindError::Host { host: host.to_owned(), why: error.to_string() })?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(Bind::Tcp(addresses))
    }
}

fn unix(rest: &str) -> Result<Bind, BindError> {
    if let Some(name) = rest.strip_prefix('@').filter(|name| !name.is_empty()) {
        return Ok(Bind::Abstract(name.to_owned()));
    }
    let (path, mode) = match rest.split_once('?') {
        None => (rest, None),
        Some((path, query)) => {
            let octal = query.strip_prefix("mode=").ok_or(BindError::Mode)?;
            let mode = u32::from_str_radix(octal, 8).ok().filter(|mode| *mode <= 0o777);
            (path, Some(mode.ok_or(BindError::Mode)?))
        }
    };
    if !path.starts_with('/') || path.len() > 107 {
        return Err(BindError::Path);
    }
    Ok(Bind::Unix { path: path.into(), mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Bind, BindError>) {
        assert_eq!(text.parse::<Bind>(), expected, "{text}");
    }

    #[test]
    fn every_documented_form_is_read() {
        check(":80", Ok(Bind::Any(80)));
        check("0.0.0.0:80", Ok(Bind::Tcp(vec!["0.0.0.0:80".parse().unwrap()])));
        check("[::]:80", Ok(Bind::Tcp(vec!["[::]:80".parse().unwrap()])));
        check("127.0.0.1:0", Ok(Bind::Tcp(vec!["127.0.0.1:0".parse().unwrap()])));
        check("unix:/run/a.sock", Ok(Bind::Unix { path: "/run/a.sock".into(), mode: None }));
        check("unix:/run/a.sock?mode=660", Ok(Bind::Unix { path: "/run/a.sock".into(), mode: Some(0o660) }));
        check("unix:@name", Ok(Bind::Abstract("name".into())));
        check("fd://3", Ok(Bind::Inherited(3)));
        let path = format!("/{}", "x".repeat(106));
        check(&format!("unix:{path}"), Ok(Bind::Unix { path: path.into(), mode: None }));
        let Ok(Bind::Tcp(addresses)) = "localhost:80".parse() else { panic!("localhost has addresses") };
        assert!(!addresses.is_empty() && addresses.iter().all(|a| a.ip().is_loopback() && a.port() == 80));
    }

    #[test]
    fn a_mistake_is_named_with_its_cure() {
        check("", Err(BindError::Form));
        check("nonsense", Err(BindError::Form));
        check("8080", Err(BindError::BarePort(8080)));
        check(":99999", Err(BindError::Port("99999".into())));
        check("127.0.0.1:http", Err(BindError::Port("http".into())));
        check("::1:80", Err(BindError::Brackets));
        check("unix:relative", Err(BindError::Path));
        check(&format!("unix:/{}", "x".repeat(107)), Err(BindError::Path));
        check("unix:/a?mode=999", Err(BindError::Mode));
        check("unix:/a?umask=7", Err(BindError::Mode));
        check("fd://x", Err(BindError::Descriptor("x".into())));
        check("fd://1", Err(BindError::Descriptor("1".into())));
        assert!(matches!("no.such.host.invalid:80".parse::<Bind>(), Err(BindError::Host { .. })));
    }
}
