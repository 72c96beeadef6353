//! One client's connection, and its requests.

use crate::bench::load::answer::Reader;
use crate::bench::load::tally::Ending;
use nix::sys::epoll::EpollFlags;
use socket2::Socket;
use std::io::{self};
use std::time::Instant;

/// Bytes of an echo.
const ECHO: usize = 64;

/// A client's connection; its entry is reused by the next one.
#[derive(Default)]
pub(super) struct Connection {
    pub(super) socket: Option<Socket>,
    pub(super) reader: Reader,
    /// The instant from which the latency of the exchange counts.
    pub(super) since: Option<Instant>,
    pub(super) phase: Phase,
    /// Exchanges still to come, after the one under way.
    pub(super) left: u32,
    pub(super) path: usize,
    /// How many bytes of the request were sent.
    pub(super) sent: usize,
    /// Whether epoll should report when more can be sent.
    pub(super) watches_room: bool,
    pub(super) slot: Option<u16>,
    pub(super) mixed: bool,
    /// The index of its source address.
    pub(super) source: usize,
}

/// What a connection waits for. The number distinguishes this use of the entry from earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing.
    #[default]
    Free,
    /// An answer.
    Asked(u64),
    /// The end of a pause.
    Pausing(u64),
}

pub(super) fn interest(watches_room: bool) -> EpollFlags {
    if watches_room { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN }
}

/// What an error of a socket means for its connection.
pub(super) fn ending_of(error: &io::Error) -> Ending {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Ending::Refused,
        Some(libc::ECONNRESET | libc::EPIPE) => Ending::Reset,
        Some(libc::ETIMEDOUT) => Ending::Hung,
        errno => Ending::Local(errno.unwrap_or(libc::EIO)),
    }
}

pub(super) fn request(path: &str, host: &str, connection: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: maitred-bench\r\nConnection: {connection}\r\n\r\n")
        .into_bytes()
}

pub(super) fn echo() -> Vec<u8> {
    (0..ECHO).map(|i| b'a' + (i % 26) as u8).collect()
}
