//! What `/proc` tells about the workers, read only on request.

pub mod allocations;
pub mod attached;
pub mod attributes;
pub mod census;
pub mod credentials;
pub mod descent;
pub mod directory;
pub mod guard;
pub mod identity;
pub mod library;
pub mod limits;
pub mod needs;
pub mod reap;
pub mod spawn;
pub mod sweep;
pub mod trusted;

use crate::sys::socket::sock_diag::{self, Family, Talk};
use nix::unistd::Pid;
use procfs::WithCurrentSystemInfo;
use procfs::process::{FDTarget, Process, Stat, all_processes};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// One worker's use of the machine, over all processes of its group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Processor time, user and system, of the living processes.
    pub cpu_s: f64,
    /// TCP connections on the given ports that it has open.
    pub open: u64,
}

/// The usage of each of these process groups. A group that ended is missing; what `/proc` does not show this process
/// counts as nothing.
#[must_use]
pub fn usage(groups: &[Pid], ports: &HashSet<u16>) -> HashMap<Pid, Usage> {
    let connections: HashSet<u64> = sock_diag::connections_on(ports).unwrap_or_default().into_keys().collect();
    let mut found: HashMap<Pid, Usage> = HashMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        let Ok(stat) = process.stat() else { continue };
        let group = Pid::from_raw(stat.pgrp);
        if !groups.contains(&group) {
            continue;
        }
        let usage = found.entry(group).or_default();
        usage.rss_bytes += stat.rss_bytes().get();
        usage.cpu_s += cpu_seconds(&stat);
        usage.open += open_of(&process, &connections);
    }
    found
}

/// The usage of this process alone; its connections are not counted.
#[must_use]
pub fn own_usage() -> Usage {
    let stat = Process::myself().and_then(|process| process.stat());
    // Without `/proc` nothing is known.
    let used = |stat: &Stat| Usage { rss_bytes: stat.rss_bytes().get(), cpu_s: cpu_seconds(stat), open: 0 };
    stat.as_ref().map(used).unwrap_or_default()
}

/// How many TCP connections on these ports each of these process groups has open. `/proc` is read only when there is
/// one.
#[must_use]
pub fn open_connections(groups: &[Pid], ports: &HashSet<u16>) -> HashMap<Pid, u64> {
    match sock_diag::connections_on(ports) {
        Ok(connections) if connections.is_empty() => groups.iter().map(|group| (*group, 0)).collect(),
        Ok(_) | Err(_) => usage(groups, ports).into_iter().map(|(group, usage)| (group, usage.open)).collect(),
    }
}

/// The connections that a worker has open, without those between its own processes.
#[derive(Clone, Debug, Default)]
pub struct Open {
    /// Cookies of those over TCP.
    pub cookies: HashSet<u64>,
    /// How many of these wait for a next request, and have for long enough.
    pub idle: usize,
    /// How many there are over Unix sockets, whose close nothing reports.
    pub unix: usize,
}

impl Open {
    /// Whether there are none, except idle ones.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.cookies.len() == self.idle && self.unix == 0
    }
}

/// Checks repeatedly which connections that came in on certain ports and Unix sockets a process group has open.
#[derive(Debug)]
pub struct Looking {
    group: Pid,
    ports: HashSet<u16>,
    families: Vec<Family>,
    paths: HashSet<PathBuf>,
    /// How long a connection must have been silent to be idle; none ever is if not given.
    idle_after: Option<Duration>,
    /// Sockets that are known to be no such connections: while there are no others, the costly query to the kernel
    /// can be left out.
    others: HashSet<u64>,
    /// Sockets that were in no answer of the kernel when it was last asked.
    missing_once: HashSet<u64>,
}

impl Looking {
    /// Starts with nothing seen.
    #[must_use]
    pub fn new(
        group: Pid,
        ports: HashSet<u16>,
        mut families: Vec<Family>,
        paths: HashSet<PathBuf>,
        idle_after: Option<Duration>,
    ) -> Looking {
        if families == [Family::V6] {
            // The other end of a connection that came in as an IPv4 one.
            families.push(Family::V4);
        }
        let (others, missing_once) = Default::default();
        Looking { group, ports, families, paths, idle_after, others, missing_once }
    }

    /// Checks once.
    ///
    /// # Errors
    /// When the kernel does not tell which connections there are, or which process has them: then nothing is known.
    pub fn look(&mut self) -> io::Result<Open> {
        // A connection that closes in between counts as closed, as it should.
        let all = sockets_of(self.group)?;
        let mut mine: HashSet<u64> = all.difference(&self.others).copied().collect();
        if mine.is_empty() {
            return Ok(Open::default());
        }
        let ports = !self.ports.is_empty();
        let talks = if ports { sock_diag::talks_on(&self.families, &self.ports)? } else { Vec::new() };
        let unix = if self.paths.is_empty() { HashSet::new() } else { accepted_on(&self.paths)? };
        let ends: HashSet<(SocketAddr, SocketAddr)> =
            talks.iter().filter(|talk| all.contains(&talk.inode)).map(|talk| (talk.local, talk.peer)).collect();
        let came_in = || talks.iter().filter(|talk| self.ports.contains(&talk.local.port()));
        // One process of the worker talks to another: its end is theirs to decide.
        let is_own = |talk: &&Talk| ends.contains(&(talk.peer, talk.local));
        let open = || came_in().filter(|talk| mine.contains(&talk.inode) && !is_own(talk));
        let cookies = open().map(|talk| talk.cookie).collect();
        let is_idle = |talk: &&Talk| {
            let silent = self.idle_after.zip(talk.activity);
            silent.is_some_and(|(after, activity)| activity.is_idle(after))
        };
        let idle = open().filter(is_idle).count();
        let open = Open { cookies, idle, unix: mine.intersection(&unix).count() };
        // The kernel writes its answer piece by piece and may leave out a socket that moved meanwhile, so a socket
        // must be missing twice.
        let tcp: HashSet<u64> = came_in().map(|talk| talk.inode).collect();
        mine.retain(|inode| !tcp.contains(inode) && !unix.contains(inode));
        self.others.extend(mine.intersection(&self.missing_once));
        self.missing_once = mine;
        Ok(open)
    }
}

