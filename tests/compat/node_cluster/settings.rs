//! Arguments, environment, directory, descriptors, and what a reload changes of them.

use super::*;
use crate::sockets::{free_ports, local};
use serde_json::json;

pub fn all() -> Vec<Case> {
    [
        in_each_mode("Node's cluster: cwd, fork-env, setup-primary", &[NODE], PRELOAD, as_asked),
        in_each_mode("Node's cluster: setup-primary-multiple", &[NODE], PRELOAD, later_workers),
        in_each_mode("Node's cluster: fork-stdio", &[NODE], PRELOAD, one_more_descriptor),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the worker in each slot says of itself.
fn said(port: u16) -> Vec<Value> {
    different(local(port), 10).iter().map(|said| serde_json::from_str(said).unwrap()).collect()
}

/// cwd, fork-env, setup-primary. The children of a worker are told the same as the worker, whose part they are; Node's
/// `basic` asks that they are not.
fn as_asked(way: Way) -> String {
    let port = free_ports(1);
    let directory = scratch("directory");
    std::fs::create_dir_all(&directory).unwrap();
    let directory = directory.canonicalize().unwrap();
    let directory = directory.to_str().unwrap();
    let options = ["-w", "2", "--cwd", directory, "--env", "ADDED=in {slot}", "--env", "HOME=replaced"];
    let maitred = node(way, &options, "environment.js", &[&port.to_string(), "two words", "{slot}"]);
    all_ready(&maitred, 2);
    let all = said(port);
    assert!(!all.is_empty());
    for one in all {
        let slot = one["slot"].as_str().unwrap();
        let expected = json!({
            "words": ["two words", slot],
            "cwd": directory,
            "added": format!("in {slot}"),
            "home": "replaced",
            "slot": slot,
            "childs": slot,
        });
        assert_eq!(one, expected);
    }
    maitred.stop();
    "as asked".to_owned()
}

/// setup-primary-multiple, setup-primary-cumulative, setup-primary-argv: what the file changes holds for the workers
/// that come later; what it leaves out stays.
fn later_workers(way: Way) -> String {
    let port = free_ports(1);
    let file = scratch("settings.toml");
    let script = program("cluster/environment.js");
    let write = |word: &str, added: &str| {
        let command = json!(["node", &script, port.to_string(), word]);
        let text = format!("workers = 2\ncommand = {command}\n[env]\nHOME = \"kept\"\nADDED = \"{added}\"\n");
        std::fs::write(&file, text).unwrap();
    };
    let check = |word: &str, added: &str| {
        let all = said(port);
        let right = |one: &Value| one["words"] == json!([word]) && one["added"] == added && one["home"] == "kept";
        assert!(!all.is_empty() && all.iter().all(right), "{all:?}");
    };
    write("first", "one");
    let maitred = Maitred::start_exactly(&["--mode", way.mode, "--adapter", way.adapter, "-c", file.to_str().unwrap()]);
    all_ready(&maitred, 2);
    check("first", "one");
    write("second", "two");
    // Whoever comes before the reload is as the others are.
    kill(maitred.pid(1), nix::sys::signal::Signal::SIGKILL);
    all_ready(&maitred, 3);
    check("first", "one");
    reload(&maitred);
    check("second", "two");
    maitred.stop();
    "later workers".to_owned()
}

/// fork-stdio: a descriptor that the master was started with is each worker's, too.
fn one_more_descriptor(way: Way) -> String {
    let port = free_ports(1).to_string();
    let file = scratch("extra");
    let shell = ["sh", "-c", "exec 9>>\"$0\"; exec \"$@\"", file.to_str().unwrap()];
    let script = program("cluster/extra.js");
    let options = ["-w", "2", "--mode", way.mode, "--adapter", way.adapter, "--"];
    let maitred = Maitred::start_as(maitred_by(&shell), &[&options[..], &["node", &script, &port, "9"]].concat());
    all_ready(&maitred, 2);
    let written = std::fs::read_to_string(&file).unwrap();
    let mut pids: Vec<i32> = written.lines().map(|line| line.parse().unwrap()).collect();
    let mut expected = maitred.pids();
    pids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(pids, expected);
    maitred.stop();
    "passed on".to_owned()
}
