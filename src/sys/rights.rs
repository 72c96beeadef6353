//! With which user's rights something is done. A worker that gave up root must not get from the master what the
//! kernel would refuse it: privileged ports, and files in directories that it may not write to.
//!
//! This thread does file operations with the asker's identity (`setfsuid(2)`): then the kernel itself checks each
//! step, links and races included, and new files belong to the asker.

use crate::wire::address::Address;
use nix::errno::Errno;
use nix::sys::socket::UnixCredentials;
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `CAP_NET_BIND_SERVICE` (linux/capability.h).
const NET_BIND_SERVICE: u32 = 10;
/// The first port that every process may have where the system does not say (`ip(7)`, `ip_unprivileged_port_start`).
const FIRST_FREE_PORT: u16 = 1024;

/// The process that asks for something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asker {
    /// A process of this process's own user: what it may have, the master may give.
    #[default]
    Ourselves,
    /// A process of another user.
    Other(User),
}

/// Another user, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// Whether it may have every port.
    any_port: bool,
}

impl Asker {
    /// The sender of something, as the kernel names it. The rights that a process has besides its uid and gid are
    /// those that it has now, if the pid is still its own.
    #[must_use]
    pub fn of_sender(sender: &UnixCredentials) -> Asker {
        if sender.uid() == geteuid().as_raw() {
            return Asker::Ourselves;
        }
        let user = match read_user(Pid::from_raw(sender.pid())) {
            // Otherwise another process has the pid by now, and its rights must not count.
            Ok(user) if user.uid == sender.uid() => User { gid: sender.gid(), ..user },
            _ => User { uid: sender.uid(), gid: sender.gid(), groups: Vec::new(), any_port: false },
        };
        Asker::Other(user)
    }

    /// The asker that a thread belongs to now.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn of_thread(thread: Pid) -> io::Result<Asker> {
        let user = read_user(thread)?;
        Ok(if user.uid == geteuid().as_raw() { Asker::Ourselves } else { Asker::Other(user) })
    }

    /// Its user, if that is not this process's.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        match self {
            Asker::Ourselves => None,
            Asker::Other(user) => Some(user.uid),
        }
    }

    /// Whether it could bind a socket to the address itself, apart from the rights to files.
    ///
    /// # Errors
    /// `EACCES`, as `bind(2)` gives it.
    pub fn may(&self, address: &Address) -> io::Result<()> {
        let Asker::Other(user) = self else { return Ok(()) };
        let allowed = match address {
            Address::Tcp(address) => user.any_port || address.port() == 0 || address.port() >= first_free_port(),
            // Root may have whatever the master can give. Only root can try the rights of others.
            Address::Unix(_) => user.uid == 0 || geteuid().is_root(),
            Address::Abstract(_) => true,
        };
        if allowed { Ok(()) } else { Err(Errno::EACCES.into()) }
    }

    /// Whether it could make a file beside this one.
    ///
    /// # Errors
    /// The reason why the kernel refuses it.
    pub fn may_write_beside(&self, path: &Path) -> io::Result<()> {
        let Asker::Other(_) = self else { return Ok(()) };
        let directory = path.parent().unwrap_or(Path::new("/"));
        self.act(|| may_write_to(directory))?
    }

    /// Runs `act` with its rights, as far as files are concerned.
    ///
    /// # Errors
    /// When this thread cannot take its identity; nothing is done then.
    pub fn act<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        let Asker::Other(user) = self else { return Ok(act()) };
        if !geteuid().is_root() {
            // Root asks an ordinary user's master, which gives what it has; `may` refuses all others.
            return if user.uid == 0 { Ok(act()) } else { Err(Errno::EACCES.into()) };
        }
        let _place = InPlaceOf::take(user)?;
        Ok(act())
    }

    /// The asker whose rights this thread has now.
    #[must_use]
    pub fn current() -> Asker {
        CURRENT.with_borrow(Clone::clone)
    }
}

thread_local! {
    /// The asker whose rights the thread has now: the kernel knows this, but does not tell.
    static CURRENT: RefCell<Asker> = const { RefCell::new(Asker::Ourselves) };
}

/// Gives this thread another user's identity, until it is dropped.
struct InPlaceOf {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// Whether other processes of this user may look at the process (`PR_SET_DUMPABLE`, prctl(2)).
    dumpable: bool,
}

impl InPlaceOf {
    fn take(user: &User) -> io::Result<InPlaceOf> {
        let groups = nix::unistd::getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect();
        let dumpable = nix::sys::prctl::get_dumpable().unwrap_or(true);
        let before = InPlaceOf { uid: geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), groups, dumpable };
        set_groups(&user.groups)?;
        set_ids(user.gid, user.uid);
        // The calls report no failure, they just have no effect (`setfsuid(2)`, BUGS).
        if ids() != (user.gid, user.uid) {
            return Err(Errno::EPERM.into());
        }
        CURRENT.set(Asker::Other(user.clone()));
        Ok(before)
    }
}

impl Drop for InPlaceOf {
    fn drop(&mut self) {
        CURRENT.set(Asker::Ourselves);
        // The user first: the capabilities come back with it (`capabilities(7)`, "Effect of user ID changes").
        // SAFETY: plain numbers.
        unsafe {
            libc::setfsuid(self.uid);
            libc::setfsgid(self.gid);
        }
        // Root loses nothing when it has too few groups, so a failure (for lack of memory) is ignored.
        let _ = set_groups(&self.groups);
        // A change of the user hides this process's `/proc` entries (`commit_creds` in kernel/cred.c).
        let _ = nix::sys::prctl::set_dumpable(self.dumpable);
        if ids() != (self.gid, self.uid) {
            // Memory was short (`prepare_creds` in kernel/cred.c). A master that went on with another user's rights
            // would be worse than none, and the guard ends what it leaves.
            std::process::abort();
        }
    }
}

