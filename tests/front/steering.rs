//! Kernel mode's policies: weights, the same worker for a client, and the less loaded workers. What needs
//! `CAP_BPF` is left out where this process may not load the program, and fails then in CI.

use crate::kernel::{boots_with, kernel, takes_turns, without_privileges};
use crate::support::*;
use nix::sys::signal::Signal::*;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Whether this process may load the program.
fn may_steer() -> bool {
    let output = run(&["check", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let may = found["facts"]["exact"] == "yes";
    assert!(may || std::env::var_os("CI").is_none(), "CI must run the tests as root: {}", found["facts"]["exact"]);
    may
}

/// Waits for the log, and until the kernel was told of it: a status comes after that.
fn wait_for(maitred: &Maitred, message: &str, count: usize) {
    maitred.wait_for(message, count);
    maitred.status();
}

/// What each slot was given by these requests.
fn given(maitred: &Maitred, connections: u64) -> Vec<u64> {
    let before = per_worker(&maitred.status(), "handed");
    let tally = load(maitred.address(), connections, 4);
    assert_eq!((tally.answered, tally.hung), (connections, 0), "{:?}", tally.failed);
    per_worker(&maitred.status(), "handed").iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
fn weights_are_kept_exactly() {
    let args = ["-w", "3", "--weights", "3,1", "--", &server(), "epoll", "0"];
    let maitred = kernel(&args).ready(3);
    if !takes_turns(&maitred) {
        return maitred.stop();
    }
    assert_eq!(given(&maitred, 100), [60, 20, 20]);
    assert_eq!(per_worker(&maitred.status(), "weight"), [3, 1, 1]);
    // The next worker in a slot has its weight.
    kill(maitred.pid(0), SIGKILL);
    wait_for(&maitred, "worker ready", 4);
    assert_eq!(given(&maitred, 50), [30, 10, 10]);
    maitred.signal(SIGTTOU);
    maitred.status_until(|status| status["workers"].as_array().unwrap().len() == 2);
    assert_eq!(given(&maitred, 40), [30, 10]);
    maitred.stop();
}

#[test]
fn without_the_privilege_weights_are_kept_by_chance() {
    let args = ["--mode", "kernel", "-w", "2", "--weights", "3,1", "--", &server(), "epoll", "0"];
    let maitred = Maitred::start_as(without_privileges(), &args).ready(2);
    let tally = load(maitred.address(), 400, 8);
    assert_eq!((tally.answered, tally.hung), (400, 0), "{:?}", tally.failed);
    let status = maitred.status();
    let taken = per_worker(&status, "taken");
    // 300 and 100 but for six standard deviations of a fair draw.
    assert!((248..=352).contains(&taken[0]) && taken[0] + taken[1] == 400, "{taken:?}");
    assert_eq!(status["policy"], "random");
    maitred.stop();
}

/// So many different clients of this machine.
fn clients(count: u8) -> impl Iterator<Item = IpAddr> {
    (1..=count).map(|last| Ipv4Addr::new(127, 0, last % 3, last).into())
}

/// Which slot answers a client that comes from this address.
fn slot_of(client: IpAddr, address: SocketAddr) -> u32 {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(client, 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    match exchange(socket.into(), PATIENCE) {
        Reply::Body(body) => {
            body.strip_prefix("slot ").and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap()
        }
        other => panic!("{client}: {other:?}"),
    }
}

fn slots_of_clients(address: SocketAddr) -> BTreeMap<IpAddr, u32> {
    clients(30).map(|client| (client, slot_of(client, address))).collect()
}

#[test]
fn a_client_keeps_its_worker_and_has_it_again_after_that_was_killed() {
    if !may_steer() {
        return;
    }
    let file = scratch("boots");
    std::fs::write(&file, "").unwrap();
    let [sh, c, line] = boots_with(&file);
    let maitred = kernel(&["-w", "3", "--policy", "source-hash", "--", &sh, &c, &line]).ready(3);
    let address = maitred.address();
    let slots = slots_of_clients(address);
    assert_eq!(slots_of_clients(address), slots);
    assert!((0..3).all(|slot| slots.values().any(|s| *s == slot)), "{slots:?}");
    assert_eq!(maitred.status()["policy"], "source-hash");
    assert_eq!(maitred.status()["steering"], Value::Null);
    // While its slot is empty its clients go elsewhere, and nobody else moves.
    std::fs::remove_file(&file).unwrap();
    kill(maitred.pid(1), SIGKILL);
    wait_for(&maitred, "a slot waits before its worker is forked again", 1);
    for (client, slot) in slots_of_clients(address) {
        assert!(slot != 1 && (slot == slots[&client] || slots[&client] == 1), "{client}: {slot}, {slots:?}");
    }
    std::fs::write(&file, "").unwrap();
    wait_for(&maitred, "worker ready", 4);
    assert_eq!(slots_of_clients(address), slots);
    let status = maitred.status();
    assert_eq!(per_worker(&status, "handed").iter().sum::<u64>(), 120, "{status:#}");
    maitred.stop();
}

#[test]
fn a_network_is_one_client_and_stays_where_it_is_over_an_upgrade() {
    if !may_steer() {
        return;
    }
    let args = ["-w", "4", "--policy", "source-hash/24", "--weights", "1,2", "--", &server(), "epoll", "0"];
    let maitred = kernel(&args).ready(4);
    let address = maitred.address();
    let slots = slots_of_clients(address);
    let mut networks: BTreeMap<u8, u32> = BTreeMap::new();
    for (client, slot) in &slots {
        let IpAddr::V4(v4) = client else { continue };
        assert_eq!(networks.entry(v4.octets()[2]).or_insert(*slot), slot, "{slots:?}");
    }
    maitred.told(&["upgrade"]);
    assert_eq!(slots_of_clients(address), slots);
    let status = maitred.status();
    assert_eq!((&status["policy"], &status["upgrades"]), (&"source-hash".into(), &1.into()));
    kill(maitred.pid(0), SIGKILL);
    wait_for(&maitred, "worker ready", 5);
    assert_eq!(slots_of_clients(address), slots);
    maitred.stop();
}

#[test]
fn without_the_privilege_no_client_can_keep_its_worker() {
    let args = ["--mode", "kernel", "-w", "2", "--policy", "source-hash", "--", &server(), "epoll", "0"];
    let (status, output) = Maitred::start_as(without_privileges(), &args).wait();
    assert_eq!(status.code(), Some(3), "{output}");
    let said: Vec<&str> = output.lines().collect();
    assert_eq!(said.len(), 1, "{output}");
    for words in ["--policy source-hash", "CAP_BPF", "--mode handoff"] {
        assert!(said[0].contains(words), "{output}");
    }
}

/// A client that holds on to its worker, and which slot that sits in.
fn hold(address: SocketAddr) -> (u32, TcpStream) {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut slot = [0];
    client.read_exact(&mut slot).unwrap();
    (u32::from(slot[0] - b'0'), client)
}

#[test]
fn new_connections_go_to_workers_that_have_fewer_open() {
    let script = "import os, socket, threading
listener = socket.create_server(('127.0.0.1', 0), backlog=128)
def hold(connection):
    connection.sendall(os.environ['MAITRED_SLOT'].encode())
    connection.recv(1)
    connection.close()
while True:
    connection, _ = listener.accept()
    threading.Thread(target=hold, args=(connection,), daemon=True).start()";
    for command in [maitred(), without_privileges()] {
        let args = ["--mode", "kernel", "-w", "4", "--policy", "least-connections", "--stall", "1s"];
        let args = [&args[..], &["--", "python3", "-c", script]].concat();
        let maitred = Maitred::start_as(command, &args).ready(4);
        let (address, status) = (maitred.address(), maitred.status());
        match status["policy"].as_str().unwrap() {
            "least-connections" => assert_eq!(status["steering"], Value::Null),
            "random" => assert!(status["steering"].as_str().unwrap().contains("among the less loaded half")),
            other => panic!("{other}"),
        }
        // Slots 0 and 1 keep what they have: more than all that others get below between two looks.
        let mut held: Vec<(u32, TcpStream)> = Vec::new();
        while (0..2).any(|slot| held.iter().filter(|(s, _)| *s == slot).count() < 50) {
            held.push(hold(address));
        }
        held.retain(|(slot, _)| *slot < 2);
        let kept = |slot: u32| held.iter().filter(|(s, _)| *s == slot).count() as u64;
        maitred.status_until(|status| per_worker(status, "open") == [kept(0), kept(1), 0, 0]);
        // As soon as that was seen, everybody goes to the others. Twenty-four in a row are no chance.
        let deadline = Instant::now() + PATIENCE;
        while !(0..24).map(|_| hold(address)).all(|(slot, _)| slot > 1) {
            assert!(Instant::now() < deadline, "new connections go to workers that have more open");
        }
        let more: Vec<(u32, TcpStream)> = (0..14).map(|_| hold(address)).collect();
        assert!(more.iter().all(|(slot, _)| *slot > 1), "{more:?}");
        assert!((2..4).all(|slot| more.iter().any(|(s, _)| *s == slot)), "{more:?}");
        // Whoever gets none because it has more is as well as the others.
        let status = maitred.status();
        assert!(status["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready"), "{status:#}");
        // When the others have gone everybody gets some again.
        drop((held, more));
        let deadline = Instant::now() + PATIENCE;
        while (0..32).map(|_| hold(address)).all(|(slot, _)| slot > 1) {
            assert!(Instant::now() < deadline, "two workers get nothing although nobody has more open");
        }
        maitred.stop();
    }
}

#[test]
fn a_fresh_workers_share_grows() {
    const GROWTH: f64 = 3.0;
    let maitred = kernel(&["-w", "2", "--slow-start", "3s", "--", &server(), "epoll", "0"]).ready(2);
    if !takes_turns(&maitred) {
        return maitred.stop();
    }
    let serves = |slot: usize| {
        maitred.status_until(|status| {
            let worker = &status["workers"][slot];
            worker["state"] == "ready" && worker["since_s"].as_f64().unwrap() > GROWTH
        })
    };
    serves(0);
    kill(maitred.pid(1), SIGKILL);
    wait_for(&maitred, "worker ready", 3);
    let first = given(&maitred, 40);
    assert!(first[0] > first[1], "{first:?}");
    // It gets its whole share a moment after it has grown.
    serves(1);
    let deadline = Instant::now() + PATIENCE;
    while given(&maitred, 40) != [20, 20] {
        assert!(Instant::now() < deadline, "the share never grows to the whole");
    }
    maitred.stop();
}

#[test]
fn a_silent_client_keeps_no_worker_waiting() {
    for bound in [&[][..], &["-b", "127.0.0.1:0"]] {
        let port = ["0", "{port}"][usize::from(!bound.is_empty())];
        // It takes one client after the other, and would wait for the first one's words.
        let server = server();
        let args = [bound, &["-w", "2", "--defer=60s", "--", &server, "epoll", port]].concat();
        let maitred = kernel(&args).ready(2);
        let address = maitred.address();
        let mut silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
        let tally = load(address, 20, 4);
        assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
        for client in &mut silent {
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        }
        maitred.stop();
    }
}
