//! What every master needs from the kernel, tried before anything else: by `run`, which does not start without it,
//! and by `check`, which reports it. Containers forbid calls, and an error of the kernel does not say which.

use crate::sys::foreign;
use crate::sys::process::limits;
use crate::sys::socket::room;
use crate::sys::{fd, memfd};
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::io;
use std::os::fd::AsFd;

/// One thing that is needed.
#[derive(Debug)]
pub struct Need {
    /// The call, or what else it is.
    pub what: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    /// The result of the attempt.
    pub tried: io::Result<()>,
}

/// Something that is needed and not available.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be had: {source}; it is needed to {purpose}{}", advice(source))]
pub struct Missing {
    /// The call, or what else it is.
    pub what: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    /// The kernel's error.
    pub source: io::Error,
}

/// Tries everything.
#[must_use]
pub fn try_all() -> Vec<Need> {
    let need = |what, purpose, tried| Need { what, purpose, tried };
    vec![
        need("/proc", "see what workers have open; mount it with mount -t proc proc /proc", proc_is_there()),
        need("memfd_create(2)", "share memory with the guard", memfd::sealed(c"maitred-try", b"x").map(drop)),
        need("prctl(2)", "inherit what workers leave behind", limits::become_subreaper()),
        need("pidfd_open(2)", "watch workers", foreign::pidfd(Pid::this()).map(drop)),
        need("waitid(2)", "learn how workers end", waitid_is_there()),
        need("socketpair(2)", "talk to workers", fd::pair().map(drop)),
        need("sendmsg(2)", "hand connections over", fd::packet_cost().map(drop)),
        need("epoll_create1(2)", "wait for room at workers", room::RoomWatch::new().map(drop)),
    ]
}

/// Finds the first thing that is not available.
///
/// # Errors
/// [`Missing`].
pub fn all_there() -> Result<(), Missing> {
    let missing = |Need { what, purpose, tried }| tried.err().map(|source| Missing { what, purpose, source });
    try_all().into_iter().find_map(missing).map_or(Ok(()), Err)
}

/// What to do about an error of the kernel; the text is written after the error.
#[must_use]
pub fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "; raise the limit of descriptors with ulimit -n",
        Some(libc::ENFILE) => "; the whole system has too many files open, raise fs.file-max",
        Some(libc::EAGAIN) => "; raise the limit of processes with ulimit -u, or pids.max of the container",
        Some(libc::ENOMEM) => "; free memory",
        Some(libc::EPERM | libc::EACCES) => {
            "; a seccomp profile forbids it, as containers have one: allow it there, or run without (--security-opt \
             seccomp=unconfined)"
        }
        Some(libc::ENOSYS) => {
            "; a seccomp profile forbids it, as containers have one, or the kernel is older than Linux 5.4"
        }
        _ => "",
    }
}

fn proc_is_there() -> io::Result<()> {
    std::fs::symlink_metadata("/proc/self/stat").map(drop)
}

fn waitid_is_there() -> io::Result<()> {
    let Ok(myself) = foreign::pidfd(Pid::this()) else { return Ok(()) };
    match waitid(Id::PIDFd(myself.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        // A process is not its own child.
        Ok(_) | Err(Errno::ECHILD) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_likely_reason() {
        all_there().unwrap();
        let missing = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            Missing { what: "pidfd_open(2)", purpose: "watch workers", source }.to_string()
        };
        for (errno, words) in
            [(libc::EPERM, "seccomp profile"), (libc::ENOSYS, "Linux 5.4"), (libc::EMFILE, "ulimit -n")]
        {
            let said = missing(errno);
            assert!(said.starts_with("pidfd_open(2) cannot be had: ") && said.contains(words), "{said}");
            assert!(!said.contains("ulimit -u"), "{said}");
        }
    }
}
