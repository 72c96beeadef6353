//! Moves a program's epoll registrations from its own listening socket to the hand-off socket.
//!
//! epoll remembers the open file, not the number, so a program that registers its socket before `listen` would wait
//! forever on a file that gets no connections. Intercepting every `epoll_ctl` would cost each connection something.
//! Instead the shim asks the kernel once, at `listen`: `/proc` lists for each epoll descriptor what it watches, with
//! events and data.

use super::abi::*;
use super::numbers;
use super::text::Packet;
use core::ffi::c_int;
use core::fmt::Write;

/// Registrations of one socket that are moved; a program has one, rarely two.
const REGISTRATIONS: usize = 32;
/// Buffer for a line-oriented file, which is read in pieces.
const PIECE: usize = 2048;

/// Where a socket was registered, and how.
pub struct Registrations {
    found: [(c_int, EpollEvent); REGISTRATIONS],
    len: usize,
}

/// Removes every registration of `fd` from this process's epoll sets and remembers them.
pub fn take(fd: c_int) -> Registrations {
    let mut taken = Registrations { found: [(-1, EpollEvent { events: 0, data: 0 }); REGISTRATIONS], len: 0 };
    numbers::each(|set| taken.look_into(set, fd));
    for (set, _) in &taken.found[..taken.len] {
        kernel!(nr::EPOLL_CTL, *set, EPOLL_CTL_DEL, fd, 0);
    }
    taken
}

impl Registrations {
    /// Registers the descriptor that now has the number `fd` wherever the old socket was registered.
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
            // A line longer than the buffer is not from the kernel; give up rather than spin.
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
