//! Moves a program's epoll registrations from its own listening socket to the hand-off socket.
//!
//! epoll remembers the open file, not the number, so a program that registers its socket before
//! `listen` would wait for ever on a file that nobody connects to. Watching every `epoll_ctl` would
//! cost each connection something. Instead the kernel is asked once, at `listen`: `/proc` tells
//! for each epoll descriptor what it watches, with events and data.

use super::abi::*;
use super::text::Packet;
use core::ffi::c_int;
use core::fmt::Write;

/// Registrations of one socket that are moved; a program has one, rarely two.
const REGISTRATIONS: usize = 32;
/// Room for a directory listing or a line-wise file, read piece by piece.
const PIECE: usize = 2048;

/// Where a socket was registered, and how.
pub struct Registrations {
    found: [(c_int, EpollEvent); REGISTRATIONS],
    len: usize,
}

/// Removes every registration of `fd` from this process's epoll sets and remembers them.
pub fn take(fd: c_int) -> Registrations {
    let mut taken = Registrations { found: [(-1, EpollEvent { events: 0, data: 0 }); REGISTRATIONS], len: 0 };
    let dir = kernel!(nr::OPENAT, AT_FDCWD, c"/proc/self/fdinfo".as_ptr(), O_RDONLY_CLOEXEC | O_DIRECTORY) as c_int;
    if dir < 0 {
        return taken;
    }
    let mut entries = [0u64; PIECE / 8];
    loop {
        let n = kernel!(nr::GETDENTS64, dir, entries.as_mut_ptr(), PIECE);
        if n <= 0 {
            break;
        }
        let bytes: &[u8] = bytes_of(&entries, n as usize);
        let mut at = 0;
        // struct linux_dirent64: inode (8), offset (8), record length (2), type (1), name.
        while let Some(record) = bytes.get(at..) {
            let Some(len) = record.get(16..18).map(|l| u16::from_ne_bytes([l[0], l[1]]) as usize) else { break };
            if len == 0 {
                break;
            }
            let name = record.get(19..len).unwrap_or(b"");
            let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
            let number = core::str::from_utf8(&name[..end]).ok().and_then(|n| n.parse::<c_int>().ok());
            if let Some(set) = number {
                taken.look_into(set, fd);
            }
            at += len;
        }
    }
    close(dir);
    for (set, _) in &taken.found[..taken.len] {
        kernel!(nr::EPOLL_CTL, *set, EPOLL_CTL_DEL, fd, 0);
    }
    taken
}

impl Registrations {
    /// Registers what is now under the number `fd` wherever the old socket was.
    pub fn restore(&self, fd: c_int) {
        for (set, event) in &self.found[..self.len] {
            kernel!(nr::EPOLL_CTL, *set, EPOLL_CTL_ADD, fd, &raw const *event);
        }
    }

    /// Reads `/proc/self/fdinfo/SET`, in which an epoll descriptor lists one line for each watched
    /// file: `tfd: 5 events: 80000019 data: 5 …` (`proc(5)`).
    fn look_into(&mut self, set: c_int, fd: c_int) {
        let mut path = Packet::default();
        let _ = write!(path, "/proc/self/fdinfo/{set}\0");
        let file = kernel!(nr::OPENAT, AT_FDCWD, path.bytes().as_ptr(), O_RDONLY_CLOEXEC) as c_int;
        if file < 0 {
            return;
        }
        let mut buffer = [0u8; PIECE];
        let mut kept = 0;
        loop {
            let n = kernel!(nr::READ, file, buffer[kept..].as_mut_ptr(), PIECE - kept);
            let end = kept + usize::try_from(n).unwrap_or(0);
            let mut start = 0;
            while let Some(line) = buffer[start..end].iter().position(|&b| b == b'\n') {
                self.note(set, fd, &buffer[start..start + line]);
                start += line + 1;
            }
            // A line longer than the buffer is none of the kernel's; give up rather than spin.
            if n <= 0 || (start == 0 && end == PIECE) {
                break;
            }
            buffer.copy_within(start..end, 0);
            kept = end - start;
        }
        close(file);
    }

    fn note(&mut self, set: c_int, fd: c_int, line: &[u8]) {
        let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty());
        let mut value = |key: &[u8], radix: u32| -> Option<u64> {
            (words.next()? == key).then_some(())?;
            u64::from_str_radix(core::str::from_utf8(words.next()?).ok()?, radix).ok()
        };
        let Some(target) = value(b"tfd:", 10) else { return };
        let (Some(events), Some(data)) = (value(b"events:", 16), value(b"data:", 16)) else { return };
        if target == fd as u64 && self.len < REGISTRATIONS {
            self.found[self.len] = (set, EpollEvent { events: events as u32, data });
            self.len += 1;
        }
    }
}

fn bytes_of(words: &[u64], len: usize) -> &[u8] {
    let len = len.min(words.len() * 8);
    // SAFETY: the words are initialised and at least `len` bytes long; any byte is valid.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), len) }
}
