//! `accept` on a hand-off socket, including its end.

use super::abi::*;
use super::descriptors::{high_copy, set_nonblocking};
use super::end;
use super::listening::{CAREFUL_FROM, HIGHEST_FD, note, put_under_all_numbers};
use super::table::{Entry, State, lock};
use super::text::in_family;
use core::ffi::{c_int, c_uint, c_void};
use core::ptr::null_mut;
use core::sync::atomic::Ordering::Relaxed;

/// `accept`: takes one connection from the hand-off socket.
///
/// # Safety
/// `addr` and `len` must be null or as `accept(2)` requires.
pub unsafe fn take(fd: c_int, entry: &'static Entry, addr: *mut u8, len: *mut c_uint, flags: c_int) -> c_int {
    if flags & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return fail(EINVAL);
    }
    if HIGHEST_FD.load(Relaxed) >= CAREFUL_FROM.load(Relaxed) {
        let spare = kernel!(nr::FCNTL, fd, F_DUPFD_CLOEXEC, 0) as c_int;
        if spare < 0 {
            // The connection stays in the queue, as with the kernel's own accept.
            return fail(-spare);
        }
        close(spare);
    }
    let receive_flags = if flags & SOCK_CLOEXEC != 0 { MSG_CMSG_CLOEXEC } else { 0 };
    loop {
        let mut peer = [0u8; ADDRESS_MAX];
        let mut iov = IoVec { base: peer.as_mut_ptr().cast(), len: ADDRESS_MAX };
        let mut rights = Rights::default();
        let mut message = MsgHdr {
            name: null_mut(),
            name_len: 0,
            iov: &raw mut iov,
            iov_len: 1,
            control: (&raw mut rights).cast::<c_void>(),
            control_len: rights_len(1).next_multiple_of(8),
            flags: 0,
        };
        // SAFETY: all buffers live on this stack frame.
        let n = unsafe { receive(fd, &mut message, receive_flags) };
        if n < 0 {
            return -1;
        }
        if message.flags & MSG_CTRUNC != 0 {
            let id = lock().detail(entry).id;
            note(entry, "TRUNCATED", id);
            return fail(EMFILE);
        }
        let has_fd = message.control_len >= rights_len(1) && rights.level == SOL_SOCKET && rights.kind == SCM_RIGHTS;
        if !has_fd {
            if n == 0 {
                return ended(fd, entry);
            }
            // Not a hand-off; only the master can have sent it, and it has no meaning.
            continue;
        }
        let connection = rights.fds[0];
        if connection > HIGHEST_FD.load(Relaxed) {
            HIGHEST_FD.store(connection, Relaxed);
        }
        if flags & SOCK_NONBLOCK != 0 {
            set_nonblocking(connection, true);
        }
        if !addr.is_null() && !len.is_null() {
            let (peer, peer_len) = in_family(&peer[..n as usize], entry.family());
            // SAFETY: as the caller vouches; `accept(2)` says that an address that does not fit is cut.
            unsafe {
                let room = (*len as usize).min(peer_len);
                addr.copy_from_nonoverlapping(peer.as_ptr(), room);
                *len = peer_len as c_uint;
            }
        }
        return connection;
    }
}

/// End of file on a hand-off socket: the program itself shut it down, the master is gone, or the master has finished
/// with this process's first ancestor.
fn ended(fd: c_int, entry: &'static Entry) -> c_int {
    if entry.state() != State::Shut {
        // No worker outlives the master; its guard ensures that. But if the guard is gone as well, nothing here may
        // burn a core: the socket stays at end of file and would wake its reader again and again. So from now on the
        // program waits on a socket that never becomes readable, and is asked once to end, together with the processes
        // that would start it again.
        let asleep = put_to_sleep(fd, entry);
        match end::ask() {
            end::Requested::Now => {}
            // It was already put to sleep, or cannot be: this is not a request.
            end::Requested::Before if !asleep => {
                kernel!(nr::KILL, getpid(), SIGKILL);
                kernel!(nr::EXIT_GROUP, 1);
            }
            end::Requested::Before => {}
        }
        if asleep && kernel!(nr::FCNTL, fd, F_GETFL) & O_NONBLOCK != 0 {
            return fail(EAGAIN);
        }
    }
    fail(EINVAL)
}

/// Puts a socket that never becomes readable under all numbers of a hand-off socket; false if no such socket can be
/// created.
fn put_to_sleep(fd: c_int, entry: &'static Entry) -> bool {
    let mut pair = [-1 as c_int; 2];
    if kernel!(nr::SOCKETPAIR, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.as_mut_ptr()) < 0 {
        return false;
    }
    let [asleep, other] = [pair[0], high_copy(pair[1])];
    close(pair[1]);
    if other < 0 {
        close(asleep);
        return false;
    }
    let nonblocking = kernel!(nr::FCNTL, fd, F_GETFL) & O_NONBLOCK != 0;
    let mut locked = lock();
    // Stays open for good: if it closed, the sleeping socket would be at end of file, too.
    locked.protect(other);
    put_under_all_numbers(&mut locked, fd, entry, asleep);
    drop(locked);
    close(asleep);
    if nonblocking {
        set_nonblocking(fd, true);
    }
    true
}
