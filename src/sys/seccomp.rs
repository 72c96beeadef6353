//! Supervising some system calls of a child (`seccomp_unotify(2)`): the kernel stops the calling thread, tells the
//! supervisor, and lets it act and answer in the kernel's place. All other calls cost the child only the filter's few
//! instructions.
//!
//! This is no protection against the child: what it passes by address can change after it was read.

pub mod filter;

use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Which calls are supervised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// `bind` and `listen`: a handful of calls in a server's life.
    Listening,
    /// Those, `accept`, `accept4` and `getsockname`, several for each connection, and the `getsockopt` queries about
    /// what kind of socket it is.
    Accepting,
}

impl Watched {
    fn calls(self) -> &'static [(Name, libc::c_long)] {
        // `getsockopt` comes last, as `filter` requires.
        match self {
            Watched::Listening => &[
                (Name::Bind, libc::SYS_bind),
                (Name::Listen, libc::SYS_listen),
                // Whether the socket listens: other processes may listen on a socket that this worker has only bound.
                (Name::GetSockOpt, libc::SYS_getsockopt),
            ],
            Watched::Accepting => &[
                (Name::Bind, libc::SYS_bind),
                (Name::Listen, libc::SYS_listen),
                (Name::Accept4, libc::SYS_accept4),
                (Name::Accept, libc::SYS_accept),
                (Name::GetSockName, libc::SYS_getsockname),
                (Name::GetSockOpt, libc::SYS_getsockopt),
            ],
        }
    }
}

/// A supervised call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Name {
    /// `bind(2)`.
    Bind,
    /// `listen(2)`.
    Listen,
    /// `accept(2)`.
    Accept,
    /// `accept4(2)`.
    Accept4,
    /// `getsockname(2)`.
    GetSockName,
    /// `getsockopt(2)` with `SOL_SOCKET` and one of [`KIND_OPTIONS`].
    GetSockOpt,
}

/// Options that tell what kind of socket it is; hardly any program asks for them on a connection.
pub const KIND_OPTIONS: [libc::c_int; 4] = [libc::SO_ACCEPTCONN, libc::SO_TYPE, libc::SO_DOMAIN, libc::SO_PROTOCOL];

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Call {
    id: u64,
    /// The calling thread.
    #[serde(with = "as_number")]
    pub thread: Pid,
    /// Which call it is.
    pub name: Name,
    /// Its arguments.
    pub args: [u64; 6],
}

/// A process id as the number that it is.
pub mod as_number {
    use nix::unistd::Pid;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    pub fn serialize<S: Serializer>(pid: &Pid, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(pid.as_raw())
    }

    /// Reads it.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pid, D::Error> {
        i32::deserialize(from).map(Pid::from_raw)
    }
}

impl Call {
    /// The first argument, a descriptor in all of these calls.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.args[0] as RawFd
    }
}

/// Whether a descriptor is closed when the program is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExec {
    /// It is closed.
    Close,
    /// It stays open.
    Keep,
}

impl OnExec {
    fn flags(self) -> u32 {
        match self {
            OnExec::Close => libc::O_CLOEXEC as u32,
            OnExec::Keep => 0,
        }
    }
}

/// Where the kernel reports the calls of one family of processes.
#[derive(Debug)]
pub struct Notifier(OwnedFd);

