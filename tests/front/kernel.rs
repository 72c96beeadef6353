//! Kernel mode: one listening socket per slot, and a program that takes turns among them. As an
//! ordinary user the program draws at random, and the tests expect that.

use crate::support::*;
use nix::sys::signal::Signal::*;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

pub fn kernel(args: &[&str]) -> Maitred {
    Maitred::start(&[&["--mode", "kernel"][..], args].concat())
}

/// The binary without the privilege to load programs, also when the tests run as root.
pub fn without_privileges() -> Command {
    without_privileges_as(maitred().get_program().as_ref())
}

/// The same with a binary in another place.
pub fn without_privileges_as(binary: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(binary);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-bpf,-sys_admin"]).arg(binary);
    command
}

pub fn is_exact(status: &Value) -> bool {
    match status["policy"].as_str() {
        Some("round-robin") => true,
        Some("random" | "hash") => false,
        other => panic!("{other:?} is no policy of kernel mode"),
    }
}

/// Whether the kernel takes exact turns here, without which a test proves nothing; in CI, as root, it must.
pub fn takes_turns(maitred: &Maitred) -> bool {
    let status = maitred.status();
    let must = std::env::var_os("CI").is_some() && nix::unistd::geteuid().is_root();
    assert!(is_exact(&status) || !must, "no exact turns: they need CAP_BPF and CAP_NET_ADMIN; {status:#}");
    is_exact(&status)
}

/// Every connection is answered, and the spread is what the policy says.
fn check_spread(maitred: &Maitred, connections: u64, clients: usize) {
    let before = maitred.status();
    if is_exact(&before) {
        return check_exact_spread(maitred, connections, clients);
    }
    all_answered(maitred, connections, clients);
    let taken = per_worker(&maitred.status(), "taken").iter().sum::<u64>();
    assert_eq!(taken, per_worker(&before, "taken").iter().sum::<u64>() + connections);
}

fn all_answered(maitred: &Maitred, connections: u64, clients: usize) {
    let tally = load(maitred.address(), connections, clients);
    assert_eq!((tally.answered, tally.hung), (connections, 0), "{:?}", tally.failed);
}

#[test]
fn every_way_of_waiting_gets_its_share() {
    for way in ["block", "poll", "select", "epoll", "early"] {
        let maitred = kernel(&["-w", "4", "--", &server(), way, "0"]).ready(4);
        check_spread(&maitred, 402, 16);
        let status = maitred.status();
        assert_eq!((&status["mode"], status["listeners"].as_array().unwrap().len()), (&"kernel".into(), 1));
        maitred.stop();
    }
}

#[test]
fn habits_of_servers_are_kept() {
    for habit in ["fork=2", "client", "late", "children", "v6", "all", "mapped"] {
        let maitred = kernel(&["-w", "3", "--", &server(), "poll", "0", habit]).ready(3);
        let mut address = maitred.address();
        address.set_ip(if habit == "v6" { "::1" } else { "127.0.0.1" }.parse().unwrap());
        let tally = load(address, 99, 8);
        assert_eq!((tally.answered, tally.hung), (99, 0), "{habit}: {:?}", tally.failed);
        maitred.stop();
    }
}

#[test]
fn without_the_privilege_it_draws_and_says_so() {
    let maitred =
        Maitred::start_as(without_privileges(), &["--mode", "kernel", "-w", "4", "--", &server(), "epoll", "0"]);
    let maitred = maitred.ready(4);
    let status = maitred.status();
    assert_eq!(status["policy"], "random", "{status:#}");
    assert!(status["steering"].as_str().unwrap().contains("CAP_BPF"), "{status:#}");
    let warned = maitred.wait_for("no round-robin in the kernel: each connection's worker is drawn at random", 1);
    assert_eq!(warned[0]["policy"], "random");
    all_answered(&maitred, 400, 8);
    let taken = per_worker(&maitred.status(), "taken");
    // Each has 100 ± 50 but once in a hundred million runs.
    assert!(taken.iter().all(|&n| (50..150).contains(&n)), "{taken:?}");
    let table = run(&["status", "--control", maitred.control.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("spread by random"), "{table:?}");
    maitred.stop();
}

/// Requests to all slots while the worker of one is stopped, so that some wait at its socket.
fn with_a_queue(maitred: &Maitred, slot: usize) -> (i32, Vec<TcpStream>) {
    let pid = maitred.pid(slot);
    kill(pid, SIGSTOP);
    let address = maitred.address();
    let mut clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap());
    assert!(per_worker(&maitred.status(), "queued")[slot] > 1, "{:#}", maitred.status());
    (pid, clients)
}

