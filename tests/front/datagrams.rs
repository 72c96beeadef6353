//! UDP addresses that all workers bind.

use crate::support::*;
use nix::sys::signal::Signal::*;
use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// A port that no UDP socket has, below the range from which the kernel chooses.
fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 10_000 + (std::process::id() as u16 % 64) * 100 + NEXT.fetch_add(1, Relaxed) % 100;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok() {
            return port;
        }
    }
}

/// A flow: one client's socket, connected to the server.
fn flow(server: SocketAddr) -> UdpSocket {
    let flow = UdpSocket::bind("127.0.0.1:0").unwrap();
    flow.connect(server).unwrap();
    flow.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    flow
}

/// Asks until it is answered: a datagram that comes while nobody reads may be lost.
fn ask(flow: &UdpSocket) -> String {
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    loop {
        // Refused (ICMP) counts as no answer.
        let _ = flow.send(b"who?");
        if let Ok(read) = flow.recv(&mut buffer) {
            return String::from_utf8_lossy(&buffer[..read]).into_owned();
        }
        assert!(std::time::Instant::now() < deadline, "no answer");
    }
}

fn slot(answer: &str) -> String {
    answer.split_whitespace().nth(1).unwrap().to_owned()
}

fn start(mode: &str, options: &[&str], port: u16, how: &[&str]) -> Maitred {
    let script = root().join("tests/workers/udp.py");
    let address = format!("127.0.0.1:{port}");
    let command = [&["--", "python3", script.to_str().unwrap(), &address], how].concat();
    Maitred::start(&[&["--mode", mode], options, &command].concat())
}

fn all_ready(maitred: &Maitred, workers: usize) {
    maitred.wait_for("worker forked", workers);
    maitred.status_until(|s| {
        let rows = s["workers"].as_array().unwrap();
        rows.len() == workers && rows.iter().all(|w| w["state"] == "ready")
    });
}

#[test]
fn udp_and_tcp_on_one_port_are_shared_in_every_mode() {
    for mode in ["handoff", "shared", "kernel"] {
        let port = free_port();
        let maitred = start(mode, &["-w", "3"], port, &["tcp"]);
        all_ready(&maitred, 3);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut seen: HashSet<String> = (0..60).map(|_| slot(&ask(&flow(address)))).collect();
        if mode != "kernel" {
            // All have one socket, and the kernel wakes whom it likes: those that were seen are stopped.
            while seen.len() < 3 {
                let stopped: Vec<i32> = seen.iter().map(|slot| maitred.pid(slot.parse().unwrap())).collect();
                stopped.iter().for_each(|&pid| kill(pid, SIGSTOP));
                let next = slot(&ask(&flow(address)));
                stopped.iter().for_each(|&pid| kill(pid, SIGCONT));
                seen.insert(next);
            }
        }
        assert_eq!(seen.len(), 3, "{mode}: {seen:?}");
        assert!(matches!(request(address), Reply::Body(body) if body.contains("slot ")), "{mode}");
        let status = maitred.status();
        let listeners: Vec<&str> =
            status["listeners"].as_array().unwrap().iter().map(|l| l["address"].as_str().unwrap()).collect();
        assert!(listeners.contains(&&*format!("udp:{address}")), "{mode}: {listeners:?}");
        assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves", "{mode}");
        assert!(ask(&flow(address)).contains("generation"), "{mode}");
        maitred.stop();
        // Nobody has the port any more.
        drop(UdpSocket::bind(address).unwrap());
    }
}

#[test]
fn a_udp_server_alone_is_ready_and_comes_back_after_a_crash() {
    for mode in ["handoff", "kernel"] {
        let port = free_port();
        let maitred = start(mode, &["-w", "2"], port, &[]);
        all_ready(&maitred, 2);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        ask(&flow(address));
        kill(maitred.pid(0), SIGKILL);
        maitred.status_until(|s| s["workers"][0]["restarts"] == 1 && s["workers"][0]["state"] == "ready");
        ask(&flow(address));
        maitred.stop();
    }
}

