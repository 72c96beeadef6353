//! What Node's own tests of `cluster` ask for, with plain Node programs as workers. "What a user of Node's cluster
//! expects" in `src/manual/compat.md` says which of Node's files stands behind which scenario, what is different here
//! on purpose, and what does not apply.
//!
//! - `addresses`: who gets an address, and what the others are told
//! - `paths`: Unix sockets
//! - `ends`: how a worker or the master ends, and who learns of it
//! - `drains`: workers that leave
//! - `connections`: what becomes of a connection on its way, and of one that a worker passes on
//! - `datagrams`: UDP
//! - `settings`: arguments, environment, descriptors

mod addresses;
mod connections;
mod datagrams;
mod drains;
mod ends;
mod paths;
mod settings;

use crate::case::*;
use crate::support::*;
use serde_json::Value;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Instant;

pub fn all() -> Vec<Case> {
    [addresses::all(), paths::all(), ends::all(), drains::all(), connections::all(), datagrams::all(), settings::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// Without what concerns sockets, one adapter says enough.
const PRELOAD: &[&str] = &["preload"];

/// The program in these modes only, with the preload adapter.
fn in_modes(program: &'static str, modes: &[&'static str], run: fn(Way) -> String) -> Vec<Case> {
    in_each_mode(program, &[NODE], PRELOAD, run).into_iter().filter(|case| modes.contains(&case.way.mode)).collect()
}

/// Starts `node PROGRAM WORDS` in this way.
fn node(way: Way, options: &[&str], name: &str, words: &[&str]) -> Maitred {
    start(way, options, &[&["node", &program(&format!("cluster/{name}"))], words].concat())
}

/// Waits until the workers have printed so many such lines, and returns them.
fn wait_lines(maitred: &Maitred, count: usize, is_one: impl Fn(&str) -> bool) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = maitred.output();
        let lines: Vec<String> = output.lines().filter(|line| is_one(line)).map(str::to_owned).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < deadline, "waited for {count} lines: {output}");
        std::thread::yield_now();
    }
}

/// The same for lines that end with these words.
fn wait_said(maitred: &Maitred, words: &str, count: usize) -> Vec<String> {
    wait_lines(maitred, count, |line| line.ends_with(words))
}

/// What so many requests are answered with, each once.
fn different(address: SocketAddr, count: usize) -> HashSet<String> {
    answers(address, count).into_iter().collect()
}

/// Waits until every slot is ready after something happened to the workers.
fn ready_again(maitred: &Maitred) -> Value {
    maitred.status_until(|status| workers(status).iter().all(|worker| worker["state"] == "ready"))
}

fn workers(status: &Value) -> &Vec<Value> {
    status["workers"].as_array().unwrap()
}

/// Starts the scenario's workers and expects that the master gives up; its exit code and what it said.
fn gives_up(maitred: Maitred) -> String {
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(3), "{output}");
    output
}

/// Stops the master, which must end with 0.
fn stopped(maitred: Maitred) -> String {
    maitred.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    output
}
