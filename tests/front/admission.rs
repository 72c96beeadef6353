//! Who is let in, and what becomes of those who are not; every connection has an end that is counted.

use super::policies::{connect_from, keep, keep_from, local};
use super::refusals::check;
use crate::support::*;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

fn start(switches: &Switches, args: &[&str]) -> Maitred {
    Maitred::start(&[&["-w", "2"], args, &["--"], &switches.pages(&[])].concat()).ready(2)
}

/// Every connection that was accepted was handed over or turned away.
fn check_sums(status: &Value) {
    let total = |name: &str| status["totals"][name].as_u64().unwrap();
    let came = total("accepted") + total("returned") + total("rescued");
    assert_eq!(came, total("handed") + total("refused") + total("lost"), "{status:#}");
    let kinds = ["refused_full", "refused_waited", "refused_source_open", "refused_source_rate"];
    let refused: u64 = kinds.iter().map(|kind| status["admission"][kind].as_u64().unwrap()).sum();
    assert_eq!(refused, total("refused"), "{status:#}");
}

#[test]
fn beyond_the_limit_a_connection_waits_until_another_ends() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-open", "4"]);
    let address = maitred.address();
    let mut kept: Vec<_> = (0..4).map(|_| keep_from(local(1), address)).collect();
    let waiting: Vec<_> = (0..3).map(|_| std::thread::spawn(move || request(address))).collect();
    let status = maitred.status_until(|status| status["listeners"][0]["queued"] == 2);
    assert_eq!((&status["admission"]["open"], &status["admission"]["full"]), (&4.into(), &true.into()));
    drop(kept.pop());
    for client in waiting {
        assert!(matches!(client.join().unwrap(), Reply::Body(_)));
    }
    drop(kept);
    let status = maitred.status_until(|status| status["admission"]["open"] == 0);
    assert_eq!((&status["admission"]["full"], &status["totals"]["refused"]), (&false.into(), &0.into()));
    check_sums(&status);
    maitred.stop();
}

#[test]
fn who_has_waited_for_as_long_as_allowed_is_reset() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-open", "2", "--max-wait", "100ms"]);
    let address = maitred.address();
    let kept: Vec<_> = (0..2).map(|_| keep_from(local(1), address)).collect();
    let tally = load(address, 8, 4);
    assert_eq!((tally.answered, tally.hung, tally.failed.len()), (0, 0, 8), "{tally:?}");
    assert!(tally.failed.iter().all(|why| why.contains("reset")), "{tally:?}");
    let status = maitred.status();
    assert_eq!(status["admission"]["refused_waited"], 8);
    check_sums(&status);
    // They count from when they came, not from when their turn came.
    let waited: Vec<_> = (0..8).map(|_| connect_from(local(1), address)).collect();
    let begun = std::time::Instant::now();
    for mut client in waited {
        assert!(client.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    // One after the other it would be eight times a hundred; the rest is room for a busy machine.
    assert!(begun.elapsed() < Duration::from_millis(750), "{:?}", begun.elapsed());
    drop(kept);
    maitred.stop();
}

#[test]
fn clients_wait_for_a_worker_however_long_that_takes() {
    let switches = Switches::new();
    let args = ["-b", "127.0.0.1:0", "-w", "1", "--max-wait", "10ms", "--ready", "notify", "--"];
    let server = switches.pages(&["notify"]);
    let bound = server.iter().map(|word| if *word == "127.0.0.1:0" { "127.0.0.1:{port}" } else { word });
    let maitred = Maitred::start(&args.iter().copied().chain(bound).collect::<Vec<_>>());
    maitred.wait_for("worker forked", 1);
    let address = maitred.address();
    let client = std::thread::spawn(move || request(address));
    maitred.status_until(|status| status["listeners"][0]["queued"] == 1);
    switches.on("ready-0");
    assert!(matches!(client.join().unwrap(), Reply::Body(_)));
    assert_eq!(maitred.status()["totals"]["refused"], 0);
    maitred.stop();
}

#[test]
fn beyond_the_limit_a_connection_is_reset_at_once_if_asked_for() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-open", "2", "--when-full", "reset"]);
    let address = maitred.address();
    let kept: Vec<_> = (0..2).map(|_| keep_from(local(1), address)).collect();
    let tally = load(address, 20, 4);
    assert_eq!((tally.answered, tally.hung, tally.failed.len()), (0, 0, 20), "{tally:?}");
    drop(kept);
    maitred.status_until(|status| status["admission"]["open"] == 0);
    assert!(matches!(request(address), Reply::Body(_)));
    let status = maitred.status();
    assert_eq!(status["admission"]["refused_full"], 20);
    check_sums(&status);
    maitred.stop();
}

