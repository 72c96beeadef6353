//! Lists the open descriptors of this process from `/proc`.

use super::abi::{AT_FDCWD, O_DIRECTORY, O_RDONLY_CLOEXEC, close, kernel, nr, raw};
use core::ffi::c_int;

/// Buffer for a piece of a directory listing.
const PIECE: usize = 2048;

/// Calls `act` with the number of each open descriptor, including the one used for reading. Without `/proc` it calls
/// nothing.
pub fn each(mut act: impl FnMut(c_int)) {
    let dir = kernel!(nr::OPENAT, AT_FDCWD, c"/proc/self/fdinfo".as_ptr(), O_RDONLY_CLOEXEC | O_DIRECTORY) as c_int;
    if dir < 0 {
        return;
    }
    let mut entries = [0u64; PIECE / 8];
    loop {
        let n = kernel!(nr::GETDENTS64, dir, entries.as_mut_ptr(), PIECE);
        if n <= 0 {
            break;
        }
        let bytes: &[u8] = bytes_of(&entries, n as usize);
        let mut at = 0;
        // struct linux_dirent64: inode (8), offset (8), record length (2), type (1), name.
        while let Some(record) = bytes.get(at..) {
            let Some(len) = record.get(16..18).map(|l| u16::from_ne_bytes([l[0], l[1]]) as usize) else { break };
            if len == 0 {
                break;
            }
            let name = record.get(19..len).unwrap_or(b"");
            let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
            let number = core::str::from_utf8(&name[..end]).ok().and_then(|n| n.parse::<c_int>().ok());
            if let Some(number) = number {
                act(number);
            }
            at += len;
        }
    }
    close(dir);
}

fn bytes_of(words: &[u64], len: usize) -> &[u8] {
    let len = len.min(words.len() * 8);
    // SAFETY: the words are initialised and at least `len` bytes long; any byte is valid.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), len) }
}
