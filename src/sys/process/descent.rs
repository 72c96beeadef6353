//! Which processes descend from which, as `/proc` tells it, and which mark a process has.
//!
//! `/proc` is read only when something ends, and outside the master's loop. A subreaper's descendants stay its
//! descendants whatever they do to their groups and sessions (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so the descendants
//! of the master are known exactly. Processes that outlived it are recognised by marks.

use crate::sys::foreign;
use crate::sys::process::{self, reap};
use crate::wire::environment;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// Most bytes of an environment that are read. A command's arguments and variables together may be longer, but the
/// master's are short, and those that the kernel puts last are the ones that were set last.
const ENVIRONMENT_MAX: u64 = 1 << 20;

/// One process, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kin {
    /// Its id.
    pub pid: Pid,
    /// Its parent.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// Its session.
    pub session: Pid,
    /// Its command's name, as the kernel keeps it.
    pub name: String,
    /// When it began, in ticks since the machine started: together with the id it identifies one process permanently.
    began: u64,
    /// Whether only its exit status is left.
    ended: bool,
}

impl std::fmt::Display for Kin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.pid, self.name.escape_debug())
    }
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)).
fn look_at(pid: Pid) -> Option<Kin> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(&String::from_utf8_lossy(&stat))
}

/// The name may contain anything, so its end is the last parenthesis.
fn parse(stat: &str) -> Option<Kin> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
    let threads = number(17)?;
    Some(Kin {
        pid: Pid::from_raw(pid.parse().ok()?),
        parent: Pid::from_raw(number(1)?),
        group: Pid::from_raw(number(2)?),
        session: Pid::from_raw(number(3)?),
        name: name.to_owned(),
        began: fields.get(19)?.parse().ok()?,
        // The first thread may have ended while others go on.
        ended: matches!(fields.first(), Some(&("Z" | "X" | "x"))) && threads <= 1,
    })
}

impl Kin {
    /// How long ago it began, to a hundredth of a second.
    #[must_use]
    pub fn age(&self) -> Duration {
        // `starttime` counts from the same origin (proc_pid_stat(5)).
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        since_boot.saturating_sub(process::ticks(self.began))
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        !self.ended
    }

    /// Opens a handle to it, unless it ended meanwhile: another process may have its id by then.
    #[must_use]
    pub fn hold(&self) -> Option<Held> {
        let pidfd = foreign::pidfd(self.pid).ok()?;
        // Read after the handle was opened: the process that has the id now is the one that the handle means.
        let same = look_at(self.pid).is_some_and(|now| now.began == self.began && now.runs());
        same.then_some(Held { pidfd })
    }
}

/// A handle to a process: a signal that is sent through it can reach no other process.
#[derive(Debug)]
pub struct Held {
    pidfd: OwnedFd,
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Held {
    /// Sends a signal; a process that has ended is no error.
    ///
    /// # Errors
    /// `EPERM` when it has another user.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        reap::signal_process(self.pidfd.as_fd(), signal)
    }
}

/// Everything that descends from a process, parents before children, except for `without` and what descends from
/// those. Ended processes are left out.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn descendants(of: Pid, without: &HashSet<Pid>) -> io::Result<Vec<Kin>> {
    let mut found: Vec<Kin> = Vec::new();
    let mut open = children(of)?;
    while let Some(pid) = open.pop() {
        if without.contains(&pid) {
            continue;
        }
        // It may have ended meanwhile; then its children are their grandparent's and are seen next time.
        let Some(kin) = look_at(pid) else { continue };
        if kin.runs() {
            open.extend(children(pid).unwrap_or_default());
            found.push(kin);
        }
    }
    Ok(found)
}

/// The descendants of a process that are in one of these groups, by group.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn members(of: Pid, groups: &HashSet<Pid>) -> io::Result<HashMap<Pid, Vec<Kin>>> {
    let mut found: HashMap<Pid, Vec<Kin>> = HashMap::new();
    for kin in descendants(of, &HashSet::new())?.into_iter().filter(|kin| groups.contains(&kin.group)) {
        found.entry(kin.group).or_default().push(kin);
    }
    Ok(found)
}

