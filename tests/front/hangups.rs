//! What a worker, or whoever passed a socket, does to descriptors that the master also has: shut them down, close
//! them, make them block. The master neither spins nor stops for it, and an idle one sleeps.

use crate::support::*;
use nix::sys::signal::{SIGTERM, SIGUSR1};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long an idle master is watched.
const WINDOW: Duration = Duration::from_secs(4);
/// The most wake-ups of an idle master in a second.
const WAKEUPS_MAX: u64 = 2;

/// How often the threads of a process went to sleep so far, and the processor time that they used.
pub fn spent(pid: u32) -> (u64, Duration) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).ok();
    let switches = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:").map(str::to_owned));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let switches = threads.flatten().filter_map(status).map(switches).sum();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    (switches, Duration::from_millis(ticks * 10))
}

/// The master comes to rest: in one of the next windows it hardly wakes and uses less than 1 % of a core.
fn check_rests(maitred: &Maitred, what: &str) {
    let pid = maitred.child.id();
    // A look at who has a socket reads of all processes, and another test may have one with 20 000 descriptors for a while.
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        let (before, begun) = (spent(pid), Instant::now());
        // The window is what is measured over; it synchronises nothing.
        std::thread::sleep(WINDOW);
        let (after, seconds) = (spent(pid), begun.elapsed().as_secs_f64());
        let wakeups = (after.0 - before.0) as f64 / seconds;
        let busy = (after.1 - before.1).as_secs_f64() / seconds;
        if wakeups <= WAKEUPS_MAX as f64 && busy < 0.01 {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {wakeups:.1} wake-ups a second, {busy:.3} of a core");
    }
}

#[test]
fn an_idle_front_hardly_wakes() {
    let (dynamic, fixed) = (server(), static_server());
    let mut masters = Vec::new();
    for mode in ["handoff", "shared", "kernel"] {
        for (program, policy) in [(&dynamic, "round-robin"), (&fixed, "round-robin"), (&dynamic, "least-connections")] {
            if (mode, policy) == ("shared", "least-connections") {
                continue;
            }
            let bind: &[&str] = if program == &fixed { &[] } else { &["-b", "127.0.0.1:0"] };
            let more: &[&str] = if bind.is_empty() { &["0", "supervised"] } else { &["{port}"] };
            let first = ["-w", "2", "--mode", mode, "--policy", policy];
            let args = [&first, bind, &["--", program, "poll"], more].concat();
            masters.push((Maitred::start(&args), format!("{mode} {policy} {program}")));
        }
    }
    let command = crate::kernel::without_privileges();
    let words = ["-w", "2", "--mode", "kernel", "--policy", "least-connections", "-b", "127.0.0.1:0", "--", &dynamic];
    let maitred = Maitred::start_as(command, &[&words[..], &["poll", "{port}"]].concat());
    masters.push((maitred, "kernel least-connections without privileges".to_owned()));
    for (maitred, what) in masters {
        let maitred = maitred.ready(2);
        let tally = load(maitred.address(), 20, 2);
        assert_eq!((tally.answered, tally.hung), (20, 0), "{what}: {:?}", tally.failed);
        check_rests(&maitred, &what);
        maitred.stop();
    }
}

fn holder(deed: &str, address: &str) -> Maitred {
    let script = root().join("tests/workers/holder.py");
    let mark = scratch("mark");
    let words = ["-w", "2", "--grace", "1s", "--adapter", "native", "--", "python3", script.to_str().unwrap()];
    let words = [&words[..], &[deed, address, mark.to_str().unwrap()]].concat();
    let maitred = Maitred::start(&words).ready(2);
    kill(maitred.pid(0), SIGUSR1);
    maitred.wait_for_output("did ");
    maitred
}

