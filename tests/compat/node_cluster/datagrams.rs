//! UDP: the workers share a port, and within one worker the kernel's rules hold.

use super::*;
use crate::sockets::{free_ports, local};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};

pub fn all() -> Vec<Case> {
    [
        in_modes("Node's cluster: dgram-1, each stops at 10", &["handoff", "shared"], each_stops_at_ten),
        in_modes("Node's cluster: dgram-1, none stops", &["handoff", "shared", "kernel"], none_stops),
        in_modes("Node's cluster: dgram-ipv6only, dgram-reuse", &["handoff", "shared", "kernel"], rules),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const DATAGRAMS: usize = 40;

/// What a client is answered, which has a port of its own each time.
fn ask(port: u16) -> String {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"whose turn?", local(port)).unwrap();
    let mut said = [0; 16];
    let length = client.recv(&mut said).unwrap();
    String::from_utf8_lossy(&said[..length]).into_owned()
}

/// dgram-1, dgram-2: a worker that closes its socket leaves the rest to the others. In kernel mode its share of the
/// clients would stay with it.
fn each_stops_at_ten(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "4"], "udp.js", &[&port.to_string(), "10"]);
    all_ready(&maitred, 4);
    let served = (0..DATAGRAMS).filter(|_| !ask(port).is_empty()).count();
    wait_said(&maitred, "closed", 4);
    maitred.stop();
    all_of(served, DATAGRAMS)
}

/// dgram-1, dgram-2, dgram-bind-shared-ports.
fn none_stops(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "4"], "udp.js", &[&port.to_string(), "1000"]);
    all_ready(&maitred, 4);
    let pids = maitred.pids();
    let served = (0..DATAGRAMS).filter(|_| pids.contains(&ask(port).parse().unwrap())).count();
    maitred.stop();
    all_of(served, DATAGRAMS)
}

/// child-index-dgram, dgram-ipv6only, dgram-reuse, dgram-exclusive-implicit-bind, dgram-cluster-bind-error,
/// dgram-cluster-close-during-bind, dgram-cluster-close-in-listening, dgram-bind-socket-close-before-cluster-reply:
/// each worker sees what the program sees alone.
fn rules(way: Way) -> String {
    let ports = free_ports(4);
    let script = program("cluster/udp_rules.js");
    let mut alone = Command::new("node").args([&script, &ports.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(alone.stdout.take().unwrap()).read_line(&mut line).unwrap();
    alone.kill().unwrap();
    alone.wait().unwrap();
    let (_, expected) = line.trim().split_once(' ').unwrap();
    let maitred = node(way, &["-w", "2"], "udp_rules.js", &[&ports.to_string()]);
    wait_said(&maitred, expected, 2);
    ask(ports + 3);
    maitred.stop();
    "as the kernel".to_owned()
}
