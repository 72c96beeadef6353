//! What this process may use, and what it is to its descendants.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// The limits of open descriptors (`RLIMIT_NOFILE`), soft and hard.
#[derive(Clone, Copy, Debug)]
pub struct DescriptorLimit {
    /// What the kernel enforces.
    pub soft: u64,
    /// How far the soft limit may be raised.
    pub hard: u64,
}

/// Raises the soft limit of descriptors to the hard one and returns what it was, so that workers
/// start with what they would have had without us.
///
/// # Errors
/// That of `getrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(DescriptorLimit { soft, hard })
}

/// Makes this process the parent of descendants whose own parent ended, so that it can reap them
/// (`PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// That of `prctl(2)`.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Whether this process has privileges that its executable gave it (file capabilities, setuid): a
/// worker without them may not look into this process's `/proc` entries.
#[must_use]
pub fn has_privileges_of_executable() -> bool {
    // SAFETY: getauxval only reads.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
