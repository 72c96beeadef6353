//! What workers leave behind: who ends with them, who ends with the master, and who goes on.

use crate::support::*;
use nix::sys::signal::{SIGHUP, SIGKILL, SIGTERM};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A master of servers with habits, and who noted itself.
struct Left {
    maitred: Maitred,
    file: PathBuf,
}

impl Left {
    fn start(options: &[&str], habits: &[&str]) -> Left {
        let file = scratch("left");
        std::fs::write(&file, "").unwrap();
        let script = root().join("tests/workers/leaves.py");
        let left = format!("LEFT={}", file.display());
        // Bound beforehand where several must share a port that nobody chose.
        let command =
            ["-b", "127.0.0.1:0", "--env", &left, "--", "python3", script.to_str().unwrap(), "127.0.0.1:{port}"];
        Left { maitred: Maitred::start(&[options, &command, habits].concat()), file }
    }

    /// Those of this name so far.
    fn so_far(&self, name: &str) -> Vec<i32> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).collect()
    }

    /// Waits until so many of this name have noted themselves.
    fn of(&self, name: &str, count: usize) -> Vec<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.so_far(name);
            if found.len() >= count {
                return found;
            }
            assert!(Instant::now() < deadline, "{found:?} of {count} {name}; {:#?}", self.maitred.log());
            std::thread::yield_now();
        }
    }

    fn stop(self) {
        self.maitred.signal(SIGTERM);
        let (status, output) = self.maitred.wait();
        assert_eq!(status.code(), Some(0), "{output}");
    }
}

/// Options of each mode that works here.
fn modes() -> [&'static [&'static str]; 3] {
    [&["--mode", "handoff"], &["--mode", "shared"], &["--mode", "kernel"]]
}

#[test]
fn who_has_our_sockets_ends_with_its_worker_in_whatever_session() {
    for mode in modes() {
        let left = Left::start(&[mode, &["-w", "2"]].concat(), &["setsid-holder", "deaf-holder"]);
        left.maitred.wait_for("worker ready", 2);
        let (holders, deaf) = (left.of("setsid-holder", 2), left.of("deaf-holder", 2));
        let victim = left.maitred.pid(0);
        kill(victim, SIGKILL);
        left.maitred.wait_for("ending what a worker left behind", 1);
        left.maitred.wait_for("worker ready", 3);
        // Those of the other worker go on.
        let gone = |pids: &[i32]| {
            let deadline = Instant::now() + PATIENCE;
            while pids.iter().filter(|&&pid| runs(pid)).count() > 1 {
                assert!(Instant::now() < deadline, "{pids:?} live on in {mode:?}");
                std::thread::yield_now();
            }
        };
        gone(&holders);
        gone(&deaf);
        assert_eq!([&holders, &deaf].map(|pids| pids.iter().filter(|&&pid| runs(pid)).count()), [1, 1], "{mode:?}");
        left.stop();
        holders.iter().chain(&deaf).for_each(|&pid| assert!(!runs(pid), "{pid} outlived its master in {mode:?}"));
    }
}

#[test]
fn a_detached_job_survives_a_reload_and_its_workers_death_and_ends_with_the_master() {
    let left = Left::start(&["-w", "1"], &["setsid-job", "group-job"]);
    left.maitred.wait_for("worker ready", 1);
    let (job, other) = (left.of("setsid-job", 1)[0], left.of("group-job", 1)[0]);
    left.maitred.signal(SIGHUP);
    left.maitred.wait_for("worker ended", 1);
    // It only changed its group.
    wait_gone(other);
    kill(left.maitred.pid(0), SIGKILL);
    left.maitred.wait_for("worker ended", 2);
    left.maitred.wait_for("worker ready", 3);
    assert!(runs(job), "a detached job ended with its worker");
    let jobs = left.of("setsid-job", 3);
    left.stop();
    jobs.iter().for_each(|&pid| assert!(!runs(pid), "{pid} outlived the master"));
}

#[test]
fn with_leave_children_a_detached_job_outlives_the_master_and_nobody_else_does() {
    for killed in [false, true] {
        let habits = ["setsid-job", "group-job", "setsid-holder"];
        let mut left = Left::start(&["-w", "1", "--leave-children"], &habits);
        left.maitred.wait_for("worker ready", 1);
        let [job, other, holder] = habits.map(|habit| left.of(habit, 1)[0]);
        if killed {
            left.maitred.child.kill().unwrap();
            left.maitred.child.wait().unwrap();
        } else {
            left.stop();
        }
        wait_gone(other);
        wait_gone(holder);
        assert!(runs(job), "killed: {killed}");
        kill(job, SIGKILL);
    }
}