impl Notifier {
    /// Takes over the descriptor that [`install`] returned.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Notifier {
        const SYNC_WAKE_UP: u64 = 1;
        // SAFETY: an ioctl with a number. With this flag, an answered thread runs on this processor at once, which
        // saves most of a switch (Linux 6.6); without it everything else works the same.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS as _, SYNC_WAKE_UP) };
        Notifier(fd)
    }

    /// The next call that waits. A call that is reported by mistake is let through.
    ///
    /// # Errors
    /// `WouldBlock` when none waits, `UnexpectedEof` when the last process is gone.
    pub fn receive(&self) -> io::Result<Call> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        // Receiving blocks whatever the descriptor's mode is, so this polls first.
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::ZERO)?;
        let seen = polled[0].revents().unwrap_or(PollFlags::empty());
        if !seen.contains(PollFlags::POLLIN) {
            let gone = seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
            return Err(if gone { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::WouldBlock }.into());
        }
        // SAFETY: the kernel requires a zeroed structure, and may know a longer one. It writes as many bytes as its
        // own structure has, and the buffer has room to spare for later kernels.
        let got = unsafe {
            #[repr(C)]
            struct Room(libc::seccomp_notif, [u64; 32]);
            let mut room: Room = std::mem::zeroed();
            let ret = libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut room);
            if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(room.0) }
        };
        let got = match got {
            Ok(got) => got,
            // The thread was interrupted or killed before its call was received.
            Err(error) if [Some(libc::ENOENT), Some(libc::EINTR)].contains(&error.raw_os_error()) => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Err(error) => return Err(error),
        };
        let number = libc::c_long::from(got.data.nr);
        let name = Watched::Accepting.calls().iter().find(|(_, n)| *n == number).map(|(name, _)| *name);
        let thread = Pid::from_raw(got.pid as libc::pid_t);
        match name {
            Some(name) => Ok(Call { id: got.id, thread, name, args: got.data.args }),
            None => {
                self.pass(&Call { id: got.id, thread, name: Name::Bind, args: got.data.args });
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
    }

    /// Whether the call still waits: its thread may be interrupted or killed at any moment. What was found out about
    /// a thread is about this one only if the call still waits afterwards.
    #[must_use]
    pub fn waits(&self, call: &Call) -> bool {
        // SAFETY: the kernel reads one number.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const call.id) == 0 }
    }

    /// Lets the kernel carry the call out as if it were not supervised.
    pub fn pass(&self, call: &Call) {
        self.respond(call, 0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32);
    }

    /// Answers in place of the kernel. A call that does not wait any more needs none.
    pub fn answer(&self, call: &Call, result: Result<i64, Errno>) {
        match result {
            Ok(value) => self.respond(call, value, 0, 0),
            Err(errno) => self.respond(call, 0, -(errno as i32), 0),
        }
    }

    fn respond(&self, call: &Call, val: i64, error: i32, flags: u32) {
        let response = libc::seccomp_notif_resp { id: call.id, val, error, flags };
        // SAFETY: the kernel reads the structure. It fails when the call does not wait any more, and nothing is to be
        // done then.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw const response) };
    }

    /// Replaces the caller's descriptor `number` with a copy of `fd`; the call continues to wait.
    ///
    /// # Errors
    /// `NotFound` when the call does not wait any more.
    pub fn put(&self, call: &Call, fd: BorrowedFd<'_>, number: RawFd, on_exec: OnExec) -> io::Result<()> {
        self.add(call, fd, number, libc::SECCOMP_ADDFD_FLAG_SETFD, on_exec).map(|_| ())
    }

    /// Gives the caller a copy of `fd`. Its number is what the supervised call returns, and what this function
    /// returns. Both the copy and the answer happen, or neither (`SECCOMP_ADDFD_FLAG_SEND`, Linux 5.14), if no signal
    /// interrupts this thread meanwhile.
    ///
    /// # Errors
    /// `NotFound` when the call does not wait any more; `EMFILE` when the caller has no number free.
    pub fn give(&self, call: &Call, fd: BorrowedFd<'_>, on_exec: OnExec) -> io::Result<RawFd> {
        self.add(call, fd, 0, libc::SECCOMP_ADDFD_FLAG_SEND, on_exec)
    }

    fn add(
        &self,
        call: &Call,
        fd: BorrowedFd<'_>,
        number: RawFd,
        how: libc::c_ulong,
        on_exec: OnExec,
    ) -> io::Result<RawFd> {
        let request = libc::seccomp_notif_addfd {
            id: call.id,
            flags: how as u32,
            srcfd: fd.as_raw_fd() as u32,
            newfd: number as u32,
            newfd_flags: on_exec.flags(),
        };
        loop {
            // SAFETY: the kernel reads the structure.
            let done =
                unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw const request) };
            if done >= 0 {
                return Ok(done);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The thread was killed, or interrupted, which makes it call again.
                Some(libc::ENOENT | libc::ESRCH | libc::EINPROGRESS) => return Err(io::ErrorKind::NotFound.into()),
                _ => return Err(error),
            }
        }
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Notifier {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A child that tried to put itself under a filter and waits to be killed. Dropping this kills it.
#[derive(Debug)]
pub struct Subject {
    pid: Pid,
    errno: i32,
}

impl Subject {
    /// Forks the child. Call this only while there is one thread.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn start() -> io::Result<Subject> {
        let instructions = filter::filter(Watched::Accepting);
        let program =
            libc::sock_fprog { len: instructions.len() as libc::c_ushort, filter: instructions.as_ptr().cast_mut() };
        let (report, theirs) = crate::sys::fd::pair()?;
        // SAFETY: the child makes async-signal-safe calls only and never returns.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let errno = if filter::install(&raw const program) < 0 { *libc::__errno_location() } else { 0 };
                libc::write(theirs.as_raw_fd(), (&raw const errno).cast(), size_of::<i32>());
                loop {
                    libc::pause();
                }
            },
            pid => Pid::from_raw(pid),
        };
        drop(theirs);
        let mut errno = [0; 4];
        let mut subject = Subject { pid, errno: libc::ECHILD };
        let received = crate::sys::fd::receive_blocking(report.as_fd(), &mut errno)?;
        // A child that was killed before it could report anything may not have a filter.
        if received.len == errno.len() {
            subject.errno = i32::from_ne_bytes(errno);
        }
        Ok(subject)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The result of its attempt.
    ///
    /// # Errors
    /// That of [`install`].
    pub fn supervised(&self) -> io::Result<()> {
        if self.errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(self.errno)) }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}
