//! Strangers on the machine, and workers that turned against their master: nobody's descriptor stops the loop, none
//! leaks, no connection is lost by it, and the other slots do not notice.

use crate::support::*;
use nix::sys::signal::SIGKILL;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What one request may take while somebody attacks; a freeze lasts for seconds or for ever.
const SOON: Duration = Duration::from_secs(3);

fn script(name: &str) -> String {
    root().join("tests/workers").join(name).to_str().unwrap().to_owned()
}

/// Three workers, of which the one in slot 0 attacks.
fn with_hostile(attack: &str, more: &[&str]) -> Maitred {
    let script = script("hostile.py");
    let options = [&["-w", "3", "--adapter", "native"], more, &["--", "python3", &script, attack]].concat();
    Maitred::start(&options)
}

/// A stranger, who stays until this is dropped.
struct Stranger {
    child: Child,
    /// How many of its packets with descriptors the kernel let through.
    through: u64,
}

impl Stranger {
    /// Of another user if there can be one: an ordinary user's stranger is of the same user, so what only others may not is
    /// not shown then.
    fn comes(maitred: &Maitred, what: &str) -> Stranger {
        // It may not read the project's directory, so it gets its program on the command line.
        let program = std::fs::read_to_string(script("stranger.py")).unwrap();
        let mut command = Command::new(python());
        command.args(["-c", &program, &maitred.child.id().to_string(), what]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        as_ordinary_user(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let through = line.strip_prefix("attacked ").unwrap_or_else(|| panic!("the stranger said {line:?}"));
        Stranger { child, through: through.trim().parse().unwrap() }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python that everybody may execute; one in somebody's home directory is of no use to a stranger.
fn python() -> &'static str {
    "/usr/bin/python3"
}

/// Everybody who comes is answered soon, also by the master itself.
fn serves(maitred: &Maitred, requests: u64) {
    let address = maitred.address();
    for _ in 0..requests {
        let begun = Instant::now();
        let tally = load(address, 1, 1);
        assert_eq!((tally.answered, tally.hung), (1, 0), "{:?}", tally.failed);
        assert!(begun.elapsed() < SOON, "a request took {:?}", begun.elapsed());
    }
    let begun = Instant::now();
    maitred.status();
    assert!(begun.elapsed() < SOON, "the status took {:?}", begun.elapsed());
}

/// Waits until the master has no more descriptors open than before; those of connections under way come and go.
fn no_leak(maitred: &Maitred, before: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = descriptors(maitred.child.id());
        if now <= before + 4 {
            return;
        }
        assert!(Instant::now() < deadline, "the master had {before} descriptors open, and has {now}");
        // Nothing tells when another process closes; the number is what is waited for, and this how often it is read.
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_strangers_sockets_do_not_stop_the_master() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let stranger = Stranger::comes(&maitred, "linger");
    assert!(stranger.through > 0, "nothing came to the master");
    serves(&maitred, 20);
    let begun = Instant::now();
    maitred.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "the end took {:?}", begun.elapsed());
}

#[test]
fn more_descriptors_than_there_is_room_for_do_not_leak() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let before = descriptors(maitred.child.id());
    let _stranger = Stranger::comes(&maitred, "many");
    serves(&maitred, 2);
    no_leak(&maitred, before);
    maitred.stop();
}

#[test]
fn many_idle_strangers_keep_no_worker_out() {
    // A wrapper that closes what it inherited: the server uses the rendezvous.
    let line = format!("exec 100>&-; exec {} poll 0", server());
    let maitred = Maitred::start(&["-w", "2", "--", "bash", "-c", &line]).ready(2);
    let stranger = Stranger::comes(&maitred, "idle");
    maitred.told(&["scale", "4"]);
    maitred.wait_for("worker ready", 4);
    serves(&maitred, 8);
    drop(stranger);
    maitred.stop();
}

#[test]
fn connections_are_rescued_whatever_else_the_packets_bring() {
    for option in ["SO_PASSCRED", "SO_PASSPIDFD", "SO_PASSSEC", "SO_ALL"] {
        let maitred = with_hostile(option, &[]).ready(3);
        let (address, pid) = (maitred.address(), maitred.pid(0));
        std::thread::scope(|scope| {
            let clients = scope.spawn(|| load(address, 30, 30));
            maitred.status_until(|status| per_worker(status, "queued")[0] >= 5);
            kill(pid, SIGKILL);
            // Its successor takes nothing either, and loses it all again.
            maitred.status_until(|status| per_worker(status, "rescued")[0] >= 5);
            let deadline = Instant::now() + PATIENCE;
            while !clients.is_finished() {
                assert!(Instant::now() < deadline, "{:#}", maitred.status());
                if let Some(pid) = maitred.status()["workers"][0]["pid"].as_i64()
                    && per_worker(&maitred.status(), "queued")[0] > 0
                {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), SIGKILL);
                }
            }
            let tally = clients.join().unwrap();
            assert_eq!((tally.answered, tally.hung), (30, 0), "{option}: {:?}", tally.failed);
        });
        assert_eq!(maitred.status()["totals"]["lost"], 0, "{option}");
    }
}

