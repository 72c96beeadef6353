//! The interface to the kernel and to the worker's own libc: system calls, their numbers and structures, and the next
//! definition of each function that [`super::hooks`] intercepts.
//!
//! System calls are made directly, so that the shim works under any libc and inside signal handlers. A call that may
//! block (accept, connect, recvmsg) is made by the worker's libc, because that keeps thread cancellation and other
//! preloaded objects working.

// By path, since a fuzz target includes this file from elsewhere.
#[path = "abi/numbers.rs"]
mod numbers;
#[path = "abi/structs.rs"]
mod structs;

use core::ffi::{c_char, c_int, c_long, c_uint, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
pub use numbers::nr;
pub use structs::*;

pub const AF_UNSPEC: u16 = 0;
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const SOCK_STREAM: c_int = 1;
pub const SOCK_DGRAM: c_int = 2;
pub const SOCK_SEQPACKET: c_int = 5;
pub const SOCK_NONBLOCK: c_int = 0o4000;
pub const SOCK_CLOEXEC: c_int = 0o2000000;
pub const O_NONBLOCK: c_long = 0o4000;
pub const O_RDONLY_CLOEXEC: c_long = 0o2000000;
pub const O_RDWR_CLOEXEC: c_long = 0o2000002;
/// Longest path that the shim opens.
pub const PATH_MAX: usize = 64;
pub const O_DIRECTORY: c_long = if cfg!(target_arch = "aarch64") { 0o40000 } else { 0o200000 };
pub const AT_FDCWD: c_int = -100;
pub const FD_CLOEXEC: c_long = 1;
pub const F_DUPFD: c_int = 0;
pub const F_GETFD: c_int = 1;
pub const F_GETFL: c_int = 3;
pub const F_SETFL: c_int = 4;
pub const F_DUPFD_CLOEXEC: c_int = 1030;
pub const FIONBIO: c_long = 0x5421;
pub const SOL_SOCKET: c_int = 1;
pub const IPPROTO_IPV6: c_int = 41;
pub const IPV6_V6ONLY: c_int = 26;
pub const SO_TYPE: c_int = 3;
pub const SO_RCVTIMEO: c_int = 20;
pub const SO_SNDTIMEO: c_int = 21;
pub const SO_ACCEPTCONN: c_int = 30;
pub const SO_PROTOCOL: c_int = 38;
pub const SO_DOMAIN: c_int = 39;
pub const SO_RCVTIMEO_NEW: c_int = 66;
pub const SO_SNDTIMEO_NEW: c_int = 67;
pub const SCM_RIGHTS: c_int = 1;
pub const MSG_CTRUNC: c_int = 0x8;
pub const MSG_DONTWAIT: c_int = 0x40;
pub const MSG_NOSIGNAL: c_int = 0x4000;
pub const MSG_FASTOPEN: c_int = 0x2000_0000;
pub const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
pub const POLLIN: i16 = 1;
pub const EPOLL_CTL_ADD: c_long = 1;
pub const EPOLL_CTL_DEL: c_long = 2;
pub const RLIMIT_NOFILE: c_long = 7;
pub const SIGKILL: c_long = 9;
pub const SIGTERM: c_long = 15;

pub const EINTR: c_int = 4;
pub const EBADF: c_int = 9;
pub const EAGAIN: c_int = 11;
pub const EINVAL: c_int = 22;
pub const EMFILE: c_int = 24;
pub const EADDRINUSE: c_int = 98;
pub const EISCONN: c_int = 106;
pub const ENOTCONN: c_int = 107;
pub const ETOOMANYREFS: c_int = 109;
pub const ETIMEDOUT: c_int = 110;

/// Longest socket address (`struct sockaddr_storage`).
pub const ADDRESS_MAX: usize = 128;

/// Makes a system call; returns the kernel's value, negative errno on failure.
///
/// # Safety
/// The arguments must be what the kernel expects for call `n`.
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn raw(n: i64, a: [c_long; 6]) -> c_long {
    let ret;
    // SAFETY: the caller vouches for the arguments; clobbers are those of the x86-64 convention.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") n => ret,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

/// Makes a system call; returns the kernel's value, negative errno on failure.
///
/// # Safety
/// The arguments must be what the kernel expects for call `n`.
#[cfg(target_arch = "aarch64")]
#[inline]
pub unsafe fn raw(n: i64, a: [c_long; 6]) -> c_long {
    let ret;
    // SAFETY: the caller vouches for the arguments; clobbers are those of the AArch64 convention.
    unsafe {
        core::arch::asm!("svc 0", in("x8") n, inlateout("x0") a[0] => ret,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack));
    }
    ret
}

/// A system call from its number and arguments; the kernel's value or negative errno.
macro_rules! kernel {
    ($n:expr $(, $a:expr)* $(,)?) => {{
        let given = [$($a as core::ffi::c_long),*];
        let mut args = [0 as core::ffi::c_long; 6];
        args[..given.len()].copy_from_slice(&given);
        // SAFETY: every use passes the kernel numbers, or pointers to memory that outlives the call.
        unsafe { raw($n, args) }
    }};
}
pub(crate) use kernel;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
    fn recvmsg(fd: c_int, message: *mut MsgHdr, flags: c_int) -> isize;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __register_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
        object: *mut c_void,
    ) -> c_int;
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
    fn fileno(stream: *mut c_void) -> c_int;
    fn fflush(stream: *mut c_void) -> c_int;
    static environ: *const *const c_char;
}
// Before glibc 2.34 `dlsym` is in libdl, which the worker may not load: then the address is null and the shim falls
// back on system calls.
core::arch::global_asm!(".weak dlsym");
// The first is glibc's, the second musl's.
core::arch::global_asm!(".weak __register_atfork", ".weak pthread_atfork");

