//! Counters that workers themselves increment: how many connections each slot took from a shared listening socket,
//! which only the worker sees. The shim adds one with each `accept`; the memory is a file that it maps.

use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::memfd;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The most slots that are counted; nothing is known about further ones.
pub const SLOTS_MAX: usize = 1024;

const COUNT: usize = SLOTS_MAX * STRIDE;
const BYTES: usize = COUNT * size_of::<AtomicU64>();
/// Numbers from one slot's counter to the next, so that each has a cache line of its own.
const STRIDE: usize = 8;

/// One counter for each slot.
#[derive(Debug)]
pub struct Taken {
    memory: NonNull<[AtomicU64; COUNT]>,
    file: OwnedFd,
}

impl Taken {
    /// Counters at zero.
    ///
    /// # Errors
    /// When memory or descriptors ran out.
    pub fn new() -> io::Result<Taken> {
        Taken::map(memfd::shared(c"maitred-taken", BYTES)?)
    }

    /// Passes the counters on to the next program of this process; workers find them under the same name.
    pub fn pass(&self, passing: &Passing) -> Number {
        passing.pass(&self.file)
    }

    /// Takes over counters that were passed on.
    ///
    /// # Errors
    /// When the descriptor is missing or memory ran out.
    pub fn take(number: Number, taking: &Taking) -> io::Result<Taken> {
        Taken::map(taking.take(number)?)
    }

    fn map(file: OwnedFd) -> io::Result<Taken> {
        // SAFETY: a new mapping of the whole file, at an address of the kernel's choice.
        let memory = unsafe {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, file.as_raw_fd(), 0)
        };
        match NonNull::new(memory.cast()).filter(|_| memory != libc::MAP_FAILED) {
            Some(memory) => Ok(Taken { memory, file }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// How many connections the slot took so far. Workers write this number, so it is only as reliable as they are.
    #[must_use]
    pub fn get(&self, slot: usize) -> u64 {
        // SAFETY: the mapping lives as long as `self`, is page-aligned, and is only used atomically.
        let counters = unsafe { self.memory.as_ref() };
        counters.get(Taken::place(slot)).map_or(0, |counter| counter.load(Relaxed))
    }

    /// Which of the file's numbers is a slot's counter.
    #[must_use]
    pub fn place(slot: usize) -> usize {
        slot * STRIDE
    }

    /// Where a worker of the same user finds the file.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and nothing refers to it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn what_is_written_to_the_file_is_counted_and_nobody_can_cut_it_short() {
        let taken = Taken::new().unwrap();
        let mut file = std::fs::File::options().write(true).open(taken.path()).unwrap();
        file.seek(io::SeekFrom::Start(8 * Taken::place(3) as u64)).unwrap();
        file.write_all(&7u64.to_ne_bytes()).unwrap();
        assert_eq!((taken.get(3), taken.get(2), taken.get(SLOTS_MAX)), (7, 0, 0));
        assert!(file.set_len(0).is_err());
    }
}
