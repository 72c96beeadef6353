//! The control channel of this process: one thread reads it, and any thread may write to it.
//!
//! A request brings its own socket for the answer. So any thread can make one, and so can a process that was forked
//! from this one, which has no thread that reads.

use super::stop;
use crate::sys::fd;
use crate::wire::environment::{CHANNEL, CHANNEL_INODE};
use crate::wire::packet::{self, PACKET_MAX, RequestId, ToWorker};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest text of a status; with its key it fits well into a packet.
pub const STATUS_MAX: usize = 1024;
/// Enough for a packet.
const STACK: usize = 64 * 1024;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn channel() -> Option<&'static OwnedFd> {
    static THE: OnceLock<Option<OwnedFd>> = OnceLock::new();
    THE.get_or_init(|| {
        let channel = open()?;
        let reading = channel.try_clone().ok()?;
        let thread = std::thread::Builder::new().name("maitred".to_owned()).stack_size(STACK);
        thread.spawn(move || read(&reading)).ok()?;
        Some(channel)
    })
    .as_ref()
}

/// Takes the channel that the environment names, if that number is still the channel.
fn open() -> Option<OwnedFd> {
    let variable = |name| std::env::var(name).ok();
    let number: i32 = variable(CHANNEL)?.parse().ok()?;
    let inode: u64 = variable(CHANNEL_INODE)?.parse().ok()?;
    let socket = fd::inherited(number).ok()?;
    if fd::inode(socket.as_fd()).ok()? != inode {
        // Other code opened this descriptor: leave it open.
        std::mem::forget(socket);
        return None;
    }
    Some(socket)
}

/// Begins to read what the master says, if there is one.
pub fn begin() {
    let _ = channel();
}

/// Reads what the master says until it ends.
fn read(channel: &OwnedFd) {
    loop {
        let mut buffer = [0; PACKET_MAX];
        let received = match fd::receive_blocking(channel.as_fd(), &mut buffer) {
            Ok(received) if received.len > 0 => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // No worker outlives its master.
            Ok(_) | Err(_) => return stop::request(),
        };
        match packet::read_answer(buffer.get(..received.len).unwrap_or_default()) {
            Ok(Some(ToWorker::Ping(n))) => {
                let _ = fd::send_packet_blocking(channel.as_fd(), &format!("PONG={n}\n"), None);
            }
            Ok(Some(ToWorker::Stop)) => stop::request(),
            // A message of a later version, or an answer to another part of this worker.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Tells the master something. Without a master it goes nowhere.
///
/// # Errors
/// When the master is gone.
pub fn say(text: &str) -> io::Result<()> {
    match channel() {
        Some(channel) => fd::send_packet_blocking(channel.as_fd(), text, None),
        None => Ok(()),
    }
}

/// An id for one more request of this process.
pub fn next_id() -> RequestId {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// Asks the master and waits for the answer and its descriptor; `None` when there is no master.
///
/// # Errors
/// When the master is gone, or its answer makes no sense.
pub fn ask(request: &str) -> io::Result<Option<(ToWorker, Option<OwnedFd>)>> {
    let Some(channel) = channel() else { return Ok(None) };
    let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "maitred is gone");
    let (ours, theirs) = fd::pair()?;
    fd::send_packet_blocking(channel.as_fd(), &format!("{request}REPLY=1\n"), Some(theirs.as_fd()))?;
    drop(theirs);
    let mut buffer = [0; PACKET_MAX];
    let received = fd::receive_blocking(ours.as_fd(), &mut buffer)?;
    if received.len == 0 {
        return Err(gone());
    }
    let answer = packet::read_answer(buffer.get(..received.len).unwrap_or_default());
    let answer = answer.map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))?;
    Ok(Some((answer.ok_or_else(gone)?, received.into_first())))
}
