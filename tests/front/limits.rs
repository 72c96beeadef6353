//! Too few descriptors: the master pauses and does not spin, and every client is served in the end.

use crate::support::*;
use nix::sys::signal::{SIGCONT, SIGSTOP, SIGTERM};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `maitred` behind `ulimit -n LIMIT`, as an ordinary user.
fn limited(limit: u32) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")).arg(maitred().get_program());
    command
}

/// Processor seconds that a process has used.
fn cpu(pid: u32) -> Duration {
    let clock = nix::time::ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(pid as i32)).unwrap();
    Duration::from(clock.now().unwrap())
}

/// The master's share of a core over a second in which it can do nothing.
fn idle_share(maitred: &Maitred) -> f64 {
    let (pid, begun) = (maitred.child.id(), Instant::now());
    let before = cpu(pid);
    // What is measured over; it synchronises nothing.
    std::thread::sleep(Duration::from_secs(1));
    (cpu(pid) - before).as_secs_f64() / begun.elapsed().as_secs_f64()
}

#[test]
fn five_hundred_clients_with_sixty_four_descriptors() {
    // One after the other: how many descriptors may be in flight is counted by user.
    five_hundred_clients(&server());
    five_hundred_clients(&static_server());
}

fn five_hundred_clients(server: &str) {
    // An ordinary user, because only those have a limit of descriptors in flight as well; one of its own, because what
    // other tests have in flight counts for the user, too.
    let mut command = limited(64);
    if nix::unistd::geteuid().is_root() {
        command.uid(61_641).gid(61_641);
    }
    let server = for_ordinary_user(server);
    let maitred = Maitred::start_as(command, &["-w", "4", "--", &server, "poll", "0", "supervised"]).ready(4);
    let address = maitred.address();
    let pids: Vec<i32> = (0..4).map(|slot| maitred.pid(slot)).collect();
    pids.iter().for_each(|&pid| kill(pid, SIGSTOP));
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load(address, 500, 500));
        // All that may be in flight is in flight; the kernel's queue holds the rest.
        maitred.status_until(|s| s["totals"]["handed"].as_u64() >= Some(60));
        let share = idle_share(&maitred);
        assert!(share < 0.2, "the master spins: {share:.2} of a core");
        pids.iter().for_each(|&pid| kill(pid, SIGCONT));
        let tally = clients.join().unwrap();
        assert_eq!((tally.answered, tally.hung), (500, 0), "{:?}", tally.failed);
    });
    let status = maitred.status();
    assert_eq!((&status["totals"]["lost"], &status["totals"]["accepted"]), (&0.into(), &500.into()));
    maitred.stop();
}

/// A user of its own, who has more descriptors under way than a master of theirs behind [`limited`]`(256)` may; what
/// other tests have under way counts for other users.
struct Crowded {
    user: u32,
    keeper: Child,
    /// A server that this user can run, beside control sockets that it can make.
    server: String,
}

