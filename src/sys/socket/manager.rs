//! The service manager that started this process (`sd_notify(3)`). The crate `sd-notify` does not know abstract names.

use crate::sys::clock;
use crate::wire::environment::{NOTIFY_SOCKET, WATCHDOG_PID, WATCHDOG_USEC};
use sendfd::SendWithFd;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;
use tracing::warn;

/// Messages that may wait to be sent: one for each address there may be, and some more. What is beyond that is lost: the
/// manager does not read.
const MESSAGES_MAX: usize = 1024 + 64;
/// Enough to send a message.
const STACK: usize = 64 * 1024;

/// The manager. A thread tells it: it may not read for a while, and nobody is to wait for that.
#[derive(Debug)]
pub struct Manager {
    to: SyncSender<Message>,
    lost: Cell<u64>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is sent soon.
    Soon,
    /// Too many wait already.
    Lost,
}

/// Lines of `NAME=value`, and a descriptor that goes with them.
#[derive(Debug)]
struct Message {
    lines: String,
    attached: Option<OwnedFd>,
}

impl Manager {
    /// The one that `NOTIFY_SOCKET` names, if it is one that can be told: a path, or an abstract name after `@`.
    ///
    /// # Errors
    /// When no thread can be created.
    pub fn find() -> io::Result<Option<Manager>> {
        let Some(socket) = std::env::var_os(NOTIFY_SOCKET) else { return Ok(None) };
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(Path::new(&socket)),
            _ => return Ok(None),
        };
        let Ok(address) = address else { return Ok(None) };
        let (to, messages) = sync_channel::<Message>(MESSAGES_MAX);
        let tell = move || {
            let mut failed: u64 = 0;
            for message in messages {
                if let Err(error) = send(&address, &message) {
                    failed += 1;
                    if failed.is_power_of_two() {
                        warn!(%error, failed, "the service manager cannot be told; what it does not hear it may wait for");
                    }
                }
            }
        };
        std::thread::Builder::new().name("service-manager".into()).stack_size(STACK).spawn(tell)?;
        Ok(Some(Manager { to, lost: Cell::new(0) }))
    }

    /// Tells it lines of `NAME=value`, as one message, soon. Never waits.
    pub fn tell(&self, lines: String) -> Told {
        self.send(lines, None)
    }

    /// Lets it keep a copy of a socket under a name, which it gives back when this process is started again
    /// (`FDSTORE=1`, `sd_pid_notify_with_fds(3)`).
    pub fn keep(&self, name: &str, socket: OwnedFd) -> Told {
        // A socket that is bound and does not listen yet looks hung up, and the manager would drop it (`FDPOLL`).
        self.send(format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), Some(socket))
    }

    fn send(&self, lines: String, attached: Option<OwnedFd>) -> Told {
        if self.to.try_send(Message { lines, attached }).is_err() {
            let lost = self.lost.get() + 1;
            self.lost.set(lost);
            if lost.is_power_of_two() {
                warn!(lost, "the service manager does not read; what it should hear is lost");
            }
            return Told::Lost;
        }
        Told::Soon
    }
}

fn send(to: &SocketAddr, Message { lines, attached }: &Message) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(to)?;
    match attached {
        None => socket.send(lines.as_bytes()).map(drop),
        Some(attached) => socket.send_with_fd(lines.as_bytes(), &[attached.as_raw_fd()]).map(drop),
    }
}

/// How often it wants to hear from this process at least (`sd_watchdog_enabled(3)`).
#[must_use]
pub fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_meant =
        std::env::var_os(WATCHDOG_PID).is_none() || number(WATCHDOG_PID) == Some(u64::from(std::process::id()));
    number(WATCHDOG_USEC).filter(|_| is_meant).map(Duration::from_micros)
}

/// That a reload begins, as `Type=notify-reload` wants it: with the time.
#[must_use]
pub fn reloading() -> String {
    format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic().as_micros())
}
