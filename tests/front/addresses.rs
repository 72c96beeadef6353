//! What can be bound, by whom, and who may have it afterwards.

use crate::calls::free_port;
use crate::support::*;
use nix::sys::signal::{SIGKILL, SIGTERM};
use std::collections::HashSet;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

#[test]
fn ipv6_dual_stack_and_mapped_addresses() {
    for option in ["v6", "all", "mapped"] {
        let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0", option]).ready(2);
        let mut address = maitred.address();
        let hosts = match option {
            "v6" => vec!["::1"],
            "all" => vec!["::1", "127.0.0.1"],
            _ => vec!["127.0.0.1"],
        };
        for host in hosts {
            address.set_ip(host.parse().unwrap());
            check_exact_spread_with(&maitred, 20, 2, &|| request(address));
        }
        maitred.stop();
    }
}

#[test]
fn a_worker_gets_the_family_that_it_asked_for_whatever_the_operator_bound() {
    // The server ends if a peer's address is of another family than its own socket's.
    for (bind, option) in [("[::]:0", "plain"), ("127.0.0.1:0", "mapped"), (":0", "plain"), (":0", "all")] {
        let maitred = Maitred::start(&["-w", "2", "-b", bind, "--", &server(), "block", "{port}", option]).ready(2);
        let mut address = maitred.address();
        address.set_ip("127.0.0.1".parse().unwrap());
        check_exact_spread_with(&maitred, 20, 2, &|| request(address));
        assert_eq!(maitred.status()["listeners"].as_array().unwrap().len(), 1, "{bind} {option}");
        maitred.stop();
    }
}

#[test]
fn several_addresses_at_once() {
    let args = ["-w", "2", "-b", "127.0.0.1:0", "-b", "127.0.0.1:0", "--", "sh", "-c"];
    let line = format!("{} poll 0 & exec {} epoll 0", server(), server());
    let maitred = Maitred::start(&[&args[..], &[&line]].concat()).ready(4);
    // Two servers in each worker, each asking for port 0: the first has the first address, and so on.
    let status = maitred.status();
    let listeners = status["listeners"].as_array().unwrap();
    assert_eq!(listeners.len(), 2, "{status:#}");
    let mut servers: Vec<HashSet<String>> = Vec::new();
    for listener in listeners {
        let address = tcp(&listener["address"]);
        let answers = (0..20).map(|_| match request(address) {
            Reply::Body(body) => body,
            other => panic!("{other:?}"),
        });
        servers.push(answers.collect());
    }
    // One process of each worker, and none at both addresses.
    assert!(servers.iter().all(|answers| answers.len() == 2) && servers[0].is_disjoint(&servers[1]), "{servers:?}");
    maitred.stop();
}

#[test]
fn a_unix_socket_has_its_mode_and_is_removed_at_the_end() {
    let path = scratch("u.sock");
    let bind = format!("unix:{}?mode=640", path.display());
    let script = "import os, socket
server = socket.socket(socket.AF_UNIX)
path = os.environ['SOCKET_PATH']
try: os.unlink(path)
except FileNotFoundError: pass
server.bind(path)
server.listen()
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + os.environ['MAITRED_SLOT'].encode())
    connection.close()";
    let env = format!("SOCKET_PATH={}", path.display());
    let plain = format!("unix:{}", path.display());
    // Bound by the operator, with a worker that removes the file before it binds, as most do; then
    // the same on demand; then where a master that was killed left its file behind.
    let binds = [vec!["-b", &bind], vec![], vec!["-b", &plain]];
    for (round, bind) in binds.iter().enumerate() {
        let args = [&["-w", "3", "--env", &env][..], bind, &["--", "python3", "-c", script]].concat();
        let mut maitred = Maitred::start(&args).ready(3);
        if round == 0 {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o640);
        }
        let ask = || ask_unix(&path);
        check_exact_spread_with(&maitred, 30, 3, &ask);
        // A worker that is forked again removes the file again, or so it thinks.
        kill(maitred.pid(1), SIGKILL);
        maitred.wait_for("worker ready", 4);
        let tally = load_with(30, 3, &ask);
        assert_eq!((tally.answered, tally.hung), (30, 0), "{:?}", tally.failed);
        if round == 1 {
            kill(maitred.child.id() as i32, SIGKILL);
            maitred.child.wait().unwrap();
            assert!(path.exists(), "nobody could remove it");
            assert_eq!(spares(&path), 1);
        } else {
            maitred.stop();
            assert!(!path.exists(), "the file is left behind");
            assert_eq!(spares(&path), 0);
        }
    }
}

/// Spare names of a socket file, of living and dead masters.
fn spares(path: &std::path::Path) -> usize {
    let prefix = format!(".{}.maitred-", path.file_name().unwrap().to_str().unwrap());
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().flatten();
    files.filter(|file| file.file_name().to_str().unwrap().starts_with(&prefix)).count()
}

#[test]
fn a_socket_that_a_service_manager_passes_is_taken_over() {
    // What a service manager does: the socket at 3, and the pid of the process that it is for.
    let line = "import os, socket, sys
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
number = listener.detach()
if number == 3: os.set_inheritable(3, True)
else: os.dup2(number, 3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])";
    for args in [&["-w", "2"][..], &["-w", "2", "-b", "fd://3"]] {
        let mut command = std::process::Command::new("python3");
        command.args(["-c", line]).arg(maitred().get_program());
        let server = server();
        let maitred = Maitred::start_as(command, &[args, &["--", &server, "poll", "{port}"]].concat()).ready(2);
        assert_eq!(maitred.address().port().to_string(), maitred.output().trim());
        check_exact_spread(&maitred, 20, 2);
        maitred.stop();
    }
}