#[test]
fn nobody_outlives_a_killed_master() {
    for mode in modes() {
        let habits = ["setsid-job", "group-job", "setsid-holder", "deaf-holder", "own-group", "forget"];
        let mut left = Left::start(&[mode, &["-w", "2"]].concat(), &habits);
        left.maitred.wait_for("worker ready", 2);
        let names = ["setsid-job", "group-job", "setsid-holder", "deaf-holder", "other", "forgetful", "server"];
        let pids: Vec<i32> = names.iter().flat_map(|name| left.of(name, 2)).collect();
        assert_eq!(pids.len(), 2 * names.len());
        left.maitred.child.kill().unwrap();
        left.maitred.child.wait().unwrap();
        pids.iter().for_each(|&pid| wait_gone(pid));
    }
}

#[test]
fn a_worker_that_left_its_group_is_stopped_and_killed_all_the_same() {
    let left = Left::start(&["-w", "2", "--grace", "5s"], &["own-group"]);
    left.maitred.wait_for("worker ready", 2);
    let (servers, others) = (left.of("server", 2), left.of("other", 2));
    let begun = Instant::now();
    left.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "it was killed and not asked");
    servers.iter().chain(&others).for_each(|&pid| assert!(!runs(pid), "{pid} was left behind"));
}

#[test]
fn a_command_that_goes_into_the_background_is_a_boot_failure_with_advice() {
    for mode in modes() {
        let left = Left::start(&[mode, &["-w", "2"]].concat(), &["background"]);
        let daemons = left.of("daemon", 1);
        let file = left.file.clone();
        let (status, output) = left.maitred.wait();
        assert_eq!(status.code(), Some(3), "{output}");
        assert!(output.contains("went into the background") && output.contains("foreground"), "{output}");
        let noted = std::fs::read_to_string(file).unwrap();
        let noted = noted.lines().filter_map(|line| line.strip_prefix("daemon ")?.parse().ok());
        daemons.into_iter().chain(noted).for_each(|pid| assert!(!runs(pid), "{pid} was left behind"));
    }
}

#[test]
fn a_command_that_starts_its_server_behind_its_back_is_one_too() {
    let server = server();
    let line = format!("setsid {server} poll {{port}} & exit 0");
    let maitred = Maitred::start(&["-w", "1", "-b", "127.0.0.1:0", "--", "sh", "-c", &line]);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains("went into the background"), "{output}");
}

#[test]
fn one_that_ends_with_0_and_leaves_nobody_is_no_daemon() {
    let maitred = Maitred::start(&["-w", "1", "--", "true"]);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(!output.contains("background"), "{output}");
}

#[test]
fn a_guard_that_was_killed_is_replaced_and_the_next_one_knows_everybody() {
    let mut left = Left::start(&["-w", "2"], &["group-job", "setsid-holder"]);
    left.maitred.wait_for("worker ready", 2);
    let master = left.maitred.child.id() as i32;
    let first = guard_of(master, 0);
    kill(first, SIGKILL);
    let message = "the guard that ends workers should this master be killed was killed itself; started another";
    left.maitred.wait_for(message, 1);
    let second = guard_of(master, first);
    let names = ["group-job", "setsid-holder", "server"];
    let pids: Vec<i32> = names.iter().flat_map(|name| left.of(name, 2)).collect();
    left.maitred.child.kill().unwrap();
    left.maitred.child.wait().unwrap();
    pids.iter().for_each(|&pid| wait_gone(pid));
    wait_gone(second);
}

/// The guard of a master, other than this one.
fn guard_of(master: i32, other: i32) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(stat) = std::fs::read_to_string(process.path().join("stat")).ok() else { continue };
            let Some((pid, rest)) = stat.split_once(" (maitred-guard) ") else { continue };
            let pid: i32 = pid.parse().unwrap();
            if pid != other && rest.split(' ').nth(1) == Some(&master.to_string()) {
                return pid;
            }
        }
        assert!(Instant::now() < deadline, "{master} has no guard");
        std::thread::yield_now();
    }
}

#[test]
fn without_master_and_guard_nobody_burns_a_core() {
    let mut left = Left::start(&["-w", "1"], &["respawn"]);
    left.maitred.wait_for("worker ready", 1);
    let (parent, serving) = (left.of("parent", 1)[0], left.of("serving", 1)[0]);
    // Stopped, so that the master has no chance to replace the guard.
    let master = left.maitred.child.id() as i32;
    let guard = guard_of(master, 0);
    kill(master, nix::sys::signal::SIGSTOP);
    kill(guard, SIGKILL);
    left.maitred.child.kill().unwrap();
    left.maitred.child.wait().unwrap();
    // Its parent would start another each time: the whole group ends.
    wait_gone(serving);
    wait_gone(parent);
}

#[test]
fn what_the_start_script_began_before_the_master_is_left_alone() {
    let line = "sleep 1000 & echo $! >\"$1\"; shift; exec \"$@\"";
    let mark = scratch("earlier");
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh"]).arg(&mark).arg(env!("CARGO_BIN_EXE_maitred"));
    let maitred = Maitred::start_as(command, &["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    let earlier: i32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    maitred.signal(nix::sys::signal::SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(runs(earlier), "it was ended");
    kill(earlier, nix::sys::signal::SIGKILL);
}
