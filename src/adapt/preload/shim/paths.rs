//! Unix socket paths that the master holds for all workers.
//!
//! Servers remove a stale socket file before they bind, and their own file when they end. For a single server that is
//! right; one of N workers would take the path from the others. So the shim only pretends to remove a path that the
//! master holds. The master removes the file when it ends.

use super::abi::ADDRESS_MAX;
use super::settings;
use super::table::lock;
use core::cell::UnsafeCell;

/// Paths of this process that are remembered; further ones are really removed when the program asks.
const REMEMBERED: usize = 16;
/// Longest absolute path that is asked for: a relative one that fits into an address may be longer than that.
const PATH_MAX: usize = ADDRESS_MAX * 3;

struct Paths(UnsafeCell<[([u8; PATH_MAX], usize); REMEMBERED]>);
// SAFETY: reached only with the table's lock held.
unsafe impl Sync for Paths {}
static PATHS: Paths = Paths(UnsafeCell::new([([0; PATH_MAX], 0); REMEMBERED]));

/// Remembers a path that this process listens on through the master.
pub fn remember(path: &[u8]) {
    if path.len() > PATH_MAX || holds(path) {
        return;
    }
    let _locked = lock();
    // SAFETY: the lock is held.
    let paths = unsafe { &mut *PATHS.0.get() };
    if let Some((bytes, len)) = paths.iter_mut().find(|(_, len)| *len == 0) {
        bytes[..path.len()].copy_from_slice(path);
        *len = path.len();
    }
}

/// The same for an absolute path without its first slash.
pub fn remember_absolute(rest: &str) {
    let mut path = [0u8; PATH_MAX];
    path[0] = b'/';
    if let Some(place) = path.get_mut(1..=rest.len()) {
        place.copy_from_slice(rest.as_bytes());
        remember(&path[..=rest.len()]);
    }
}

/// Whether the master holds this (absolute) path.
pub fn holds(path: &[u8]) -> bool {
    if settings::unix_paths().split(|&b| b == b':').any(|held| held == path) {
        return true;
    }
    let _locked = lock();
    // SAFETY: the lock is held.
    let paths = unsafe { &*PATHS.0.get() };
    paths.iter().any(|(bytes, len)| *len > 0 && &bytes[..*len] == path)
}
