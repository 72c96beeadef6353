//! Too few descriptors: the master pauses and does not spin, and every client is served in the end.

use crate::support::*;
use nix::sys::signal::{SIGCONT, SIGSTOP, SIGTERM};
use std::process::Command;
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
    // An ordinary user, because only those have a limit of descriptors in flight as well.
    let mut command = limited(64);
    as_ordinary_user(&mut command);
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
