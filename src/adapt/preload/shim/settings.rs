//! The settings that the master passed to this process through its environment, read once before the program starts.

use super::abi::{environment, inode};
use super::environment::{
    CHANNEL, CHANNEL_INODE, COUNT, HANDOFF, HOW, INHERITED, MASTER, PORT_ZERO, RENDEZVOUS, UNIX_PATHS,
};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};

static ACTIVE: AtomicBool = AtomicBool::new(false);
static CHANNEL_FD: AtomicI32 = AtomicI32::new(-1);
static CHANNEL_INO: AtomicU64 = AtomicU64::new(0);
static BY_HANDOFF: AtomicBool = AtomicBool::new(false);
static SHARES_PORT_ZERO: AtomicBool = AtomicBool::new(false);
static HAS_INHERITED: AtomicBool = AtomicBool::new(false);
static MASTER_PID: AtomicI32 = AtomicI32::new(0);
static RENDEZVOUS_TEXT: Text<256> = Text::new();
static COUNT_TEXT: Text<64> = Text::new();
static PATHS_TEXT: Text<4096> = Text::new();

/// A copy of a variable: programs that set their process title overwrite the original.
struct Text<const MAX: usize> {
    bytes: UnsafeCell<[u8; MAX]>,
    len: AtomicUsize,
}

// SAFETY: written once by `read`, while the process has a single thread; only read later.
unsafe impl<const MAX: usize> Sync for Text<MAX> {}

impl<const MAX: usize> Text<MAX> {
    const fn new() -> Text<MAX> {
        Text { bytes: UnsafeCell::new([0; MAX]), len: AtomicUsize::new(0) }
    }

    /// Keeps a copy; a value that does not fit is treated as absent.
    fn keep(&self, value: &[u8]) {
        if value.len() <= MAX {
            // SAFETY: called by `read` only, before any other code reads.
            unsafe { (&mut *self.bytes.get())[..value.len()].copy_from_slice(value) };
            self.len.store(value.len(), Relaxed);
        }
    }

    fn get(&'static self) -> &'static [u8] {
        // SAFETY: never written again after `read`.
        unsafe { &(&*self.bytes.get())[..self.len.load(Relaxed)] }
    }
}

/// Reads the environment.
pub fn read() {
    let mut at = environment();
    if at.is_null() {
        return;
    }
    loop {
        // SAFETY: `environ` is an array of terminated strings, ended by null.
        let entry = unsafe { *at };
        if entry.is_null() {
            break;
        }
        // SAFETY: not null, hence a terminated string.
        let text = unsafe { CStr::from_ptr(entry) }.to_bytes();
        if let Some(value) = value_of(text, CHANNEL) {
            CHANNEL_FD.store(number(value).map_or(-1, |n| n as c_int), Relaxed);
        } else if let Some(value) = value_of(text, CHANNEL_INODE) {
            CHANNEL_INO.store(number(value).unwrap_or(0), Relaxed);
        } else if let Some(value) = value_of(text, MASTER) {
            MASTER_PID.store(number(value).map_or(0, |n| n as c_int), Relaxed);
        } else if let Some(value) = value_of(text, RENDEZVOUS) {
            RENDEZVOUS_TEXT.keep(value);
        } else if let Some(value) = value_of(text, UNIX_PATHS) {
            PATHS_TEXT.keep(value);
        } else if let Some(value) = value_of(text, COUNT) {
            COUNT_TEXT.keep(value);
        } else if let Some(value) = value_of(text, HOW) {
            let has = |word: &str| value.split(|&b| b == b' ').any(|w| w == word.as_bytes());
            BY_HANDOFF.store(has(HANDOFF), Relaxed);
            SHARES_PORT_ZERO.store(has(PORT_ZERO), Relaxed);
        } else if value_of(text, INHERITED).is_some() {
            HAS_INHERITED.store(true, Relaxed);
        }
        // SAFETY: the entry was not null, so the array continues.
        at = unsafe { at.add(1) };
    }
    let reachable = CHANNEL_FD.load(Relaxed) >= 0 || !RENDEZVOUS_TEXT.get().is_empty();
    ACTIVE.store(reachable && MASTER_PID.load(Relaxed) > 0, Relaxed);
}

/// Whether this process has a master.
pub fn active() -> bool {
    ACTIVE.load(Relaxed)
}

/// Whether this program inherited sockets.
pub fn has_inherited() -> bool {
    HAS_INHERITED.load(Relaxed)
}

/// Whether the master hands connections over; otherwise workers share listening sockets.
pub fn by_handoff() -> bool {
    BY_HANDOFF.load(Relaxed)
}

/// Whether a port that the kernel chose may be shared with other workers.
pub fn shares_port_zero() -> bool {
    SHARES_PORT_ZERO.load(Relaxed)
}

/// The master's process id.
pub fn master() -> c_int {
    MASTER_PID.load(Relaxed)
}

/// The control channel's descriptor, if that number is still the channel: a wrapper may have closed it and opened
/// something else under that number.
pub fn channel() -> Option<c_int> {
    let fd = CHANNEL_FD.load(Relaxed);
    (fd >= 0 && inode(fd) == Some(CHANNEL_INO.load(Relaxed))).then_some(fd)
}

/// The name of the master's abstract socket and this worker's secret.
pub fn rendezvous() -> Option<(&'static [u8], &'static [u8])> {
    let text = RENDEZVOUS_TEXT.get();
    let space = text.iter().position(|&b| b == b' ')?;
    Some((&text[..space], &text[space + 1..]))
}

/// Paths of the Unix sockets that the master held when this worker was forked, colon-separated.
pub fn unix_paths() -> &'static [u8] {
    PATHS_TEXT.get()
}

/// Where connections accepted on inherited sockets are counted.
pub fn count() -> Option<&'static str> {
    core::str::from_utf8(COUNT_TEXT.get()).ok()
}

fn value_of(entry: &'static [u8], name: &str) -> Option<&'static [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

fn number(text: &[u8]) -> Option<u64> {
    core::str::from_utf8(text).ok()?.parse().ok()
}
