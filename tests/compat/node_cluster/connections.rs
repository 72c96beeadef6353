//! What becomes of a connection on its way to a worker, and of one that a worker passes on.

use super::*;
use crate::sockets::{free_ports, local};
use nix::sys::signal::Signal::{SIGKILL, SIGSTOP};
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;

pub fn all() -> Vec<Case> {
    [
        in_modes("Node's cluster: accept-fail", &["handoff"], no_descriptors),
        in_modes("Node's cluster: net-server-drop-connection, maxConnections", &["handoff", "kernel"], drops),
        in_modes("Node's cluster: the same with --max-open-per-worker", &["handoff"], waits_for_a_place),
        in_each_mode("Node's cluster: fork-closed-channel", &[NODE], PRELOAD, dies_with_connections_waiting),
        in_each_mode("Node's cluster: net-send, send-deadlock, send-handle", &[NODE], BOTH, passed_on),
        in_each_mode("Node's cluster: tls-ticket, ticketKeys", &[NODE], PRELOAD, tickets),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const REQUESTS: usize = 20;

/// accept-fail: no descriptor is free for a while. Nobody is turned away.
fn no_descriptors(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2"], "plain.js", &[&port.to_string()]);
    all_ready(&maitred, 2);
    let pid = maitred.child.id().to_string();
    let limit = |limit: &str| {
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).output();
        let done = done.unwrap_or_else(|e| panic!("prlimit: {e}; install it with apt-get install util-linux"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let soft = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let before = soft.split_whitespace().nth(3).unwrap().to_owned();
    limit("4");
    let served = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(|| request(local(port)))).collect();
        maitred.wait_for("cannot accept, pausing; raise the limit with ulimit -n", 1);
        limit(&before);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let served = served.iter().filter(|reply| matches!(reply, Reply::Body(_))).count();
    maitred.stop();
    all_of(served, REQUESTS)
}

/// Connects to a server that greets whom it keeps.
fn greeted(port: u16) -> (TcpStream, bool) {
    let mut client = TcpStream::connect(local(port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let kept = client.read(&mut [0; 8]).unwrap() == "kept".len();
    (client, kept)
}

/// net-server-drop-connection, http-server-drop-connections-in-cluster: the worker that accepted a connection has it,
/// and closes what it does not want. Each gets its three.
fn drops(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "3"], "caps.js", &[&port.to_string(), "1,2,9"]);
    all_ready(&maitred, 3);
    let clients: Vec<(TcpStream, bool)> = (0..9).map(|_| greeted(port)).collect();
    wait_said(&maitred, "slot 0 dropped", 2);
    wait_said(&maitred, "slot 1 dropped", 1);
    let kept = clients.iter().filter(|(_, kept)| *kept).count();
    assert_eq!(kept, 1 + 2 + 3);
    drop(clients);
    maitred.stop();
    "6 of 9".to_owned()
}

/// The same limit, said to maitred: a client waits for a place.
fn waits_for_a_place(way: Way) -> String {
    let port = free_ports(1);
    let options = ["-w", "3", "--max-open-per-worker", "2"];
    let maitred = node(way, &options, "caps.js", &[&port.to_string(), "9,9,9"]);
    all_ready(&maitred, 3);
    let mut clients: Vec<(TcpStream, bool)> = (0..6).map(|_| greeted(port)).collect();
    let mut late = TcpStream::connect(local(port)).unwrap();
    maitred.status_until(|status| status["admission"]["full"] == true);
    late.set_nonblocking(true).unwrap();
    assert_eq!(late.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    late.set_nonblocking(false).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    clients.pop();
    assert_eq!(late.read(&mut [0; 8]).unwrap(), "kept".len());
    assert!(clients.iter().all(|(_, kept)| *kept));
    drop((clients, late));
    maitred.stop();
    all_of(7, 7)
}

/// child-process-fork-closed-channel-segfault: the worker is killed while connections wait for it.
fn dies_with_connections_waiting(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2", "--stall", "0"], "plain.js", &[&port.to_string()]);
    all_ready(&maitred, 2);
    let victim = maitred.pid(1);
    kill(victim, SIGSTOP);
    let served = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(|| request(local(port)))).collect();
        if way.mode != "shared" {
            maitred.status_until(|status| status["workers"][1]["queued"] == (REQUESTS / 2));
        }
        kill(victim, SIGKILL);
        clients.into_iter().map(|client| client.join().unwrap()).filter(|reply| matches!(reply, Reply::Body(_))).count()
    });
    all_ready(&maitred, 3);
    maitred.stop();
    all_of(served, REQUESTS)
}

/// net-send, send-deadlock, send-handle-twice, send-handle-large-payload: between a worker and its child, once the
/// worker has taken the connection, all is Node's own.
fn passed_on(way: Way) -> String {
    let mut served = 0;
    for (how, by) in [("one", "child "), ("both", "back "), ("twice", "child "), ("large", "child ")] {
        let port = free_ports(1);
        let maitred = node(way, &["-w", "2"], "passes.js", &[&port.to_string(), how]);
        all_ready(&maitred, 2);
        let said = |_| {
            let mut client = TcpStream::connect(local(port)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut said = String::new();
            client.read_to_string(&mut said).unwrap();
            said
        };
        let clients: Vec<String> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..REQUESTS).map(|number| scope.spawn(move || said(number))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        served += clients.iter().filter(|said| said.starts_with(by)).count();
        maitred.stop();
    }
    all_of(served, 4 * REQUESTS)
}

/// tls-ticket-cluster: TLS is the worker's own. With ticket keys of their own, as Node makes them, no worker knows
/// another one's sessions.
fn tickets(way: Way) -> String {
    let port = free_ports(1).to_string();
    let keys = "5a".repeat(48);
    let maitred = node(way, &["-w", "4"], "tls.js", &[&port, &keys]);
    all_ready(&maitred, 4);
    let client = Command::new("node").args([&program("cluster/tls_client.js"), &port, "17"]).output().unwrap();
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    maitred.stop();
    all_of(String::from_utf8(client.stdout).unwrap().trim().parse().unwrap(), 16)
}
