//! Structures that the kernel and libc take by address.

use core::ffi::{c_int, c_void};

#[repr(C)]
pub struct IoVec {
    pub base: *mut c_void,
    pub len: usize,
}

/// `struct msghdr` as glibc and musl have it on 64-bit machines.
#[repr(C)]
pub struct MsgHdr {
    pub name: *mut c_void,
    pub name_len: u32,
    pub iov: *mut IoVec,
    pub iov_len: usize,
    pub control: *mut c_void,
    pub control_len: usize,
    pub flags: c_int,
}

/// A control message with room for two descriptors, the most that the shim sends.
#[repr(C, align(8))]
#[derive(Default)]
pub struct Rights {
    pub len: usize,
    pub level: c_int,
    pub kind: c_int,
    pub fds: [c_int; 2],
}

/// Length of a control message with `fds` descriptors (`CMSG_LEN`).
pub const fn rights_len(fds: usize) -> usize {
    16 + 4 * fds
}

#[repr(C)]
pub struct PollFd {
    pub fd: c_int,
    pub events: i16,
    pub revents: i16,
}

#[repr(C)]
pub struct TimeSpec {
    pub seconds: i64,
    pub nanos: i64,
}

/// `struct epoll_event`, packed on x86-64 only.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}
