//! The shim's own descriptors.

use super::abi::*;
use core::ffi::c_int;

/// The shim's own descriptors go here and above, away from the program's low numbers; lower if the descriptor limit
/// leaves no room there.
const HIGH_FDS: [c_int; 3] = [200, 32, 3];

/// Makes calls on a descriptor wait, or not.
pub fn set_nonblocking(fd: c_int, on: bool) {
    let on = c_int::from(on);
    kernel!(nr::IOCTL, fd, FIONBIO, &raw const on);
}

/// Moves a descriptor out of the low numbers, which programs expect to be without gaps.
pub fn move_up(fd: c_int) -> c_int {
    let high = high_copy(fd);
    if high < 0 {
        return fd;
    }
    close(fd);
    high
}

/// A close-on-exec copy as far up as the limit allows, or -1.
pub fn high_copy(fd: c_int) -> c_int {
    let copy = |lowest| kernel!(nr::FCNTL, fd, F_DUPFD_CLOEXEC, lowest) as c_int;
    HIGH_FDS.into_iter().map(copy).find(|copy| *copy >= 0).unwrap_or(-1)
}