#[test]
fn in_kernel_mode_a_flow_stays_at_its_slot_over_crashes_and_reloads() {
    let port = free_port();
    let maitred = start("kernel", &["-w", "3"], port, &["tcp"]);
    all_ready(&maitred, 3);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let flows: Vec<(UdpSocket, String)> = (0..40)
        .map(|_| {
            let flow = flow(address);
            let slot = slot(&ask(&flow));
            (flow, slot)
        })
        .collect();
    let check = |when: &str| {
        for (flow, home) in &flows {
            assert_eq!(slot(&ask(flow)), *home, "{when}");
        }
    };
    check("at once");
    let before = maitred.pids();
    kill(maitred.pid(1), SIGKILL);
    maitred.status_until(|s| s["workers"][1]["restarts"] == 1 && s["workers"][1]["state"] == "ready");
    check("after a crash");
    assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
    maitred.status_until(|s| s["leaving"].as_array().unwrap().is_empty());
    assert!(maitred.pids().iter().all(|pid| !before.contains(pid)));
    check("after a reload");
    assert!(maitred.tell(&["upgrade"]).status.success());
    check("after an upgrade");
    kill(maitred.pid(2), SIGKILL);
    maitred.status_until(|s| s["workers"][2]["restarts"] == 2 && s["workers"][2]["state"] == "ready");
    check("after a crash under the new binary");
    maitred.stop();
}

#[test]
fn who_shares_a_udp_port_by_itself_is_left_alone() {
    let port = free_port();
    let maitred = start("handoff", &["-w", "2"], port, &["tcp", "reuse"]);
    all_ready(&maitred, 2);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let seen: HashSet<String> = (0..60).map(|_| slot(&ask(&flow(address)))).collect();
    assert_eq!(seen.len(), 2);
    let status = maitred.status();
    assert_eq!(status["listeners"].as_array().unwrap().len(), 1, "{status:#}");
    maitred.stop();
}

#[test]
fn a_client_with_a_port_of_its_own_choice_is_no_server() {
    // Late, so it is a question of its own; or connected, and told as private.
    let script = "import os, socket, sys, time
server = socket.create_server(('127.0.0.1', 0))
late = None
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    if late is None:
        late = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        late.bind(('127.0.0.1', int(sys.argv[1 + int(os.environ['MAITRED_SLOT'])])))
    late.connect(('127.0.0.1', 9))
    body = repr(late.getsockname()).encode()
    connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body)
    connection.close()";
    let asked = [free_port().to_string(), free_port().to_string()];
    let maitred = Maitred::start(&["-w", "2", "--", "python3", "-c", script, &asked[0], &asked[1]]).ready(2);
    // Each has the port that it asked for: were the first one's shared, the second one's would be another.
    let ports: HashSet<String> = (0..4)
        .map(|_| match request(maitred.address()) {
            Reply::Body(body) => body.rsplit(' ').next().unwrap().trim_end_matches(')').to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ports, HashSet::from(asked));
    let status = maitred.status();
    assert_eq!(status["listeners"].as_array().unwrap().len(), 1, "{status:#}");
    maitred.stop();
}

#[test]
fn two_udp_sockets_of_one_worker_follow_the_kernels_rule() {
    let script = "import socket, sys
port = int(sys.argv[1])
def bind(*options):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in options: made.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        made.bind(('127.0.0.1', port))
        return made
    except OSError as error:
        return error.errno
first = bind()
second = bind()
first.close()
third = bind()
body = repr([second, isinstance(third, socket.socket)]).encode()
server = socket.create_server(('127.0.0.1', port))
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body)
    connection.close()";
    for mode in ["handoff", "kernel"] {
        let port = free_port().to_string();
        let maitred = Maitred::start(&["--mode", mode, "-w", "1", "--", "python3", "-c", script, &port]).ready(1);
        assert_eq!(request(maitred.address()), Reply::Body("[98, True]".into()), "{mode}");
        maitred.stop();
    }
}

#[test]
fn a_static_servers_udp_port_is_shared_too() {
    let server = c_program("tests/workers/udp.c", "cc", &["-static"]);
    for mode in ["handoff", "shared", "kernel"] {
        let port = free_port();
        let maitred = Maitred::start(&["--mode", mode, "-w", "2", "--", &server, &port.to_string()]);
        all_ready(&maitred, 2);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let flows: Vec<UdpSocket> = (0..20).map(|_| flow(address)).collect();
        let slots: Vec<String> = flows.iter().map(|flow| slot(&ask(flow))).collect();
        if mode == "kernel" {
            // That all of 20 flows have the same slot happens once in half a million runs.
            assert_eq!(slots.iter().collect::<HashSet<_>>().len(), 2, "{slots:?}");
            maitred.told(&["reload", "--wait"]);
            assert_eq!(flows.iter().map(|flow| slot(&ask(flow))).collect::<Vec<_>>(), slots);
        }
        let chosen = &maitred.logged("chose the adapter")[0];
        assert_eq!(chosen["adapter"], "seccomp", "{chosen}");
        maitred.stop();
    }
}

