//! What the kernel says to two sockets of one program is what it says under maitred, error for error.

use crate::case::*;
use crate::sockets::free_ports;
use crate::support::*;
use std::process::Command;
use std::time::Instant;

pub fn all() -> Vec<Case> {
    in_each_mode("two sockets in one program, every errno", &[], &["preload"], differs_nowhere)
}

fn differs_nowhere(way: Way) -> String {
    let ports = free_ports(2);
    let script = program("rules.py");
    let (main, tried) = (ports.to_string(), (ports + 1).to_string());
    let alone = scratch("alone");
    let done = Command::new("python3").args([&script, "-", &tried, alone.to_str().unwrap()]).status().unwrap();
    assert!(done.success());
    let served = scratch("served");
    let maitred = start(way, &["-w", "1"], &["python3", &script, &main, &tried, served.to_str().unwrap()]);
    let deadline = Instant::now() + 6 * PATIENCE;
    while !served.exists() {
        assert!(Instant::now() < deadline, "it does not come to an end: {:?}", maitred.log());
        std::thread::yield_now();
    }
    let (expected, found) = (std::fs::read_to_string(alone).unwrap(), std::fs::read_to_string(served).unwrap());
    let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    assert_eq!(expected.len(), found.len());
    let differ: Vec<_> =
        expected.iter().zip(&found).filter(|(one, other)| one != other && !is_shared(one, other)).collect();
    let shown = &differ[..differ.len().min(20)];
    assert!(differ.is_empty(), "{} of {} differ (alone, with maitred): {shown:#?}", differ.len(), expected.len());
    maitred.stop();
    "as the kernel".to_owned()
}

/// Two addresses that overlap and share their port by an option: the master may still have the first one's socket, on
/// which it listens for other workers, and which has no `SO_REUSEPORT`. Then the second is refused.
fn is_shared(expected: &str, found: &str) -> bool {
    let place = |pair: Option<&str>| pair.and_then(|pair| Some(pair.split_once('/')?.0.to_owned()));
    let mut pairs = expected.split(' ');
    let (one, other) = (place(pairs.next()), place(pairs.next()));
    let results = |line: &str| -> Vec<String> {
        line.rsplit_once(": ").map(|(_, results)| results.split(' ').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (expected, found) = (results(expected), results(found));
    let first = expected.iter().zip(&found).find(|(expected, found)| expected != found);
    one != other && first.is_some_and(|(_, found)| found == "EADDRINUSE")
}
