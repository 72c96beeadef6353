//! HTTP/3: connections over UDP, which stay at their worker in kernel mode.

use crate::case::*;
use crate::sockets::free_ports;
use crate::support::*;
use std::process::Command;

pub fn all() -> Vec<Case> {
    let way = Way { adapter: "preload", mode: "kernel" };
    let run = Box::new(hypercorn);
    vec![Case { program: "hypercorn, HTTP/3", start: None, needs: &[PACKAGES], way, run }]
}

const CONNECTIONS: usize = 20;

fn hypercorn(way: Way) -> String {
    let port = free_ports(1);
    let directory = scratch("http3");
    std::fs::create_dir_all(&directory).unwrap();
    let directory = directory.to_str().unwrap();
    client(&["certificate", directory]);
    let tls = format!("--certfile {directory}/cert.pem --keyfile {directory}/key.pem");
    let at = format!("--bind 127.0.0.1:{port} --quic-bind 127.0.0.1:{port}");
    let line = format!("cd {} && exec {} {tls} {at} flask_app:app", program(""), packaged("hypercorn"));
    let maitred = start(way, &["-w", "3", "--grace", "10s"], &["sh", "-c", &line]);
    let mut right = 0;
    for again in [true, false] {
        all_ready(&maitred, 3);
        let said = client(&["ask", &port.to_string(), &CONNECTIONS.to_string()]);
        let mut words = said.split_whitespace();
        right += words.next().unwrap().parse::<usize>().unwrap();
        // The kernel's hash draws the slots: that all of 20 flows have the same one happens once in 3^19 runs.
        assert!(words.count() > 1, "{said}");
        if again {
            reload(&maitred);
        }
    }
    maitred.stop();
    all_of(right, 2 * CONNECTIONS)
}

/// What the client says, which must come to its end.
fn client(words: &[&str]) -> String {
    let output = Command::new(packaged("python3")).arg(program("http3.py")).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
