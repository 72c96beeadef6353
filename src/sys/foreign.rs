//! Another process: its memory and its descriptors, as far as this process may look (`ptrace(2)`, "access mode
//! checking"): it may look at its own children, unless they have more privileges.

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// A handle that becomes readable when the process ends, and that can never refer to another process.
///
/// # Errors
/// That of `pidfd_open(2)`; Linux before 5.3 does not have it, and 5.4 is needed to wait for one.
pub fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a returned descriptor is new, close-on-exec, and has no other owner.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// Fills `buffer` from the memory of a thread's process.
///
/// # Errors
/// `EFAULT` when there is no such memory, `EPERM` when this process may not look.
pub fn read_memory(thread: Pid, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    let remote = [RemoteIoVec { base: at as usize, len: buffer.len() }];
    let wanted = buffer.len();
    match process_vm_readv(thread, &mut [IoSliceMut::new(buffer)], &remote)? {
        read if read == wanted => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

/// Writes two pieces into the memory of a thread's process, which must be waiting for them.
///
/// # Errors
/// As for [`read_memory`].
pub fn write_memory(thread: Pid, pieces: [(u64, &[u8]); 2]) -> io::Result<()> {
    let remote = pieces.map(|(at, bytes)| RemoteIoVec { base: at as usize, len: bytes.len() });
    match process_vm_writev(thread, &pieces.map(|(_, bytes)| IoSlice::new(bytes)), &remote)? {
        written if written == pieces[0].1.len() + pieces[1].1.len() => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

/// A copy of one of its descriptors (`pidfd_getfd(2)`, Linux 5.6).
///
/// # Errors
/// `EBADF` when it has none of this number; `EPERM` or `ENOSYS` where that is not allowed, as in a
/// container with Docker's default profile.
pub fn descriptor(thread: Pid, number: RawFd) -> io::Result<OwnedFd> {
    let process = pidfd(process_of(thread)?)?;
    // SAFETY: plain numbers; a returned descriptor is new, close-on-exec, and has no other owner.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as RawFd)) }
    }
}

/// The process of a thread.
fn process_of(thread: Pid) -> io::Result<Pid> {
    let pid = process_in(&status(thread)?);
    pid.map(Pid::from_raw).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// `/proc/PID/status` of a thread (`proc_pid_status(5)`). The thread's name need not be text, and the kernel may cut
/// a long one within a character.
///
/// # Errors
/// When there is no such thread, or this process may not look.
pub fn status(thread: Pid) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(format!("/proc/{thread}/status"))?).into_owned())
}

fn process_in(status: &str) -> Option<libc::pid_t> {
    field(status, "Tgid:")?.parse().ok()
}

/// The value in the line that begins with `name`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The inode of one of its sockets; nothing for another kind of file.
///
/// # Errors
/// When it has no such descriptor, or this process may not look.
pub fn socket_inode(thread: Pid, number: RawFd) -> io::Result<Option<u64>> {
    let link = nix::fcntl::readlink(format!("/proc/{thread}/fd/{number}").as_str())?;
    Ok(link.to_str().and_then(inode_in))
}

fn inode_in(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The protocol of one of its sockets as the kernel names it (`TCP`, `TCPv6`, `UDP`, `UNIX-STREAM` …), which needs
/// less permission than a copy of the socket.
///
/// # Errors
/// As for [`socket_inode`].
pub fn protocol(thread: Pid, number: RawFd) -> io::Result<String> {
    let path = CString::new(format!("/proc/{thread}/fd/{number}"))?;
    let mut name = [0u8; 32];
    // SAFETY: both strings are terminated, and the kernel writes at most as many bytes as there are.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), c"system.sockprotoname".as_ptr(), name.as_mut_ptr().cast(), name.len())
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok(String::from_utf8_lossy(name.get(..length).unwrap_or_default()).trim_end_matches('\0').to_owned())
}

/// The status flags and the close-on-exec flag of one of its descriptors, as `open(2)` names them.
///
/// # Errors
/// As for [`socket_inode`].
pub fn flags(thread: Pid, number: RawFd) -> io::Result<i32> {
    let info = std::fs::read(format!("/proc/{thread}/fdinfo/{number}"))?;
    let info = String::from_utf8_lossy(&info);
    octal(&info, "flags:").ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Its working directory.
///
/// # Errors
/// As for [`socket_inode`].
pub fn working_directory(thread: Pid) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{thread}/cwd"))
}

/// Its file mode mask (`Umask` in `/proc/PID/status`).
///
/// # Errors
/// As for [`socket_inode`].
pub fn umask(thread: Pid) -> io::Result<u32> {
    let mask = octal(&status(thread)?, "Umask:").and_then(|mask| mask.try_into().ok());
    mask.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn octal(text: &str, name: &str) -> Option<i32> {
    i32::from_str_radix(field(text, name)?, 8).ok()
}

#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = (process_in(&text), inode_in(&text), octal(&text, "flags:"), octal(&text, "Umask:"));
}

/// Whether a file gives capabilities to the process that executes it (`capabilities(7)`, "File capabilities").
#[must_use]
pub fn has_capabilities(path: &std::path::Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: both strings are terminated, and no bytes are asked for, only their number.
    unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_have_any_name() {
        let own = || (status(nix::unistd::gettid()).unwrap(), umask(nix::unistd::gettid()).unwrap());
        let (_, mask) = own();
        // Cut within its last character, as the kernel does with one that is too long.
        for name in [&b"caf\xc3"[..], b"Umask:\t0777", b"a\nTgid:\t1", b""] {
            let named = std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    std::fs::write("/proc/thread-self/comm", name).unwrap();
                    (own(), process_of(nix::unistd::gettid()).unwrap())
                });
                thread.join().unwrap()
            });
            assert_eq!((named.0.1, named.1), (mask, Pid::this()), "{}", named.0.0);
        }
    }

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        assert_eq!(octal("pos:\t0\nflags:\t02000002\nmnt_id:\t9\n", "flags:"), Some(0o2000002));
        assert_eq!((inode_in("socket:[17]"), inode_in("pipe:[17]"), inode_in("socket:[17")), (Some(17), None, None));
        assert_eq!((process_in("Name:\tx\nTgid:\t12\n"), process_in("")), (Some(12), None));
    }
}
