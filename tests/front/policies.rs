//! Which worker gets a connection: by what is open, by the client's address, by weight.

use super::refusals::check;
use crate::support::*;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A connection that stays open, and the slot that answered on it.
pub struct Kept {
    _stream: TcpStream,
    pub slot: usize,
}

/// A connection from this address of the loopback network.
pub fn connect_from(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks `pages.py` on a connection that stays open which slot it is.
pub fn keep(mut stream: TcpStream) -> Kept {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    // The answer is one write and short.
    while !text.contains("slot ") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let slot = text.split("slot ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    Kept { _stream: stream, slot }
}

pub fn keep_from(source: IpAddr, to: SocketAddr) -> Kept {
    keep(connect_from(source, to))
}

pub fn local(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

fn keep_many(maitred: &Maitred, count: usize) -> Vec<Kept> {
    let address = maitred.address();
    (0..count).map(|_| keep_from(local(1), address)).collect()
}

fn open(status: &Value) -> Vec<u64> {
    per_worker(status, "open")
}

#[test]
fn whoever_has_fewest_connections_open_gets_the_next() {
    let switches = Switches::new();
    let args = ["-w", "3", "--policy", "least-connections", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(3);
    let mut kept = keep_many(&maitred, 12);
    maitred.status_until(|status| open(status) == [4, 4, 4]);
    kept.retain(|kept| kept.slot != 1);
    maitred.status_until(|status| open(status) == [4, 0, 4]);
    let more = keep_many(&maitred, 4);
    assert!(more.iter().all(|kept| kept.slot == 1));
    assert_eq!(maitred.status()["policy"], "least-connections");
    drop((kept, more));
    maitred.status_until(|status| open(status) == [0, 0, 0]);
    maitred.stop();
}

/// Whether one of these netlink sockets, given by inode, has dropped something.
fn have_missed_events(sockets: &HashSet<String>) -> bool {
    let table = std::fs::read_to_string("/proc/net/netlink").unwrap();
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    table.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[8] != "0" && sockets.contains(words[9])
    })
}

/// Inodes of the sockets that a process has open.
fn sockets_of(pid: i32) -> Vec<String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let inode = |path: std::path::PathBuf| Some(path.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    targets.filter_map(inode).collect()
}

/// Connections with this local port that each process of these groups has open, as `/proc` knows them.
fn open_by_proc(port: u16, pids: &[i32]) -> Vec<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // sl local rem st tx:rx tr:when retrnsmt uid timeout inode; 0A listens, and what nobody has any more has no inode.
    let of_port = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let local = u16::from_str_radix(words[1].split(':').nth(1)?, 16).ok()?;
        (local == port && words[3] != "0A" && words[9] != "0").then(|| words[9].to_owned())
    };
    let inodes: HashSet<String> = table.lines().skip(1).filter_map(of_port).collect();
    let has = |pid: &i32| sockets_of(*pid).iter().filter(|inode| inodes.contains(*inode)).count() as u64;
    pids.iter().map(has).collect()
}

