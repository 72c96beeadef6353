//! A reload mends a fleet of which one slot fails, and one that is given up leaves everything as it was.

use crate::support::*;
use nix::sys::signal::Signal::*;
use std::path::{Path, PathBuf};

/// Writes a configuration whose workers do `broken` in slot 0 while there is a switch of that name.
fn write(file: &Path, switches: &Switches, options: &str, broken: &str) {
    let serve = switches.pages(&[]).join(" ");
    let (dir, quoted) = (switches.path(), serde_json::to_string);
    let script = format!("[ $MAITRED_SLOT = 0 ] && [ -e {dir}/broken ] && {broken}; exec {serve}");
    std::fs::write(file, format!("{options}\ncommand = [\"sh\", \"-c\", {}]\n", quoted(&script).unwrap())).unwrap();
}

/// A fleet of two of which the first slot does `broken` instead of serving.
fn half_broken(switches: &Switches, options: &str, broken: &str) -> (Maitred, PathBuf) {
    let file = scratch("maitred.toml");
    let options = format!("workers = 2\n{options}");
    write(&file, switches, &options, broken);
    let maitred = Maitred::start(&["--config", file.to_str().unwrap()]).ready(2);
    switches.on("broken");
    kill(maitred.pid(0), SIGKILL);
    maitred.wait_for("worker forked", 3);
    write(&file, switches, &options, "true");
    (maitred, file)
}

const MODES: [(&str, &[&str]); 3] = [
    ("mode = \"kernel\"", &["reload", "--wait"]),
    ("max-surge = 0\nmax-unavailable = 1", &["reload", "--wait"]),
    ("", &["reload", "--fleet", "--wait"]),
];

#[test]
fn a_reload_mends_a_slot_that_fails_at_every_start() {
    for (options, reload) in MODES {
        let switches = Switches::new();
        let (maitred, _) = half_broken(&switches, options, "exit 1");
        maitred.wait_for("a slot waits before its worker is forked again", 2);
        assert_eq!(maitred.told(reload), "generation 2 serves", "{options}");
        assert_eq!(per_worker(&maitred.status(), "generation"), [2, 2], "{options}");
        maitred.stop();
    }
}

#[test]
fn a_reload_does_not_wait_for_a_slot_whose_worker_is_never_ready() {
    for (options, reload) in MODES {
        let switches = Switches::new();
        let (maitred, _) = half_broken(&switches, options, "exec sleep 1000");
        assert_eq!(maitred.told(reload), "generation 2 serves", "{options}");
        assert_eq!(per_worker(&maitred.status(), "generation"), [2, 2], "{options}");
        maitred.stop();
    }
}

#[test]
fn a_reload_that_is_given_up_leaves_as_many_workers_as_there_were() {
    let switches = Switches::new();
    let file = scratch("maitred.toml");
    write(&file, &switches, "workers = 2", "true");
    let maitred = Maitred::start(&["--config", file.to_str().unwrap()]).ready(2);
    switches.on("broken");
    // The first new worker fails, and then the first in one of the slots that were added.
    for (workers, slot, forked) in [(4, 0, 3), (1, 0, 4), (3, 2, 7)] {
        write(&file, &switches, &format!("workers = {workers}"), "exit 1");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("$MAITRED_SLOT = 0", &format!("$MAITRED_SLOT = {slot}"))).unwrap();
        let why = maitred.refused(&["reload", "--wait"]);
        assert!(why.contains("given up"), "{why:?}");
        maitred.wait_for("worker forked", forked);
        let before = |s: &serde_json::Value| {
            let workers = s["workers"].as_array().unwrap();
            let serves = |w: &serde_json::Value| w["state"] == "ready" && w["generation"] == 1;
            workers.len() == 2 && workers.iter().all(serves)
        };
        maitred.status_until(before);
    }
    maitred.stop();
}

fn check_pause(adapter: &str, mode: &str, how: &str) {
    let switches = Switches::new();
    let port = crate::calls::free_port().to_string();
    let script = root().join("tests/workers/pause.py");
    let command = ["--", "python3", script.to_str().unwrap(), &port, switches.path(), how];
    // A supervised program sees the hand-off socket's own answer.
    let env: &[&str] = if (adapter, mode) == ("seccomp", "handoff") { &["--env", "SECCOMP=1"] } else { &[] };
    let options = ["--mode", mode, "--adapter", adapter, "-w", "2"];
    let maitred = Maitred::start(&[&options[..], env, &command].concat()).ready(2);
    let address = maitred.address();
    let ten = || -> Vec<String> {
        let body = |_| match request(address) {
            Reply::Body(body) => body,
            other => panic!("{adapter} {mode} {how}: {other:?}"),
        };
        (0..10).map(body).collect()
    };
    let until = |wanted: &dyn Fn(&[String]) -> bool| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !wanted(&ten()) {
            assert!(std::time::Instant::now() < deadline, "{adapter} {mode} {how}: {:?}", maitred.log());
        }
    };
    // Twice: what was opened again can be paused again.
    for _ in 0..2 {
        switches.on("pause");
        until(&|ten| ten.iter().all(|slot| slot == "1"));
        switches.off("pause");
        until(&|ten| ten.iter().any(|slot| slot == "0"));
    }
    maitred.stop();
}

#[test]
fn a_worker_that_pauses_its_listening_socket_gets_connections_again() {
    for mode in ["handoff", "shared", "kernel"] {
        for how in ["shutdown", "disconnect"] {
            check_pause("preload", mode, how);
        }
    }
    // In shared mode the shutdown reaches the socket of all, and clients are refused until it listens again; and nobody
    // can connect a hand-off socket to no address.
    check_pause("seccomp", "handoff", "shutdown");
    check_pause("seccomp", "kernel", "shutdown");
}