/// The environment of the process, as `NAME=value` strings, terminated by null.
pub fn environment() -> *const *const c_char {
    // SAFETY: both libcs define `environ` and set it before constructors run.
    unsafe { environ }
}

/// Sets the calling thread's `errno` and returns the -1 that goes with it.
pub fn fail(errno: c_int) -> c_int {
    // SAFETY: both libcs promise a valid pointer to the calling thread's errno.
    unsafe { *__errno_location() = errno };
    -1
}

/// The calling thread's `errno`.
pub fn errno() -> c_int {
    // SAFETY: as in `fail`.
    unsafe { *__errno_location() }
}

/// Turns the kernel's answer into libc's: -1 and errno, or the value.
pub fn outcome(ret: c_long) -> c_int {
    if ret < 0 { fail(-ret as c_int) } else { ret as c_int }
}

/// libc's own `recvmsg`: it may block, and is a cancellation point like `accept`.
///
/// # Safety
/// `message` must describe valid buffers.
pub unsafe fn receive(fd: c_int, message: &mut MsgHdr, flags: c_int) -> isize {
    // SAFETY: the caller vouches for the buffers.
    unsafe { recvmsg(fd, message, flags) }
}

pub fn getpid() -> c_int {
    kernel!(nr::GETPID) as c_int
}

pub fn close(fd: c_int) {
    kernel!(nr::CLOSE, fd);
}

pub fn abort() -> ! {
    loop {
        kernel!(nr::EXIT_GROUP, 134);
    }
}

/// The inode of an open descriptor, or `None` if it is not open.
pub fn inode(fd: c_int) -> Option<u64> {
    let mut stat = [0u64; 32];
    // `st_ino` is the second word on every 64-bit Linux.
    (kernel!(nr::FSTAT, fd, stat.as_mut_ptr()) == 0).then_some(stat[1])
}

/// An integer socket option, or `None` if the descriptor is not a socket.
pub fn socket_option(fd: c_int, option: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut len: c_uint = 4;
    let ret = kernel!(nr::GETSOCKOPT, fd, SOL_SOCKET, option, &raw mut value, &raw mut len);
    (ret == 0).then_some(value)
}

/// The intercepted functions, as the next object in load order defines them.
macro_rules! next {
    ($($name:ident ( $($arg:ident : $ty:ty),* ) -> $ret:ty, else $fallback:expr;)*) => {
        pub mod next {
            use super::*;
            $(
                pub(super) mod $name {
                    use super::*;
                    pub static AT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
                }
                /// The next definition of this function; a direct system call when there is none.
                ///
                /// # Safety
                /// As for the function of that name in libc.
                pub unsafe fn $name($($arg: $ty),*) -> $ret {
                    let at = $name::AT.load(Ordering::Relaxed);
                    if at.is_null() {
                        return outcome($fallback) as $ret;
                    }
                    // SAFETY: `at` is libc's function of this name, which has this signature.
                    unsafe { transmute::<*mut c_void, unsafe extern "C" fn($($ty),*) -> $ret>(at)($($arg),*) }
                }
            )*
        }
        /// Finds the next definitions. Called once, while the process has a single thread.
        pub fn resolve() {
            let dlsym_at = dlsym as *const ();
            // Hidden from the optimiser, which assumes that a function's address is never null.
            if core::hint::black_box(dlsym_at).is_null() {
                return;
            }
            const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
            $(
                // SAFETY: a valid handle and a terminated name.
                let at = unsafe { dlsym(RTLD_NEXT, concat!(stringify!($name), "\0").as_ptr().cast()) };
                next::$name::AT.store(at, Ordering::Relaxed);
            )*
        }
    };
}

