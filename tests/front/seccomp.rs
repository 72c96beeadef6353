//! The seccomp adapter: static binaries, whose calls are supervised from outside.

use crate::kernel::takes_turns;
use crate::support::*;
use nix::sys::signal::Signal::*;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn start(mode: &str, workers: &str, server: &[&str]) -> Maitred {
    let workers_wanted = workers.parse().unwrap();
    Maitred::start(&[&["--mode", mode, "-w", workers, "--"][..], server, &["supervised"]].concat())
        .ready(workers_wanted)
}

fn is_exact(maitred: &Maitred) -> bool {
    let mode = &maitred.status()["mode"];
    mode == "handoff" || mode == "kernel" && takes_turns(maitred)
}

/// All are answered, evenly where the mode says so.
fn check(maitred: &Maitred, connections: u64, clients: usize) {
    let mut address = maitred.address();
    if address.ip().is_unspecified() {
        address.set_ip("127.0.0.1".parse().unwrap());
    }
    if is_exact(maitred) {
        return check_exact_spread_with(maitred, connections, clients, &|| request(address));
    }
    let tally = load(address, connections, clients);
    assert_eq!((tally.answered, tally.hung), (connections, 0), "{:?}", tally.failed);
}

#[test]
fn every_way_of_waiting_in_every_mode() {
    let server = static_server();
    for mode in ["handoff", "shared", "kernel"] {
        for way in ["block", "poll", "select", "epoll"] {
            let maitred = start(mode, "4", &[&server, way, "0"]);
            assert_eq!(maitred.status()["workers"][0]["adapter"], "seccomp");
            check(&maitred, 202, 16);
            maitred.stop();
        }
    }
}

#[test]
fn an_address_of_its_own_choice_is_shared() {
    let server = static_server();
    for mode in ["handoff", "shared", "kernel"] {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let maitred = start(mode, "3", &[&server, "epoll", &port, "supervised"]);
        assert_eq!(maitred.address().port().to_string(), port);
        check(&maitred, 99, 8);
        // A worker that comes later finds the address served, and its slot's queue.
        kill(maitred.pid(1), SIGKILL);
        maitred.wait_for("worker ready", 4);
        check(&maitred, 99, 8);
        let second = Maitred::start(&["--mode", mode, "-w", "1", "--", &server, "epoll", &port, "supervised"]);
        let (status, output) = second.wait();
        assert_eq!(status.code(), Some(3), "{output}");
        assert!(output.contains("Address already in use"), "{output}");
        maitred.stop();
    }
}

#[test]
fn habits_of_servers_are_kept() {
    let server = static_server();
    for mode in ["handoff", "kernel"] {
        for (way, habit) in [
            ("block", "threads=5"),
            ("block", "fork=3"),
            ("epoll", "fork=2"),
            ("poll", "client"),
            ("epoll", "late"),
            ("block", "late"),
            ("epoll", "children"),
            ("epoll", "all"),
            ("epoll", "mapped"),
            ("epoll", "nonsense"),
            ("block", "signals"),
            ("epoll", "signals"),
        ] {
            let maitred = start(mode, "3", &[&server, way, "0", habit]);
            check(&maitred, 99, 8);
            maitred.stop();
        }
    }
}

#[test]
fn threads_that_are_interrupted_lose_nothing() {
    for mode in ["handoff", "kernel"] {
        let maitred = start(mode, "2", &[&static_server(), "block", "0", "threads=6", "signals"]);
        check(&maitred, 3000, 32);
        maitred.stop();
    }
}

#[test]
fn a_thousand_binds() {
    for mode in ["handoff", "shared", "kernel"] {
        let maitred = start(mode, "2", &[&static_server(), "epoll", "0", "binds=1000"]);
        // Where both serve, and what each may have closed since it was looked last.
        maitred.status_until(|s| s["listeners"].as_array().unwrap().len() <= 1 + 2 * 16);
        maitred.stop();
    }
}

#[test]
fn behind_a_shell_and_through_exec() {
    let line = format!("exec {} epoll 0 supervised", static_server());
    let args = ["-w", "3", "--adapter", "seccomp", "--", "sh", "-c", &line];
    for mode in ["handoff", "kernel"] {
        let maitred = Maitred::start(&[&["--mode", mode][..], &args].concat()).ready(3);
        check(&maitred, 99, 8);
        maitred.stop();
    }
}

#[test]
fn a_dynamic_program_can_be_supervised_as_well() {
    let script = root().join("worker-examples/unaware.py");
    for mode in ["handoff", "shared", "kernel"] {
        let args = ["--mode", mode, "-w", "2", "--adapter", "seccomp", "--", "python3", script.to_str().unwrap(), "0"];
        let maitred = Maitred::start(&args).ready(2);
        // Its backlog is 5: a client that finds it full asks, and is steered, again.
        check(&maitred, 60, 4);
        maitred.stop();
    }
}

#[test]
fn killed_workers_lose_only_what_they_had_taken() {
    let maitred = start("handoff", "4", &[&static_server(), "epoll", "0"]);
    let (tally, kills) = maitred.with_kills(32, Duration::from_millis(400), Duration::from_secs(5));
    let status = maitred.status_until(|s| per_worker(s, "queued").iter().all(|&q| q == 0));
    assert_eq!((tally.hung, &status["totals"]["lost"]), (0, &0.into()), "{status:#}");
    // Taken one at a time, so each kill costs one that was just taken at most.
    assert!(tally.failed.len() <= kills, "{kills} kills, failed: {:?}", tally.failed);
    assert!(tally.answered > 500, "{}", tally.answered);
    maitred.stop();
}

