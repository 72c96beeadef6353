//! How a worker or the master ends, and who learns of it.

use super::*;
use crate::sockets::{descendants, free_ports, local};
use nix::sys::signal::Signal::{self, SIGABRT, SIGKILL, SIGTERM, SIGUSR2};
use serde_json::json;
use std::net::TcpListener;

pub fn all() -> Vec<Case> {
    [
        in_each_mode("Node's cluster: basic, one of each event", &[NODE], PRELOAD, each_event_once),
        in_each_mode("Node's cluster: worker-exit", &[NODE], PRELOAD, exits),
        in_each_mode("Node's cluster: worker-death", &[NODE], PRELOAD, exits_at_once),
        in_each_mode("Node's cluster: worker-kill", &[NODE], PRELOAD, killed),
        in_each_mode("Node's cluster: worker-kill-signal", &[NODE], PRELOAD, signal_of_choice),
        in_each_mode("Node's cluster: kill-infinite-loop", &[NODE], PRELOAD, loops),
        in_each_mode("Node's cluster: kill-disconnect", &[NODE], PRELOAD, asked_for),
        in_each_mode("Node's cluster: primary-kill, primary-error", &[NODE], PRELOAD, master_gone),
        in_each_mode("Node's cluster: process-disconnect", &[NODE], PRELOAD, loses_its_channel),
        in_each_mode("Node's cluster: invalid-message", &[NODE], PRELOAD, babbles),
        in_each_mode("Node's cluster: rr-handle-close", &[NODE], BOTH, nothing_left_to_do),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const REQUESTS: usize = 20;

/// What the log says of the end of this process; it must say it once.
fn end_of(maitred: &Maitred, pid: i32) -> Value {
    maitred.status_until(|_| maitred.logged("worker ended").iter().any(|line| line["pid"] == pid));
    let ends: Vec<Value> = maitred.logged("worker ended").into_iter().filter(|line| line["pid"] == pid).collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    ends.into_iter().next().unwrap()
}

/// basic, worker-isdead: forked, ready, ended, once for each worker; the states between, and the address.
fn each_event_once(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2"], "plain.js", &[&port.to_string()]);
    let status = all_ready(&maitred, 2);
    assert_eq!(tcp(&status["listeners"][0]["address"]), local(port));
    let pids = maitred.pids();
    let log = |message| {
        let mut pids: Vec<(i64, i64)> = (maitred.logged(message).iter())
            .map(|line| (line["slot"].as_i64().unwrap(), line["worker"].as_i64().unwrap()))
            .collect();
        pids.sort_unstable();
        pids
    };
    let each = [(0, 1), (1, 2)];
    assert_eq!((log("worker forked"), log("worker ready")), (each.to_vec(), each.to_vec()));
    assert!(pids.iter().all(|pid| runs(*pid)));
    maitred.signal(SIGTERM);
    let ended = maitred.wait_for("worker ended", 2);
    assert!(ended.iter().all(|line| line["exit"] == "signal 15" && line["level"] == "INFO"), "{ended:?}");
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(!pids.into_iter().any(runs));
    "once".to_owned()
}

/// A worker ends in this way; the log names it and its slot, and another comes.
fn ends_by(way: Way, path: &str, end: impl Fn(i32)) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2"], "ends.js", &[&port.to_string()]);
    all_ready(&maitred, 2);
    let before = maitred.pids();
    let Reply::Body(said) = get(local(port), path) else { panic!("{path} is not answered") };
    let pid: i32 = said.parse().unwrap();
    let slot = before.iter().position(|worker| *worker == pid).unwrap();
    end(pid);
    let line = end_of(&maitred, pid);
    assert_eq!((&line["slot"], &line["level"]), (&json!(slot), &json!("WARN")));
    wait_gone(pid);
    let status = all_ready(&maitred, 3);
    assert_eq!(status["workers"][slot]["restarts"], 1);
    answers(local(port), REQUESTS);
    maitred.stop();
    line["exit"].as_str().unwrap().to_owned()
}

/// worker-exit.
fn exits(way: Way) -> String {
    ends_by(way, "/exit", |_| ())
}

/// worker-kill.
fn killed(way: Way) -> String {
    ends_by(way, "/", |pid| kill(pid, SIGKILL))
}

/// kill-infinite-loop.
fn loops(way: Way) -> String {
    ends_by(way, "/loop", |pid| kill(pid, SIGTERM))
}

/// worker-death: before it listened, that is no start; the third time the master gives up and says why.
fn exits_at_once(way: Way) -> String {
    let maitred = start(way, &["-w", "2"], &["node", "-e", "process.exit(42)"]);
    let ended = maitred.wait_for("worker ended", 1);
    assert_eq!(ended[0]["exit"], "exit status 42");
    let said = gives_up(maitred);
    assert!(said.contains("ended with exit status 42 before it listened"), "{said}");
    "exit status 42".to_owned()
}

/// worker-kill-signal: every worker gets the signal that was chosen, and none is left.
fn signal_of_choice(way: Way) -> String {
    let port = free_ports(1).to_string();
    let maitred = node(way, &["-w", "2", "--stop-signal", "INT"], "signal.js", &[&port]);
    all_ready(&maitred, 2);
    let pids = maitred.pids();
    let said = stopped(maitred);
    for pid in pids {
        assert!(said.contains(&format!("{pid} got SIGINT")) && said.contains(&format!("{pid} closed")), "{said}");
        assert!(!runs(pid));
    }
    assert!(!said.contains("SIGTERM"), "{said}");
    "SIGINT".to_owned()
}

/// kill-disconnect, disconnect-exitedAfterDisconnect-race: an end that was asked for is no crash, whether the worker
/// ended by itself, or was killed at the end of its time because its client did not leave.
fn asked_for(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2", "--grace", "2s"], "drains.js", &[&port.to_string()]);
    all_ready(&maitred, 2);
    let client = std::net::TcpStream::connect(local(port)).unwrap();
    let old = maitred.pids();
    reload(&maitred);
    let ends = old.iter().map(|pid| end_of(&maitred, *pid));
    let mut ends: Vec<_> = ends.map(|end| (end["exit"].to_string(), end["level"].to_string())).collect();
    ends.sort();
    assert_eq!(
        ends,
        [("exit status 0", "INFO"), ("signal 9", "INFO")].map(|(a, b)| (json!(a).to_string(), json!(b).to_string()))
    );
    drop(client);
    maitred.stop();
    "no crash".to_owned()
}

/// primary-kill, primary-error, worker-forced-exit: without their master the workers end, a busy one too.
fn master_gone(way: Way) -> String {
    let gone = |signal: Signal| {
        let port = free_ports(1);
        let maitred = node(way, &["-w", "2"], "ends.js", &[&port.to_string()]);
        all_ready(&maitred, 2);
        let family = descendants(maitred.child.id());
        assert!(matches!(get(local(port), "/loop"), Reply::Body(_)));
        maitred.signal(signal);
        let (status, _) = maitred.wait();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal as i32));
        family.into_iter().for_each(wait_gone);
        TcpListener::bind(local(port)).unwrap();
    };
    [SIGKILL, SIGABRT].into_iter().for_each(gone);
    "all end".to_owned()
}