#[test]
fn the_port_is_free_again_after_the_end() {
    let maitred = Maitred::start(&["-w", "2", "-b", "127.0.0.1:0", "--", &server(), "poll", "{port}"]).ready(2);
    let address = maitred.address();
    assert!(matches!(request(address), Reply::Body(_)));
    maitred.stop();
    TcpListener::bind(address).expect("nobody listens there any more");
}

#[test]
fn a_new_master_has_the_address_of_a_killed_one_at_once() {
    let mut maitred =
        Maitred::start(&["-w", "4", "-b", "127.0.0.1:0", "--", &server(), "poll", "{port}", "fork=2"]).ready(4);
    let address = maitred.address();
    for _ in 0..5 {
        maitred.child.kill().unwrap();
        let bind = address.to_string();
        maitred = Maitred::start(&["-w", "4", "-b", &bind, "--", &server(), "poll", "{port}", "fork=2"]).ready(4);
        assert!(matches!(request(address), Reply::Body(_)));
    }
    maitred.stop();
}

/// A server that sets options of its listening socket before or after `listen`, and answers with those of the connection.
const OPTIONS: &str = "import os, socket, sys
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
def choose():
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100000)
if sys.argv[2] == 'before': choose()
server.bind(('127.0.0.1', int(sys.argv[1])))
server.listen()
if sys.argv[2] == 'after': choose()
while True:
    c, _ = server.accept()
    c.recv(4096)
    seen = [c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), c.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            c.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)]
    c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + repr(seen).encode())
    c.close()";

fn check_options(mode: &str, bind: &[&str], when: &str) {
    let port = if bind.is_empty() { free_port().to_string() } else { "{port}".to_owned() };
    let args = [&["--mode", mode, "-w", "2"], bind, &["--", "python3", "-c", OPTIONS, &port, when]].concat();
    let maitred = Maitred::start(&args).ready(2);
    for _ in 0..4 {
        assert_eq!(request(maitred.address()), Reply::Body("[1, 1, 200000]".into()), "{mode} {bind:?} {when}");
    }
    maitred.stop();
}

#[test]
fn options_that_a_worker_sets_before_or_after_listen_reach_the_accepted_connections() {
    for mode in ["handoff", "shared", "kernel"] {
        for when in ["before", "after"] {
            check_options(mode, &["-b", "127.0.0.1:0"], when);
            check_options(mode, &[], when);
        }
    }
}

#[test]
fn a_worker_inherits_nothing_but_what_is_meant_for_it() {
    let script = "import os, socket
fds = sorted((int(n), os.readlink('/proc/self/fd/' + n)) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n) or True)
server = socket.create_server(('127.0.0.1', 0))
fds = [n for n, target in fds if not target.startswith('/proc')]
while True:
    c, _ = server.accept()
    c.recv(4096)
    c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + repr((fds, int(os.environ['MAITRED_CHANNEL']))).encode())
    c.close()";
    // In a process of its own without inherited descriptors, since the test's runner may leak some.
    let mut command = std::process::Command::new("python3");
    let line = "import os, sys; os.closerange(3, 1024); os.execv(sys.argv[1], sys.argv[1:])";
    command.args(["-c", line]).arg(maitred().get_program());
    let code =
        script.replace("os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n) or True", "list_fds()");
    let code = code.replace(
        "import os, socket",
        "import os, socket
def list_fds():
    names = os.listdir('/proc/self/fd')
    return [n for n in names if os.path.lexists('/proc/self/fd/' + n)]",
    );
    let maitred = Maitred::start_as(command, &["-w", "2", "--", "python3", "-c", &code]).ready(2);
    for _ in 0..2 {
        let Reply::Body(body) = request(maitred.address()) else { panic!("no answer") };
        let (fds, channel) = body.trim_matches(['(', ')']).rsplit_once("], ").unwrap();
        assert_eq!(fds, format!("[0, 1, 2, {channel}"), "{body}");
    }
    maitred.stop();
}

#[test]
fn two_masters_on_one_port_do_not_share_it_in_silence() {
    let first = Maitred::start(&["-w", "1", "-b", "127.0.0.1:0", "--", &server(), "poll", "{port}"]).ready(1);
    let address = first.address().to_string();
    let second = Maitred::start(&["-w", "1", "-b", &address, "--", &server(), "poll", "{port}"]);
    let (status, output) = second.wait();
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains(&format!("cannot bind {address}")) && output.contains("in use"), "{output}");
    first.signal(SIGTERM);
    assert_eq!(first.wait().0.code(), Some(0));
}

#[test]
fn an_address_of_a_dead_worker_that_its_successor_does_not_ask_for_is_closed() {
    let (main, extra, mark) = (scratch("main.sock"), scratch("extra.sock"), scratch("mark"));
    let script = "import os, socket, sys
sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for path, listener in zip(sys.argv[1:3], sockets):
    if path == sys.argv[2] and os.path.exists(sys.argv[3]):
        break
    listener.bind(path)
    listener.listen(8)
open(sys.argv[3], 'w').close()
while True:
    sockets[0].accept()[0].close()";
    let [main, extra, mark] = [&main, &extra, &mark].map(|path| path.to_str().unwrap());
    let maitred = Maitred::start(&["-w", "1", "--", "python3", "-c", script, main, extra, mark]).ready(2);
    assert_eq!(maitred.status()["listeners"].as_array().unwrap().len(), 2);
    kill(maitred.pid(0), nix::sys::signal::SIGKILL);
    maitred.wait_for("worker ready", 3);
    let closed = maitred.wait_for("nobody listens here any more; closing the address", 1);
    assert_eq!(closed[0]["address"], format!("unix:{extra}"));
    assert_eq!(maitred.status()["listeners"].as_array().unwrap().len(), 1);
    assert!(!std::path::Path::new(extra).exists());
    maitred.stop();
}
