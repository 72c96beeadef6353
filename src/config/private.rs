//! The values of `--private`: addresses that each worker has for itself: `127.0.0.1:9229`, `:9229`,
//! `:40000-40100`, `[::1]:9229`, `unix:/path`, `unix:@name`.

use crate::wire::address::Address;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

/// Addresses that are not shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Private {
    /// Ports of one IP address, or of all addresses.
    Ports {
        /// The address that the worker must bind; any if not given.
        ip: Option<IpAddr>,
        /// The first and the last port.
        ports: RangeInclusive<u16>,
    },
    /// A socket file.
    Unix(PathBuf),
    /// A name in the abstract namespace.
    Abstract(String),
}

/// An invalid value of `--private`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PrivateError {
    /// Not a known form.
    #[error("expected HOST:PORT, :PORT, :FIRST-LAST, unix:/PATH or unix:@NAME, with HOST an IP address")]
    Form,
    /// Not a number up to 65535.
    #[error("{0:?} is no port; ports are 1 to 65535, and port 0 is private anyway")]
    Port(String),
    /// The bounds are in the wrong order.
    #[error("{0}-{1} has no port in it: the first one must not be larger than the last")]
    Empty(u16, u16),
}

impl Private {
    /// Whether a worker that binds this address has it for itself.
    #[must_use]
    pub fn covers(&self, asked: &Address) -> bool {
        match (self, asked) {
            (Private::Ports { ip, ports }, Address::Tcp(asked)) => {
                let same = |ip: &IpAddr| ip.to_canonical() == asked.ip().to_canonical();
                ports.contains(&asked.port()) && ip.as_ref().is_none_or(same)
            }
            (Private::Unix(path), Address::Unix(asked)) => path == asked,
            (Private::Abstract(name), Address::Abstract(asked)) => name == asked,
            _ => false,
        }
    }
}

impl FromStr for Private {
    type Err = PrivateError;

    fn from_str(text: &str) -> Result<Private, PrivateError> {
        match text.strip_prefix("unix:").map(|_| text.parse()) {
            Some(Ok(Address::Unix(path))) => return Ok(Private::Unix(path)),
            Some(Ok(Address::Abstract(name))) => return Ok(Private::Abstract(name)),
            Some(_) => return Err(PrivateError::Form),
            None => {}
        }
        let (host, ports) = text.rsplit_once(':').ok_or(PrivateError::Form)?;
        let ip = match host {
            "" => None,
            // Adds a port, so that an IPv6 address must have its brackets.
            host => Some(format!("{host}:0").parse::<SocketAddr>().map_err(|_| PrivateError::Form)?.ip()),
        };
        let port = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(PrivateError::Port(text.to_owned())),
            Ok(port) => Ok(port),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(PrivateError::Empty(first, last));
        }
        Ok(Private::Ports { ip, ports: first..=last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(private: &str, asked: &str, expected: bool) {
        let (private, asked): (Private, Address) = (private.parse().unwrap(), asked.parse().unwrap());
        assert_eq!(private.covers(&asked), expected, "{private:?} {asked}");
    }

    #[test]
    fn an_address_is_private_by_its_port_and_host() {
        check(":9229", "tcp:127.0.0.1:9229", true);
        check(":9229", "tcp:[::]:9229", true);
        check(":9229", "tcp:127.0.0.1:9230", false);
        check(":40000-40010", "tcp:0.0.0.0:40000", true);
        check(":40000-40010", "tcp:0.0.0.0:40010", true);
        check(":40000-40010", "tcp:0.0.0.0:40011", false);
        check("127.0.0.1:80", "tcp:127.0.0.1:80", true);
        check("127.0.0.1:80", "tcp:[::ffff:127.0.0.1]:80", true);
        check("127.0.0.1:80", "tcp:0.0.0.0:80", false);
        check("[::1]:80-81", "tcp:[::1]:81", true);
        check("unix:/run/x.sock", "unix:/run/x.sock", true);
        check("unix:/run/x.sock", "unix:/run/y.sock", false);
        check("unix:@x", "unix:@x", true);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let refused = |text: &str| text.parse::<Private>().unwrap_err();
        assert_eq!(refused("80"), PrivateError::Form);
        assert_eq!(refused("localhost:80"), PrivateError::Form);
        assert_eq!(refused("::1:80"), PrivateError::Form);
        assert_eq!(refused("unix:relative"), PrivateError::Form);
        assert_eq!(refused(":0"), PrivateError::Port("0".to_owned()));
        assert_eq!(refused(":80-x"), PrivateError::Port("x".to_owned()));
        assert_eq!(refused(":90-80"), PrivateError::Empty(90, 80));
    }
}
