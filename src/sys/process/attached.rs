//! Processes that are told to end when this one does.

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Starts a command as the leader of a process group of its own. It gets this signal when the calling thread ends
/// (`PR_SET_PDEATHSIG`, `prctl(2)`), so call this from the thread that ends last. The caller removes the process when it
/// has ended ([`super::reap`]).
///
/// # Errors
/// That of `fork(2)` or `execve(2)`.
pub fn spawn(mut command: Command, when_we_end: Signal) -> io::Result<Pid> {
    command.process_group(0);
    let we = getpid();
    let attach = move || {
        nix::sys::prctl::set_pdeathsig(when_we_end)?;
        // It may have ended before that: then this process belongs to another one.
        if getppid() == we { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called, and nothing is allocated.
    let child = unsafe { command.pre_exec(attach) }.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Pid::from_raw(pid))
}
