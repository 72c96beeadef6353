//! Who gets an address, and what the others are told.

use super::*;
use crate::sockets::{free_ports, local};
use nix::sys::signal::Signal::SIGUSR2;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

pub fn all() -> Vec<Case> {
    [
        in_each_mode("Node's cluster: eaddrinuse, then free again", &[NODE], BOTH, taken_for_a_while),
        in_each_mode("Node's cluster: bind-twice", &[NODE], PRELOAD, two_masters),
        in_each_mode("Node's cluster: bind-privileged-port", &[NODE], PRELOAD, privileged),
        in_each_mode("Node's cluster: server-restart", &[NODE], BOTH, closes_and_listens_again),
        in_each_mode("Node's cluster: port-reuse-between-workers", &[NODE], BOTH, twice_in_one_worker),
        in_each_mode("Node's cluster: child-index-net", &[NODE], PRELOAD, own_ports_by_the_kernel),
        in_each_mode("Node's cluster: listening-port, --share-port-zero", &[NODE], PRELOAD, shared_ports_by_the_kernel),
        in_each_mode("Node's cluster: net-listen-shared-ports, exclusive", &[NODE], PRELOAD, exclusive),
        in_each_mode("Node's cluster: the same with --private", &[NODE], PRELOAD, private),
        in_each_mode("Node's cluster: net-listen-ipv6only-false", &[NODE], BOTH, both_families),
        in_each_mode("Node's cluster: net-listen-ipv6only", &[NODE], BOTH, one_family),
        in_each_mode("Node's cluster: net-listen-backlog, 7", &[NODE], PRELOAD, backlog),
        in_each_mode("Node's cluster: net-listen-handle, closed early", &[NODE], PRELOAD, handles),
        in_inherit_modes("Node's cluster: listen-fd, fd 3"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const REQUESTS: usize = 20;

/// eaddrinuse, shared-handle-bind-error: each worker learns of it, nobody ends, and nothing remembers the failure.
fn taken_for_a_while(way: Way) -> String {
    let port = free_ports(1);
    let holder = TcpListener::bind(local(port)).unwrap();
    let maitred = node(way, &["-w", "2"], "relisten.js", &[&port.to_string()]);
    wait_said(&maitred, "EADDRINUSE", 2);
    assert!(workers(&maitred.status()).iter().all(|worker| worker["state"] == "starting"));
    drop(holder);
    maitred.pids().into_iter().for_each(|pid| kill(pid, SIGUSR2));
    wait_said(&maitred, "listens", 2);
    all_ready(&maitred, 2);
    let served = answers(local(port), REQUESTS).len();
    maitred.stop();
    all_of(served, REQUESTS)
}

/// bind-twice, ipc-throw: the workers of the second master throw what they are told.
fn two_masters(way: Way) -> String {
    let port = free_ports(1).to_string();
    let first = node(way, &["-w", "2"], "plain.js", &[&port]);
    all_ready(&first, 2);
    let said = gives_up(node(way, &["-w", "2"], "plain.js", &[&port]));
    assert!(said.contains("EADDRINUSE") && said.contains("Address already in use"), "{said}");
    answers(local(port.parse().unwrap()), REQUESTS);
    first.stop();
    "EADDRINUSE".to_owned()
}

/// bind-privileged-port, shared-handle-bind-privileged-port. Where every port is free for all, as in some containers,
/// a directory of root's has the same rule.
fn privileged(way: Way) -> String {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let place = match first_free.trim() {
        "0" => json!({ "path": "/etc/maitred-test.sock" }),
        _ => json!({ "port": 42, "host": "127.0.0.1" }),
    };
    let script = for_ordinary_user(&program("cluster/listens.js"));
    let mut command = maitred();
    as_ordinary_user(&mut command);
    let options = ["-w", "2", "--mode", way.mode, "--adapter", way.adapter, "--", "node"];
    let maitred = Maitred::start_as(command, &[&options[..], &[&script, &place.to_string()]].concat());
    wait_said(&maitred, "EACCES", 2);
    stopped(maitred);
    "EACCES".to_owned()
}

/// server-restart-rr, server-restart-none, worker-handle-close: no client notices. At the end also
/// disconnect-before-exit and worker-destroy: one that serves no more is stopped like the others.
fn closes_and_listens_again(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "3"], "relisten.js", &[&port.to_string()]);
    all_ready(&maitred, 3);
    let (stays, leaves) = (maitred.pid(0), [maitred.pid(1), maitred.pid(2)]);
    maitred.under_load(4, || {
        for round in 1..=5 {
            for pid in leaves {
                kill(pid, SIGUSR2);
                wait_said(&maitred, &format!("{pid} closed"), round);
                kill(pid, SIGUSR2);
                wait_said(&maitred, &format!("{pid} listens"), round + 1);
            }
        }
    });
    ready_again(&maitred);
    if way.adapter == "preload" {
        // With seccomp a close is noticed later, and a stop in between waits for the end of its time.
        for pid in leaves {
            kill(pid, SIGUSR2);
            wait_said(&maitred, &format!("{pid} closed"), 6);
        }
        assert_eq!(different(local(port), REQUESTS), HashSet::from([stays.to_string()]));
    }
    maitred.stop();
    "none lost".to_owned()
}

/// port-reuse-between-workers, net-listen-twice.
fn twice_in_one_worker(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2"], "twice.js", &[&port.to_string()]);
    wait_said(&maitred, "listens EADDRINUSE EADDRINUSE listens", 2);
    all_ready(&maitred, 2);
    let served = answers(local(port), REQUESTS).len();
    maitred.stop();
    all_of(served, REQUESTS)
}

/// The two ports of each worker, in its own order.
fn two_ports(maitred: &Maitred) -> Vec<Vec<u16>> {
    let lines = wait_lines(maitred, 2, |line| line.contains(" ports "));
    lines.iter().map(|line| line.split(' ').skip(2).map(|port| port.parse().unwrap()).collect()).collect()
}

/// child-index-net, net-listen-exclusive-random-ports: a port of the kernel's choice is the worker's own.
fn own_ports_by_the_kernel(way: Way) -> String {
    let port = free_ports(1).to_string();
    let maitred = node(way, &["-w", "2"], "zero.js", &[&port]);
    all_ready(&maitred, 2);
    let ports = two_ports(&maitred);
    assert_eq!(ports.concat().iter().collect::<BTreeSet<_>>().len(), 4, "{ports:?}");
    for own in &ports {
        // Who answers on one port of a worker answers on its other one.
        assert_eq!(different(local(own[0]), 5), different(local(own[1]), 5));
    }
    assert_eq!(maitred.status()["listeners"].as_array().unwrap().len(), 1);
    maitred.stop();
    "its own".to_owned()
}

/// listening-port: the master knows the real port, and the nth one of each worker is the same.
fn shared_ports_by_the_kernel(way: Way) -> String {
    let place = json!({ "port": 0, "host": "127.0.0.1" }).to_string();
    let maitred = node(way, &["-w", "2", "--share-port-zero"], "listens.js", &[&place, &place]);
    all_ready(&maitred, 2);
    let lines = wait_lines(&maitred, 4, |line| line.contains(" at "));
    let ports: BTreeSet<u16> = lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(ports.len(), 2, "{lines:?}");
    let wanted: BTreeSet<SocketAddr> = ports.into_iter().map(local).collect();
    let status = maitred.status();
    let listeners = status["listeners"].as_array().unwrap();
    assert_eq!(listeners.iter().map(|listener| tcp(&listener["address"])).collect::<BTreeSet<_>>(), wanted);
    wanted.iter().for_each(|address| drop(answers(*address, REQUESTS)));
    maitred.stop();
    "shared".to_owned()
}

/// net-listen-shared-ports: `exclusive` is a word between Node's cluster and its workers; a plain program has no use
/// for it.
fn exclusive(way: Way) -> String {
    let port = free_ports(1);
    let place = json!({ "port": port, "host": "127.0.0.1", "exclusive": true }).to_string();
    let maitred = node(way, &["-w", "2"], "listens.js", &[&place]);
    all_ready(&maitred, 2);
    assert_eq!(wait_said(&maitred, &format!("at 127.0.0.1 {port}"), 2).len(), 2);
    answers(local(port), REQUESTS);
    maitred.stop();
    "shared".to_owned()
}

/// What `exclusive` is for, said to maitred: the second worker does not get the port, and shares the other one.
fn private(way: Way) -> String {
    let port = free_ports(2);
    let words = [port, port + 1].map(|port| json!({ "port": port, "host": "127.0.0.1" }).to_string());
    let own = format!(":{}", port + 1);
    let maitred = node(way, &["-w", "2", "--private", &own], "listens.js", &[&words[0], &words[1]]);
    all_ready(&maitred, 2);
    wait_said(&maitred, &format!("at 127.0.0.1 {}", port + 1), 1);
    wait_said(&maitred, "EADDRINUSE", 1);
    assert_eq!(different(local(port + 1), REQUESTS).len(), 1);
    maitred.stop();
    "EADDRINUSE".to_owned()
}

/// net-listen-ipv6only-false: one socket, both families, one address for all.
fn both_families(way: Way) -> String {
    let port = free_ports(1);
    let place = json!({ "port": port, "host": "::" }).to_string();
    let maitred = node(way, &["-w", "3"], "listens.js", &[&place]);
    all_ready(&maitred, 3);
    wait_said(&maitred, &format!("at :: {port}"), 3);
    answers(local(port), REQUESTS);
    answers((Ipv6Addr::LOCALHOST, port).into(), REQUESTS);
    maitred.stop();
    "both".to_owned()
}

/// net-listen-ipv6only-rr, net-listen-ipv6only-none: the port of IPv4 stays free.
fn one_family(way: Way) -> String {
    let port = free_ports(1);
    let place = json!({ "port": port, "host": "::", "ipv6Only": true }).to_string();
    let maitred = node(way, &["-w", "3"], "listens.js", &[&place]);
    all_ready(&maitred, 3);
    answers((Ipv6Addr::LOCALHOST, port).into(), REQUESTS);
    TcpStream::connect(local(port)).unwrap_err();
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    maitred.stop();
    "IPv6 only".to_owned()
}

/// net-listen-backlog: the kernel's own number for the listening sockets (`sock_diag(7)`, which `ss` asks).
fn backlog(way: Way) -> String {
    let port = free_ports(1);
    let place = json!({ "port": port, "host": "127.0.0.1", "backlog": 7 }).to_string();
    let maitred = node(way, &["-w", "2"], "listens.js", &[&place]);
    let status = all_ready(&maitred, 2);
    let backlog = status["listeners"][0]["backlog"].to_string();
    maitred.stop();
    backlog
}

/// net-server-close-before-ipc-response, net-listen-handle-in-cluster-1 and -2.
fn handles(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2"], "handles.js", &[&port.to_string()]);
    wait_said(&maitred, "listens", 2);
    all_ready(&maitred, 2);
    let served = answers(local(port), REQUESTS).len();
    maitred.stop();
    all_of(served, REQUESTS)
}

/// listen-fd-cluster: a worker serves on the descriptor that it inherits. Hand-off has no such descriptor.
fn in_inherit_modes(program: &'static str) -> Vec<Case> {
    let ways = ["shared", "kernel"].map(|mode| Way { adapter: "inherit", mode });
    ways.map(|way| Case { program, start: None, needs: &[NODE], way, run: Box::new(inherits) }).into()
}

fn inherits(way: Way) -> String {
    let maitred = node(way, &["-w", "2", "-b", "127.0.0.1:0"], "fd.js", &[]);
    all_ready(&maitred, 2);
    let served = answers(maitred.address(), REQUESTS).len();
    maitred.stop();
    all_of(served, REQUESTS)
}
