//! When a worker counts as ready, by every measure; and what becomes of one that never does.

use crate::refusals::check;
use crate::support::*;
use std::time::Duration;

/// A worker listens and is not ready; a client that comes now waits. `then` makes the worker ready; what
/// the client was answered.
fn client_before_readiness(maitred: &Maitred, then: impl FnOnce()) -> String {
    let address = tcp(&maitred.wait_for("worker listens", 1)[0]["address"]);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| request(address));
        let status = maitred.status_until(|s| s["listeners"][0]["queued"] == 1);
        assert_eq!(status["workers"][0]["state"], "starting", "{status:#}");
        assert_eq!((&status["totals"]["handed"], &status["totals"]["accepted"]), (&0.into(), &0.into()), "{status:#}");
        then();
        maitred.wait_for("worker counts as ready", 1);
        let status = maitred.status_until(|s| s["workers"][0]["state"] == "ready");
        assert_eq!(status["workers"][0]["generation"], 1);
        match client.join().unwrap() {
            Reply::Body(body) => body,
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn a_worker_that_must_notify_gets_nothing_before_it_does() {
    let switches = Switches::new();
    let maitred = Maitred::start(&[&["-w", "1", "--ready", "notify", "--"], &*switches.pages(&["notify"])].concat());
    let body = client_before_readiness(&maitred, || switches.on("ready-0"));
    assert!(body.ends_with(" well"), "{body}");
    maitred.stop();
}

#[test]
fn a_worker_that_must_answer_gets_no_client_before_it_does() {
    let switches = Switches::new();
    let maitred = Maitred::start(&[&["-w", "1", "--ready", "http:/health", "--"], &*switches.pages(&[])].concat());
    let why = &maitred.wait_for("a starting worker is not ready yet", 1)[0]["why"];
    assert_eq!(why, "it answered with status 503");
    let body = client_before_readiness(&maitred, || switches.on("ready-0"));
    assert!(body.ends_with(" well"), "{body}");
    // What the master asked for itself is nobody's connection.
    assert_eq!(maitred.status()["totals"]["accepted"], 1);
    maitred.stop();
}

#[test]
fn a_worker_that_must_write_a_line_gets_nothing_before_it_does() {
    for (how, number) in [("fd", "fd 3 "), ("fd:7", "fd 7 ")] {
        let switches = Switches::new();
        let maitred = Maitred::start(&[&["-w", "1", "--ready", how, "--"], &*switches.pages(&["fd"])].concat());
        let body = client_before_readiness(&maitred, || switches.on("ready-0"));
        assert!(body.ends_with(" well") && body.contains(number), "{how}: {body}");
        maitred.stop();
    }
}

#[test]
fn a_worker_that_must_live_for_a_while_gets_nothing_before() {
    let switches = Switches::new();
    let maitred = Maitred::start(&[&["-w", "1", "--ready", "delay:2s", "--"], &*switches.pages(&[])].concat());
    client_before_readiness(&maitred, || {});
    let uptime = maitred.logged("worker counts as ready")[0]["uptime_ms"].as_u64().unwrap();
    assert!((2000..12_000).contains(&uptime), "{uptime}");
    maitred.stop();
}

#[test]
fn notifying_early_does_not_help_a_worker_that_is_measured_otherwise() {
    let switches = Switches::new();
    switches.on("ready-0");
    let maitred = Maitred::start(&[&["-w", "1", "--ready", "fd", "--"], &*switches.pages(&["notify"])].concat());
    maitred.wait_for("worker listens", 1);
    // A second worker, so that the first one's word has certainly been heard.
    maitred.told(&["scale", "2"]);
    maitred.wait_for("worker listens", 2);
    maitred.wait_for("the worker says", 1);
    let status = maitred.status();
    assert!(status["workers"].as_array().unwrap().iter().all(|w| w["state"] == "starting"), "{status:#}");
}

#[test]
fn a_worker_that_is_forked_again_is_measured_again() {
    let switches = Switches::new();
    switches.on("ready-0");
    switches.on("ready-1");
    let maitred = Maitred::start(&[&["-w", "2", "--ready", "notify", "--"], &*switches.pages(&["notify"])].concat());
    maitred.wait_for("worker counts as ready", 2);
    switches.off("ready-0");
    let listened = maitred.logged("worker listens").len();
    kill(maitred.pid(0), nix::sys::signal::Signal::SIGKILL);
    maitred.wait_for("worker listens", listened + 1);
    let status = maitred.status();
    assert_eq!((&status["workers"][0]["state"], &status["workers"][0]["restarts"]), (&"starting".into(), &1.into()));
    for _ in 0..4 {
        assert!(matches!(request(maitred.address()), Reply::Body(body) if body.starts_with("slot 1")));
    }
    switches.on("ready-0");
    maitred.status_until(|s| s["workers"][0]["state"] == "ready");
    maitred.stop();
}

#[test]
fn a_first_generation_that_is_never_ready_ends_the_master() {
    let command = ["sh", "-c", "echo 'still thinking' >&2; exec sleep 1000"];
    let begun = std::time::Instant::now();
    let maitred = Maitred::start(&[&["-w", "1", "--boot-timeout", "400ms", "--"], &command[..]].concat());
    let killed = maitred.wait_for("killing a worker", 3);
    assert!(begun.elapsed() >= Duration::from_millis(1200));
    assert!(killed.iter().all(|entry| entry["because"] == "BootTimeout"), "{killed:?}");
    let pids: Vec<i32> = killed.iter().map(|entry| entry["pid"].as_i64().unwrap() as i32).collect();
    maitred.wait_for("no worker came up, giving up", 1);
    let forked = maitred.logged("worker forked").len();
    let (status, output) = maitred.wait();
    assert_eq!((status.code(), forked), (Some(3), 3), "{output}");
    for words in ["no worker came up", "--boot-timeout", "still thinking"] {
        assert!(output.contains(words), "{words:?} is missing in {output:?}");
    }
    pids.into_iter().for_each(wait_gone);
}

#[test]
fn a_later_worker_that_is_never_ready_is_tried_again_and_harms_nobody() {
    let switches = Switches::new();
    switches.on("ready-0");
    let args = ["-w", "1", "--ready", "notify", "--boot-timeout", "1500ms", "--"];
    let maitred = Maitred::start(&[&args, &*switches.pages(&["notify"])].concat());
    maitred.wait_for("worker counts as ready", 1);
    maitred.told(&["scale", "+1"]);
    let killed = maitred.wait_for("killing a worker", 1);
    assert_eq!((&killed[0]["slot"], &killed[0]["because"]), (&1.into(), &"BootTimeout".into()));
    assert!(matches!(request(maitred.address()), Reply::Body(body) if body.starts_with("slot 0")));
    switches.on("ready-1");
    maitred.status_until(|s| s["workers"][1]["state"] == "ready");
    maitred.stop();
}

#[test]
fn measures_that_make_no_sense_are_refused() {
    let with = |words: &[&str]| run(&[words, &["--", "true"]].concat());
    check(&with(&["--ready", "soon"]), 2, &["--ready", "soon", "listen, notify, http:/PATH, delay:DURATION, fd"]);
    check(&with(&["--ready", "http:health"]), 2, &["--ready", "begins with /", "http:/health"]);
    check(&with(&["--ready", "http:/a b"]), 2, &["--ready", "no spaces"]);
    check(&with(&["--ready", "delay:soon"]), 2, &["--ready", "\"soon\" is no duration", "500ms"]);
    check(&with(&["--ready", "fd:2"]), 2, &["--ready", "3 to 99"]);
    check(&with(&["--ready", "fd:100"]), 2, &["--ready", "3 to 99"]);
    check(&with(&["--boot-timeout", "0"]), 2, &["--boot-timeout 0 makes no sense"]);
    check(&with(&["--boot-timeout", "long"]), 2, &["--boot-timeout", "\"long\" is no duration"]);
    check(&with(&["--ready", "http:/", "--mode", "kernel"]), 2, &["--ready http:", "--mode handoff", "kernel"]);
    check(&with(&["--probe", "tcp", "--mode", "shared"]), 2, &["--probe", "--mode handoff", "shared"]);
    check(&with(&["--probe", "icmp"]), 2, &["--probe", "http:/PATH or tcp"]);
    check(&with(&["--probe", "tcp", "--probe-interval", "0"]), 2, &["--probe-interval", "longer than 0"]);
    check(&with(&["--max-surge", "0"]), 2, &["--max-surge 0", "--max-unavailable 0", "no worker could ever"]);
    check(&with(&["--max-rss", "big"]), 2, &["--max-rss", "512M or 1G"]);
    check(&with(&["--max-connections", "0"]), 2, &["--max-connections", "0"]);
    check(&with(&["--max-age", "0"]), 2, &["--max-age 0 makes no sense"]);
    check(&with(&["--max-restarts", "0"]), 2, &["--max-restarts", "0"]);
    check(&with(&["--heartbeat", "0"]), 2, &["--heartbeat 0 makes no sense"]);
    check(&with(&["--watchdog", "0"]), 2, &["--watchdog 0 makes no sense"]);
}

#[test]
fn the_address_that_matters_can_be_named() {
    let switches = Switches::new();
    let health = format!("listen:unix:{}/health.sock", switches.path());
    let command = switches.pages(&["health"]);
    let maitred = Maitred::start(&[&["-w", "1", "--ready", &health, "--"], &command[..]].concat()).ready(1);
    let status = maitred.status();
    assert_eq!(status["listeners"].as_array().unwrap().len(), 1, "{status:#}");
    maitred.stop();
}

/// A worker that listens on a socket file first, and here when the switch is on, under a master with `--bind`.
fn health_first(switches: &Switches, at: &str) -> Maitred {
    let at_its_place = |word| if word == "127.0.0.1:0" { at } else { word };
    let command: Vec<&str> = switches.pages(&["health"]).into_iter().map(at_its_place).collect();
    let maitred = Maitred::start(&[&["-w", "1", "-b", "127.0.0.1:0", "--"], &command[..]].concat());
    maitred.wait_for("worker forked", 1);
    maitred
}

#[test]
fn a_worker_that_opens_a_socket_file_and_then_another_port_than_that_of_bind_is_ready_there() {
    let switches = Switches::new();
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let maitred = health_first(&switches, &elsewhere.to_string());
    maitred.wait_for("a starting worker listens on no address of --bind yet", 1);
    switches.on("main");
    let maitred = maitred.ready(1);
    assert!(matches!(request(elsewhere), Reply::Body(_)));
    maitred.stop();
}

#[test]
fn with_bind_the_first_listener_of_a_worker_is_not_yet_readiness() {
    let switches = Switches::new();
    let maitred = health_first(&switches, "127.0.0.1:{port}");
    maitred.status_until(|s| s["listeners"].as_array().unwrap().len() == 2);
    assert_eq!(maitred.status()["workers"][0]["state"], "starting");
    // A socket file is for its own processes, however long it takes until it listens where it was told to.
    maitred.wait_for("a starting worker listens on no address of --bind yet", 1);
    assert_eq!(maitred.status()["workers"][0]["state"], "starting");
    switches.on("main");
    let maitred = maitred.ready(1);
    assert!(matches!(request(maitred.address()), Reply::Body(_)));
    maitred.stop();
}
