//! What this process may use, and which role it has for its descendants.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The limits of open descriptors (`RLIMIT_NOFILE`), soft and hard.
#[derive(Clone, Copy, Debug)]
pub struct DescriptorLimit {
    /// What the kernel enforces.
    pub soft: u64,
    /// How far the soft limit may be raised.
    pub hard: u64,
}

/// The limits as they are.
///
/// # Errors
/// That of `getrlimit(2)`.
pub fn descriptor_limit() -> io::Result<DescriptorLimit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(DescriptorLimit { soft, hard })
}

/// Raises the soft limit of descriptors to the hard one and returns what it was, so that workers start with what they
/// would have had without the master.
///
/// # Errors
/// That of `getrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    let DescriptorLimit { soft, hard } = descriptor_limit()?;
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

/// What chose this process's scheduling policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chosen {
    /// [`wake_without_preempting`] did. A master that did not say so has chosen it too, if it could.
    #[default]
    Here,
    /// The process that started the master did, or nothing did.
    Outside,
}

/// What chose the present policy.
#[must_use]
pub fn policy_chosen() -> Chosen {
    if CHANGED.load(Relaxed) { Chosen::Here } else { Chosen::Outside }
}

/// Goes back to the policy that this process's first program was started with: `execve(2)` keeps the one that the
/// last program chose, which must not be taken for the operator's choice. Call this before threads are started.
pub fn policy_of_the_start(chosen: Chosen) {
    // SAFETY: it reads no memory of this process; 0 means the calling thread.
    let batch = unsafe { libc::sched_getscheduler(0) } == libc::SCHED_BATCH;
    if chosen == Chosen::Here && batch {
        ordinary();
    }
}

/// Whether [`wake_without_preempting`] changed this process's policy.
static CHANGED: AtomicBool = AtomicBool::new(false);

/// Lets this thread wake without preempting a running worker (`SCHED_BATCH`, `sched(7)`). Only a thread of the
/// ordinary policy is changed; [`like_before`] undoes it in a child.
///
/// A front that preempts its workers for each connection causes two context switches for each. With this policy it
/// runs when a worker pauses, and finds several connections at once. Measured on two full cores: a fifth of the
/// master's context switches, 6 % more connections a second with Node workers and 18 % with a small C server, and the
/// 99th percentile of latency at 12 to 13 ms instead of 12. With a core to spare nothing changes.
///
/// # Errors
/// That of `sched_setscheduler(2)`; nothing depends on it.
pub fn wake_without_preempting() -> io::Result<()> {
    // SAFETY: plain numbers, all 0; how many there are differs from one libc to another.
    let ordinary: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads one valid structure; 0 means the calling thread.
    let done = unsafe {
        if libc::sched_getscheduler(0) != libc::SCHED_OTHER {
            // The operator chose another one.
            return Ok(());
        }
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const ordinary)
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    CHANGED.store(true, Relaxed);
    Ok(())
}

/// Gives a freshly forked child the policy that its master was started with: a worker is to compete as it would
/// without the master. Async-signal-safe.
pub fn like_before() {
    if CHANGED.load(Relaxed) {
        ordinary();
    }
}

/// Gives this thread the ordinary policy, which every process may have. Async-signal-safe.
fn ordinary() {
    // SAFETY: plain numbers, all 0; how many there are differs from one libc to another.
    let ordinary: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads one valid structure; 0 means the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary) };
}

/// Whether this process has privileges that its executable gave it (file capabilities, setuid): a
/// worker without them may not look into this process's `/proc` entries.
#[must_use]
pub fn has_privileges_of_executable() -> bool {
    // SAFETY: getauxval only reads.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