/// Inodes of the connections that were accepted on these socket files.
fn accepted_on(paths: &HashSet<PathBuf>) -> io::Result<HashSet<u64>> {
    if let Ok(found) = sock_diag::accepted_on(paths) {
        return Ok(found);
    }
    // The kernel does not have that (`CONFIG_UNIX_DIAG`).
    let all = procfs::net::unix().map_err(io::Error::other)?;
    // What `accept` returned has the listener's name.
    let accepted = |entry: &procfs::net::UnixNetEntry| {
        entry.state == procfs::net::UnixState::CONNECTED && entry.path.as_ref().is_some_and(|p| paths.contains(p))
    };
    Ok(all.iter().filter(|entry| accepted(entry)).map(|entry| entry.inode).collect())
}

/// Inodes of the sockets of a process group.
fn sockets_of(group: Pid) -> io::Result<HashSet<u64>> {
    let mut sockets = HashSet::new();
    for process in all_processes().map_err(io::Error::other)?.flatten() {
        if !process.stat().is_ok_and(|stat| stat.pgrp == group.as_raw()) {
            continue;
        }
        match process.fd() {
            Ok(fds) => sockets.extend(fds.flatten().filter_map(|fd| match fd.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            })),
            // It ended meanwhile.
            Err(procfs::ProcError::NotFound(_)) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(sockets)
}

/// What the processes of one group have open.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// Inodes of sockets.
    pub inodes: HashSet<u64>,
    /// Whether one of them has an io_uring.
    pub io_uring: bool,
}

/// The sockets of a process group, as far as this process may look.
#[must_use]
pub fn sockets(group: Pid) -> Sockets {
    let mut sockets = Sockets::default();
    let members = all_processes().into_iter().flatten().flatten();
    let members = members.filter(|process| process.stat().is_ok_and(|stat| stat.pgrp == group.as_raw()));
    for fd in members.filter_map(|process| process.fd().ok()).flatten().flatten() {
        match fd.target {
            FDTarget::Socket(inode) => drop(sockets.inodes.insert(inode)),
            FDTarget::AnonInode(name) => sockets.io_uring |= name.contains("io_uring"),
            _ => {}
        }
    }
    sockets
}

/// Inodes of all sockets that other processes than this one have open, as far as this process may look, without those
/// of some process groups; nothing when it may not look at `must`, or cannot look at all.
#[must_use]
pub fn sockets_of_others(must: Pid, except: &HashSet<Pid>) -> Option<HashSet<u64>> {
    let myself = std::process::id() as i32;
    let mut sockets = HashSet::new();
    for process in all_processes().ok()? {
        let Some(process) = process.ok().filter(|process| process.pid() != myself) else { continue };
        if !except.is_empty() && process.stat().is_ok_and(|stat| except.contains(&Pid::from_raw(stat.pgrp))) {
            continue;
        }
        let (pid, fds) = (process.pid(), process.fd());
        match fds {
            Ok(fds) => sockets.extend(fds.flatten().filter_map(|fd| match fd.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            })),
            Err(_) if pid == must.as_raw() => return None,
            Err(procfs::ProcError::NotFound(_) | procfs::ProcError::PermissionDenied(_)) => {}
            // For example, no descriptor is free: what was not seen may still be open.
            Err(_) => return None,
        }
    }
    Some(sockets)
}

fn cpu_seconds(stat: &Stat) -> f64 {
    ticks(stat.utime + stat.stime).as_secs_f64()
}

/// A time that the kernel counts in ticks of `CLK_TCK` (proc_pid_stat(5)).
fn ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// How many of these connections, given by inode, the process has open.
pub(super) fn open_of(process: &Process, connections: &HashSet<u64>) -> u64 {
    if connections.is_empty() {
        return 0;
    }
    let inode = |target| match target {
        FDTarget::Socket(inode) if connections.contains(&inode) => Some(inode),
        _ => None,
    };
    let fds = process.fd().into_iter().flatten().flatten();
    // A descriptor that was duplicated is still one connection.
    fds.filter_map(|fd| inode(fd.target)).collect::<HashSet<_>>().len() as u64
}

/// How long this thread was ready to run but had no processor (`sched_run_delay`, the second number
/// of `/proc/PID/schedstat`, Documentation/scheduler/sched-stats.rst); nothing where the kernel does
/// not tell.
#[must_use]
pub fn waited_for_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0))
}
