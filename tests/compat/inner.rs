//! Services that a worker opens for itself, and addresses beside the first.

use crate::case::*;
use crate::sockets::{free_ports, local};
use crate::support::*;
use std::collections::HashSet;

pub fn all() -> Vec<Case> {
    [
        in_each_mode("Node, an inner listen(0) per request", &[NODE], BOTH, node_per_request),
        in_each_mode("Node, an inner listen(0) at start", &[NODE], BOTH, node_at_start),
        in_each_mode("public on P, admin on P+1 after EADDRINUSE", &[], BOTH, public_and_admin),
        in_each_mode("three children with debugging ports", &[], BOTH, python_children),
        in_each_mode("three Node children with debugging ports", &[NODE], BOTH, node_children),
        in_each_mode("an address for one client, told with --private", &[], BOTH, opened_late),
        in_each_mode("{slot}, {worker}, {generation} in arguments and --env", &[], &["preload"], own_words),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const REQUESTS: usize = 60;

fn node_per_request(way: Way) -> String {
    node(way, "request")
}

fn node_at_start(way: Way) -> String {
    node(way, "start")
}

/// The server asks its own inner service, which says in which process it is.
fn node(way: Way, when: &str) -> String {
    let port = free_ports(1).to_string();
    let maitred = start(way, &["-w", "3"], &["node", &program("inner.js"), &port, when]);
    all_ready(&maitred, 3);
    let answers = answers(local(port.parse().unwrap()), REQUESTS);
    let own = answers.iter().filter(|answer| answer.split_once(' ').is_some_and(|(outer, inner)| outer == inner));
    let right = own.count();
    assert_eq!(maitred.status()["listeners"].as_array().unwrap().len(), 1, "the inner service is shared");
    maitred.stop();
    all_of(right, REQUESTS)
}

fn public_and_admin(way: Way) -> String {
    let port = free_ports(2);
    let script = program("admin.py");
    let maitred = start(way, &["-w", "3"], &["python3", &script, &port.to_string()]);
    all_ready(&maitred, 3);
    maitred.status_until(|status| status["listeners"].as_array().unwrap().len() == 2);
    let right = |port, wanted| answers(local(port), 30).iter().filter(|answer| *answer == wanted).count();
    let right = right(port, "public") + right(port + 1, "admin");
    maitred.stop();
    all_of(right, 60)
}

fn python_children(way: Way) -> String {
    children(way, &["python3", &program("debugged.py")])
}

fn node_children(way: Way) -> String {
    children(way, &["node", &program("debugged.js")])
}

/// Each worker starts three children that listen on port 0; no two may get one port.
fn children(way: Way, words: &[&str]) -> String {
    let port = free_ports(1).to_string();
    let maitred = start(way, &["-w", "2"], &[words, &[&port]].concat());
    all_ready(&maitred, 2);
    let answers = answers(local(port.parse().unwrap()), 8);
    let ports: HashSet<&str> = answers.iter().flat_map(|answer| answer.split_whitespace()).collect();
    // Who accepts first in shared mode may be one worker alone.
    let workers = answers.iter().collect::<HashSet<_>>().len();
    for port in &ports {
        let answer = request(local(port.parse().unwrap()));
        assert_eq!(answer, Reply::Body(format!("child on {port}")));
    }
    assert_eq!(maitred.status()["listeners"].as_array().unwrap().len(), 1, "a debugging port is shared");
    maitred.stop();
    assert_eq!(ports.len(), workers * 3, "{answers:?}");
    "3 ports of 3".to_owned()
}

fn opened_late(way: Way) -> String {
    let ports = free_ports(2);
    let words = ["python3", &program("late.py"), &ports.to_string(), &(ports + 1).to_string()];
    let maitred = start(way, &["-w", "2"], &words);
    all_ready(&maitred, 2);
    // From then on an address comes late where nothing tells whether connections were served before.
    let settled = |worker: &serde_json::Value| worker["uptime_s"].as_f64() > Some(1.0);
    maitred.status_until(|status| status["workers"].as_array().unwrap().iter().all(settled));
    assert_eq!(answers(local(ports), 1), ["opened"]);
    maitred.wait_for(
        "a worker that was ready opened one more address, which all workers share now; if it is for one client or for its own processes, leave it alone with --private",
        1,
    );
    maitred.stop();
    "told".to_owned()
}

fn own_words(way: Way) -> String {
    let port = free_ports(1).to_string();
    let options = ["-w", "2", "--env", "OWN=s{slot}w{worker}g{generation}"];
    let words = ["python3", &program("words.py"), &port, "{slot}", "{worker}", "{generation}"];
    let maitred = start(way, &options, &words);
    let check = |generation: u64| {
        let status = all_ready(&maitred, 2);
        let expected: HashSet<String> = (status["workers"].as_array().unwrap().iter())
            .map(|w| format!("{0} {1} {generation} s{0}w{1}g{generation}", w["slot"], w["id"]))
            .collect();
        // Who accepts first in shared mode may be one worker alone.
        let said: HashSet<String> = answers(local(port.parse().unwrap()), 10).into_iter().collect();
        assert!(!said.is_empty() && said.is_subset(&expected), "{said:?} of {expected:?}");
    };
    check(1);
    reload(&maitred);
    check(2);
    maitred.stop();
    "replaced".to_owned()
}