/// process-disconnect, worker-forced-exit: in Node's cluster such a worker ends; here it serves on, and the master
/// reaches it by its sockets and its process.
fn loses_its_channel(way: Way) -> String {
    let mut served = 0;
    for when in ["before", "after"] {
        let port = free_ports(1);
        let maitred = node(way, &["-w", "2"], "loses_channel.js", &[&port.to_string(), when]);
        wait_said(&maitred, "listens", 2);
        all_ready(&maitred, 2);
        served += answers(local(port), REQUESTS).len();
        reload(&maitred);
        served += answers(local(port), REQUESTS).len();
        maitred.stop();
    }
    all_of(served, 4 * REQUESTS)
}

/// invalid-message: an answer to nothing is ignored; what makes no sense is logged.
fn babbles(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2"], "babbles.js", &[&port.to_string()]);
    all_ready(&maitred, 2);
    let pids = maitred.pids();
    let served = answers(local(port), REQUESTS).len();
    maitred.wait_for("a worker sent a packet that makes no sense", 2);
    assert_eq!(maitred.pids(), pids);
    maitred.stop();
    all_of(served, REQUESTS)
}

/// rr-handle-close, rr-handle-keep-loop-alive: a listener keeps its worker running, and nothing of maitred's does when
/// that is closed.
fn nothing_left_to_do(way: Way) -> String {
    let port = free_ports(1);
    let maitred = node(way, &["-w", "2"], "closes.js", &[&port.to_string()]);
    all_ready(&maitred, 2);
    let (stays, leaves) = (maitred.pid(0), maitred.pid(1));
    kill(leaves, SIGUSR2);
    let line = end_of(&maitred, leaves);
    let status = all_ready(&maitred, 3);
    assert_eq!((&status["workers"][0]["pid"], &status["workers"][1]["restarts"]), (&json!(stays), &json!(1)));
    maitred.stop();
    line["exit"].as_str().unwrap().to_owned()
}