fn served(clients: Vec<TcpStream>) {
    for mut client in clients {
        let mut answer = String::new();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
}

#[test]
fn what_waits_at_a_killed_workers_socket_is_served_by_the_next() {
    for command in [maitred(), without_privileges()] {
        let maitred = Maitred::start_as(command, &["--mode", "kernel", "-w", "3", "--", &server(), "epoll", "0"]);
        let maitred = maitred.ready(3);
        let (pid, clients) = with_a_queue(&maitred, 1);
        kill(pid, SIGKILL);
        maitred.wait_for("worker ready", 4);
        served(clients);
        check_spread(&maitred, 90, 8);
        maitred.stop();
    }
}

/// Boots only while the file is there.
pub fn boots_with(file: &std::path::Path) -> [String; 3] {
    let line = format!("test -e {} && exec {} epoll 0", file.display(), server());
    ["sh".into(), "-c".into(), line]
}

#[test]
fn a_slot_in_backoff_gets_nothing_keeps_its_queue_and_comes_back() {
    for command in [maitred(), without_privileges()] {
        let file = scratch("boots");
        std::fs::write(&file, "").unwrap();
        let [sh, c, line] = boots_with(&file);
        let maitred = Maitred::start_as(command, &["--mode", "kernel", "-w", "3", "--", &sh, &c, &line]).ready(3);
        let (pid, clients) = with_a_queue(&maitred, 1);
        std::fs::remove_file(&file).unwrap();
        kill(pid, SIGKILL);
        maitred.wait_for("a slot waits before its worker is forked again", 1);
        let queued = per_worker(&maitred.status(), "queued")[1];
        assert!(queued > 1);
        // Nobody is steered there, so nobody waits.
        all_answered(&maitred, 90, 8);
        assert_eq!(per_worker(&maitred.status(), "queued")[1], queued);
        std::fs::write(&file, "").unwrap();
        maitred.wait_for("worker ready", 4);
        served(clients);
        check_spread(&maitred, 90, 8);
        maitred.stop();
    }
}

#[test]
fn scaling_up_and_down_under_load_resets_no_client() {
    let maitred = kernel(&["-w", "2", "--", &server(), "epoll", "0"]).ready(2);
    let (address, stop) = (maitred.address(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let clients = scope.spawn(|| load_until(address, 8, &stop));
        for round in 1..=6 {
            maitred.signal(SIGTTIN);
            maitred
                .status_until(|s| s["workers"].as_array().unwrap().len() == 3 && s["workers"][2]["state"] == "ready");
            let served = maitred.wait_for("worker ready", 2 + round).len();
            assert_eq!(served, 2 + round);
            maitred.signal(SIGTTOU);
            maitred.status_until(|s| s["workers"].as_array().unwrap().len() == 2);
        }
        drop(stopping);
        let tally = clients.join().unwrap();
        assert_eq!((tally.failed.as_slice(), tally.hung), (&[][..], 0));
        assert!(tally.answered > 100);
    });
    check_spread(&maitred, 60, 4);
    maitred.stop();
}

#[test]
fn a_second_master_is_told_that_the_address_is_taken() {
    let first = kernel(&["-w", "2", "--", &server(), "epoll", "0"]).ready(2);
    let port = first.address().port().to_string();
    let on_demand = kernel(&["-w", "2", "--", &server(), "epoll", &port]);
    let (status, output) = on_demand.wait();
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains("Address already in use"), "{output}");
    let bound = kernel(&["-w", "2", "-b", &format!("127.0.0.1:{port}"), "--", &server(), "epoll", &port]);
    let (status, output) = bound.wait();
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains("Address already in use"), "{output}");
    check_spread(&first, 20, 2);
    first.stop();
}

#[test]
fn a_new_master_has_the_address_of_the_last_at_once() {
    let first = kernel(&["-w", "2", "--", &server(), "epoll", "0"]).ready(2);
    let port = first.address().port().to_string();
    check_spread(&first, 40, 4);
    first.stop();
    for _ in 0..3 {
        let mut next =
            kernel(&["-w", "2", "-b", &format!("127.0.0.1:{port}"), "--", &server(), "epoll", &port]).ready(2);
        check_spread(&next, 40, 4);
        kill(next.child.id() as i32, SIGKILL);
        next.child.wait().unwrap();
    }
}

#[test]
fn early_clients_wait_for_the_first_workers_and_inherited_sockets_are_the_slots() {
    let script = "import os, socket, sys
assert os.environ['LISTEN_PID'] == str(os.getpid()) and os.environ['LISTEN_FDS'] == '1', os.environ
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + os.environ['MAITRED_SLOT'].encode())
    connection.close()";
    let args = ["-w", "3", "-b", "127.0.0.1:0", "--adapter", "inherit", "--", "python3", "-c", script];
    let maitred = kernel(&args);
    maitred.wait_for("starting", 1);
    all_answered(&maitred, 60, 4);
    maitred.wait_for("worker counts as ready", 3);
    all_answered(&maitred, 60, 4);
    let status = maitred.status();
    if is_exact(&status) {
        assert_eq!(per_worker(&status, "handed"), [40, 40, 40], "{status:#}");
    }
    // One that dies is left out until its successor has lived for a while.
    kill(maitred.pid(2), SIGKILL);
    maitred.wait_for("worker ended", 1);
    all_answered(&maitred, 30, 4);
    maitred.wait_for("worker counts as ready", 4);
    all_answered(&maitred, 30, 4);
    maitred.stop();
}

