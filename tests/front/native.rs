//! The protocol, spoken by hand and by the Rust library.

use crate::support::*;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

#[test]
fn a_worker_of_thirty_lines_without_a_library() {
    let script = root().join("worker-examples/native.py");
    let args = ["-w", "4", "--adapter", "native", "--", "python3", script.to_str().unwrap(), "127.0.0.1:0"];
    let maitred = Maitred::start(&args).ready(4);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}

#[test]
fn a_returned_connection_goes_to_another_worker() {
    let script = root().join("tests/workers/misbehave.py");
    let args = ["-w", "3", "--adapter", "native", "--", "python3", script.to_str().unwrap(), "return"];
    let maitred = Maitred::start(&args).ready(3);
    let tally = load(maitred.address(), 90, 4);
    assert_eq!((tally.answered, tally.hung), (90, 0), "{:?}", tally.failed);
    let status = maitred.status();
    let returned = per_worker(&status, "returned");
    assert!(returned[0] > 0 && returned[1..] == [0, 0], "{status:#}");
    assert_eq!(per_worker(&status, "taken")[0], 0, "{status:#}");
    maitred.stop();
}

#[test]
fn a_connection_that_is_returned_again_and_again_finds_its_place() {
    let script = root().join("tests/workers/misbehave.py");
    for workers in ["1", "2"] {
        let args = ["-w", workers, "--adapter", "native", "--", "python3", script.to_str().unwrap(), "return-half"];
        let maitred = Maitred::start(&args).ready(workers.parse().unwrap());
        let tally = load(maitred.address(), 20, 2);
        assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
        maitred.stop();
    }
}

#[test]
fn the_rust_library_blocking_and_tokio() {
    let listener = example("listener");
    for kind in ["blocking", "tokio"] {
        let maitred = Maitred::start(&["-w", "4", "--adapter", "native", "--", &listener, kind]).ready(4);
        check_exact_spread(&maitred, 400, 16);
        maitred.stop();
        let args = ["-w", "2", "--mode", "shared", "--adapter", "native", "--", &listener, kind];
        let maitred = Maitred::start(&args).ready(2);
        let tally = load(maitred.address(), 50, 4);
        assert_eq!((tally.answered, tally.hung), (50, 0), "{:?}", tally.failed);
        maitred.stop();
    }
}

/// A worker of two slots that uses all of the library, and the path of its Unix socket.
fn whole(kind: &str, options: &[&str]) -> (Maitred, PathBuf) {
    let (program, path) = (example("whole"), scratch("whole.sock"));
    let args = ["-w", "2", "--adapter", "native", "--ready", "notify", "--bind", "127.0.0.1:0"];
    let command = ["--", &program, kind, path.to_str().unwrap()];
    let maitred = Maitred::start(&[&args[..], options, &command[..]].concat());
    maitred.wait_for("worker counts as ready", 2);
    (maitred, path)
}

#[test]
fn the_rust_library_serves_several_addresses_gives_back_and_says_how_it_is() {
    for kind in ["threads", "tokio"] {
        let (maitred, path) = whole(kind, &[]);
        assert_eq!(maitred.wait_for("the worker says", 2).len(), 2);
        check_exact_spread(&maitred, 100, 4);
        for _ in 0..4 {
            let Reply::Body(body) = get(maitred.address(), "/back") else { panic!("{kind}: no answer") };
            assert!(body.starts_with("slot Some(1)"), "{kind}: {body}");
        }
        assert!(per_worker(&maitred.status(), "returned")[0] > 0, "{kind}: {:#}", maitred.status());
        let slots = (0..4).map(|_| match ask_unix(&path) {
            Reply::Body(text) => text.contains("slot Some(0)"),
            other => panic!("{kind}: {other:?}"),
        });
        assert_eq!(slots.filter(|first| *first).count(), 2, "{kind}");
        maitred.stop();
    }
}

#[test]
fn a_worker_with_the_rust_library_ends_when_it_is_asked_to_whoever_is_connected() {
    for kind in ["threads", "tokio"] {
        let (maitred, _) = whole(kind, &["--grace", "1h"]);
        let mut stays = TcpStream::connect(maitred.address()).unwrap();
        stays.write_all(b"GET /stay HTTP/1.1\r\n\r\n").unwrap();
        assert!(stays.read(&mut [0; 4096]).unwrap() > 0, "{kind}");
        maitred.signal(SIGTERM);
        // Not after an hour.
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(0), "{kind}: {output}");
        drop(stays);
    }
}

#[test]
fn a_worker_with_the_rust_library_answers_heartbeats_for_all_its_life() {
    let (maitred, _) = whole("threads", &["--heartbeat", "50ms"]);
    check_exact_spread(&maitred, 100, 4);
    assert!(maitred.logged("a worker does not answer PING any more").is_empty());
    // It is missed when it stops, so it had answered.
    kill(maitred.pid(0), SIGSTOP);
    maitred.wait_for("a worker does not answer PING any more", 1);
    kill(maitred.pid(0), SIGCONT);
    maitred.wait_for("a worker answers PING again", 1);
    maitred.stop();
}

#[test]
fn a_worker_with_the_rust_library_serves_alone_without_maitred() {
    for kind in ["threads", "tokio"] {
        let path = scratch("alone.sock");
        let mut alone = Command::new(example("whole")).arg(kind).arg(&path).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !path.exists() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let Reply::Body(text) = ask_unix(&path) else { panic!("{kind}: no answer") };
        assert!(text.contains("slot None"), "{kind}: {text}");
        alone.kill().unwrap();
        alone.wait().unwrap();
    }
}

#[test]
fn axum_with_the_library_as_its_listener() {
    let maitred = Maitred::start(&["-w", "4", "--adapter", "native", "--", &example("axum"), "127.0.0.1:0"]).ready(4);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}

#[test]
fn an_unaware_tokio_server() {
    let maitred = Maitred::start(&["-w", "4", "--", &example("unaware_tokio"), "0"]).ready(4);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}
