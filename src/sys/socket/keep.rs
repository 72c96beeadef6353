//! Keeps the descriptors that a program was passed until it is certain that it can go on: a thread with a descriptor
//! table of its own has all of them open, whatever this program closes meanwhile, and can give them back under the
//! old numbers.
//!
//! Copies in the same table would need twice as many numbers as may be open. A second process would be a child that the
//! next program does not know.

use crate::sys::dispose::Foreign;
use crate::sys::fd;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Descriptors in one packet. Small, so that few numbers need to be free while they are given back.
const AT_ONCE: usize = fd::FDS_MAX;
/// Enough for a few calls.
const STACK: usize = 64 * 1024;

/// What the thread is to do.
#[derive(Debug)]
enum Verdict {
    /// Drop them: they are not needed.
    Forget,
    /// Give them back.
    GiveBack,
}

/// Descriptors that are kept.
#[derive(Debug)]
pub struct Kept {
    numbers: Vec<RawFd>,
    verdict: Sender<Verdict>,
    from: OwnedFd,
    thread: JoinHandle<io::Result<()>>,
}

/// Keeps what is open under these numbers.
///
/// # Errors
/// When a thread, a socket or a table is not available (`close_range(2)` with `CLOSE_RANGE_UNSHARE`, Linux 5.9).
pub fn keep(numbers: Vec<RawFd>) -> io::Result<Kept> {
    let (from, to) = fd::pair()?;
    let (verdict, judged) = channel();
    let (report, reported) = channel();
    let kept = numbers.clone();
    let keeper = std::thread::Builder::new().name("keeping".to_owned()).stack_size(STACK);
    let thread = keeper.spawn(move || {
        let unshared = unshare_table();
        let failed = unshared.is_err();
        let _ = report.send(unshared);
        if failed { Ok(()) } else { wait(&kept, &to, &judged) }
    })?;
    match reported.recv() {
        Ok(unshared) => unshared?,
        Err(_) => return Err(io::Error::other("a thread ended early")),
    }
    Ok(Kept { numbers, verdict, from, thread })
}

/// Gives this thread a descriptor table of its own, with everything in it. `unshare(2)` would do it too, but
/// containers forbid that.
fn unshare_table() -> io::Result<()> {
    // SAFETY: plain numbers. The range to close is beyond every descriptor.
    match unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn wait(numbers: &[RawFd], to: &OwnedFd, judged: &Receiver<Verdict>) -> io::Result<()> {
    let Ok(Verdict::GiveBack) = judged.recv() else { return Ok(()) };
    for some in numbers.chunks(AT_ONCE) {
        // Their place in the list says which they are.
        sendmsg::<()>(
            to.as_raw_fd(),
            &[io::IoSlice::new(b"\0")],
            &[ControlMessage::ScmRights(some)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
    }
    Ok(())
}

impl Kept {
    /// Closes the copies.
    pub fn forget(self) {
        let _ = self.verdict.send(Verdict::Forget);
    }

    /// Puts everything back under its number, to be passed to the next program.
    ///
    /// # Errors
    /// When some could not be recovered.
    pub fn give_back(self) -> io::Result<()> {
        self.verdict.send(Verdict::GiveBack).map_err(io::Error::other)?;
        // A received descriptor must not get a number that is meant for another one.
        for &number in self.numbers.iter().filter(|&&number| !is_open(number)) {
            put(self.from.as_fd(), number)?;
        }
        for some in self.numbers.chunks(AT_ONCE) {
            let received = fd::receive_blocking(self.from.as_fd(), &mut [0])?;
            let fds: Vec<Foreign> = received.fds.into_iter().flatten().collect();
            if fds.len() != some.len() {
                return Err(io::Error::other("a descriptor is missing"));
            }
            for (fd, &number) in fds.iter().zip(some) {
                put(fd.as_fd(), number)?;
            }
        }
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread ended early")))
    }
}

/// Makes a copy of a descriptor under a number, open after `execve`.
fn put(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: plain numbers. The code of this program that had the number before does not need it any more: the next
    // program takes over.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        n if n == number => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The numbers of all open descriptors beyond the three standard ones.
///
/// # Errors
/// When there is no `/proc`.
pub fn open_numbers() -> io::Result<Vec<RawFd>> {
    let listed = std::fs::read_dir("/proc/self/fd")?;
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let numbers: Vec<RawFd> = listed.flatten().filter_map(number).filter(|number| *number > 2).collect();
    // The descriptor of the directory that was read is closed by now.
    Ok(numbers.into_iter().filter(|&number| is_open(number)).collect())
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: borrowed for one call; an unused number gives EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_was_closed_meanwhile_is_there_again_under_its_number() {
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        // A number far from those that other tests of this process get.
        let number = 900;
        put(far.as_fd(), number).unwrap();
        drop(far);
        assert!(open_numbers().unwrap().contains(&number));
        let forgotten = keep(vec![number]).unwrap();
        let kept = keep(vec![number]).unwrap();
        forgotten.forget();
        drop(fd::inherited(number).unwrap());
        assert!(!open_numbers().unwrap().contains(&number));
        kept.give_back().unwrap();
        let mut far = std::os::unix::net::UnixStream::from(fd::inherited(number).unwrap());
        near.write_all(b"still there").unwrap();
        drop(near);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still there");
    }
}