#[test]
fn a_stop_takes_what_waits_and_refuses_what_comes() {
    let maitred = kernel(&["-w", "2", "--", &server(), "epoll", "0"]).ready(2);
    let (exact, address) = (is_exact(&maitred.status()), maitred.address());
    if !exact {
        // Only the program can refuse new clients and keep those that wait.
        return maitred.stop();
    }
    let (pid, clients) = with_a_queue(&maitred, 1);
    maitred.signal(SIGTERM);
    maitred.wait_for("stopping", 1);
    while TcpStream::connect(address).is_ok() {
        // Until the signal has been acted upon.
        std::thread::yield_now();
    }
    kill(pid, SIGCONT);
    served(clients);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn a_stop_refuses_until_the_last_worker_has_ended() {
    // Each finishes what it has; that in slot 0 closes its listening socket before.
    let script = "import os, signal, socket
listener = socket.socket(); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('127.0.0.1', 0)); listener.listen(64)
connection, _ = listener.accept()
signal.signal(signal.SIGTERM, lambda *_: os.environ['MAITRED_SLOT'] == '0' and listener.close())
connection.recv(4096)
connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\nbye')";
    let maitred = kernel(&["-v", "-w", "2", "--grace", "4s", "--", "python3", "-c", script]).ready(2);
    if !takes_turns(&maitred) {
        return maitred.stop();
    }
    let address = maitred.address();
    let clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    maitred.status_until(|status| per_worker(status, "taken") == [1, 1]);
    maitred.signal(SIGTERM);
    maitred.wait_for("a worker stopped listening", 1);
    for _ in 0..50 {
        assert!(TcpStream::connect(address).is_err(), "a new client gets in although nobody will serve it");
    }
    for mut client in clients {
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        served(vec![client]);
    }
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn in_a_user_namespace_and_without_new_privileges() {
    let mut commands = vec![{
        let mut command = Command::new("setpriv");
        command.arg("--no-new-privs").arg(maitred().get_program());
        command
    }];
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user"]).arg(maitred().get_program());
    if Command::new("unshare").args(["--user", "true"]).output().is_ok_and(|output| output.status.success()) {
        commands.push(inside);
    } else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"
        );
    }
    for command in commands {
        let maitred =
            Maitred::start_as(command, &["--mode", "kernel", "-w", "3", "--", &server(), "epoll", "0"]).ready(3);
        check_spread(&maitred, 90, 8);
        maitred.stop();
    }
}

#[test]
fn other_sockets_of_a_worker_are_left_alone() {
    // A second port, a Unix socket, a datagram socket; the first two are managed, the last is not.
    let script = "import os, selectors, socket
path = os.environ['SOCKET_PATH']
first = socket.create_server(('127.0.0.1', 0))
second = socket.create_server(('127.0.0.1', 0))
local = socket.socket(socket.AF_UNIX)
try: os.unlink(path)
except FileNotFoundError: pass
local.bind(path)
local.listen()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('127.0.0.1', 0))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.sendto(b'x', datagrams.getsockname())
assert datagrams.recv(9) == b'x'
selector = selectors.DefaultSelector()
for listener in first, second, local: selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        key.fileobj.setblocking(False)
        try: connection, _ = key.fileobj.accept()
        except BlockingIOError: continue
        connection.setblocking(True)
        connection.recv(4096)
        connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + os.environ['MAITRED_SLOT'].encode())
        connection.close()";
    let path = scratch("kernel.sock");
    let env = format!("SOCKET_PATH={}", path.display());
    let maitred = kernel(&["-w", "2", "--env", &env, "--", "python3", "-c", script]);
    let status = maitred.status_until_served(3, 2);
    for listener in status["listeners"].as_array().unwrap() {
        match listener["address"].as_str().unwrap().strip_prefix("unix:") {
            None => {
                let tally = load(tcp(&listener["address"]), 40, 4);
                assert_eq!((tally.answered, tally.hung), (40, 0), "{:?}", tally.failed);
            }
            Some(path) => {
                let reply = ask_unix(std::path::Path::new(path));
                assert!(matches!(reply, Reply::Body(_)), "{reply:?}");
            }
        }
    }
    if is_exact(&status) {
        assert_eq!(per_worker(&maitred.status(), "handed"), [40, 40]);
    }
    maitred.stop();
}