#[test]
fn one_that_closes_its_listener_gets_nothing_more() {
    for mode in ["handoff", "kernel"] {
        let line = format!(
            "case $MAITRED_SLOT in 0) exec {0} epoll 0 supervised close-after=5;; *) exec {0} epoll 0 supervised;; esac",
            static_server()
        );
        let args = ["--mode", mode, "-w", "3", "--adapter", "seccomp", "--", "sh", "-c", &line];
        let maitred = Maitred::start(&args).ready(3);
        if is_exact(&maitred) {
            let tally = load(maitred.address(), 100, 8);
            assert_eq!((tally.answered, tally.hung), (100, 0), "{:?}", tally.failed);
            // It is found out, and nothing waits for it.
            let closed =
                maitred.status_until(|s| s["workers"][0]["state"] == "stalled" && s["workers"][0]["queued"] == 0);
            let before = per_worker(&closed, "handed");
            let tally = load(maitred.address(), 60, 8);
            assert_eq!((tally.answered, tally.hung), (60, 0), "{:?}", tally.failed);
            let more: Vec<u64> =
                per_worker(&maitred.status(), "handed").iter().zip(&before).map(|(now, before)| now - before).collect();
            assert_eq!(more, [0, 30, 30], "a worker that closed its listener got something");
        } // Otherwise what waits at its slot waits for its successor.
        maitred.stop();
    }
}

#[test]
fn signals_to_the_master_break_nothing_off() {
    let args = ["-w", "2", "--adapter", "seccomp", "--", &*static_server(), "epoll", "0", "supervised"];
    let maitred = Maitred::start(&args).ready(2);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                maitred.signal(SIGCHLD);
            }
        });
        let tally = load(maitred.address(), 1500, 8);
        over.store(true, Ordering::Relaxed);
        assert_eq!((tally.answered, tally.hung), (1500, 0), "{:?}", tally.failed);
    });
    assert_eq!(per_worker(&maitred.status(), "taken"), [750, 750]);
    maitred.stop();
}

#[test]
fn workers_that_wait_in_accept_leave_nothing_behind() {
    let args = ["-w", "1", "--adapter", "seccomp", "--", &*static_server(), "block", "0", "supervised"];
    let maitred = Maitred::start(&args).ready(1);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", maitred.child.id())).unwrap().count();
    let mut before = None;
    for round in 1..=8 {
        maitred.signal(SIGTTIN);
        maitred.wait_for("worker ready", 1 + round);
        maitred.signal(SIGTTOU);
        maitred.wait_for("worker ended", round);
        maitred.status_until(|status| status["workers"].as_array().unwrap().len() == 1);
        // The first round may have opened what stays. What others have had is closed aside, a moment later.
        let before = *before.get_or_insert_with(open);
        let deadline = std::time::Instant::now() + PATIENCE;
        while open() > before {
            assert!(std::time::Instant::now() < deadline, "descriptors are left open");
            std::thread::yield_now();
        }
    }
    check(&maitred, 20, 2);
    maitred.stop();
}

fn as_user(program: &str, args: &[&str]) -> Maitred {
    let mut command = Command::new(program);
    command.args(args).arg(maitred().get_program());
    as_ordinary_user(&mut command);
    let server = for_ordinary_user(&static_server());
    Maitred::start_as(command, &["-w", "2", "--", &server, "epoll", "0", "supervised"])
}

#[test]
fn as_an_ordinary_user_and_without_new_privileges() {
    for maitred in [as_user("env", &[]), as_user("setpriv", &["--no-new-privs"])] {
        let maitred = maitred.ready(2);
        check(&maitred, 60, 8);
        maitred.stop();
    }
}

#[test]
fn where_descriptors_cannot_be_copied() {
    let confine = c_program("tests/workers/confine.c", "cc", &[]);
    let server = static_server();
    for mode in ["handoff", "shared", "kernel"] {
        for port in ["0", "free"] {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
            let port = if port == "free" { &free } else { port };
            let mut command = Command::new(&confine);
            command.arg("no-getfd").arg(maitred().get_program());
            let maitred =
                Maitred::start_as(command, &["--mode", mode, "-w", "3", "--", &server, "epoll", port, "supervised"]);
            let maitred = maitred.ready(3);
            check(&maitred, 99, 8);
            kill(maitred.pid(1), SIGKILL);
            maitred.wait_for("worker ready", 4);
            check(&maitred, 99, 8);
            maitred.stop();
        }
    }
}

#[test]
fn under_an_outer_supervisor_it_says_what_works_instead() {
    let confine = c_program("tests/workers/confine.c", "cc", &[]);
    let outer = || {
        let mut command = Command::new(&confine);
        command.arg("outer").arg(maitred().get_program());
        command
    };
    let refused = Maitred::start_as(outer(), &["-w", "2", "--", &static_server(), "epoll", "0"]);
    let (status, output) = refused.wait();
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains("outer supervisor") && output.contains("--adapter inherit"), "{output}");
    // A dynamic build works there.
    let maitred = Maitred::start_as(outer(), &["-w", "2", "--", &server(), "epoll", "0"]).ready(2);
    check(&maitred, 20, 2);
    maitred.stop();
}
