//! Gives a child its [`Attributes`], between `fork` and `exec`: only async-signal-safe calls, on memory that was
//! prepared before.

use super::child::Step;
use crate::sys::process::attributes::{Attributes, Gains, Limit};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Pid, Uid, chdir, chroot, fchown, setgroups, setresgid, setresuid};
use std::ffi::{CStr, CString, OsString};
use std::io::{self, Cursor, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// The hard limit needs the rights of the parent where it is raised; the soft one stays for now.
fn raise_hard(limit: &Limit) -> nix::Result<()> {
    let (soft, hard) = getrlimit(limit.resource)?;
    if limit.hard > hard { setrlimit(limit.resource, soft, limit.hard) } else { Ok(()) }
}

/// Gives all capabilities up. The kernel does so by itself only where root becomes another user; one that is not root
/// and has some would keep them, and ambient ones over `execve`, too (`capabilities(7)`).
fn give_capabilities_up() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    // `_LINUX_CAPABILITY_VERSION_3`, which takes two sets of 32 (`capset(2)`).
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [[0_u32; 3]; 2];
    // SAFETY: plain numbers; a kernel that knows no ambient capabilities has none to clear.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    // SAFETY: both structures are laid out as the call reads them, and live as long as it.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Attributes as the child can use them.
pub(super) struct Prepared<'a> {
    attributes: &'a Attributes,
    root: Option<CString>,
    core: CpuSet,
    groups: Vec<Gid>,
    oom_score_adjust: [u8; 8],
    oom_score_adjust_len: usize,
}

impl Prepared<'_> {
    /// # Errors
    /// When the root directory has a zero byte in it, or the core's number is too large.
    pub(super) fn new(attributes: &Attributes) -> Result<Prepared<'_>, OsString> {
        let c_string = |path: &std::path::PathBuf| {
            CString::new(path.as_os_str().as_bytes()).map_err(|_| path.clone().into_os_string())
        };
        let root = attributes.root.as_ref().map(c_string).transpose()?;
        let mut core = CpuSet::new();
        if let Some(number) = attributes.core {
            // One that is too large leaves the set empty, which the kernel refuses.
            let _ = core.set(number);
        }
        let groups = attributes.user.iter().flat_map(|user| &user.groups).map(|gid| Gid::from_raw(*gid)).collect();
        let mut text = Cursor::new([0; 8]);
        if let Some(adjust) = attributes.oom_score_adjust {
            let _ = write!(text, "{adjust}");
        }
        let oom_score_adjust_len = usize::try_from(text.position()).unwrap_or_default();
        Ok(Prepared { attributes, root, core, groups, oom_score_adjust: text.into_inner(), oom_score_adjust_len })
    }

    /// What needs the rights of the parent: limits, priority, root directory. `outputs` become the user's, who may
    /// open them again by their names (`/dev/stderr`).
    pub(super) fn before_directory(&self, outputs: [Option<RawFd>; 2]) -> Result<(), (Step, io::Error)> {
        let attributes = self.attributes;
        let at = |step| move |errno: nix::errno::Errno| (step, io::Error::from(errno));
        if self.oom_score_adjust_len > 0 {
            self.adjust_oom_score().map_err(|error| (Step::OomScoreAdjust, error))?;
        }
        for limit in &attributes.limits {
            match limit.resource {
                // The master's descriptors are open until the program is executed, and there may be more than this.
                Resource::RLIMIT_NOFILE => raise_hard(limit),
                resource => setrlimit(resource, limit.soft, limit.hard),
            }
            .map_err(at(Step::Limit))?;
        }
        if let Some(nice) = attributes.nice {
            // SAFETY: plain numbers; 0 means this process.
            if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } < 0 {
                return Err((Step::Nice, io::Error::last_os_error()));
            }
        }
        if attributes.core.is_some() {
            sched_setaffinity(Pid::from_raw(0), &self.core).map_err(at(Step::Affinity))?;
        }
        if let Some(user) = &attributes.user {
            for output in outputs.into_iter().flatten() {
                // SAFETY: standard output and error are open here.
                let output = unsafe { BorrowedFd::borrow_raw(output) };
                let (uid, gid) = (user.uid.map(Uid::from_raw), Some(Gid::from_raw(user.gid)));
                // Without CAP_CHOWN it can write there, and not open it again.
                let _ = fchown(output, uid, gid);
            }
        }
        if let Some(root) = &self.root {
            chroot::<CStr>(root).and_then(|()| chdir("/")).map_err(at(Step::Root))?;
        }
        Ok(())
    }

    /// Becomes the user.
    pub(super) fn after_directory(&self) -> Result<(), (Step, io::Error)> {
        let attributes = self.attributes;
        let at = |step| move |errno: nix::errno::Errno| (step, io::Error::from(errno));
        if let Some(user) = &attributes.user {
            let gid = Gid::from_raw(user.gid);
            setgroups(&self.groups).map_err(at(Step::Group))?;
            setresgid(gid, gid, gid).map_err(at(Step::Group))?;
            if let Some(uid) = user.uid.map(Uid::from_raw) {
                setresuid(uid, uid, uid).map_err(at(Step::User))?;
                if !uid.is_root() {
                    give_capabilities_up().map_err(|error| (Step::User, error))?;
                }
            }
        }
        if let Some(umask) = attributes.umask {
            // SAFETY: a plain number.
            unsafe { libc::umask(umask) };
        }
        if attributes.gains == Gains::Never {
            nix::sys::prctl::set_no_new_privs().map_err(at(Step::Gains))?;
        }
        Ok(())
    }

    /// The limit of descriptors, just before the program is executed; `usual` is what it starts with otherwise.
    pub(super) fn limit_descriptors(&self, usual: libc::rlim_t) -> Result<(), (Step, io::Error)> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((usual, usual));
        let asked = self.attributes.limits.iter().find(|limit| limit.resource == Resource::RLIMIT_NOFILE);
        let (soft, hard) = asked.map_or((usual.min(hard), hard), |limit| (limit.soft, limit.hard));
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(|errno| (Step::Limit, errno.into()))
    }

    fn adjust_oom_score(&self) -> io::Result<()> {
        use nix::fcntl::{OFlag, open};
        let file =
            open(c"/proc/self/oom_score_adj", OFlag::O_WRONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
        let text = self.oom_score_adjust.get(..self.oom_score_adjust_len).unwrap_or_default();
        nix::unistd::write(&file, text)?;
        Ok(())
    }
}
