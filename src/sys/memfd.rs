//! A file that lives in memory and can never change again (`memfd_create(2)`, sealed).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};

/// Forbids execution as a program, which the loader does not need; kernels since 6.3 ask for a
/// choice.
const MFD_NOEXEC_SEAL: libc::c_uint = 0x8;

/// Makes a sealed file with these bytes: no process, not even its owner's, can write to it, grow it or shrink it.
///
/// # Errors
/// That of `memfd_create(2)` or of writing, usually that memory or descriptors ran out.
pub fn sealed(name: &std::ffi::CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let mut file = create(name, flags | MFD_NOEXEC_SEAL).or_else(|_| create(name, flags))?;
    file.write_all(bytes)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    let fd = OwnedFd::from(file);
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::from_bits_retain(seals)))?;
    Ok(fd)
}

/// Makes a file of zeros with this fixed length, to be mapped and shared.
///
/// # Errors
/// As for [`sealed`].
pub fn shared(name: &std::ffi::CStr, length: usize) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let file = create(name, flags | MFD_NOEXEC_SEAL).or_else(|_| create(name, flags))?;
    file.set_len(length as u64)?;
    let fd = OwnedFd::from(file);
    // A process that could cut it short would kill those that read it (`SIGBUS`, mmap(2)).
    let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::from_bits_retain(seals)))?;
    Ok(fd)
}

fn create(name: &std::ffi::CStr, flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: the name is a terminated string; a returned descriptor is new and has no other owner.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), flags);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}