#[test]
fn a_worker_that_lets_nothing_in_is_passed_over() {
    let maitred = with_hostile("no-rights", &[]).ready(3);
    maitred.wait_for("the worker says", 1);
    serves(&maitred, 20);
}

#[test]
fn sockets_that_a_worker_prepared_do_not_stop_the_master() {
    let maitred = with_hostile("linger", &[]).ready(3);
    maitred.wait_for("the worker says", 1);
    serves(&maitred, 20);
    // Also those that nobody has read when it dies.
    kill(maitred.pid(0), SIGKILL);
    maitred.wait_for("worker ended", 1);
    serves(&maitred, 20);
}

#[test]
fn what_a_worker_sends_beside_the_point_does_not_leak() {
    let maitred = with_hostile("no-rights", &[]).ready(3);
    maitred.wait_for("the worker says", 1);
    let before = descriptors(maitred.child.id());
    drop(maitred);
    let maitred = with_hostile("many", &[]).ready(3);
    maitred.wait_for("the worker says", 1);
    serves(&maitred, 5);
    no_leak(&maitred, before + 16);
    maitred.stop();
}

#[test]
fn one_connection_that_comes_back_without_end_bothers_nobody() {
    let maitred = with_hostile("return-same", &[]).ready(3);
    let before = Instant::now();
    // One of these is what it returns; its client is answered by another worker.
    let tally = load(maitred.address(), 3, 3);
    assert_eq!((tally.answered, tally.hung), (3, 0), "{:?}", tally.failed);
    maitred.wait_for("the worker says", 1);
    // It is busy with its attack; whoever meets another slot notices nothing.
    // The pause is how long the load lasts; it synchronises nothing.
    let (tally, ()) = maitred.with_load(2, || std::thread::sleep(Duration::from_secs(1)));
    assert!(tally.answered > 0 && tally.hung == 0, "{:?}", tally.failed);
    assert!(before.elapsed() < PATIENCE);
    let status = maitred.status_until(|status| status["totals"]["lost"] == 0);
    let returned = per_worker(&status, "returned");
    assert!(returned[0] <= 2, "copies are no returns: {status:#}");
}

#[test]
fn a_connection_that_all_send_back_comes_to_an_end() {
    let script = script("misbehave.py");
    let args = ["-w", "1", "--adapter", "native", "--", "python3", script.as_str(), "return"];
    let maitred = Maitred::start(&args).ready(1);
    let tally = load(maitred.address(), 2, 2);
    assert_eq!((tally.answered, tally.hung), (0, 0), "{:?}", tally.failed);
    let status = maitred.status();
    assert_eq!(status["admission"]["refused_returned"], 2, "{status:#}");
    assert_eq!(status["totals"]["refused"], 2, "{status:#}");
    maitred.stop();
}
