//! What the master and its guard share: a mapped file in memory of fixed length, with only atomics in it. The master
//! writes it; the guard reads it when the master is gone.

use super::Detached;
use crate::sys::memfd;
use nix::unistd::Pid;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};

/// Process groups that can be guarded at once: all that can be in all slots.
pub const GROUPS: usize = 6144;
/// Sockets of the master that the guard can know: one hand-off socket for each worker, and some more.
const SOCKETS: usize = 2 * GROUPS;
/// Changes with the structure below.
pub const LAYOUT: u32 = 2;
/// Bytes of randomness in the name of a family, which is twice as many hexadecimal digits.
const FAMILY: usize = 16;

/// What is in the file.
#[repr(C)]
struct Table {
    layout: AtomicU32,
    /// Whether detached jobs stay: 1 if they do.
    stay: AtomicU32,
    /// Whether the master ended in order: 1 if it did.
    dismissed: AtomicU32,
    master: AtomicI32,
    session: AtomicI32,
    family: [AtomicU8; FAMILY],
    groups: [AtomicI32; GROUPS],
    /// Each at the same place as its group.
    channels: [AtomicU64; GROUPS],
    sockets: [AtomicU64; SOCKETS],
}

/// The file and its mapping.
#[derive(Debug)]
pub struct Memory {
    table: NonNull<Table>,
    file: OwnedFd,
}

/// Makes the table of another version say that there is no process.
pub fn blank(file: &OwnedFd) -> io::Result<()> {
    let length = std::fs::File::from(file.try_clone()?).metadata()?.len();
    let zeros = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    nix::sys::uio::pwrite(file, &zeros, 0)?;
    Ok(())
}

impl Memory {
    /// Makes it, with the name of a new family.
    pub fn new(detached: Detached) -> io::Result<Memory> {
        let memory = Memory::map(memfd::shared(c"maitred-guard", size_of::<Table>())?)?;
        let mut family = [0; FAMILY];
        getrandom::fill(&mut family)?;
        let table = memory.table();
        table.family.iter().zip(family).for_each(|(place, byte)| place.store(byte, SeqCst));
        table.layout.store(LAYOUT, SeqCst);
        memory.describe(detached);
        Ok(memory)
    }

    /// The master's side again, after another program replaced the first.
    pub fn again(file: OwnedFd, detached: Detached) -> io::Result<Memory> {
        let memory = Memory::take(file)?;
        memory.describe(detached);
        Ok(memory)
    }

    /// The guard's side.
    ///
    /// # Errors
    /// When this is not such a file.
    pub fn take(file: OwnedFd) -> io::Result<Memory> {
        let strange = || io::Error::other("no memory of a master");
        let length = std::fs::File::from(file.try_clone()?).metadata()?.len();
        if length != size_of::<Table>() as u64 {
            return Err(strange());
        }
        let memory = Memory::map(file)?;
        if memory.table().layout.load(SeqCst) != LAYOUT {
            return Err(strange());
        }
        Ok(memory)
    }

