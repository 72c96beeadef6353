//! `syscall(2)`: libuv closes descriptors this way, Go programs with C parts make all calls this way, and others
//! accept.

use super::super::abi::*;
use super::super::process::owns_memory;
use super::descriptors::{close, close_numbers, dup, dup2, dup3, fcntl};
use super::files::{unlink, unlinkat};
use super::*;
use core::ffi::{c_char, c_int, c_long, c_uint, c_void};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // The kernel reads only as many bits of each argument as its type has (syscall(2)).
    let (fd, second) = (a as c_int, b as c_int);
    // SAFETY: the program's own arguments, with the meaning of the call with that number.
    unsafe {
        c_long::from(match number {
            nr::CLOSE => close(fd),
            nr::CLOSE_RANGE => outcome(close_numbers(a as c_uint, b as c_uint, c as c_int)),
            nr::BIND => bind(fd, b as *const u8, c as c_uint),
            nr::LISTEN => listen(fd, second),
            nr::ACCEPT => accept(fd, b as *mut u8, c as *mut c_uint),
            nr::ACCEPT4 => accept4(fd, b as *mut u8, c as *mut c_uint, d as c_int),
            nr::CONNECT => connect(fd, b as *const u8, c as c_uint),
            nr::SHUTDOWN => shutdown(fd, second),
            nr::DUP => dup(fd),
            #[cfg(target_arch = "x86_64")]
            nr::DUP2 => dup2(fd, second),
            nr::DUP3 => dup3(fd, second, c as c_int),
            nr::FCNTL => fcntl(fd, second, c),
            nr::GETSOCKNAME => getsockname(fd, b as *mut u8, c as *mut c_uint),
            nr::GETPEERNAME => getpeername(fd, b as *mut u8, c as *mut c_uint),
            nr::GETSOCKOPT => getsockopt(fd, second, c as c_int, d as *mut c_void, e as *mut c_uint),
            nr::SETSOCKOPT => setsockopt(fd, second, c as c_int, d as *const c_void, e as c_uint),
            nr::SENDTO => {
                return sendto(fd, b as *const c_void, c as usize, d as c_int, e as *const u8, f as c_uint) as c_long;
            }
            nr::SENDMSG => return sendmsg(fd, b as *const c_void, c as c_int) as c_long,
            nr::SENDMMSG => sendmmsg(fd, b as *mut c_void, c as c_uint, d as c_int),
            #[cfg(target_arch = "x86_64")]
            nr::UNLINK => unlink(a as *const c_char),
            nr::UNLINKAT => unlinkat(fd, b as *const c_char, c as c_int),
            _ => {
                let answer = raw(number, [a, b, c, d, e, f]);
                if answer == 0 && nr::FORKS.contains(&number) {
                    // Before this process can lend its memory to a child of its own.
                    owns_memory();
                }
                return match answer {
                    -4095..=-1 => c_long::from(fail(-answer as c_int)),
                    answer => answer,
                };
            }
        })
    }
}