impl Crowded {
    fn new(user: u32) -> Crowded {
        let keep = "import array, os, socket, sys
one, other = socket.socketpair()
for _ in range(4): one.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 200))])
print('kept', flush=True)
sys.stdin.read()";
        let mut keeper = Command::new("/usr/bin/python3");
        keeper.args(["-c", keep]).stdin(Stdio::piped()).stdout(Stdio::piped()).uid(user).gid(user);
        let mut keeper = keeper.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "kept\n");
        Crowded { user, keeper, server: for_ordinary_user(&server()) }
    }

    fn starts(&self, args: &[&str]) -> Maitred {
        let mut command = limited(256);
        command.uid(self.user).gid(self.user).env("MAITRED_LOG", "debug");
        Maitred::start_as(command, &[&["-w", "1"], args].concat())
    }

    /// From here on there is room again.
    fn end(mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

/// A worker that asks by hand and says what it is told once that is an error; what it has as descriptor is of no use.
const ASKS: &str = "import os, socket
channel = socket.socket(fileno=int(os.environ['MAITRED_CHANNEL']))
channel.send(b'LISTEN=tcp:127.0.0.1:0\\nID=1\\n')
while b'ERROR' not in (answer := channel.recv(4096)) and b'LISTENING' not in answer: pass
print('told', answer.split()[0].decode(), flush=True)
channel.recv(1)";

/// How many descriptors are under way is counted by user, so another process of the user can use that up. What a
/// worker asks, and what it is answered, goes through when there is room again.
#[test]
fn what_the_kernel_does_not_let_through_between_worker_and_master_is_tried_again() {
    if !crate::paths::can_be_others() {
        return;
    }
    let crowded = Crowded::new(1_000_000 + std::process::id());
    let by_hand = crowded.starts(&["--adapter", "native", "--", "/usr/bin/python3", "-c", ASKS]);
    // The shim's request brings descriptors itself.
    let by_shim = crowded.starts(&["--", &crowded.server, "poll", "0"]);
    by_hand.wait_for("heard", 1);
    let deadline = Instant::now() + PATIENCE;
    by_shim.wait_for("worker forked", 1);
    // It sleeps between two attempts, and hardly before.
    while crate::hangups::spent(by_shim.pid(0) as u32).0 < 20 {
        assert!(Instant::now() < deadline, "the shim does not try again");
        std::thread::yield_now();
    }
    assert!(by_shim.logged("heard").is_empty(), "the kernel let the request through");
    crowded.end();
    let by_shim = by_shim.ready(1);
    let tally = load(by_shim.address(), 1, 1);
    assert_eq!((tally.answered, tally.hung), (1, 0), "{:?}", tally.failed);
    by_hand.wait_for_output("told LISTENING=");
}

/// Where there is no room for long, the worker hears that.
#[test]
fn an_answer_that_the_kernel_never_lets_through_is_an_error() {
    if !crate::paths::can_be_others() {
        return;
    }
    let crowded = Crowded::new(2_000_000 + std::process::id());
    let maitred = crowded.starts(&["--adapter", "native", "--", "/usr/bin/python3", "-c", ASKS]);
    let told = maitred.wait_for("cannot answer a worker", 1);
    assert!(told[0]["error"].as_str().unwrap().contains("Too many references"), "{told:?}");
    maitred.wait_for_output(&format!("told ERROR={}", nix::libc::ETOOMANYREFS));
    crowded.end();
}

#[test]
fn a_master_without_any_descriptor_pauses_and_goes_on_when_it_has_some() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let address = maitred.address();
    let pid = maitred.child.id().to_string();
    let limit = |limit: &str| {
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}")]).output();
        let done = done.unwrap_or_else(|e| panic!("prlimit: {e}; install it with apt-get install util-linux"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    // Lower than the numbers that it has open already: not even the reserve helps.
    limit("5:1024");
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load(address, 100, 100));
        let pauses = maitred.wait_for("cannot accept, pausing; raise the limit with ulimit -n", 1).len();
        let share = idle_share(&maitred);
        assert!(share < 0.2, "the master spins: {share:.2} of a core");
        let more = maitred.logged("cannot accept, pausing; raise the limit with ulimit -n").len() - pauses;
        assert!(more <= 2, "{more} lines in a second fill the log");
        limit("1024:1024");
        let tally = clients.join().unwrap();
        assert_eq!((tally.answered, tally.hung), (100, 0), "{:?}", tally.failed);
    });
    maitred.stop();
}

#[test]
fn more_workers_than_descriptors_allow_are_refused_before_anything_starts() {
    let output = limited(64).args(["-w", "100", "--", "sleep", "1000"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("cannot run 100 workers") && said.contains("ulimit -n"), "{said}");
}

#[test]
fn workers_start_with_the_limit_that_the_master_was_started_with() {
    let mut command = Command::new("sh");
    command.arg("-c").arg("ulimit -S -n 200; exec \"$0\" \"$@\"").arg(maitred().get_program());
    let line = format!("ulimit -S -n; exec {} poll 0", server());
    let maitred = Maitred::start_as(command, &["-w", "1", "--", "sh", "-c", &line]).ready(1);
    maitred.signal(SIGTERM);
    let (_, output) = maitred.wait();
    assert_eq!(output.trim(), "200");
}