/// The end is clean, whatever happened before.
fn ends(maitred: Maitred) {
    maitred.signal(SIGTERM);
    let begun = Instant::now();
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

fn all_answered(maitred: &Maitred, connections: u64, what: &str) {
    let tally = load(maitred.address(), connections, 4);
    assert_eq!((tally.answered, tally.hung), (connections, 0), "{what}: {:?}", tally.failed);
}

#[test]
fn a_worker_that_closes_or_shuts_what_it_shares_with_the_master_does_not_make_it_spin() {
    let deeds = [
        "close-inherited",
        "close-door",
        "close-channel",
        "close-both",
        "shut-door-read",
        "shut-door-write",
        "shut-door",
        "shut-channel",
    ];
    let masters = deeds.map(|deed| (holder(deed, "tcp:127.0.0.1:0"), deed));
    for (maitred, deed) in masters {
        all_answered(&maitred, 20, deed);
        check_rests(&maitred, deed);
        all_answered(&maitred, 20, deed);
        ends(maitred);
    }
}

#[test]
fn a_worker_that_does_something_to_its_own_socket_which_became_the_listener_stops_nobody() {
    let deeds = ["shut", "shut-often", "shut-and-connect", "block", "block-for-long"];
    let masters = deeds.map(|deed| (holder(deed, "tcp:127.0.0.1:0"), deed));
    for (maitred, deed) in masters {
        if deed.starts_with("shut") {
            maitred.wait_for("accepting again", 1);
        }
        let address = maitred.address();
        all_answered(&maitred, 50, deed);
        check_rests(&maitred, deed);
        all_answered(&maitred, 50, deed);
        assert_eq!(maitred.address(), address, "{deed}");
        ends(maitred);
    }
}

fn asked_by_unix(path: &std::path::Path) -> String {
    use std::io::{Read, Write};
    let mut client = std::os::unix::net::UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_unix_socket_that_a_worker_shuts_is_made_anew() {
    let path = scratch("holder.sock");
    let maitred = holder("shut", &format!("unix:{}", path.display()));
    maitred.wait_for("accepting again", 1);
    for _ in 0..4 {
        assert!(asked_by_unix(&path).contains("slot "));
    }
    ends(maitred);
    assert!(!path.exists());
}

/// Asks for the status, and fails where the master does not answer for a while.
fn answers_at_once(maitred: &Maitred) {
    let asked = Instant::now();
    maitred.status();
    assert!(asked.elapsed() < Duration::from_secs(2), "the master stood still for {:?}", asked.elapsed());
}

/// Two processes of the worker wait in `accept` on the master's listener, a third makes it block without pause: the
/// master may be caught in `accept`, and must get out of it at once.
#[test]
fn a_worker_that_takes_connections_from_a_socket_that_it_makes_block_does_not_catch_the_master() {
    let maitred = holder("steal", "tcp:127.0.0.1:0");
    let address = maitred.address();
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline && maitred.logged("accepting again").len() < 2 {
        // Some reach a thief, who closes them.
        let _ = std::net::TcpStream::connect(address);
        answers_at_once(&maitred);
    }
    ends(maitred);
}

/// The kernel does not tell how many wait at a Unix socket, so each connection catches the master there.
#[test]
fn a_unix_socket_that_a_worker_makes_block_again_and_again_is_made_anew() {
    let path = scratch("blocking.sock");
    let maitred = holder("block-often", &format!("unix:{}", path.display()));
    let deadline = Instant::now() + PATIENCE;
    while !maitred.logged("accepting again").iter().any(|line| line["how"] == "NewSocket") {
        assert!(Instant::now() < deadline, "the master was not caught often enough, or went on with the socket");
        assert!(asked_by_unix(&path).contains("slot "));
        answers_at_once(&maitred);
    }
    for _ in 0..4 {
        assert!(asked_by_unix(&path).contains("slot "));
    }
    ends(maitred);
}

/// A master that gets a copy of a socket as its descriptor 3.
fn with_socket(passed: &(impl AsFd + AsRawFd), more: &[&str]) -> Maitred {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(passed, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let mut command = Command::new("bash");
    let script = format!("exec \"$@\" 3<&{}", passed.as_raw_fd());
    command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_maitred")]);
    for name in ["LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WEB_CONCURRENCY"] {
        command.env_remove(name);
    }
    Maitred::start_as(command, &[&["-w", "2", "--grace", "1s", "-b", "fd://3"], more].concat())
}

#[test]
fn an_operators_socket_that_somebody_shuts_or_makes_block_goes_on_listening() {
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = passed.local_addr().unwrap().port().to_string();
    let maitred = with_socket(&passed, &["--", &server(), "poll", &port]).ready(2);
    all_answered(&maitred, 20, "before");
    passed.set_nonblocking(false).unwrap();
    all_answered(&maitred, 20, "blocking");
    maitred.status();
    nix::sys::socket::shutdown(passed.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    maitred.wait_for("accepting again", 1);
    all_answered(&maitred, 20, "shut down");
    check_rests(&maitred, "shut down");
    ends(maitred);
}

#[test]
fn an_operators_socket_that_is_shut_again_and_again_is_replaced() {
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let (fd, port) = (passed.as_raw_fd(), passed.local_addr().unwrap().port().to_string());
    let maitred = with_socket(&passed, &["--", &server(), "poll", &port]).ready(2);
    let done = std::sync::atomic::AtomicBool::new(false);
    let tally = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Both);
                std::thread::yield_now();
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let replaced = || maitred.logged("accepting again").iter().any(|line| line["how"] == "NewSocket");
        while !replaced() && Instant::now() < deadline {
            maitred.status();
        }
        let tally = load(maitred.address(), 20, 4);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        tally
    });
    assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
    check_rests(&maitred, "replaced");
    ends(maitred);
}

/// A Unix socket cannot listen again, and another cannot be made while its file is there, which is not ours.
#[test]
fn an_address_that_cannot_be_mended_is_given_up_and_only_the_last_one_ends_the_master() {
    for others in [&["-b", "127.0.0.1:0"][..], &[]] {
        let path = scratch("passed.sock");
        let passed = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let script = root().join("tests/workers/holder.py");
        let mark = scratch("mark");
        let asked = format!("unix:{}", path.display());
        let unix =
            ["--adapter", "native", "--", "python3", script.to_str().unwrap(), "", &asked, mark.to_str().unwrap()];
        let maitred = with_socket(&passed, &[others, &unix].concat()).ready(2);
        nix::sys::socket::shutdown(passed.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
        if others.is_empty() {
            maitred.wait_for("cannot go on accepting, and no other address is left; stopping", 1);
            let (status, output) = maitred.wait();
            assert_eq!(status.code(), Some(1), "{output}");
            continue;
        }
        maitred.wait_for("cannot go on accepting here; this address is given up, the others go on", 1);
        assert_eq!(maitred.status()["listeners"].as_array().unwrap().len(), 1);
        check_rests(&maitred, "given up");
        ends(maitred);
    }
}