impl From<Held> for OwnedFd {
    fn from(held: Held) -> OwnedFd {
        held.pidfd
    }
}

impl Kin {
    /// What identifies this process permanently: its id, and when it began.
    #[must_use]
    pub fn identity(&self) -> (i32, u64) {
        (self.pid.as_raw(), self.began)
    }

    /// The process with this identity, if it still runs.
    #[must_use]
    pub fn again((pid, began): (i32, u64)) -> Option<Kin> {
        look_at(Pid::from_raw(pid)).filter(|kin| kin.began == began)
    }
}

/// Those of these processes that are still the same: another process may have the id by now.
pub fn still_there(of: &[Kin]) -> impl Iterator<Item = Pid> {
    of.iter().filter(|kin| look_at(kin.pid).is_some_and(|now| now.began == kin.began)).map(|kin| kin.pid)
}

/// The inodes of all sockets of the processes that descend from one, without those of some process groups; nothing
/// when one of these processes may not be inspected, since it may have any socket. What they have at the `passed`
/// numbers does not count.
#[must_use]
pub fn sockets_below(of: Pid, except: &HashSet<Pid>, passed: &Range<RawFd>) -> Option<HashSet<u64>> {
    let mut sockets = HashSet::new();
    for kin in descendants(of, &HashSet::new()).ok()?.into_iter().filter(|kin| !except.contains(&kin.group)) {
        match numbered_sockets_of(kin.pid) {
            Ok(found) => {
                sockets.extend(found.filter(|(number, _)| !passed.contains(number)).map(|(_, inode)| inode));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(sockets)
}

/// Whether descriptors are on their way to a process that descends from one (`SCM_RIGHTS`, unix(7)), except over these
/// sockets and to these process groups. A kernel before 5.6 does not tell (`scm_fds`, `unix_show_fdinfo` in
/// net/unix/af_unix.c); then the answer is no.
#[must_use]
pub fn descriptors_on_their_way(below: Pid, except: &HashSet<Pid>, over: &HashSet<u64>) -> bool {
    let all = descendants(below, &HashSet::new()).unwrap_or_default();
    all.into_iter().filter(|kin| !except.contains(&kin.group)).any(|kin| {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", kin.pid)).into_iter().flatten().flatten();
        let sockets = entries.filter(|entry| {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            socket_inode(&target).is_some_and(|inode| !over.contains(&inode))
        });
        let info = |entry: std::fs::DirEntry| {
            let path = Path::new("/proc").join(kin.pid.to_string()).join("fdinfo").join(entry.file_name());
            std::fs::read_to_string(path).unwrap_or_default()
        };
        let waiting = |info: String| {
            let mut lines = info.lines().filter_map(|line| line.strip_prefix("scm_fds:"));
            lines.any(|count| count.trim() != "0")
        };
        sockets.map(info).any(waiting)
    })
}

fn socket_inode(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The children of all threads of a process (`/proc/PID/task/TID/children`, proc(5)). Where the kernel has no such
/// file (`CONFIG_PROC_CHILDREN`), the parent of every process is read.
fn children(of: Pid) -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{of}/task"))?.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(list) => children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && thread.path().exists() => {
                return Ok(everybody()?.into_iter().filter(|kin| kin.parent == of).map(|kin| kin.pid).collect());
            }
            // The thread ended.
            Err(_) => {}
        }
    }
    Ok(children.into_iter().map(Pid::from_raw).collect())
}

/// All processes.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn everybody() -> io::Result<Vec<Kin>> {
    let processes = std::fs::read_dir("/proc")?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    Ok(pids.filter_map(look_at).collect())
}

/// What the environment of a process said when it was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It came from the master of this family, from the worker with this id.
    OfWorker(u64),
    /// It says nothing about that master: it never did, or the program has overwritten it.
    Nothing,
    /// This process may not read it.
    Unreadable,
}