next! {
    bind(fd: c_int, addr: *const u8, len: c_uint) -> c_int, else kernel!(nr::BIND, fd, addr, len);
    listen(fd: c_int, backlog: c_int) -> c_int, else kernel!(nr::LISTEN, fd, backlog);
    connect(fd: c_int, addr: *const u8, len: c_uint) -> c_int, else kernel!(nr::CONNECT, fd, addr, len);
    accept(fd: c_int, addr: *mut u8, len: *mut c_uint) -> c_int, else kernel!(nr::ACCEPT, fd, addr, len);
    accept4(fd: c_int, addr: *mut u8, len: *mut c_uint, flags: c_int) -> c_int, else kernel!(nr::ACCEPT4, fd, addr, len, flags);
    close(fd: c_int) -> c_int, else kernel!(nr::CLOSE, fd);
    shutdown(fd: c_int, how: c_int) -> c_int, else kernel!(nr::SHUTDOWN, fd, how);
    dup(fd: c_int) -> c_int, else kernel!(nr::DUP, fd);
    dup3(fd: c_int, to: c_int, flags: c_int) -> c_int, else kernel!(nr::DUP3, fd, to, flags);
    dup2(fd: c_int, to: c_int) -> c_int, else if fd == to { kernel!(nr::FCNTL, fd, F_GETFD).min(0) + fd as c_long } else { kernel!(nr::DUP3, fd, to, 0) };
    fcntl(fd: c_int, command: c_int, arg: c_long) -> c_int, else kernel!(nr::FCNTL, fd, command, arg);
    getsockname(fd: c_int, addr: *mut u8, len: *mut c_uint) -> c_int, else kernel!(nr::GETSOCKNAME, fd, addr, len);
    getpeername(fd: c_int, addr: *mut u8, len: *mut c_uint) -> c_int, else kernel!(nr::GETPEERNAME, fd, addr, len);
    getsockopt(fd: c_int, level: c_int, option: c_int, value: *mut c_void, len: *mut c_uint) -> c_int, else kernel!(nr::GETSOCKOPT, fd, level, option, value, len);
    setsockopt(fd: c_int, level: c_int, option: c_int, value: *const c_void, len: c_uint) -> c_int, else kernel!(nr::SETSOCKOPT, fd, level, option, value, len);
    unlink(path: *const c_char) -> c_int, else kernel!(nr::UNLINKAT, AT_FDCWD, path, 0);
    unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int, else kernel!(nr::UNLINKAT, dir, path, flags);
    remove(path: *const c_char) -> c_int, else kernel!(nr::UNLINKAT, AT_FDCWD, path, 0);
    sendto(fd: c_int, bytes: *const c_void, len: usize, flags: c_int, addr: *const u8, addr_len: c_uint) -> isize, else kernel!(nr::SENDTO, fd, bytes, len, flags, addr, addr_len);
    sendmsg(fd: c_int, message: *const c_void, flags: c_int) -> isize, else kernel!(nr::SENDMSG, fd, message, flags);
    sendmmsg(fd: c_int, messages: *mut c_void, count: c_uint, flags: c_int) -> c_int, else kernel!(nr::SENDMMSG, fd, messages, count, flags);
    fclose(stream: *mut c_void) -> c_int, else close_stream(stream);
}

/// Closes a stream when there is no next `fclose`: its buffer is written, and its descriptor closed.
fn close_stream(stream: *mut c_void) -> c_long {
    // SAFETY: the program's own stream, which it gives up.
    let (flushed, fd) = unsafe { (fflush(stream), fileno(stream)) };
    let failed = -c_long::from(errno());
    let closed = kernel!(nr::CLOSE, fd);
    if flushed < 0 { failed } else { closed }
}

/// The descriptor of a stream, or -1.
///
/// # Safety
/// `stream` must be open.
pub unsafe fn number_of(stream: *mut c_void) -> c_int {
    let before = errno();
    // SAFETY: the caller vouches for it.
    let fd = unsafe { fileno(stream) };
    if fd < 0 {
        fail(before);
    }
    fd
}

/// Has libc call a function in each child that it forks, by whatever name (`pthread_atfork(3)`).
pub fn at_fork(child: extern "C" fn()) {
    let (glibc, musl) = (__register_atfork as *const (), pthread_atfork as *const ());
    // Hidden from the optimiser, which assumes that a function's address is never null.
    let [glibc, musl] = core::hint::black_box([glibc, musl]);
    // SAFETY: the libc that has the symbol has it with this signature; null stands for no handler, and for an object
    // that is never unloaded.
    unsafe {
        if !glibc.is_null() {
            __register_atfork(None, None, Some(child), null_mut());
        } else if !musl.is_null() {
            pthread_atfork(None, None, Some(child));
        }
    }
}
