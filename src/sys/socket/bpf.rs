//! Maps and programs in the kernel (`bpf(2)`), as far as connection steering needs them. No toolchain is needed, only
//! three commands.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Commands of `bpf(2)` (include/uapi/linux/bpf.h).
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
/// Kinds of maps.
const ARRAY: u32 = 2;
const REUSEPORT_SOCKARRAY: u32 = 20;
/// An array that can be mapped into memory, since Linux 5.5.
const MMAPABLE: u32 = 1 << 10;
/// A program that chooses a socket of a reuseport group.
const SK_REUSEPORT: u32 = 21;
/// What the kernel asks such a program for (`expected_attach_type`).
const SELECT_OR_MIGRATE: u32 = 40;
/// Attaches such a program to the group of a socket (`socket(7)`).
const SO_ATTACH_REUSEPORT_EBPF: libc::c_int = 52;
/// The same for a classic program, which needs no privilege.
const SO_ATTACH_REUSEPORT_CBPF: libc::c_int = 51;
/// Room for the verifier's log about a program that it refuses.
const LOG: usize = 16 * 1024;

/// The argument of one command: `union bpf_attr`, of which each command uses the beginning. The kernel accepts a
/// longer one than it knows if the rest is zero.
#[repr(C, align(8))]
struct Attr([u8; 120]);

impl Attr {
    fn new() -> Attr {
        Attr([0; 120])
    }