/// Sets the groups of this thread alone; libc's function sets those of all threads.
fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads as many numbers as it is told.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_ids(gid: u32, uid: u32) {
    // SAFETY: plain numbers. The group first, as long as this thread may.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// The group and the user whose rights to files this thread has.
fn ids() -> (u32, u32) {
    // SAFETY: plain numbers; an id that no user can have is refused, and the present one is returned.
    unsafe { (libc::setfsgid(u32::MAX) as u32, libc::setfsuid(u32::MAX) as u32) }
}

/// Whether this thread could make a file there, with the rights to files that it has at the moment.
fn may_write_to(directory: &Path) -> io::Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mode = libc::W_OK | libc::X_OK;
    // libc's function may look at other ids than the kernel does (`access(2)`, "C library/kernel differences").
    // SAFETY: a terminated string and numbers.
    let done = unsafe { libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) };
    match done {
        0 => Ok(()),
        _ => match Errno::last() {
            // Before Linux 5.8 the kernel cannot be asked: this is refused, as it would be without the master.
            Errno::ENOSYS => Err(Errno::EACCES.into()),
            errno => Err(errno.into()),
        },
    }
}

/// The first port that every process may have.
fn first_free_port() -> u16 {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    setting.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(FIRST_FREE_PORT)
}

fn read_user(thread: Pid) -> io::Result<User> {
    let status = crate::sys::foreign::status(thread)?;
    let mut user = parse(&status).ok_or(io::ErrorKind::InvalidData)?;
    // Capabilities in a user namespace of its own do not count here (`user_namespaces(7)`).
    let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/user")).ok();
    user.any_port &= namespace(&thread.to_string()).is_some_and(|theirs| Some(theirs) == namespace("self"));
    Ok(user)
}

/// Names of the capabilities, by their numbers (include/uapi/linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// A capability's name, as `setcap(8)` takes it.
#[must_use]
pub fn capability_name(number: u32) -> String {
    let known = CAPABILITIES.get(number as usize);
    known.map_or_else(|| format!("capability {number}"), |name| format!("cap_{name}"))
}

/// What this process may do beyond an ordinary user's rights (`CapEff` in `proc_pid_status(5)`), a bit for each
/// capability.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn own_capabilities() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    found.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads `/proc/PID/status` (`proc_pid_status(5)`).
fn parse(status: &str) -> Option<User> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let numbers =
        |name| field(name).map(|text| text.split_whitespace().map_while(|n| n.parse().ok()).collect::<Vec<u32>>());
    // Real, effective, saved, and that of the file system.
    let effective = |name| numbers(name)?.get(1).copied();
    let capabilities = u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?;
    Some(User {
        uid: effective("Uid")?,
        gid: effective("Gid")?,
        groups: numbers("Groups")?,
        any_port: capabilities >> NET_BIND_SERVICE & 1 == 1,
    })
}

#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    let _ = parse(&String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn nobody() -> Asker {
        Asker::Other(User { uid: 65534, gid: 65534, groups: vec![], any_port: false })
    }

    #[test]
    fn a_status_is_read_as_the_kernel_writes_it() {
        let text = "Name:\tx\nUid:\t0\t7\t0\t7\nGid:\t1\t2\t3\t4\nGroups:\t5 6 \nCapEff:\t0000000000000400\n";
        let user = User { uid: 7, gid: 2, groups: vec![5, 6], any_port: true };
        assert_eq!(parse(text), Some(user));
        assert_eq!(parse("Uid:\t0\n"), None);
        assert_eq!(parse(""), None);
        assert_eq!(Asker::of_thread(Pid::this()).unwrap(), Asker::Ourselves);
    }

    #[test]
    fn ports_for_the_privileged_are_for_who_may_have_them() {
        let first = first_free_port();
        let tcp = |port| Address::Tcp(([127, 0, 0, 1], port).into());
        let privileged = Asker::Other(User { uid: 65534, gid: 65534, groups: vec![], any_port: true });
        for (asker, port, allowed) in
            [(Asker::Ourselves, 1, true), (privileged, 1, true), (nobody(), 0, true), (nobody(), first, true)]
        {
            assert_eq!(asker.may(&tcp(port)).is_ok(), allowed, "{asker:?} {port}");
        }
        if first > 1 {
            assert_eq!(nobody().may(&tcp(first - 1)).unwrap_err().raw_os_error(), Some(libc::EACCES));
        }
    }

    #[test]
    fn files_are_made_as_who_asks_or_not_at_all() {
        if !geteuid().is_root() {
            assert!(nobody().act(|| ()).is_err());
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("x");
        assert!(nobody().may_write_beside(&file).is_err());
        assert!(nobody().act(|| std::fs::write(&file, "")).unwrap().is_err());
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        nobody().may_write_beside(&file).unwrap();
        nobody().act(|| std::fs::write(&file, "")).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().uid(), 65534);
        // And back, with all of root's rights.
        assert_eq!((ids(), Asker::current()), ((0, 0), Asker::Ourselves));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o000)).unwrap();
        std::fs::write(dir.path().join("y"), "").unwrap();
    }
}