/// All that comes on a connection.
fn all_of(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn beyond_the_limit_a_client_is_told_503_if_asked_for() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-open-per-worker", "1", "--when-full", "503"]);
    let address = maitred.address();
    let kept: Vec<_> = (0..2).map(|_| keep_from(local(1), address)).collect();
    assert_eq!(kept.iter().map(|kept| kept.slot).sum::<usize>(), 1);
    for _ in 0..20 {
        let mut client = connect_from(local(1), address);
        // Sent after the answer is there already, it must not be met by a reset that takes the answer away.
        client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let answer = all_of(client);
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        assert!(answer.ends_with("too busy, try again soon") && answer.contains("Content-Length: 24\r\n"), "{answer}");
    }
    let mut late = connect_from(local(1), address);
    let mut head = [0; 12];
    late.read_exact(&mut head).unwrap();
    late.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(all_of(late).ends_with("too busy, try again soon"));
    let status = maitred.status();
    assert_eq!((&status["admission"]["answered_503"], &status["admission"]["full"]), (&21.into(), &true.into()));
    check_sums(&status);
    drop(kept);
    maitred.stop();
}

#[test]
fn a_request_that_comes_in_parts_gets_its_503_all_the_same() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-open", "1", "--when-full", "503"]);
    let address = maitred.address();
    let kept = keep_from(local(1), address);
    for _ in 0..20 {
        let mut client = connect_from(local(1), address);
        client.write_all(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).unwrap();
        client.write_all(b" more").unwrap();
        assert!(all_of(client).ends_with("too busy, try again soon"));
    }
    drop(kept);
    maitred.stop();
}

#[test]
fn several_addresses_take_turns_for_the_places_of_all() {
    let switches = Switches::new();
    let server = switches.pages(&[]).join(" ");
    // Two servers in one worker, each on a port of its own.
    let both = format!("{server} & exec {server}");
    let args = ["-w", "1", "--max-open", "2", "--max-wait", "10s", "--", "sh", "-c", &both];
    let maitred = Maitred::start(&args).ready(2);
    let status = maitred.status();
    let [first, second] = [0, 1].map(|index| tcp(&status["listeners"][index]["address"]));
    let stop = AtomicBool::new(false);
    let (crowd, few) = std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let crowd = scope.spawn(|| load_until(first, 12, &stop));
        maitred.status_until(|status| status["listeners"][0]["queued"].as_u64() > Some(2));
        let few = load(second, 50, 1);
        drop(stopping);
        (crowd.join().unwrap(), few)
    });
    assert_eq!((few.answered, few.hung, crowd.hung), (50, 0, 0), "{:?}", few.failed);
    assert!(crowd.failed.is_empty(), "{:?}", crowd.failed);
    maitred.status_until(|status| status["admission"]["open"] == 0);
    maitred.stop();
}

#[test]
fn a_connection_that_comes_back_does_not_take_the_place_that_it_needs() {
    let script = root().join("tests/workers/misbehave.py");
    for workers in ["1", "2"] {
        let limits = ["-w", workers, "--max-open-per-worker", "1", "--adapter", "native", "--", "python3"];
        let maitred = Maitred::start(&[&limits[..], &[script.to_str().unwrap(), "return-half"]].concat());
        let maitred = maitred.ready(workers.parse().unwrap());
        let tally = load(maitred.address(), 20, 2);
        assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
        maitred.status_until(|status| status["admission"]["open"] == 0);
        maitred.stop();
    }
}

#[test]
fn a_stop_lets_nobody_wait_for_a_place() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-open", "2", "--grace", "20s"]);
    let address = maitred.address();
    let kept: Vec<_> = (0..2).map(|_| keep_from(local(1), address)).collect();
    let waiting: Vec<_> = (0..3).map(|_| connect_from(local(1), address)).collect();
    maitred.status_until(|status| status["listeners"][0]["queued"] == 2);
    maitred.signal(Signal::SIGTERM);
    for mut client in waiting {
        assert!(client.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    drop(kept);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn what_cannot_be_counted_is_said() {
    let switches = Switches::new();
    let path = scratch("limited.sock");
    let bind = format!("unix:{}", path.display());
    let maitred = start(&switches, &["--max-open", "5", "--share-port-zero", "-b", &bind]);
    let said = maitred.wait_for(
        "connections here cannot be counted, so limits of open connections do not hold; they need TCP on a socket of this network namespace",
        1,
    );
    assert!(said[0]["address"].as_str().unwrap().starts_with("unix:"), "{said:?}");
    maitred.stop();
}

#[test]
fn a_worker_that_has_as_many_as_it_may_is_passed_over() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-open-per-worker", "3"]);
    let address = maitred.address();
    let mut kept: Vec<_> = (0..6).map(|_| keep_from(local(1), address)).collect();
    kept.retain(|kept| kept.slot == 0);
    maitred.status_until(|status| per_worker(status, "open") == [3, 0]);
    let more: Vec<_> = (0..3).map(|_| keep_from(local(1), address)).collect();
    assert!(more.iter().all(|kept| kept.slot == 1));
    drop((kept, more));
    maitred.stop();
}

#[test]
fn one_address_may_not_have_more_than_its_part() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-open-per-source", "2"]);
    let address = maitred.address();
    let mut kept: Vec<_> = (0..2).map(|_| keep_from(local(7), address)).collect();
    let refused = |last| connect_from(local(last), address).read(&mut [0]).is_err();
    assert!(refused(7) && refused(7));
    kept.push(keep_from(local(8), address));
    kept.remove(0);
    maitred.status_until(|status| status["admission"]["open"] == 2);
    kept.push(keep_from(local(7), address));
    let status = maitred.status();
    assert_eq!((&status["admission"]["refused_source_open"], &status["admission"]["sources"]), (&2.into(), &2.into()));
    check_sums(&status);
    drop(kept);
    maitred.stop();
}

