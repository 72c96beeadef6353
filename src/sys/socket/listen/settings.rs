//! What the system allows listeners (`ip-sysctl.rst`, `net.rst` in Documentation/).

use std::ops::RangeInclusive;

/// Backlog of addresses that are bound before any worker names one; the kernel cuts it to `net.core.somaxconn`.
pub const BACKLOG: u32 = 4096;

/// The longest accept queue that the system allows, to which the kernel cuts every backlog
/// (`net.core.somaxconn`; 4096 by default since Linux 5.4).
#[must_use]
pub fn longest_queue() -> u32 {
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    limit.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(4096).max(1)
}

/// The ports from which the kernel chooses one when port 0 is asked for (`net.ipv4.ip_local_port_range`, for IPv6
/// too; 32768 to 60999 by default).
#[must_use]
pub fn ephemeral_ports() -> RangeInclusive<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_ascii_whitespace().filter_map(|end| end.parse().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32768..=60999,
    }
}