#[test]
fn what_is_counted_as_open_is_what_the_kernel_has_open_after_any_churn() {
    let switches = Switches::new();
    let args = ["-w", "4", "--policy", "least-connections", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(4);
    let (address, pids) = (maitred.address(), maitred.pids());
    let mut kept: Vec<Kept> = Vec::new();
    for round in 0..8 {
        // Short ones come and go all the while, and of those that stay every third goes.
        maitred.under_load(6, || {
            kept.extend(keep_many(&maitred, 15));
            let mut number = 0;
            kept.retain(|_| {
                number += 1;
                number % 3 != round % 3
            });
        });
        let status = maitred.status_until(|status| open(status).iter().sum::<u64>() == kept.len() as u64);
        let by_proc = open_by_proc(address.port(), &pids);
        assert_eq!(open(&status), by_proc, "round {round}");
        let (most, fewest) = (by_proc.iter().max().unwrap(), by_proc.iter().min().unwrap());
        assert!(most - fewest <= 12, "{by_proc:?}");
    }
    assert_eq!(maitred.status()["admission"]["open"], kept.len());
    drop(kept);
    maitred.stop();
}

#[test]
fn closes_that_were_missed_are_found() {
    let switches = Switches::new();
    let args = ["-w", "2", "--policy", "least-connections", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(2);
    let (address, master) = (maitred.address(), maitred.status()["pid"].as_i64().unwrap() as i32);
    let mut kept = keep_many(&maitred, 20);
    assert_eq!(open(&maitred.status()), [10, 10]);
    kill(master, Signal::SIGSTOP);
    kept.retain(|kept| kept.slot == 0);
    // More closes at the same port than the master's netlink socket can hold: of clients that have that port.
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = sink.local_addr().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut sources = (0x7f01_0000u32..0x7fff_0000).map(Ipv4Addr::from);
    let sockets = sockets_of(master).into_iter().collect();
    while !have_missed_events(&sockets) {
        assert!(Instant::now() < deadline, "the master's socket never overflows");
        let from = sources.next().unwrap();
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_reuse_address(true).unwrap();
        client.bind(&SocketAddr::new(from.into(), address.port()).into()).unwrap();
        client.connect(&to.into()).unwrap();
        // With a reset nothing of them stays behind.
        client.set_linger(Some(Duration::ZERO)).unwrap();
        drop((client, sink.accept().unwrap()));
    }
    kill(master, Signal::SIGCONT);
    let status = maitred.status_until(|status| status["admission"]["recounts"].as_u64().unwrap() > 0);
    assert_eq!(status["totals"]["lost"], 0);
    maitred.status_until(|status| open(status) == [10, 0]);
    kept.extend(keep_many(&maitred, 10));
    assert_eq!(open(&maitred.status()), [10, 10]);
    drop(kept);
    maitred.stop();
}

#[test]
fn an_upgrade_goes_on_counting_what_is_open() {
    let switches = Switches::new();
    let args = ["-w", "2", "--policy", "least-connections", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(2);
    let mut kept = keep_many(&maitred, 6);
    maitred.told(&["upgrade"]);
    assert_eq!(open(&maitred.status()), [3, 3]);
    kept.retain(|kept| kept.slot == 0);
    maitred.status_until(|status| open(status) == [3, 0]);
    kept.extend(keep_many(&maitred, 3));
    assert_eq!(open(&maitred.status()), [3, 3]);
    drop(kept);
    maitred.stop();
}

#[test]
fn the_less_loaded_of_two_drawn_ones_keeps_all_near_the_mean() {
    let switches = Switches::new();
    let args = ["-w", "4", "--policy", "random-two", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(4);
    let kept = keep_many(&maitred, 80);
    let status = maitred.status_until(|status| open(status).iter().sum::<u64>() == 80);
    assert!(open(&status).iter().all(|open| (14..=26).contains(open)), "{status:#}");
    // Whose clients stay while the others' go is drawn in vain until the others have as many. Plain turns, or a
    // draw of one, would give it its quarter.
    let stayed: Vec<_> = kept.into_iter().filter(|kept| kept.slot == 0).collect();
    let before = stayed.len() as u64;
    maitred.status_until(|status| open(status).iter().sum::<u64>() == before);
    let more = keep_many(&maitred, 24);
    let to_first = more.iter().filter(|kept| kept.slot == 0).count();
    assert_eq!(to_first, 0, "one with {before} open got more before the others had so many");
    drop((stayed, more));
    maitred.stop();
}

/// The slots that clients from these addresses meet.
fn slots_of(maitred: &Maitred, sources: std::ops::Range<u8>) -> HashMap<u8, usize> {
    let address = maitred.address();
    sources.map(|last| (last, keep_from(local(last), address).slot)).collect()
}

#[test]
fn a_client_address_always_meets_the_same_slot_also_after_that_was_forked_again() {
    let switches = Switches::new();
    let args = ["-w", "4", "--policy", "source-hash", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(4);
    let first = slots_of(&maitred, 1..60);
    assert_eq!(first.values().collect::<HashSet<_>>().len(), 4, "{first:?}");
    assert_eq!(slots_of(&maitred, 1..60), first);
    kill(maitred.pid(2), Signal::SIGKILL);
    maitred.wait_for("worker ready", 5);
    assert_eq!(slots_of(&maitred, 1..60), first);
    // One slot more takes clients from the others and moves nobody else.
    maitred.told(&["scale", "5"]);
    maitred.wait_for("worker ready", 6);
    let more = slots_of(&maitred, 1..60);
    assert!(more.iter().all(|(source, slot)| *slot == 4 || first[source] == *slot), "{first:?} {more:?}");
    maitred.stop();
}

#[test]
fn clients_of_one_network_meet_the_same_slot_if_only_its_prefix_counts() {
    let switches = Switches::new();
    let args = ["-w", "4", "--policy", "source-hash/24", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(4);
    let slots = slots_of(&maitred, 1..40);
    assert_eq!(slots.values().collect::<HashSet<_>>().len(), 1, "{slots:?}");
    maitred.stop();
}

#[test]
fn weights_are_exact_in_turns_and_kept_by_what_is_open() {
    let maitred = Maitred::start(&["-w", "3", "--weights", "3,1,2", "--", &server(), "poll", "0"]).ready(3);
    let tally = load(maitred.address(), 600, 8);
    assert_eq!(tally.answered, 600, "{:?}", tally.failed);
    let status = maitred.status();
    assert_eq!((per_worker(&status, "handed"), per_worker(&status, "weight")), (vec![300, 100, 200], vec![3, 1, 2]));
    maitred.stop();

    let switches = Switches::new();
    let args = ["-w", "2", "--weights", "2", "--policy", "least-connections", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(2);
    let kept = keep_many(&maitred, 30);
    assert_eq!(open(&maitred.status()), [20, 10]);
    drop(kept);
    maitred.stop();
}

#[test]
fn a_fresh_worker_begins_slowly() {
    let switches = Switches::new();
    let args = ["-w", "2", "--slow-start", "1h", "--policy", "least-connections", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(2);
    // Both are about as fresh, so neither has far more than the other.
    let kept = keep_many(&maitred, 10);
    assert!(open(&maitred.status()).iter().all(|open| *open >= 3));
    drop(kept);
    maitred.stop();

    let args = ["-w", "2", "--slow-start", "8s", "--policy", "least-connections", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(2);
    maitred.status_until(|status| status["workers"][0]["uptime_s"].as_f64().unwrap() > 8.0);
    let mut kept = keep_many(&maitred, 10);
    let measured = (1..=5).any(|time| {
        kill(maitred.pid(1), Signal::SIGKILL);
        maitred.wait_for("worker ready", 2 + time);
        kept.retain(|kept| kept.slot == 0);
        maitred.status_until(|status| open(status)[1] == 0);
        // In its first second its share is less than an eighth. The other has some five, and gets the next; if both
        // counted alike it would get none.
        let more = keep_many(&maitred, 4);
        let in_time = maitred.status()["workers"][1]["uptime_s"].as_f64().unwrap() < 1.0;
        let to_first = more.iter().filter(|kept| kept.slot == 0).count();
        assert!(!in_time || to_first > 0, "{:#}", maitred.status());
        in_time
    });
    assert!(measured, "it took longer than a second each time");
    drop(kept);
    maitred.stop();

    let args = ["-w", "2", "--slow-start", "300ms", "--policy", "least-connections", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(2);
    let mut kept = keep_many(&maitred, 10);
    kill(maitred.pid(1), Signal::SIGKILL);
    maitred.wait_for("worker ready", 3);
    kept.retain(|kept| kept.slot == 0);
    // Sooner or later it has its whole share.
    let deadline = Instant::now() + PATIENCE;
    loop {
        kept.extend(keep_many(&maitred, 1));
        let open = open(&maitred.status());
        if open[0] > 5 && open[1] + 1 >= open[0] {
            break;
        }
        assert!(Instant::now() < deadline, "{open:?}");
    }
    drop(kept);
    maitred.stop();
}

#[test]
fn connections_that_come_and_go_fast_are_asked_for_and_counted_as_well() {
    let switches = Switches::new();
    let args = ["-v", "-w", "2", "--policy", "least-connections", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(2);
    let (address, pids) = (maitred.address(), maitred.pids());
    let kept = keep_many(&maitred, 10);
    maitred.under_load(8, || maitred.wait_for("closes are noticed in another way", 1));
    let status = maitred.status_until(|status| open(status).iter().sum::<u64>() == 10);
    assert_eq!(open(&status), open_by_proc(address.port(), &pids));
    // When it is quiet again, they are heard of.
    maitred.wait_for("closes are noticed in another way", 2);
    drop(kept);
    maitred.status_until(|status| open(status) == [0, 0]);
    maitred.stop();
}

#[test]
fn with_depth_one_nobody_waits_behind_a_worker_that_is_busy() {
    let args = ["-w", "2", "--depth", "1", "--stall", "0", "--", &server(), "block", "0"];
    let maitred = Maitred::start(&args).ready(2);
    kill(maitred.pid(0), Signal::SIGSTOP);
    let address = maitred.address();
    // One waits at the stopped worker; all others are answered.
    let waiting = std::thread::spawn(move || load(address, 50, 4));
    let status = maitred.status_until(|status| per_worker(status, "taken")[1] == 49);
    assert_eq!(per_worker(&status, "queued"), [1, 0]);
    kill(maitred.pid(0), Signal::SIGCONT);
    let tally = waiting.join().unwrap();
    assert_eq!((tally.answered, tally.hung), (50, 0), "{:?}", tally.failed);
    maitred.stop();
}

#[test]
fn a_policy_that_a_mode_cannot_have_is_refused() {
    for (args, why) in [
        (&["--mode", "shared", "--policy", "least-connections"][..], "in shared mode the kernel wakes whom it likes"),
        (&["--mode", "shared", "--weights", "2,1"], "need --mode handoff or kernel"),
        (&["--mode", "kernel", "--policy", "random-two"], "random-two needs --mode handoff"),
        (&["--policy", "fastest"], "expected round-robin, least-connections, random-two or source-hash"),
        (&["--policy", "source-hash/33"], "as in source-hash/24,56"),
        (&["--weights", "3,0"], "weights are numbers from 1 to 256"),
    ] {
        check(&run(&[args, &["--", "true"]].concat()), 2, &[why]);
    }
}
