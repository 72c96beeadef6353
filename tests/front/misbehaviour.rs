//! Workers that do what they should not: the others go on, the master too, and nothing hangs.

use crate::support::*;
use nix::sys::signal::{SIGCONT, SIGSTOP, SIGTERM};
use std::time::{Duration, Instant};

/// A worker with a habit in slot 0, well-behaved ones elsewhere, all on one address.
fn one_bad(workers: &str, bad: &str) -> Maitred {
    let good = server();
    let line = format!("if [ $MAITRED_SLOT = 0 ]; then {bad}; else exec {good} poll {{port}}; fi");
    Maitred::start(&["-w", workers, "-b", "127.0.0.1:0", "--", "sh", "-c", &line])
}

fn habit(workers: &str, habit: &str) -> Maitred {
    let script = root().join("tests/workers/misbehave.py");
    Maitred::start(&["-w", workers, "--adapter", "native", "--", "python3", script.to_str().unwrap(), habit])
}

fn all_answered(maitred: &Maitred, connections: u64) {
    let tally = load(maitred.address(), connections, 8);
    assert_eq!((tally.answered, tally.hung), (connections, 0), "{:?}", tally.failed);
}

#[test]
fn one_that_closes_its_listener_gets_nothing_more() {
    let maitred = one_bad("3", &format!("exec {} epoll {{port}} close-after=5", server())).ready(3);
    all_answered(&maitred, 200);
    let status = maitred.status();
    assert_eq!(per_worker(&status, "taken")[0], 5, "{status:#}");
    assert_eq!(per_worker(&status, "taken").iter().sum::<u64>(), 200, "{status:#}");
    maitred.stop();
}

#[test]
fn one_that_exits_at_once_while_others_serve() {
    let maitred = one_bad("3", "exit 7");
    maitred.wait_for("worker ready", 2);
    maitred.wait_for("a slot waits before its worker is forked again", 4);
    all_answered(&maitred, 50);
    let status = maitred.status();
    assert!(["backoff", "starting"].contains(&status["workers"][0]["state"].as_str().unwrap()), "{status:#}");
    maitred.stop();
}

#[test]
fn one_that_never_listens() {
    let maitred = one_bad("3", "exec sleep 1000");
    maitred.wait_for("worker ready", 2);
    all_answered(&maitred, 50);
    assert_eq!(maitred.status()["workers"][0]["state"], "starting");
    maitred.stop();
    // Nobody listens: clients wait, and the end is clean.
    let maitred = habit("2", "never-listen");
    maitred.wait_for("worker forked", 2);
    maitred.stop();
}

#[test]
fn one_that_writes_garbage_to_the_channel() {
    let maitred = habit("2", "garbage").ready(2);
    assert!(!maitred.logged("a worker sent a packet that makes no sense").is_empty());
    // It asked for more addresses than it serves.
    let status = maitred.status();
    let served = status["listeners"].as_array().unwrap().iter().find(|l| l["backlog"] != 0).unwrap();
    let address = tcp(&served["address"]);
    check_exact_spread_with(&maitred, 50, 4, &|| request(address));
    maitred.stop();
}

#[test]
fn one_that_sends_back_what_is_no_connection() {
    let maitred = habit("2", "garbage-back").ready(2);
    check_exact_spread(&maitred, 50, 4);
    assert!(!maitred.logged("a worker sent something that is no connection back").is_empty());
    maitred.stop();
}

#[test]
fn one_that_floods_the_channel() {
    let maitred = habit("2", "flood").ready(2);
    check_exact_spread(&maitred, 200, 8);
    // A hundred thousand packets make a few lines, not a full disk.
    assert!(maitred.logged("a worker sent a packet that makes no sense").len() < 64);
    maitred.stop();
}

#[test]
fn one_that_asks_for_too_many_addresses() {
    let maitred = habit("1", "many");
    let says = maitred.wait_for("the worker says", 1);
    assert_eq!(says[0]["text"], "refused 44", "{says:?}");
    maitred.stop();
}

#[test]
fn one_that_runs_out_of_descriptors_loses_nothing() {
    let maitred = Maitred::start(&["-w", "1", "--", &server(), "poll", "0", "idle", "rlimit=60"]).ready(1);
    let address = maitred.address();
    let _open: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let status =
        maitred.status_until(|s| s["totals"]["accepted"] == 100 && s["workers"][0]["queued"].as_u64() < Some(60));
    let worker = &status["workers"][0];
    assert_eq!(worker["truncated"], 0, "{status:#}");
    let (taken, queued) = (worker["taken"].as_u64().unwrap(), worker["queued"].as_u64().unwrap());
    assert!(taken > 20 && taken < 60 && taken + queued == 100, "{status:#}");
}

#[test]
fn one_that_crashes_while_it_serves_is_followed_by_the_next() {
    let script = root().join("tests/workers/misbehave.py");
    let args = ["-w", "2", "--adapter", "native", "--", "python3", script.to_str().unwrap(), "crash-after", "3"];
    let maitred = Maitred::start(&args).ready(2);
    let tally = load(maitred.address(), 24, 2);
    assert_eq!((tally.answered, tally.hung), (24, 0), "{:?}", tally.failed);
    let status = maitred.status();
    assert_eq!(status["totals"]["lost"], 0);
    assert!(per_worker(&status, "restarts").iter().all(|&n| n >= 3), "{status:#}");
    maitred.stop();
}

#[test]
fn a_stopped_one_does_not_keep_the_master_from_its_end() {
    let maitred = Maitred::start(&["-w", "2", "--grace", "1s", "--", &server(), "poll", "0"]).ready(2);
    kill(maitred.pid(0), SIGSTOP);
    let begun = Instant::now();
    maitred.signal(SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_worker_that_was_stopped_goes_on_where_it_was() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let pid = maitred.pid(0);
    kill(pid, SIGSTOP);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load(maitred.address(), 10, 10));
        maitred.status_until(|s| per_worker(s, "queued")[0] == 5);
        kill(pid, SIGCONT);
        let tally = clients.join().unwrap();
        assert_eq!((tally.answered, tally.hung), (10, 0), "{:?}", tally.failed);
    });
    maitred.stop();
}