    fn u32(mut self, at: usize, value: u32) -> Attr {
        self.put(at, &value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Attr {
        self.put(at, &value.to_ne_bytes());
        self
    }

    fn name(mut self, at: usize, name: &str) -> Attr {
        // Fifteen bytes and a zero (`BPF_OBJ_NAME_LEN`).
        self.put(at, name.as_bytes().get(..15).unwrap_or(name.as_bytes()));
        self
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.0.iter_mut().skip(at).zip(value).for_each(|(to, from)| *to = *from);
    }

    fn call(&self, command: libc::c_long) -> io::Result<libc::c_long> {
        // SAFETY: the kernel reads the structure and what its addresses point to, which every caller
        // keeps alive and large enough.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_ptr(), self.0.len()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }

    fn open(&self, command: libc::c_long) -> io::Result<OwnedFd> {
        let fd = self.call(command)?;
        // SAFETY: these commands return a new descriptor, close-on-exec, that nothing else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
    }
}

/// An array with one value, shared by a program and this process.
#[derive(Debug)]
pub struct Shared {
    fd: OwnedFd,
    memory: NonNull<AtomicU64>,
    words: usize,
}

impl Shared {
    /// An array with one value of `words` 64-bit words, all zero.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF` where unprivileged use is forbidden, `EINVAL` on a kernel without
    /// mappable arrays (before 5.5).
    pub fn new(name: &str, words: usize) -> io::Result<Shared> {
        let attr = Attr::new().u32(0, ARRAY).u32(4, 4).u32(8, (words * 8) as u32).u32(12, 1).u32(16, MMAPABLE);
        Shared::map(attr.name(28, name).open(MAP_CREATE)?, words)
    }

    /// The same array, which was made before.
    ///
    /// # Errors
    /// When memory ran out, or the descriptor is not such an array.
    pub fn map(fd: OwnedFd, words: usize) -> io::Result<Shared> {
        // SAFETY: a new mapping of the array's value, at an address of the kernel's choice; the kernel
        // rounds its length up to whole pages.
        let memory = unsafe {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), words * 8, protection, flags, fd.as_raw_fd(), 0)
        };
        match NonNull::new(memory.cast()).filter(|_| memory != libc::MAP_FAILED) {
            Some(memory) => Ok(Shared { fd, memory, words }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// The value.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: page-aligned memory of this length that lives as long as `self`; the program and this
        // process both use it atomically only.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.words) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length, and `words` borrows from `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.words * 8) };
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An array of listening sockets, from which a program chooses.
#[derive(Debug)]
pub struct Sockets(OwnedFd);

impl Sockets {
    /// The same array, which was made before.
    #[must_use]
    pub fn again(fd: OwnedFd) -> Sockets {
        Sockets(fd)
    }

    /// An array with room for `room` sockets.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF`.
    pub fn new(name: &str, room: u32) -> io::Result<Sockets> {
        let attr = Attr::new().u32(0, REUSEPORT_SOCKARRAY).u32(4, 4).u32(8, 8).u32(12, room);
        Ok(Sockets(attr.name(28, name).open(MAP_CREATE)?))
    }

    /// Puts a socket, which must listen with `SO_REUSEPORT`, at its place. Closing the socket removes it from there.
    ///
    /// # Errors
    /// `EINVAL` for another kind of socket, `EBUSY` for one that is in an array already.
    pub fn put(&self, place: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd() as u64;
        let attr = Attr::new()
            .u32(0, self.0.as_raw_fd() as u32)
            .u64(8, (&raw const place) as u64)
            .u64(16, (&raw const value) as u64);
        attr.call(MAP_UPDATE_ELEM).map(drop)
    }
}

impl AsFd for Sockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why a program was not loaded.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}", .verifier.as_ref().map(|log| format!("; the verifier says: {log}")).unwrap_or_default())]
pub struct Refused {
    /// The kernel's error.
    pub source: io::Error,
    /// The last line of the verifier's log, if there is one.
    pub verifier: Option<String>,
}

impl Refused {
    /// What is missing, in words for an operator.
    #[must_use]
    pub fn advice(&self) -> String {
        match self.source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "loading an eBPF program needs CAP_BPF (run as root, give the executable cap_bpf with setcap, or \
                 AmbientCapabilities=CAP_BPF in a unit)"
                    .to_owned()
            }
            Some(libc::ENOSYS) => "this kernel has no bpf(2), or a container forbids it".to_owned(),
            _ => format!("the kernel refuses the eBPF program ({self}); it needs Linux 5.12"),
        }
    }
}

/// A program in the kernel.
#[derive(Debug)]
pub struct Loaded {
    /// The program.
    pub fd: OwnedFd,
    /// Whether the kernel also asks it where to move connections that wait at a socket that is shut down.
    pub migrates: bool,
}

/// Loads a program that chooses sockets. This is `moving` where the kernel also asks a program where to move
/// connections that wait at a socket that is shut down (since 5.14), otherwise `plain`.
///
/// # Errors
/// [`Refused`]: `EPERM` without `CAP_BPF`, `EINVAL` or `EACCES` when the verifier refuses it.
pub fn load(name: &str, moving: &[u64], plain: &[u64]) -> Result<Loaded, Refused> {
    let licence = c"MIT";
    let attr = |instructions: &[u64]| {
        Attr::new()
            .u32(0, SK_REUSEPORT)
            .u32(4, instructions.len() as u32)
            .u64(8, instructions.as_ptr() as u64)
            .u64(16, licence.as_ptr() as u64)
            .name(48, name)
    };
    let loaded = attr(moving).u32(68, SELECT_OR_MIGRATE).open(PROG_LOAD).map(|fd| Loaded { fd, migrates: true });
    let loaded = loaded.or_else(|_| attr(plain).open(PROG_LOAD).map(|fd| Loaded { fd, migrates: false }));
    loaded.map_err(|source| {
        // The log costs the kernel time, so it is requested only when there is something to explain.
        let mut log = vec![0u8; LOG];
        let _ = attr(plain).u32(24, 1).u32(28, LOG as u32).u64(32, log.as_mut_ptr() as u64).open(PROG_LOAD);
        let text = String::from_utf8_lossy(&log);
        let mut lines = text.trim_end_matches('\0').lines().filter(|line| !line.starts_with("processed"));
        let verifier = lines.next_back().filter(|line| !line.is_empty()).map(str::to_owned);
        Refused { source, verifier }
    })
}

/// Lets a program choose for the whole reuseport group of a socket.
///
/// # Errors
/// That of `setsockopt(2)`.
pub fn attach(program: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    let fd = program.as_raw_fd();
    // SAFETY: the kernel reads one integer.
    let done = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let option = (&raw const fd).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, option, length)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a classic program choose for the whole reuseport group of a socket, by a socket's place in it. It replaces
/// the previous program.
///
/// # Errors
/// That of `setsockopt(2)`.
pub fn attach_classic(program: &[libc::sock_filter], socket: BorrowedFd<'_>) -> io::Result<()> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the structure and as many instructions as it says.
    let done = unsafe {
        let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
        let option = (&raw const program).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, option, length)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
