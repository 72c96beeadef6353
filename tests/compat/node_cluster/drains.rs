//! Workers that leave.

use super::*;
use crate::sockets::{free_ports, local};
use nix::sys::signal::Signal::{SIGHUP, SIGWINCH};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

pub fn all() -> Vec<Case> {
    [
        in_each_mode("Node's cluster: disconnect, 8 workers, 2 ports", &[NODE], PRELOAD, all_leave_and_come_back),
        in_each_mode("Node's cluster: worker-wait-server-close", &[NODE], PRELOAD, waits_for_its_connection),
        in_each_mode("Node's cluster: worker-no-exit", &[NODE], PRELOAD, has_a_connection_of_its_own),
        in_each_mode("Node's cluster: disconnect-idle-worker", &[NODE], PRELOAD, never_listened),
        in_each_mode("Node's cluster: disconnect-unshared", &[NODE], PRELOAD, serves_nothing),
        in_each_mode("Node's cluster: concurrent-disconnect", &[NODE], PRELOAD, commands_cross),
        in_each_mode("Node's cluster: shared-leak, disconnect-race", &[NODE], PRELOAD, leave_under_load),
        in_each_mode("Node's cluster: disconnect-leak", &[NODE], PRELOAD, leave_at_once),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn gone(status: &Value) -> bool {
    workers(status).iter().all(|worker| worker["pid"].is_null())
}

/// disconnect, disconnect-with-no-workers: all leave, all come back under the same master, and once they have left
/// again the master stops.
fn all_leave_and_come_back(way: Way) -> String {
    let ports = free_ports(2);
    let words = [ports, ports + 1].map(|port| json!({ "port": port, "host": "127.0.0.1" }).to_string());
    let maitred = node(way, &["-w", "8"], "listens.js", &[&words[0], &words[1]]);
    for round in 1..=2 {
        all_ready(&maitred, 8 * round);
        wait_said(&maitred, &format!("at 127.0.0.1 {}", ports + 1), 8 * round);
        for port in [ports, ports + 1] {
            let pids = maitred.pids();
            let said = different(local(port), 40);
            assert!(said.iter().all(|pid| pids.contains(&pid.parse().unwrap())));
            // The kernel chooses in shared mode.
            assert!(said.len() == 8 || way.mode == "shared", "{said:?}");
        }
        maitred.signal(SIGWINCH);
        maitred.status_until(gone);
        if round == 1 {
            maitred.signal(SIGHUP);
        }
    }
    maitred.stop();
    "twice".to_owned()
}

/// The client's connection still answers.
fn echoes(client: &mut TcpStream) {
    client.write_all(b"still").unwrap();
    let mut said = [0; 5];
    client.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"still");
}

fn connect(port: u16) -> TcpStream {
    let client = TcpStream::connect(local(port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// worker-disconnect, worker-wait-server-close, worker-isconnected, call-and-destroy: the worker is told, ends by
/// itself when its last client has left, and does not mind being told again.
fn waits_for_its_connection(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2"], "drains.js", &[&port.to_string()]);
    all_ready(&maitred, 2);
    let pid = maitred.pid(1);
    // Enough of them that one is in slot 1; in shared mode the kernel chooses.
    let mut clients: Vec<TcpStream> = Vec::new();
    while clients.len() < 2 || taken_by(&maitred, 1) == 0 {
        clients.push(connect(port));
        echoes(clients.last_mut().unwrap());
        assert!(clients.len() < 1000, "slot 1 gets no connection");
    }
    maitred.told(&["scale", "1"]);
    wait_said(&maitred, &format!("{pid} asked"), 1);
    maitred.status_until(|status| status.to_string().contains("draining"));
    clients.iter_mut().for_each(echoes);
    maitred.told(&["scale", "1"]);
    assert!(runs(pid) && !maitred.output().contains("closed"));
    drop(clients);
    wait_gone(pid);
    let ended = maitred.wait_for("worker ended", 1);
    assert!(maitred.output().contains(&format!("{pid} closed")));
    maitred.status_until(|status| workers(status).len() == 1);
    stopped(maitred);
    ended[0]["exit"].as_str().unwrap().to_owned()
}

fn taken_by(maitred: &Maitred, slot: usize) -> u64 {
    maitred.status()["workers"][slot]["taken"].as_u64().unwrap()
}

/// worker-no-exit: a connection to elsewhere is the worker's own affair, which it may bring to an end.
fn has_a_connection_of_its_own(way: Way) -> String {
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let other = elsewhere.local_addr().unwrap().port().to_string();
    let maitred = node(way, &["-w", "2"], "drains.js", &[&free_ports(1).to_string(), &other]);
    all_ready(&maitred, 2);
    let theirs: Vec<TcpStream> = (0..2).map(|_| elsewhere.accept().unwrap().0).collect();
    wait_said(&maitred, "connected", 2);
    let pid = maitred.pid(1);
    maitred.told(&["scale", "1"]);
    wait_said(&maitred, &format!("{pid} closed"), 1);
    let status = maitred.status();
    assert!(runs(pid) && status["workers"][1]["state"] == "draining", "{status:#}");
    drop(theirs);
    wait_said(&maitred, &format!("{pid} left"), 1);
    let ended = maitred.wait_for("worker ended", 1);
    stopped(maitred);
    ended[0]["exit"].as_str().unwrap().to_owned()
}

/// disconnect-idle-worker.
fn never_listened(way: Way) -> String {
    let maitred = start(way, &["-w", "2"], &["node", "-e", "setInterval(() => {}, 1000)"]);
    maitred.wait_for("worker forked", 2);
    stopped(maitred);
    "exit 0".to_owned()
}

/// disconnect-unshared-tcp, disconnect-unshared-udp: who holds no listener leaves, and who holds one serves on.
fn serves_nothing(way: Way) -> String {
    let mut exits = HashSet::new();
    for kind in ["tcp", "udp"] {
        let port = free_ports(1);
        let maitred = node(way, &["-w", "2", "--ready", "delay:1s"], "only_one.js", &[kind, &port.to_string()]);
        wait_said(&maitred, "serves", 1);
        all_ready(&maitred, 2);
        maitred.told(&["scale", "1"]);
        let ended = maitred.wait_for("worker ended", 1);
        assert_eq!(ended[0]["slot"], 1);
        exits.insert(ended[0]["exit"].as_str().unwrap().to_owned());
        if kind == "tcp" {
            echoes(&mut connect(port));
        } else {
            let client = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(b"still", local(port)).unwrap();
            assert_eq!(client.recv(&mut [0; 5]).unwrap(), 5);
        }
        maitred.stop();
    }
    assert_eq!(exits.len(), 1, "{exits:?}");
    exits.into_iter().next().unwrap()
}

/// concurrent-disconnect: none of the commands that cross each other hangs, and the last one wins.
fn commands_cross(way: Way) -> String {
    let maitred = node(way, &["-w", "4"], "plain.js", &[&free_ports(1).to_string()]);
    all_ready(&maitred, 4);
    let commands: [&[&str]; 6] =
        [&["reload"], &["scale", "6"], &["restart"], &["scale", "2"], &["reload", "--fleet"], &["stop"]];
    std::thread::scope(|scope| {
        for words in commands {
            scope.spawn(|| maitred.tell(words));
        }
    });
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    "exit 0".to_owned()
}

/// shared-leak, disconnect-race, disconnect-before-exit: workers come while others leave, under load. In shared mode
/// nobody can keep a worker that ends on its signal from accepting before: some clients may be reset.
fn leave_under_load(way: Way) -> String {
    let maitred = node(way, &["-w", "2"], "plain.js", &[&free_ports(1).to_string()]);
    all_ready(&maitred, 2);
    let (tally, ()) = maitred.with_load(4, || {
        for _ in 0..3 {
            maitred.told(&["scale", "3"]);
            maitred.told(&["scale", "1"]);
            maitred.told(&["scale", "2"]);
            maitred.status_until(|status| {
                let states: Vec<_> = workers(status).iter().map(|worker| worker["state"].as_str()).collect();
                states == [Some("ready"), Some("ready")] && status["leaving"].as_array().unwrap().is_empty()
            });
        }
    });
    assert_eq!(tally.hung, 0);
    assert!(tally.answered > 0);
    assert!(tally.failed.is_empty() || way.mode == "shared", "{:?}", tally.failed);
    maitred.stop();
    "none hung".to_owned()
}

/// disconnect-leak: the stop comes while workers start to listen.
fn leave_at_once(way: Way) -> String {
    for when in ["worker forked", "worker ready"] {
        let maitred = node(way, &["-w", "2"], "plain.js", &[&free_ports(1).to_string()]);
        maitred.wait_for(when, 1);
        stopped(maitred);
    }
    "exit 0".to_owned()
}
