//! One program in one way, and how it is started.

use crate::support::*;
use std::path::PathBuf;

/// How a program takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub adapter: &'static str,
    pub mode: &'static str,
}

/// Something that must be installed.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    pub what: &'static str,
    pub how: &'static str,
}

pub const NODE: Needs = Needs { what: "node", how: "apt-get install nodejs" };
pub const HAPROXY: Needs = Needs { what: "haproxy", how: "apt-get install haproxy" };
pub const VSFTPD: Needs = Needs { what: "vsftpd", how: "apt-get install vsftpd" };
/// A Python with the packages of `programs/requirements.txt`.
pub const PACKAGES: Needs = Needs {
    what: "MAITRED_COMPAT_PYTHON",
    how: "python3 -m venv VENV && VENV/bin/pip install -r tests/compat/programs/requirements.txt, and MAITRED_COMPAT_PYTHON=VENV/bin/python3 in the environment",
};

/// What is run.
pub struct Case {
    /// The row of the table.
    pub program: &'static str,
    /// The column of the table of ways of starting, if it belongs there.
    pub start: Option<&'static str>,
    pub needs: &'static [Needs],
    pub way: Way,
    /// Runs it, and tells what the table says.
    pub run: Box<dyn Fn(Way) -> String + Send>,
}

impl Case {
    pub fn name(&self) -> String {
        let Way { adapter, mode } = self.way;
        let started = self.start.map(|start| format!(" started {start}")).unwrap_or_default();
        let words = format!("{}{started} {adapter} {mode}", self.program);
        words.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_")
    }

    /// What is not installed.
    pub fn missing(&self) -> Option<Needs> {
        let there = |needs: &Needs| match needs.what {
            "MAITRED_COMPAT_PYTHON" => packages().is_some(),
            program => has(program),
        };
        self.needs.iter().find(|needs| !there(needs)).copied()
    }
}

const MODES: [&str; 3] = ["handoff", "shared", "kernel"];

/// The program in each mode with each of these adapters.
pub fn in_each_mode(
    program: &'static str,
    needs: &'static [Needs],
    adapters: &[&'static str],
    run: fn(Way) -> String,
) -> Vec<Case> {
    let ways = adapters.iter().flat_map(|adapter| MODES.map(|mode| Way { adapter, mode }));
    ways.map(|way| Case { program, start: None, needs, way, run: Box::new(run) }).collect()
}

/// Both ways to bring an unmodified program to take part.
pub const BOTH: &[&str] = &["preload", "seccomp"];

/// The Python that has the packages.
fn packages() -> Option<PathBuf> {
    std::env::var_os("MAITRED_COMPAT_PYTHON").map(PathBuf::from).filter(|python| python.exists())
}

/// The path of a program that came with one of the packages.
pub fn packaged(program: &str) -> String {
    let python = packages().expect("MAITRED_COMPAT_PYTHON names a Python");
    python.parent().unwrap().join(program).to_str().unwrap().to_owned()
}

/// The path of a program of these tests.
pub fn program(name: &str) -> String {
    root().join("tests/compat/programs").join(name).to_str().unwrap().to_owned()
}

/// Starts `maitred` in this way with these options and words.
pub fn start(way: Way, options: &[&str], words: &[&str]) -> Maitred {
    let chosen = ["--mode", way.mode, "--adapter", way.adapter];
    Maitred::start_exactly(&[&chosen[..], options, &["--"], words].concat())
}

/// Waits until every slot is ready.
pub fn all_ready(maitred: &Maitred, workers: usize) -> serde_json::Value {
    maitred.wait_for("worker forked", workers);
    let ready = |status: &serde_json::Value| {
        let workers = status["workers"].as_array().unwrap();
        !workers.is_empty() && workers.iter().all(|worker| worker["state"] == "ready")
    };
    maitred.status_until(ready)
}

/// Replaces all workers, and waits for the end of the old ones: in shared mode they go on accepting until then.
pub fn reload(maitred: &Maitred) {
    maitred.told(&["reload", "--wait"]);
    maitred.status_until(|status| status["leaving"].as_array().unwrap().is_empty());
}

/// The answers to so many requests, one after the other.
pub fn answers(address: std::net::SocketAddr, count: usize) -> Vec<String> {
    let answer = |number| match request(address) {
        Reply::Body(body) => body,
        other => panic!("request {number} of {count} to {address}: {other:?}"),
    };
    (0..count).map(answer).collect()
}

/// What the table says of so many right ones; all must be.
pub fn all_of(right: usize, all: usize) -> String {
    assert_eq!(right, all, "only so many were right");
    format!("{right} of {all}")
}