#[test]
fn an_address_that_comes_too_often_is_refused_and_others_are_not() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-rate-per-source", "3", "--source-prefix", "32"]);
    let address = maitred.address();
    let mut kept = Vec::new();
    let mut refused = 0;
    // So many in one go come within a second, unless the machine stands still.
    for _ in 0..30 {
        let mut stream = connect_from(local(7), address);
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").and_then(|()| stream.read(&mut [0]));
        match asked {
            Ok(1..) => kept.push(stream),
            _ => refused += 1,
        }
    }
    assert!(kept.len() >= 3 && refused >= 10, "{} and {refused}", kept.len());
    assert!((20..30).all(|last| keep_from(local(last), address).slot < 2));
    let status = maitred.status();
    assert_eq!(status["admission"]["refused_source_rate"], refused);
    check_sums(&status);
    drop(kept);
    maitred.stop();
}

#[test]
fn a_connection_that_says_nothing_occupies_nobody_if_it_is_deferred() {
    let switches = Switches::new();
    for mode in ["handoff", "shared"] {
        let maitred = start(&switches, &["--defer", "--mode", mode]);
        let address = maitred.address();
        let silent: Vec<_> = (0..10).map(|_| connect_from(local(1), address)).collect();
        let talks = keep_from(local(1), address);
        let served = |status: &Value| per_worker(status, "taken").iter().sum::<u64>();
        assert_eq!(served(&maitred.status_until(|status| served(status) > 0)), 1, "{mode}");
        let now: Vec<_> = silent.into_iter().map(keep).collect();
        assert_eq!(served(&maitred.status()), 11, "{mode}");
        drop((talks, now));
        maitred.stop();
    }
}

#[test]
fn under_more_than_it_can_take_everybody_is_served_or_refused() {
    let args = ["-w", "2", "--max-open", "4", "--when-full", "reset", "--depth", "2"];
    let server = server();
    let maitred = Maitred::start(&[&args[..], &["--", &server, "block", "0"]].concat()).ready(2);
    let tally = load(maitred.address(), 2000, 32);
    assert_eq!((tally.answered + tally.failed.len() as u64, tally.hung), (2000, 0));
    assert!(tally.answered > 0 && !tally.failed.is_empty(), "{}", tally.answered);
    let status = maitred.status_until(|status| status["admission"]["open"] == 0);
    assert_eq!(status["totals"]["refused"], tally.failed.len());
    check_sums(&status);
    maitred.wait_for("turning connections away", 1);
    maitred.stop();
}

#[test]
fn an_upgrade_keeps_limits_and_counters() {
    let switches = Switches::new();
    let maitred = start(&switches, &["--max-open", "2", "--max-open-per-source", "2", "--when-full", "reset"]);
    let address = maitred.address();
    let mut kept: Vec<_> = (0..2).map(|_| keep_from(local(1), address)).collect();
    assert!(matches!(request(address), Reply::Failed(_)));
    maitred.told(&["upgrade"]);
    assert!(matches!(request(address), Reply::Failed(_)));
    drop(kept.pop());
    maitred.status_until(|status| status["admission"]["open"] == 1);
    assert!(matches!(request(address), Reply::Body(_)));
    let status = maitred.status();
    assert_eq!(status["totals"]["refused"], 2);
    check_sums(&status);
    drop(kept);
    maitred.signal(Signal::SIGTERM);
    assert_eq!(maitred.wait().0.code(), Some(0));
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    for (args, why) in [
        (&["--mode", "kernel", "--max-open", "5"][..], "need --mode handoff"),
        (&["--mode", "shared", "--max-wait", "1s"], "need --mode handoff"),
        (&["--mode", "shared", "--slow-start", "1s"], "--slow-start needs --mode handoff or kernel"),
        (&["--when-full", "reset"], "give one, as in --max-open 1000"),
        (&["--max-open", "0"], "0 is not in"),
        (&["--slow-start", "0"], "--slow-start 0 makes no sense"),
        (&["--defer=100ms"], "the kernel counts whole seconds"),
        (&["--source-prefix", "40"], "a prefix is a number of bits"),
    ] {
        check(&run(&[args, &["--", "true"]].concat()), 2, &[why]);
    }
}
