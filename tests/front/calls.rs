//! The kernel's answers for a listening socket, call by call, alone and behind a master: some 400 calls on plain,
//! bound, listening and copied sockets, each result and errno compared.

use crate::support::*;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why an answer may be another one, where it may.
struct Other {
    modes: &'static [&'static str],
    /// What the line begins with.
    line: &'static str,
    reason: &'static str,
}

const ALL: &[&str] = &["handoff", "shared", "kernel"];

const fn other(modes: &'static [&'static str], line: &'static str, reason: &'static str) -> Other {
    Other { modes, line, reason }
}

const IN_PLACE: &str = "the hand-off socket stands there; nobody reads from a listening socket, and to look at each \
    read and write would cost every connection something";
const NO_PAGES: &str = "a listening TCP socket can be mapped, to no end";
const WAITING: &str = "one that is bound and does not listen hangs up; to look at each poll would cost too much";
const FILE_GONE: &str =
    "whether another process of the worker removed the file is not known, and the program may rely on it";
const COMPANY: &str = "the sockets of a group have it, and the program's is one of them";
const WHO_LISTENED: &str = "the first of the worker's sockets there listens for all";
const OPEN_FOR_ALL: &str = "the socket of all workers stays open";
const NOT_ITS_OWN: &str = "a later socket of the same address is the first one, with its options";

const MAY_DIFFER: &[Other] = &[
    other(&["handoff"], "bound: read", IN_PLACE),
    other(&["handoff"], "bound: recv", IN_PLACE),
    other(&["handoff"], "bound: send of nothing", IN_PLACE),
    other(&["handoff"], "listening: read", IN_PLACE),
    other(&["handoff"], "listening: recv", IN_PLACE),
    other(&["handoff"], "listening: send of nothing", IN_PLACE),
    other(&["handoff"], "bound: mmap", NO_PAGES),
    other(&["handoff"], "listening: mmap", NO_PAGES),
    other(&["handoff"], "bound: poll", WAITING),
    other(&["handoff"], "bound: epoll_wait", WAITING),
    other(ALL, "bound: bind of another = -1 EADDRINUSE (unix)", FILE_GONE),
    other(ALL, "listening: bind of another = -1 EADDRINUSE (unix)", FILE_GONE),
    other(ALL, "listening: getsockopt SO_PEERCRED = 0 (unix)", WHO_LISTENED),
    other(&["handoff"], "listening: connect = -1 EINVAL (unix)", IN_PLACE),
    other(&["handoff"], "listening: syscall connect = -1 EINVAL (unix)", IN_PLACE),
    other(&["handoff"], "listening: getsockopt SO_ACCEPTCONN after shutdown = 0 (unix)", IN_PLACE),
    other(&["handoff"], "listening: accept after shutdown = -1 EAGAIN (unix)", IN_PLACE),
    other(&["kernel"], "bound: getsockopt SO_REUSEPORT = 0", COMPANY),
    other(&["kernel"], "listening: getsockopt SO_REUSEPORT = 0", COMPANY),
    other(&["shared", "kernel"], "listening: getsockopt SO_ACCEPTCONN after shutdown", OPEN_FOR_ALL),
    other(&["shared", "kernel"], "listening: accept after shutdown", OPEN_FOR_ALL),
    other(&["shared", "kernel"], "listening: getsockopt SO_KEEPALIVE = 0 (unix)", NOT_ITS_OWN),
];

/// The lines that the program wrote, when it has written the last.
fn lines(file: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(file).ok()?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    (lines.last()? == "end").then_some(lines)
}

fn wait_for_lines(file: &Path, ended: &mut dyn FnMut() -> bool) -> Vec<String> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(lines) = lines(file) {
            return lines;
        }
        assert!(!ended() && std::time::Instant::now() < deadline, "{} has no end", file.display());
        std::thread::yield_now();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn answers_are_the_kernels(mode: &str, address: &str, port: u16) {
    let program = c_program("tests/workers/calls.c", "cc", &[]);
    let [alone, behind] = ["alone", "behind"].map(scratch);
    let port = port.to_string();
    let mut child = Command::new(&program).args([address, &port]).arg(&alone).stdin(Stdio::null()).spawn().unwrap();
    let expected = wait_for_lines(&alone, &mut || child.try_wait().unwrap().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = std::fs::remove_file(address);

    let to = behind.to_str().unwrap();
    let maitred = Maitred::start(&["-w", "1", "--mode", mode, "--", &program, address, &port, to]);
    let found = wait_for_lines(&behind, &mut || !maitred.logged("worker ended").is_empty());
    drop(maitred);

    let names = |lines: &[String]| -> Vec<String> {
        lines.iter().map(|line| line.split(" = ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&found), names(&expected), "the same calls");
    assert!(expected.len() > 400, "only {} calls", expected.len());
    let unix = address.contains('/');
    let may_differ = |line: &str| {
        MAY_DIFFER.iter().filter(|other| other.modes.contains(&mode)).any(|other| {
            match other.line.strip_suffix(" (unix)") {
                Some(start) => unix && line.starts_with(start),
                None => line.starts_with(other.line),
            }
        })
    };
    assert!(MAY_DIFFER.iter().all(|other| !other.reason.is_empty()));
    let wrong: Vec<_> =
        expected.iter().zip(&found).filter(|(alone, behind)| alone != behind && !may_differ(alone)).collect();
    assert!(wrong.is_empty(), "alone, and behind a master in {mode} mode: {wrong:#?}");
}

#[test]
fn a_listening_socket_answers_as_the_kernels_in_each_mode() {
    for mode in ALL {
        answers_are_the_kernels(mode, "127.0.0.1", free_port());
    }
}

#[test]
fn one_of_ipv6_too() {
    for mode in ALL {
        answers_are_the_kernels(mode, "::1", free_port());
    }
}

#[test]
fn one_in_the_file_system_too() {
    for mode in ALL {
        answers_are_the_kernels(mode, scratch("calls.sock").to_str().unwrap(), 0);
    }
}

#[test]
fn files_that_a_thread_makes_while_another_binds_keep_their_mode() {
    let directory = scratch("modes");
    std::fs::create_dir(&directory).unwrap();
    let script = "import os, socket, sys, threading
directory, over, made, wrong = sys.argv[1], False, 0, 0
def make():
    global made, wrong
    while not over:
        path = f'{directory}/file-{made}'
        fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o666)
        wrong += os.fstat(fd).st_mode & 0o777 != 0o640
        made += 1
        os.close(fd)
        os.unlink(path)
os.umask(0o027)
maker = threading.Thread(target=make)
maker.start()
for number in range(300):
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(f'{directory}/{number}.sock')
    assert os.stat(f'{directory}/{number}.sock').st_mode & 0o777 == 0o750
    bound.close()
over = True
maker.join()
os.write(1, f'made {made}, {wrong} of them wrong\\n'.encode())
server = socket.create_server(('127.0.0.1', 0))
while True: server.accept()[0].close()";
    let maitred = Maitred::start(&["-w", "1", "--", "python3", "-c", script, directory.to_str().unwrap()]).ready(1);
    maitred.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    let made: u64 = output.strip_prefix("made ").and_then(|text| text.split(',').next()?.parse().ok()).expect(&output);
    assert!(made > 100 && output.contains(", 0 of them wrong"), "{output}");
}