/// Reads from its environment which worker a process came from.
#[must_use]
pub fn mark_of(pid: Pid, family: &str) -> Mark {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRONMENT_MAX).read_to_end(&mut bytes));
    if read.is_err() {
        return Mark::Unreadable;
    }
    let value = |name: &str| {
        let mut variables = bytes.split(|byte| *byte == 0);
        variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    if family.is_empty() || value(environment::FAMILY) != Some(family.as_bytes()) {
        return Mark::Nothing;
    }
    let worker = value(environment::WORKER).and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    worker.map_or(Mark::Nothing, Mark::OfWorker)
}

/// Inodes of the sockets that a process has open.
///
/// # Errors
/// When it ended, or this process may not look.
pub fn sockets_of(pid: Pid) -> io::Result<HashSet<u64>> {
    Ok(numbered_sockets_of(pid)?.map(|(_, inode)| inode).collect())
}

/// The same, each with the number of its descriptor.
fn numbered_sockets_of(pid: Pid) -> io::Result<impl Iterator<Item = (RawFd, u64)>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    Ok(entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, socket_inode(&std::fs::read_link(entry.path()).ok()?)?))
    }))
}

/// The session of a process.
#[must_use]
pub fn session_of(pid: Pid) -> Pid {
    nix::unistd::getsid(Some(pid)).unwrap_or(Pid::from_raw(0))
}

/// Whether a process has left the group that has its id; the process must not have been reaped yet.
#[must_use]
pub fn left_its_group(pid: Pid) -> bool {
    match nix::unistd::getpgid(Some(pid)) {
        Ok(group) => group != pid,
        Err(Errno::ESRCH) => false,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest_of_the_line() {
        let rest = "S 7 8 9 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 3 0 4242 1 2";
        let kin = parse(&format!("12 (a) Z (b) {rest}")).unwrap();
        assert_eq!((kin.pid.as_raw(), kin.parent.as_raw()), (12, 7));
        assert_eq!((kin.group.as_raw(), kin.session.as_raw()), (8, 9));
        assert_eq!((&*kin.name, kin.began, kin.runs()), ("a) Z (b", 4242, true));
        assert_eq!(parse("12 (cut short) S 7 8"), None);
    }

    #[test]
    fn a_first_thread_that_ended_is_not_the_end_of_its_process() {
        let stat = |threads: u32| format!("12 (x) Z 7 8 9 0 -1 0 1 0 0 0 5 6 0 0 20 0 {threads} 0 4242 1 2");
        assert!(parse(&stat(3)).unwrap().runs());
        assert!(!parse(&stat(1)).unwrap().runs());
    }

    #[test]
    fn a_descriptor_on_its_way_is_seen() {
        use std::os::fd::AsRawFd;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").stdin(OwnedFd::from(theirs)).spawn().unwrap();
        let on_their_way = |over: &HashSet<u64>| descriptors_on_their_way(Pid::this(), &HashSet::new(), over);
        let inode = *sockets_of(Pid::from_raw(child.id() as i32)).unwrap().iter().next().unwrap();
        let others: HashSet<u64> = HashSet::new();
        let before = on_their_way(&others);
        let rights = [nix::sys::socket::ControlMessage::ScmRights(&[ours.as_raw_fd()])];
        let bytes = [io::IoSlice::new(b"x")];
        nix::sys::socket::sendmsg::<()>(ours.as_raw_fd(), &bytes, &rights, nix::sys::socket::MsgFlags::empty(), None)
            .unwrap();
        // Other tests of this process may have children, too.
        assert!(on_their_way(&others));
        assert!(before || !on_their_way(&HashSet::from([inode])));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_child_is_found_and_held_and_nobody_else_gets_its_signal() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let found = descendants(Pid::this(), &HashSet::new()).unwrap();
        let kin = found.iter().find(|kin| kin.pid == pid).unwrap();
        assert_eq!(kin.parent, Pid::this());
        assert!(descendants(Pid::this(), &HashSet::from([pid])).unwrap().iter().all(|kin| kin.pid != pid));
        let other = Kin { began: kin.began + 1, ..kin.clone() };
        assert!(other.hold().is_none(), "an id that was given again is not held");
        kin.hold().unwrap().signal(Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(kin.hold().is_none());
    }
}