    fn map(file: OwnedFd) -> io::Result<Memory> {
        // SAFETY: a new mapping of the whole file, which has that length, at an address of the kernel's choice.
        let mapped = unsafe {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), size_of::<Table>(), protection, flags, file.as_raw_fd(), 0)
        };
        match NonNull::new(mapped.cast()) {
            Some(table) if mapped != libc::MAP_FAILED => Ok(Memory { table, file }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn table(&self) -> &Table {
        // SAFETY: mapped by `map` and unmapped only when this is dropped; any bytes are valid atomics, and
        // those may be shared.
        unsafe { self.table.as_ref() }
    }

    fn describe(&self, detached: Detached) {
        let table = self.table();
        table.stay.store(u32::from(detached == Detached::Stay), SeqCst);
        table.master.store(Pid::this().as_raw(), SeqCst);
        table.session.store(crate::sys::process::descent::session_of(Pid::this()).as_raw(), SeqCst);
    }

    /// A copy of the file.
    pub fn file(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }

    /// Guards a group. A group for which there is no place still has its parent-death signal.
    pub fn add(&self, group: Pid, channel: u64) {
        let (group, table) = (group.as_raw(), self.table());
        let places = || table.groups.iter().zip(&table.channels);
        let known = places().find(|(place, _)| place.load(SeqCst) == group);
        let free = |place: &AtomicI32| place.compare_exchange(0, group, SeqCst, SeqCst).is_ok();
        if let Some((_, place)) = known.or_else(|| places().find(|(place, _)| free(place))) {
            place.store(channel, SeqCst);
        }
    }

    /// Forgets a group.
    pub fn remove(&self, group: Pid) {
        let table = self.table();
        for (place, channel) in table.groups.iter().zip(&table.channels) {
            if place.load(SeqCst) == group.as_raw() {
                channel.store(0, SeqCst);
                place.store(0, SeqCst);
            }
        }
    }

    /// Writes down all sockets of the master; those beyond the limit are not known.
    pub fn know_sockets(&self, inodes: &HashSet<u64>) {
        let known = inodes.iter().copied().chain(std::iter::repeat(0));
        self.table().sockets.iter().zip(known).for_each(|(place, inode)| place.store(inode, SeqCst));
    }

    /// Tells the guard that it has nothing to do.
    pub fn dismiss(&self) {
        self.table().dismissed.store(1, SeqCst);
    }

    /// Whether the guard was told that it has nothing to do.
    pub fn is_dismissed(&self) -> bool {
        self.table().dismissed.load(SeqCst) == 1
    }

    /// The family's name.
    pub fn family(&self) -> String {
        self.table().family.iter().map(|byte| format!("{:02x}", byte.load(SeqCst))).collect()
    }

    /// The master's process.
    pub fn master(&self) -> Pid {
        Pid::from_raw(self.table().master.load(SeqCst))
    }

    /// Its session.
    pub fn session(&self) -> Pid {
        Pid::from_raw(self.table().session.load(SeqCst))
    }

    /// What happens to detached jobs.
    pub fn detached(&self) -> Detached {
        if self.table().stay.load(SeqCst) == 1 { Detached::Stay } else { Detached::End }
    }

    /// All groups.
    pub fn groups(&self) -> HashSet<Pid> {
        let groups = self.table().groups.iter().map(|place| place.load(SeqCst));
        groups.filter(|group| *group > 0).map(Pid::from_raw).collect()
    }

    /// The inodes of all channels.
    pub fn channels(&self) -> HashSet<u64> {
        self.table().channels.iter().map(|place| place.load(SeqCst)).filter(|inode| *inode > 0).collect()
    }

    /// The inodes of the master's sockets, as far as they were written down.
    pub fn sockets(&self) -> HashSet<u64> {
        self.table().sockets.iter().map(|place| place.load(SeqCst)).filter(|inode| *inode > 0).collect()
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing borrows it any more.
        unsafe { libc::munmap(self.table.as_ptr().cast(), size_of::<Table>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let master = Memory::new(Detached::Stay).unwrap();
        let guard = Memory::take(master.file().unwrap()).unwrap();
        assert_eq!((guard.family(), guard.family().len()), (master.family(), 2 * FAMILY));
        assert_eq!((guard.master(), guard.detached()), (Pid::this(), Detached::Stay));
        let (first, second) = (Pid::from_raw(70), Pid::from_raw(71));
        master.add(first, 7);
        master.add(second, 8);
        // Added again, as after an upgrade.
        master.add(second, 9);
        master.remove(first);
        assert_eq!((guard.groups(), guard.channels()), (HashSet::from([second]), HashSet::from([9])));
        master.know_sockets(&HashSet::from([1, 2]));
        master.know_sockets(&HashSet::from([3]));
        assert_eq!(guard.sockets(), HashSet::from([3]));
        assert!(!guard.is_dismissed());
        master.dismiss();
        assert!(guard.is_dismissed());
    }

    #[test]
    fn another_file_is_no_memory_of_a_master() {
        let other = memfd::shared(c"other", 100).unwrap();
        assert!(Memory::take(other.try_clone().unwrap()).is_err());
        blank(&other).unwrap();
        assert!(Memory::take(memfd::shared(c"zeros", size_of::<Table>()).unwrap()).is_err());
    }
}
