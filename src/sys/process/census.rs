//! What a tree of processes uses, for the lab: in more detail than [`crate::sys::process`], and measured from outside.

use crate::sys::process;
use crate::sys::socket::sock_diag;
use crate::wire::environment;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use procfs::process::{Process, Stat, all_processes};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// One process as it was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Its id.
    pub pid: Pid,
    /// The slot that its environment names, if it is a worker or a child of one.
    pub slot: Option<u32>,
    /// Processor time of all its threads, including ended ones, by the kernel's own clock.
    pub cpu: Duration,
    /// Processor time of its children that ended and were waited for, to a hundredth of a second.
    pub ended_children_cpu: Duration,
    /// Context switches of its living threads.
    pub switches: u64,
    /// The peak of its resident memory so far.
    pub peak_rss_bytes: u64,
}

/// The slots that were found for processes; reading an environment once is enough.
pub type Slots = HashMap<Pid, Option<u32>>;

/// The process `root` and everything that descends from it.
#[must_use]
pub fn tree(root: Pid, slots: &mut Slots) -> Vec<Found> {
    let found = members(root).into_iter().filter_map(|(process, stat)| {
        let pid = Pid::from_raw(stat.pid);
        let slot = *slots.entry(pid).or_insert_with(|| slot_of(&process));
        let status = process.status().ok()?;
        Some(Found {
            pid,
            slot,
            cpu: ClockId::pid_cpu_clock_id(pid).and_then(clock_gettime).map_or(Duration::ZERO, Duration::from),
            ended_children_cpu: process::ticks((stat.cutime + stat.cstime).max(0) as u64),
            switches: switches(&process),
            peak_rss_bytes: status.vmhwm.unwrap_or(0) * 1024,
        })
    });
    found.collect()
}

/// How many connections on these ports the processes of each slot have open, for `count` slots.
#[must_use]
pub fn open_by_slot(root: Pid, ports: &HashSet<u16>, count: usize, slots: &mut Slots) -> Vec<u64> {
    let connections = sock_diag::connections_on(ports).unwrap_or_default().into_keys().collect();
    let mut open = vec![0; count];
    for (process, stat) in members(root) {
        let slot = *slots.entry(Pid::from_raw(stat.pid)).or_insert_with(|| slot_of(&process));
        if let Some(open) = slot.and_then(|slot| open.get_mut(slot as usize)) {
            *open += process::open_of(&process, &connections);
        }
    }
    open
}

/// The children of this process, including those that it inherited as their subreaper.
#[must_use]
pub fn children() -> Vec<Pid> {
    let me = Pid::this().as_raw();
    let all = all_processes().into_iter().flatten().flatten();
    let mine = all.filter_map(|process| process.stat().ok()).filter(|stat| stat.ppid == me);
    mine.map(|stat| Pid::from_raw(stat.pid)).collect()
}

fn members(root: Pid) -> Vec<(Process, Stat)> {
    let all: Vec<_> = all_processes()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|process| process.stat().ok().map(|stat| (process, stat)))
        .collect();
    let mut inside = HashSet::from([root.as_raw()]);
    // Parents may be listed after their children, and a tree may have any depth.
    loop {
        let before = inside.len();
        for (_, stat) in &all {
            if inside.contains(&stat.ppid) {
                inside.insert(stat.pid);
            }
        }
        if inside.len() == before {
            break;
        }
    }
    all.into_iter().filter(|(_, stat)| inside.contains(&stat.pid)).collect()
}

fn slot_of(process: &Process) -> Option<u32> {
    let environment = process.environ().ok()?;
    let slot = |name: &str| environment.get(std::ffi::OsStr::new(name))?.to_str()?.parse().ok();
    slot(environment::SLOT).or_else(|| slot(environment::NODE_APP_INSTANCE))
}

fn switches(process: &Process) -> u64 {
    let tasks = process.tasks().into_iter().flatten().flatten();
    let of = |status: procfs::process::Status| {
        status.voluntary_ctxt_switches.unwrap_or(0) + status.nonvoluntary_ctxt_switches.unwrap_or(0)
    };
    tasks.filter_map(|task| task.status().ok().map(of)).sum()
}
