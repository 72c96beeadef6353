//! The filter that a supervised child runs under.

use super::{KIND_OPTIONS, Name, Watched};
use std::os::fd::RawFd;

/// The machine as audit names it (linux/audit.h): calls of another one, as a 32-bit program makes
/// them, have other numbers and are left alone.
const MACHINE: u32 = if cfg!(target_arch = "aarch64") { 0xc000_00b7 } else { 0xc000_003e };
/// Places in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The lower halves of the second and third argument.
const LEVEL: u32 = 24;
const OPTION: u32 = 32;
const LOAD_ABSOLUTE: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// The filter's instructions: watched calls are reported, all others are let through.
///
/// Written here because crates that assemble filters do not support reports: seccompiler has only the actions that
/// the kernel carries out by itself, and libseccomp is a C library that would have to be installed.
#[must_use]
pub fn filter(watched: Watched) -> Vec<libc::sock_filter> {
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let allow = || op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
    let report = || op(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF);
    let mut program = vec![op(LOAD_ABSOLUTE, 0, 0, ARCHITECTURE), op(IF_EQUAL, 1, 0, MACHINE), allow()];
    program.push(op(LOAD_ABSOLUTE, 0, 0, NUMBER));
    for (name, number) in watched.calls() {
        if *name != Name::GetSockOpt {
            program.extend([op(IF_EQUAL, 0, 1, *number as u32), report()]);
            continue;
        }
        program.extend([op(IF_EQUAL, 1, 0, *number as u32), allow(), op(LOAD_ABSOLUTE, 0, 0, LEVEL)]);
        program.extend([op(IF_EQUAL, 1, 0, libc::SOL_SOCKET as u32), allow(), op(LOAD_ABSOLUTE, 0, 0, OPTION)]);
        for option in KIND_OPTIONS {
            program.extend([op(IF_EQUAL, 0, 1, option as u32), report()]);
        }
    }
    program.push(allow());
    program
}

/// Puts the calling thread and everything that it will start under the filter; returns the descriptor on which calls
/// are reported, or -1 with `errno` set: `EBUSY` when an outer supervisor is there already.
///
/// The thread gives up gaining privileges by `execve(2)` if the kernel requires that.
///
/// # Safety
/// Async-signal-safe; `program` must point to a valid program.
pub unsafe fn install(program: *const libc::sock_fprog) -> RawFd {
    // SAFETY: plain system calls on what the caller guarantees.
    unsafe {
        let set = || {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                program,
            ) as RawFd
        };
        let fd = set();
        if fd >= 0 || *libc::__errno_location() != libc::EACCES {
            return fd;
        }
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 { -1 } else { set() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(program: &[libc::sock_filter], machine: u32, number: libc::c_long, option: libc::c_int) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let op = program[at];
            at += 1;
            match (op.code, op.k) {
                (LOAD_ABSOLUTE, ARCHITECTURE) => accumulator = machine,
                (LOAD_ABSOLUTE, NUMBER) => accumulator = number as u32,
                (LOAD_ABSOLUTE, LEVEL) => accumulator = libc::SOL_SOCKET as u32,
                (LOAD_ABSOLUTE, OPTION) => accumulator = option as u32,
                (IF_EQUAL, k) => at += usize::from(if accumulator == k { op.jt } else { op.jf }),
                (RETURN, k) => return k,
                (code, k) => panic!("no such instruction: {code} {k}"),
            }
        }
    }

    #[test]
    fn only_what_is_watched_is_reported() {
        for watched in [Watched::Listening, Watched::Accepting] {
            let program = filter(watched);
            for (name, number) in Watched::Accepting.calls() {
                let accepts = matches!(name, Name::Accept | Name::Accept4 | Name::GetSockName);
                let reported = watched == Watched::Accepting || !accepts;
                let expected = if reported { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
                assert_eq!(verdict(&program, MACHINE, *number, libc::SO_PROTOCOL), expected);
                assert_eq!(verdict(&program, 0x4000_0003, *number, libc::SO_PROTOCOL), libc::SECCOMP_RET_ALLOW);
            }
            for number in [libc::SYS_read, libc::SYS_connect, libc::SYS_execve, libc::SYS_close] {
                assert_eq!(verdict(&program, MACHINE, number, 0), libc::SECCOMP_RET_ALLOW);
            }
            let error = verdict(&program, MACHINE, libc::SYS_getsockopt, libc::SO_ERROR);
            assert_eq!(error, libc::SECCOMP_RET_ALLOW);
        }
    }
}
