//! Which processes there are, and where they listen, as the kernel tells.

use crate::support::{Maitred, wait_gone};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// So many ports in a row that are free, below those that the kernel chooses.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 180) as u16 * 100;
    loop {
        let port = first + NEXT.fetch_add(count, Relaxed) % (1000 - count);
        let free = |port| std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok();
        if (port..port + count).all(free) {
            return port;
        }
    }
}

/// An address of this machine.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A process and all its descendants.
pub fn descendants(of: u32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()) {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let mut found = vec![of as i32];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.get(pid).cloned().unwrap_or_default());
        next += 1;
    }
    found
}

/// Stops `maitred`, and nothing of its workers is left.
pub fn ends_whole(maitred: Maitred) {
    let pids = descendants(maitred.child.id());
    maitred.stop();
    pids.into_iter().for_each(wait_gone);
}

/// Where these processes listen on TCP.
pub fn listening(pids: &[i32]) -> BTreeSet<SocketAddr> {
    let all = all_listeners();
    let inodes: HashSet<u64> = pids.iter().flat_map(|pid| sockets(*pid)).collect();
    inodes.iter().filter_map(|inode| all.get(inode)).copied().collect()
}

/// The sockets of a process by their inodes.
fn sockets(pid: i32) -> Vec<u64> {
    let Ok(all) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = all.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// Every listening TCP socket here, by its inode (`proc(5)`: state 0A is `TCP_LISTEN`).
fn all_listeners() -> BTreeMap<u64, SocketAddr> {
    let mut found = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(file).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == "0A" {
                found.insert(fields[9].parse().unwrap(), address(fields[1]));
            }
        }
    }
    found
}

/// Words of an address as the kernel prints them, in the machine's byte order.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').unwrap();
    let words = ip.as_bytes().chunks(8).map(|word| std::str::from_utf8(word).unwrap());
    let bytes: Vec<u8> = words.flat_map(|word| u32::from_str_radix(word, 16).unwrap().to_ne_bytes()).collect();
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).unwrap()),
    };
    (ip, u16::from_str_radix(port, 16).unwrap()).into()
}
