//! Workers that go around the adapter are noticed, and what to do is said.

use crate::support::*;

/// A static program that the shim cannot reach, behind a wrapper that is not seen through.
fn hidden(server: &str) -> [String; 3] {
    ["sh".into(), "-c".into(), format!("eval exec {server}")]
}

#[test]
fn one_that_listens_by_itself() {
    let [sh, c, line] = hidden(&format!("{} epoll 0", static_server()));
    let maitred = Maitred::start(&["-w", "1", "--", &sh, &c, &line]);
    let text = "this worker listens by itself, so nobody shares its connections; it does not call libc for that, or a \
                static program is behind it: use --adapter seccomp";
    let warned = maitred.wait_for(text, 1);
    assert!(warned[0]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{warned:?}");
    maitred.stop();
    // What was advised works.
    let maitred = Maitred::start(&["-w", "2", "--adapter", "seccomp", "--", &sh, &c, &format!("{line} supervised")]);
    check_exact_spread(&maitred.ready(2), 20, 2);
}

#[test]
fn one_that_asks_for_port_0_without_saying_so() {
    let script = root().join("worker-examples/unaware.py");
    let server = ["--", "python3", script.to_str().unwrap(), "0"];
    let maitred = Maitred::start_exactly(&[&["-w", "1"][..], &server].concat());
    let text = "this worker listens by itself, so nobody shares its connections; if it asks for port 0, that stays its \
                own: share it with --bind 127.0.0.1:0 or --share-port-zero; if it asks for this port, it does not call \
                libc for that, or a static program is behind it: use --adapter seccomp";
    maitred.wait_for(text, 1);
    maitred.stop();
    for advised in [&["-w", "2", "--bind", "127.0.0.1:0"][..], &["-w", "2", "--share-port-zero"]] {
        check_exact_spread(&Maitred::start_exactly(&[advised, &server].concat()).ready(2), 20, 2);
    }
}

#[test]
fn the_second_one_that_finds_the_port_taken_by_the_first() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let [sh, c, line] = hidden(&format!("{} epoll {port}", static_server()));
    let maitred = Maitred::start(&["-w", "2", "--", &sh, &c, &line]);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains("by itself") && output.contains("--adapter seccomp"), "{output}");
}

#[test]
fn one_that_does_not_use_what_it_inherits() {
    let script = root().join("worker-examples/unaware.py");
    let args = ["--mode", "shared", "-w", "1", "-b", "127.0.0.1:0", "--adapter", "inherit", "--", "python3"];
    let maitred = Maitred::start(&[&args[..], &[script.to_str().unwrap(), "0"]].concat());
    maitred.wait_for(
        "this worker listens by itself, so nobody shares its connections; it does not use the socket that it \
         inherits: see --preset, or leave --adapter at auto",
        1,
    );
    maitred.stop();
}

#[test]
fn one_that_accepts_through_io_uring() {
    let server = c_program("tests/workers/uring.c", "cc", &[]);
    let maitred = Maitred::start(&["-w", "1", "--", &server, "0"]).ready(1);
    let waiting = std::net::TcpStream::connect(maitred.address()).unwrap();
    let through = "this worker never took a connection; it accepts through io_uring, which no adapter sees; use --mode \
                   kernel or shared";
    let stuck = "this worker never took a connection; it is stuck, or it accepts in a way that the adapter does not \
                 see; compare --mode kernel";
    let closed = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|value| value.trim() != "0");
    maitred.wait_for(if closed { stuck } else { through }, 1);
    drop(waiting);
    drop(maitred);
    if closed {
        return;
    }
    // Real sockets are all the same to it.
    for mode in ["kernel", "shared"] {
        let maitred = Maitred::start(&["--mode", mode, "-w", "2", "--", &server, "0"]).ready(2);
        let tally = load(maitred.address(), 40, 4);
        assert_eq!((tally.answered, tally.hung), (40, 0), "{:?}", tally.failed);
        maitred.stop();
    }
}
