//! The address of a listener, as text: `tcp:127.0.0.1:80`, `tcp:[::]:80`, `unix:/path`, `unix:@name`.

#[cfg(feature = "cli")]
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "cli", derive(Serialize, Deserialize))]
pub enum Address {
    /// A TCP address; port 0 means one that the kernel chooses.
    Tcp(SocketAddr),
    /// A Unix socket in the file system, by absolute path.
    Unix(PathBuf),
    /// A Unix socket in the abstract namespace, without its leading zero byte.
    Abstract(String),
}

/// A text that is no address of the control channel.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnAddress(pub String);

// By hand, so that a worker which depends on this crate builds no macros.
impl fmt::Display for NotAnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no address; expected tcp:HOST:PORT or unix:PATH", self.0)
    }
}

impl std::error::Error for NotAnAddress {}

impl Address {
    /// Whether the kernel is to choose the port.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        matches!(self, Address::Tcp(addr) if addr.port() == 0)
    }

    /// Whether a listener that was bound here serves a worker that asks for `asked`: the same port,
    /// and one of the two IP addresses contains the other. The operator's `--bind` thereby wins
    /// over the host that the worker has in its configuration.
    ///
    /// ```
    /// use maitred::wire::address::Address;
    /// let bound: Address = "tcp:[::]:80".parse().unwrap();
    /// assert!(bound.covers(&"tcp:127.0.0.1:80".parse().unwrap()));
    /// assert!(!bound.covers(&"tcp:127.0.0.1:81".parse().unwrap()));
    /// ```
    #[must_use]
    pub fn covers(&self, asked: &Address) -> bool {
        match (self, asked) {
            (Address::Tcp(bound), Address::Tcp(asked)) => {
                let (b, a) = (bound.ip().to_canonical(), asked.ip().to_canonical());
                bound.port() == asked.port() && (a == b || contains(bound.ip(), a) || contains(asked.ip(), b))
            }
            _ => self == asked,
        }
    }
}

/// Whether a socket bound to `wide` receives what is sent to `narrow`.
fn contains(wide: IpAddr, narrow: IpAddr) -> bool {
    match wide {
        IpAddr::V4(v4) => v4.is_unspecified() && narrow.is_ipv4(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(addr) => write!(f, "tcp:{addr}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Abstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Address, NotAnAddress> {
        let wrong = || NotAnAddress(text.to_owned());
        match text.split_once(':').ok_or_else(wrong)? {
            ("tcp", addr) => addr.parse().map(Address::Tcp).map_err(|_| wrong()),
            ("unix", name) => match (name.strip_prefix('@'), name.starts_with('/')) {
                (Some(name), _) if !name.is_empty() => Ok(Address::Abstract(name.to_owned())),
                // Without `.` and doubled slashes, so that one file has one name.
                (None, true) => Ok(Address::Unix(Path::new(name).components().collect())),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_covers(bound: &str, asked: &str, expected: bool) {
        let (b, a): (Address, Address) = (bound.parse().unwrap(), asked.parse().unwrap());
        assert_eq!(b.covers(&a), expected, "{bound} covers {asked}");
    }

    #[test]
    fn a_bound_address_serves_what_it_contains_or_is_contained_in() {
        check_covers("tcp:0.0.0.0:80", "tcp:127.0.0.1:80", true);
        check_covers("tcp:127.0.0.1:80", "tcp:0.0.0.0:80", true);
        check_covers("tcp:127.0.0.1:80", "tcp:[::]:80", true);
        check_covers("tcp:[::]:80", "tcp:0.0.0.0:80", true);
        check_covers("tcp:127.0.0.1:80", "tcp:[::ffff:127.0.0.1]:80", true);
        check_covers("tcp:127.0.0.1:80", "tcp:127.0.0.2:80", false);
        check_covers("tcp:0.0.0.0:80", "tcp:[::1]:80", false);
        check_covers("tcp:0.0.0.0:80", "tcp:0.0.0.0:81", false);
        check_covers("unix:/a", "unix:/a", true);
        check_covers("unix:/a", "unix:@/a", false);
    }

    #[test]
    fn only_port_0_leaves_the_choice_to_the_kernel() {
        let ephemeral = |text: &str| text.parse::<Address>().unwrap().is_ephemeral();
        assert!(ephemeral("tcp:127.0.0.1:0") && ephemeral("tcp:[::]:0"));
        assert!(!ephemeral("tcp:127.0.0.1:80") && !ephemeral("unix:/a") && !ephemeral("unix:@a"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "tcp:", "tcp:localhost:80", "unix:", "unix:@", "unix:relative", "udp:1.2.3.4:5", "80"] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn an_address_survives_being_written_and_read(ip: IpAddr, port: u16) {
            let address = Address::Tcp(SocketAddr::new(ip, port));
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = text.parse::<Address>();
        }
    }
}
