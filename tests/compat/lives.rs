//! A listener ends with its process; a worker that listens nowhere is not ready.

use crate::case::*;
use crate::sockets::{free_ports, local};
use crate::support::*;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Instant;

pub fn all() -> Vec<Case> {
    [
        in_each_mode("a child that listens, killed and forked again", &[], BOTH, killed),
        in_each_mode("a worker that closes its last listener", &[], BOTH, deaf),
        in_each_mode("a reload to workers that close theirs", &[], BOTH, reload_to_deaf),
        in_each_mode("Node, closes its port and listens there again, with --bind", &[NODE], &["preload"], twice),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn said(address: SocketAddr, path: &str) -> String {
    match get(address, path) {
        Reply::Body(body) => body,
        other => panic!("{path}: {other:?}"),
    }
}

/// Asks until the answer is as wanted, which one of the workers gives.
fn until(address: SocketAddr, path: &str, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    while said(address, path) != wanted {
        assert!(Instant::now() < deadline, "{path} is never {wanted:?}");
    }
}

fn listeners(maitred: &Maitred) -> usize {
    maitred.status()["listeners"].as_array().unwrap().len()
}

const CRASHES: usize = 5;

fn killed(way: Way) -> String {
    let port = free_ports(2);
    let (main, childs) = (local(port), local(port + 1));
    let maitred = start(way, &["-w", "2"], &["python3", &program("crash.py"), &port.to_string()]);
    all_ready(&maitred, 2);
    // A worker is ready before its child listens.
    maitred.status_until(|status| status["listeners"].as_array().unwrap().len() == 2);
    for _ in 0..CRASHES {
        until(main, "/kill", "killed");
        // The other worker's child is there for everybody.
        until_answered(childs);
        for _ in 0..10 {
            assert_eq!(request(childs), Reply::Body("the child".to_owned()));
        }
        until(main, "/again", "begun");
        assert_eq!(request(childs), Reply::Body("the child".to_owned()));
        assert_eq!(listeners(&maitred), 2);
    }
    // Without any child the address refuses, instead of letting clients wait.
    let deadline = Instant::now() + PATIENCE;
    until(main, "/kill", "killed");
    until(main, "/kill", "killed");
    while !matches!(request(childs), Reply::Failed(_)) {
        assert!(Instant::now() < deadline, "somebody answers where nobody listens");
    }
    until(main, "/again", "begun");
    until_answered(childs);
    maitred.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    "ends".to_owned()
}

/// A connection that a killed process had been given is closed with it; the next is not.
fn until_answered(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match request(address) {
            Reply::Body(_) => return,
            Reply::Hung => panic!("a client of {address} hangs"),
            Reply::Failed(why) => assert!(Instant::now() < deadline, "{why}"),
        }
    }
}

fn states(status: &Value) -> Vec<&str> {
    status["workers"].as_array().unwrap().iter().map(|worker| worker["state"].as_str().unwrap()).collect()
}

const LISTENS_NOWHERE: &str = "a worker that was ready listens nowhere any more, so it gets no connections";

fn deaf(way: Way) -> String {
    let port = free_ports(1);
    let maitred = start(way, &["-w", "2"], &["python3", &program("deaf.py"), &port.to_string(), "-"]);
    all_ready(&maitred, 2);
    assert_eq!(said(local(port), "/close"), "closing");
    maitred.status_until(|status| states(status).iter().filter(|state| **state == "ready").count() == 1);
    maitred.wait_for(LISTENS_NOWHERE, 1);
    assert!(answers(local(port), 10).iter().all(|answer| answer == "served"));
    maitred.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    "not ready".to_owned()
}

fn reload_to_deaf(way: Way) -> String {
    let (port, switch) = (free_ports(1), scratch("deaf"));
    let words = ["python3", &program("deaf.py"), &port.to_string(), switch.to_str().unwrap()];
    let maitred = start(way, &["-w", "2"], &words);
    all_ready(&maitred, 2);
    std::fs::write(&switch, "").unwrap();
    maitred.refused(&["reload", "--wait"]);
    std::fs::remove_file(&switch).unwrap();
    // Whoever of the new ones was ready for a moment is replaced by an old one.
    maitred.status_until(|status| {
        let old = |worker: &Value| worker["generation"] == 1 && worker["state"] == "ready";
        status["workers"].as_array().unwrap().iter().all(old)
    });
    assert!(answers(local(port), 10).iter().all(|answer| answer == "served"));
    maitred.stop();
    "given up".to_owned()
}

const REQUESTS: usize = 20;

/// The socket of `--bind` with which a worker is started does not count as one on which it listens.
fn twice(way: Way) -> String {
    let port = free_ports(1);
    let (at, port_word) = (local(port).to_string(), port.to_string());
    let maitred = start(
        way,
        &["-w", "2", "-b", &at],
        &["sh", "-c", "node \"$0\" \"$1\"; true", &program("twice.js"), &port_word],
    );
    all_ready(&maitred, 2);
    let mut answered = answers(local(port), REQUESTS).len();
    reload(&maitred);
    all_ready(&maitred, 2);
    answered += answers(local(port), REQUESTS).len();
    // One closes and lives on: nothing more waits there.
    let closes = answers(local(port), 1).remove(0);
    let pid = closes.strip_prefix("process ").unwrap().parse().unwrap();
    kill(pid, nix::sys::signal::Signal::SIGUSR2);
    maitred.wait_for(LISTENS_NOWHERE, 1);
    answered += answers(local(port), REQUESTS).iter().filter(|answer| **answer != closes).count();
    maitred.stop();
    all_of(answered, 3 * REQUESTS)
}
