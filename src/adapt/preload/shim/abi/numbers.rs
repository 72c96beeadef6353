//! Numbers of system calls.

/// System call numbers; only those that the shim itself uses.
#[cfg(target_arch = "x86_64")]
pub mod nr {
    pub const READ: i64 = 0;
    pub const CLOSE: i64 = 3;
    pub const FSTAT: i64 = 5;
    pub const MMAP: i64 = 9;
    pub const RT_SIGPROCMASK: i64 = 14;
    pub const IOCTL: i64 = 16;
    pub const SCHED_YIELD: i64 = 24;
    pub const MADVISE: i64 = 28;
    pub const DUP: i64 = 32;
    pub const DUP2: i64 = 33;
    pub const GETPID: i64 = 39;
    pub const SOCKET: i64 = 41;
    pub const CONNECT: i64 = 42;
    pub const ACCEPT: i64 = 43;
    pub const SENDTO: i64 = 44;
    pub const SENDMSG: i64 = 46;
    pub const RECVMSG: i64 = 47;
    pub const SHUTDOWN: i64 = 48;
    pub const BIND: i64 = 49;
    pub const LISTEN: i64 = 50;
    pub const GETSOCKNAME: i64 = 51;
    pub const GETPEERNAME: i64 = 52;
    pub const SOCKETPAIR: i64 = 53;
    pub const SETSOCKOPT: i64 = 54;
    pub const GETSOCKOPT: i64 = 55;
    pub const KILL: i64 = 62;
    pub const FCNTL: i64 = 72;
    pub const GETCWD: i64 = 79;
    pub const UNLINK: i64 = 87;
    pub const GETPPID: i64 = 110;
    pub const GETPGID: i64 = 121;
    pub const GETDENTS64: i64 = 217;
    pub const GETRANDOM: i64 = 318;
    pub const EXIT_GROUP: i64 = 231;
    pub const EPOLL_CTL: i64 = 233;
    pub const OPENAT: i64 = 257;
    pub const UNLINKAT: i64 = 263;
    pub const READLINKAT: i64 = 267;
    pub const PPOLL: i64 = 271;
    pub const ACCEPT4: i64 = 288;
    pub const DUP3: i64 = 292;
    pub const UNSHARE: i64 = 272;
    pub const PRLIMIT64: i64 = 302;
    pub const SENDMMSG: i64 = 307;
    pub const KCMP: i64 = 312;
    pub const CLOSE_RANGE: i64 = 436;
    /// clone, fork and clone3.
    pub const FORKS: [i64; 3] = [56, 57, 435];
}

/// System call numbers; only those that the shim itself uses.
#[cfg(target_arch = "aarch64")]
pub mod nr {
    pub const READ: i64 = 63;
    pub const CLOSE: i64 = 57;
    pub const FSTAT: i64 = 80;
    pub const MMAP: i64 = 222;
    pub const RT_SIGPROCMASK: i64 = 135;
    pub const IOCTL: i64 = 29;
    pub const SCHED_YIELD: i64 = 124;
    pub const MADVISE: i64 = 233;
    pub const DUP: i64 = 23;
    pub const GETPID: i64 = 172;
    pub const SOCKET: i64 = 198;
    pub const CONNECT: i64 = 203;
    pub const ACCEPT: i64 = 202;
    pub const SENDTO: i64 = 206;
    pub const SENDMSG: i64 = 211;
    pub const RECVMSG: i64 = 212;
    pub const SHUTDOWN: i64 = 210;
    pub const BIND: i64 = 200;
    pub const LISTEN: i64 = 201;
    pub const GETSOCKNAME: i64 = 204;
    pub const GETPEERNAME: i64 = 205;
    pub const SOCKETPAIR: i64 = 199;
    pub const SETSOCKOPT: i64 = 208;
    pub const GETSOCKOPT: i64 = 209;
    pub const KILL: i64 = 129;
    pub const FCNTL: i64 = 25;
    pub const GETCWD: i64 = 17;
    pub const GETPPID: i64 = 173;
    pub const GETPGID: i64 = 155;
    pub const GETDENTS64: i64 = 61;
    pub const GETRANDOM: i64 = 278;
    pub const EXIT_GROUP: i64 = 94;
    pub const EPOLL_CTL: i64 = 21;
    pub const OPENAT: i64 = 56;
    pub const UNLINKAT: i64 = 35;
    pub const READLINKAT: i64 = 78;
    pub const PPOLL: i64 = 73;
    pub const ACCEPT4: i64 = 242;
    pub const DUP3: i64 = 24;
    pub const UNSHARE: i64 = 97;
    pub const PRLIMIT64: i64 = 261;
    pub const SENDMMSG: i64 = 269;
    pub const KCMP: i64 = 272;
    pub const CLOSE_RANGE: i64 = 436;
    /// clone and clone3.
    pub const FORKS: [i64; 2] = [220, 435];
}
