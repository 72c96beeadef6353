//! What a child gets besides its program: a user, limits, a priority, a root directory.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::Resource;
use nix::unistd::Pid;
use std::io;
use std::path::{Path, PathBuf};

/// What a child gets. What is not given stays as this process has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Its user and groups.
    pub user: Option<User>,
    /// What new files may not be (`umask(2)`).
    pub umask: Option<libc::mode_t>,
    /// Limits of resources (`setrlimit(2)`).
    pub limits: Vec<Limit>,
    /// The nice value (`setpriority(2)`).
    pub nice: Option<i32>,
    /// The only core that it may use.
    pub core: Option<usize>,
    /// How likely the kernel kills it when memory runs out, -1000 to 1000 (`proc_pid_oom_score_adj(5)`).
    pub oom_score_adjust: Option<i32>,
    /// Its root directory (`chroot(2)`).
    pub root: Option<PathBuf>,
    /// Whether it can gain privileges by executing.
    pub gains: Gains,
}

/// A user that a process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number; nothing to stay the same user.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
    /// Its name, home and shell, where the system knows it.
    pub entry: Option<Entry>,
}

impl User {
    /// Its name, or its number where it has none; nothing if the process stays the same user.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.entry.as_ref().map(|entry| entry.name.clone()).or(self.uid.map(|uid| uid.to_string()))
    }
}

/// What the system knows of a user (`passwd(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its home.
    pub home: PathBuf,
    /// Its shell.
    pub shell: PathBuf,
}

/// A limit of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is limited.
    pub resource: Resource,
    /// What the kernel enforces.
    pub soft: libc::rlim_t,
    /// How far the process may raise that.
    pub hard: libc::rlim_t,
}

/// Whether a process can gain privileges by executing a file that has some (`PR_SET_NO_NEW_PRIVS`, `prctl(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gains {
    /// It can, as usual.
    #[default]
    Possible,
    /// It never can, nor can what it starts.
    Never,
}

/// The cores that this process may use now, in their order: affinity and cgroups count (`cpuset(7)`).
///
/// # Errors
/// That of `sched_getaffinity(2)`.
pub fn cores_of_this_process() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core) == Ok(true)).collect())
}

/// Looks at something as it is seen under another root directory. A thread of its own looks, with a root of its own
/// (`CLONE_FS`, `unshare(2)`), so that links lead where they will lead the child.
///
/// # Errors
/// When that cannot be the root directory: `chroot(2)` needs `CAP_SYS_CHROOT`.
pub fn under<T: Send>(root: &Path, look: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let look = std::thread::Builder::new().name("under-root".into()).spawn_scoped(scope, || -> io::Result<T> {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
            nix::unistd::chroot(root)?;
            nix::unistd::chdir("/")?;
            Ok(look())
        })?;
        look.join().unwrap_or_else(|_| Err(io::Error::other("an internal error")))
    })
}
