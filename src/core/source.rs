//! Where a client comes from: its address, cut to a prefix, since a household or a company has many addresses.

use crate::core::chance::mix;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// How many bits of an address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// Bits of an IPv4 address, 0 to 32.
    pub v4: u8,
    /// Bits of an IPv6 address, 0 to 128.
    pub v6: u8,
}

impl Prefix {
    /// The bits of an IPv4 address that count, written as an IPv6 address (RFC 4291, section 2.5.5.2).
    #[inline]
    #[must_use]
    pub fn mask_v4(self) -> u128 {
        first_bits(96 + self.v4)
    }

    /// The bits of an IPv6 address that count.
    #[inline]
    #[must_use]
    pub fn mask_v6(self) -> u128 {
        first_bits(self.v6)
    }
}

#[inline]
fn first_bits(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl Default for Prefix {
    /// A whole IPv4 address; for IPv6 the 64 bits of one network (RFC 4291, section 2.5.4), within which a client can
    /// change its address at will.
    fn default() -> Prefix {
        Prefix { v4: 32, v6: 64 }
    }
}

/// The text is not a prefix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a prefix is a number of bits, as in 24, or two, for IPv4 and IPv6, as in 24,56")]
pub struct PrefixError;

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        let (v4, v6) = text.split_once(',').map_or((text, None), |(v4, v6)| (v4, Some(v6)));
        let bits = |text: &str, most| text.parse().ok().filter(|bits| *bits <= most).ok_or(PrefixError);
        let v6 = v6.map_or(Ok(Prefix::default().v6), |v6| bits(v6, 128))?;
        Ok(Prefix { v4: bits(v4, 32)?, v6 })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.v4, self.v6)
    }
}

/// An address reduced to the bits that count. An IPv4 client is the same source on an IPv6 socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Source(u128);

impl Source {
    /// The source that `address` belongs to.
    #[inline]
    #[must_use]
    pub fn of(address: IpAddr, prefix: Prefix) -> Source {
        match address.to_canonical() {
            // In IPv6 form, so that the two families never collide.
            IpAddr::V4(v4) => Source(u128::from(v4.to_ipv6_mapped()) & prefix.mask_v4()),
            IpAddr::V6(v6) => Source(u128::from(v6) & prefix.mask_v6()),
        }
    }

    /// A number for this source that is the same in every program and at all times.
    #[inline]
    #[must_use]
    pub fn key(self) -> u64 {
        mix(mix((self.0 >> 64) as u64) ^ self.0 as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str, prefix: &str) -> Source {
        Source::of(address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn what_is_beyond_the_prefix_does_not_count() {
        assert_eq!(source("192.0.2.7", "24"), source("192.0.2.250", "24"));
        assert_ne!(source("192.0.2.7", "24"), source("192.0.3.7", "24"));
        assert_ne!(source("192.0.2.7", "32"), source("192.0.2.8", "32"));
        assert_eq!(source("2001:db8::1", "32"), source("2001:db8::ffff:1", "32"));
        assert_ne!(source("2001:db8::1", "32,128"), source("2001:db8::2", "32,128"));
        assert_eq!(source("1.2.3.4", "0"), source("4.3.2.1", "0"));
        assert_eq!(source("::1", "0,0"), source("2001:db8::", "0,0"));
    }

    #[test]
    fn an_ipv4_client_is_the_same_on_an_ipv6_socket() {
        assert_eq!(source("::ffff:192.0.2.7", "32"), source("192.0.2.7", "32"));
    }

    #[test]
    fn its_number_is_the_same_in_every_program() {
        // Fixed values: with another number every client would get another worker after an upgrade.
        assert_eq!(source("192.0.2.7", "32").key(), 4192323402374766844);
        assert_eq!(source("2001:db8:0:1::9", "32,64").key(), 13005569106832857469);
        // Both halves of an address count.
        assert_ne!(source("2001:db8::1", "32,128").key(), source("2001:db8::2", "32,128").key());
        assert_ne!(source("2001:db8::1", "32,128").key(), source("2001:db9::1", "32,128").key());
    }

    #[test]
    fn prefixes_that_make_no_sense_are_refused() {
        assert!(["33", "24,129", "", "24,", "-1", "24,56,7"].iter().all(|text| text.parse::<Prefix>().is_err()));
    }
}