#[test]
fn an_address_that_was_closed_is_not_in_the_way_of_one_that_overlaps_it() {
    let script = r#"
import socket, sys
port = int(sys.argv[1])
for host in ("0.0.0.0", "127.0.0.1", "0.0.0.0", "127.0.0.1"):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((host, port))
    if host == "0.0.0.0": s.close()
    else: last = s
    if host == "127.0.0.1" and not sys.argv[2:]: sys.argv.append("again"); s.close()
while True:
    _, client = last.recvfrom(100)
    last.sendto(b"here", client)
"#;
    for mode in ["handoff", "shared", "kernel"] {
        let port = free_port();
        let maitred = Maitred::start(&["--mode", mode, "-w", "1", "--", "python3", "-c", script, &port.to_string()]);
        all_ready(&maitred, 1);
        assert_eq!(ask(&flow(SocketAddr::from(([127, 0, 0, 1], port)))), "here");
        maitred.stop();
    }
}

/// The inode of the UDP socket at this address of the loopback network.
fn inode(last: u8, port: u16) -> Option<u64> {
    let name = format!("{last:02X}00007F:{port:04X}");
    let all = std::fs::read_to_string("/proc/net/udp").unwrap();
    let mut rows = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|fields| fields.get(1) == Some(&&*name)).map(|fields| fields[9].parse().unwrap())
}

#[test]
fn all_addresses_of_a_port_stay_over_a_crash() {
    let script = r#"
import select, socket, sys
port = int(sys.argv[1])
def bind(host):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, port))
    return made
both = [bind("127.0.0.1"), bind("127.0.0.2")]
while True:
    for ready in select.select(both, [], [])[0]:
        _, client = ready.recvfrom(100)
        ready.sendto(b"here", client)
"#;
    let port = free_port();
    let maitred = Maitred::start(&["-w", "1", "--", "python3", "-c", script, &port.to_string()]);
    all_ready(&maitred, 1);
    let before = [1, 2].map(|last| inode(last, port).unwrap());
    kill(maitred.pid(0), SIGKILL);
    maitred.wait_for("worker forked", 2);
    maitred.wait_for("a worker shares a UDP address", 4);
    assert_eq!([1, 2].map(|last| inode(last, port).unwrap()), before);
    assert_eq!(ask(&flow(SocketAddr::from(([127, 0, 0, 2], port)))), "here");
    maitred.stop();
}

#[test]
fn in_kernel_mode_a_slot_that_is_gone_gets_no_flow() {
    let port = free_port();
    let maitred = start("kernel", &["-w", "3"], port, &["tcp"]);
    all_ready(&maitred, 3);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(maitred.told(&["scale", "1"]), "3 workers become 1");
    maitred.status_until(|s| s["workers"].as_array().unwrap().len() == 1);
    // Its socket stays for some seconds, in case a worker comes back.
    let sockets = || {
        let table = std::fs::read_to_string("/proc/net/udp").unwrap();
        table.lines().filter(|line| line.contains(&format!("0100007F:{port:04X} 00000000:0000"))).count()
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    // The kernel writes the table piece by piece and may leave out a socket when others come and go.
    while sockets() > 1 || sockets() > 1 {
        assert!(std::time::Instant::now() < deadline, "{} sockets", sockets());
        std::thread::yield_now();
    }
    for _ in 0..40 {
        let flow = flow(address);
        flow.send(b"who?").unwrap();
        flow.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(flow.recv(&mut [0; 2048]).is_ok(), "a flow goes where nobody is");
    }
    maitred.stop();
}

#[test]
fn a_socket_that_an_executed_program_goes_on_with_stays_shared() {
    let script = "import os, socket, sys
if len(sys.argv) > 2:
    datagrams = socket.socket(fileno=int(sys.argv[2]))
    while True:
        text, peer = datagrams.recvfrom(2048)
        datagrams.sendto(b'slot %s executed' % os.environ['MAITRED_SLOT'].encode(), peer)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('127.0.0.1', int(sys.argv[1])))
os.set_inheritable(datagrams.fileno(), True)
os.execv(sys.executable, [sys.executable, '-c', os.environ['SCRIPT'], sys.argv[1], str(datagrams.fileno())])";
    let port = free_port();
    let env = format!("SCRIPT={script}");
    let port_word = port.to_string();
    let maitred = Maitred::start(&["-w", "1", "--env", &env, "--", "python3", "-c", script, &port_word]);
    all_ready(&maitred, 1);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(ask(&flow(address)).contains("executed"));
    // Longer than an address stays that nobody has.
    maitred.status_until(|s| s["uptime_s"].as_f64() > Some(7.0));
    assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
    assert!(ask(&flow(address)).contains("executed"));
    maitred.stop();
}
