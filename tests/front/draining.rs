//! When a leaving worker gets its stop signal: idle connections do not hold it up, and busy ones do.

use crate::support::*;
use nix::sys::signal::Signal::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A client whose request was answered and who keeps the connection for the next.
fn keep_alive(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = [0; 4096];
    let read = client.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"));
    client
}

#[test]
fn a_stop_with_a_hundred_idle_clients_does_not_wait_for_them() {
    for mode in ["handoff", "kernel"] {
        let switches = Switches::new();
        let command = on_port(&switches.pages(&[]));
        let maitred = Maitred::start(&words(&["--mode", mode, "-w", "2", "-b", "127.0.0.1:0"], &command)).ready(2);
        let clients: Vec<TcpStream> = (0..100).map(|_| keep_alive(maitred.address())).collect();
        let begun = Instant::now();
        maitred.signal(SIGTERM);
        maitred.wait_for("drained, except for idle connections", 2);
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(0), "{output}");
        // `--grace` is 30 s.
        assert!(begun.elapsed() < PATIENCE / 2, "{mode}: {:?}", begun.elapsed());
        drop(clients);
    }
}

fn on_port(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| word.replace("127.0.0.1:0", "127.0.0.1:{port}")).collect()
}

fn words<'a>(options: &[&'a str], command: &'a [String]) -> Vec<&'a str> {
    options.iter().copied().chain(["--"]).chain(command.iter().map(String::as_str)).collect()
}

#[test]
fn a_request_that_is_not_answered_yet_holds_its_worker_however_silent_it_is() {
    let switches = Switches::new();
    let options = ["-w", "1", "--idle-after", "50ms", "--grace", "60s", "--"];
    let maitred = Maitred::start(&[&options, &switches.pages(&[])[..]].concat()).ready(1);
    let (address, old) = (maitred.address(), maitred.pid(0));
    std::thread::scope(|scope| {
        let idle: Vec<TcpStream> = (0..5).map(|_| keep_alive(address)).collect();
        let busy = scope.spawn(move || get(address, "/wait"));
        maitred.status_until(|s| per_worker(s, "open") == [6]);
        assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
        // The idle ones have been silent for longer than needed, many times over.
        let leaving = |s: &serde_json::Value| s["leaving"][0]["since_s"].as_f64();
        let status = maitred.status_until(|s| leaving(s).is_none_or(|since| since > 0.5));
        assert_eq!(status["leaving"][0]["pid"], old, "{status:#}");
        switches.on("go");
        assert!(matches!(busy.join().unwrap(), Reply::Body(_)));
        wait_gone(old);
        drop(idle);
    });
    maitred.stop();
}

#[test]
fn with_idle_after_0_an_idle_client_holds_its_worker() {
    let switches = Switches::new();
    let options = ["-w", "1", "--idle-after", "0", "--grace", "60s", "--"];
    let maitred = Maitred::start(&[&options, &switches.pages(&[])[..]].concat()).ready(1);
    let (client, old) = (keep_alive(maitred.address()), maitred.pid(0));
    assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
    let leaving = |s: &serde_json::Value| s["leaving"][0]["since_s"].as_f64();
    let status = maitred.status_until(|s| leaving(s).is_none_or(|since| since > 1.5));
    assert_eq!(status["leaving"][0]["pid"], old, "{status:#}");
    drop(client);
    wait_gone(old);
    maitred.stop();
}

#[test]
fn with_stop_first_a_busy_worker_hears_of_its_end_at_once() {
    let switches = Switches::new();
    let maitred = Maitred::start(
        &[&["-w", "1", "--stop-first", "--grace", "60s", "--"], &switches.pages(&["tidy"])[..]].concat(),
    )
    .ready(1);
    let (address, old) = (maitred.address(), maitred.pid(0));
    std::thread::scope(|scope| {
        let busy = scope.spawn(move || get(address, "/wait"));
        maitred.status_until(|s| per_worker(s, "open") == [1]);
        assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
        switches.wait_for("tidying-0");
        switches.on("go");
        assert!(matches!(busy.join().unwrap(), Reply::Body(_)));
        switches.on("tidy");
        wait_gone(old);
    });
    maitred.stop();
}

#[test]
fn a_connection_between_processes_of_one_worker_does_not_hold_its_drain() {
    let switches = Switches::new();
    let options = ["-w", "1", "--grace", "60s", "--"];
    let maitred = Maitred::start(&[&options, &switches.pages(&["self"])[..]].concat()).ready(1);
    switches.wait_for("self-0");
    maitred.status_until(|s| per_worker(s, "taken") == [1]);
    let old = maitred.pid(0);
    // The new one's connection may come to the old one: what counts is that it does not hold it.
    maitred.signal(SIGTERM);
    let begun = Instant::now();
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    wait_gone(old);
}
