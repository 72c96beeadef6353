//! The master's binary is replaced while it runs: workers, connections and counters stay.

use crate::paths::can_be_others;
use crate::support::*;
use nix::sys::signal::{SIGCONT, SIGKILL, SIGSTOP, SIGUSR2};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

/// A copy of the binary under test, which can be replaced.
fn copy() -> PathBuf {
    let path = scratch("maitred");
    std::fs::copy(env!("CARGO_BIN_EXE_maitred"), &path).unwrap();
    path
}

/// Puts something else in its place, as a package manager does it: under another name first.
fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn start(binary: &Path, args: &[&str]) -> Maitred {
    Maitred::start_as(Command::new(binary), args)
}

/// `maitred upgrade`: its exit code and what it said.
fn upgrade(maitred: &Maitred) -> (i32, String) {
    let control = maitred.control.to_str().unwrap();
    let output = run(&["upgrade", "--control", control]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

fn pids(status: &Value) -> Vec<i64> {
    status["workers"].as_array().unwrap().iter().map(|w| w["pid"].as_i64().unwrap()).collect()
}

/// The scheduling policy of a process, `proc_pid_stat(5)`.
fn policy(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is a name in parentheses; this is the 41st.
    stat.rsplit(") ").next().unwrap().split(' ').nth(41 - 3).unwrap().parse().unwrap()
}

#[test]
fn workers_compete_as_they_would_without_us_after_an_upgrade_too() {
    let others = ["-w", "1", "--", &server(), "epoll", "0"];
    let batch = "import os, sys
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
os.execv(sys.argv[1], sys.argv[1:])";
    // What the operator has chosen is kept, SCHED_BATCH too.
    for (before, chosen) in [(&[][..], 0), (&["python3", "-c", batch][..], 3)] {
        let binary = copy();
        let words: Vec<&str> = before.iter().copied().chain([binary.to_str().unwrap()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let maitred = Maitred::start_as(command, &others).ready(1);
        assert_eq!((policy(maitred.pid(0)), policy(maitred.status()["pid"].as_i64().unwrap() as i32)), (chosen, 3));
        for upgrades in 1..=2 {
            assert_eq!(upgrade(&maitred).0, 0);
            kill(maitred.pid(0), SIGKILL);
            maitred.status_until(|s| s["workers"][0]["state"] == "ready" && s["workers"][0]["restarts"] == upgrades);
            assert_eq!(policy(maitred.pid(0)), chosen, "after {upgrades} upgrades");
        }
        assert_eq!(policy(maitred.status()["pid"].as_i64().unwrap() as i32), 3);
        maitred.stop();
    }
}

#[test]
fn a_binary_that_would_have_fewer_rights_leaves_the_old_one_running() {
    if !can_be_others() {
        return;
    }
    let give = |path: &Path| {
        let done = Command::new("setcap").arg("cap_net_bind_service=ep").arg(path).status();
        let done = done.unwrap_or_else(|e| panic!("setcap: {e}; install it with apt-get install libcap2-bin"));
        assert!(done.success(), "setcap fails here");
    };
    let binary = copy();
    give(&binary);
    let worker = for_ordinary_user(&server());
    let mut command = Command::new(&binary);
    as_ordinary_user(&mut command);
    let maitred = Maitred::start_as(command, &["-w", "1", "--", &worker, "epoll", "0"]).ready(1);
    let whole = std::fs::read(env!("CARGO_BIN_EXE_maitred")).unwrap();
    replace(&binary, &whole);
    let (code, said) = upgrade(&maitred);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cap_net_bind_service") && said.contains("setcap"), "{said}");
    let tally = load(maitred.address(), 10, 2);
    assert_eq!((tally.answered, tally.hung), (10, 0), "{:?}", tally.failed);
    give(&binary);
    let (code, said) = upgrade(&maitred);
    assert_eq!(code, 0, "{said}");
    maitred.stop();
}

/// Where there is no directory for the shim, its file is in the master's memory. An old one stays as long as a worker
/// was started with it.
#[test]
fn an_old_shim_goes_with_the_last_worker_that_has_it() {
    if !can_be_others() {
        return;
    }
    let user = 3_000_000 + std::process::id();
    // Somebody else has the names where this user's directories would be.
    let taken = ["/dev/shm", "/tmp"].map(|dir| PathBuf::from(format!("{dir}/maitred-lib-{user}")));
    taken.iter().for_each(|path| std::fs::write(path, "").unwrap());
    let mut command = Command::new(copy());
    command.env_remove("XDG_RUNTIME_DIR").env_remove("XDG_CACHE_HOME").env_remove("HOME");
    command.uid(user).gid(user);
    let server = for_ordinary_user(&server());
    let maitred = Maitred::start_as(command, &["-w", "2", "--", &server, "epoll", "0"]).ready(2);
    let pid = maitred.child.id();
    let shims = || {
        let files =
            std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|fd| fd.unwrap().path().read_link().ok());
        files.filter(|file| file.to_string_lossy().starts_with("/memfd:maitred-shim")).count()
    };
    let before = shims();
    assert_eq!(upgrade(&maitred).0, 0);
    assert_eq!((before, shims()), (1, 2));
    kill(maitred.pid(0), SIGKILL);
    maitred.status_until(|s| s["workers"][0]["state"] == "ready" && s["workers"][0]["restarts"] == 1);
    assert_eq!(shims(), 2, "a worker still has it");
    kill(maitred.pid(1), SIGKILL);
    maitred.status_until(|s| s["workers"][1]["state"] == "ready" && s["workers"][1]["restarts"] == 1);
    assert_eq!(shims(), 1);
    maitred.stop();
    taken.iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

/// The new binary passes its trial, and then has too few descriptors: for everything, or for the last of what it needs.
#[test]
fn a_binary_that_cannot_go_on_after_all_leads_back_to_the_old_one() {
    back_to_the_old_one("handoff", &[&server(), "epoll", "0"]);
    back_to_the_old_one("handoff", &[&static_server(), "epoll", "0", "supervised"]);
    back_to_the_old_one("kernel", &[&server(), "epoll", "0"]);
}

fn back_to_the_old_one(mode: &str, worker: &[&str]) {
    let (binary, fewer) = (copy(), scratch("fewer"));
    let mut command = Command::new(&binary);
    command.env("REAL", env!("CARGO_BIN_EXE_maitred")).env("FEWER", &fewer);
    let maitred = Maitred::start_as(command, &[&["-w", "2", "--mode", mode, "--"], worker].concat()).ready(2);
    replace(&binary, &std::fs::read(c_program("tests/workers/fewer.c", "cc", &[])).unwrap());
    let before = maitred.status();
    let pid = maitred.child.id();
    let (open, mut failed) = (descriptors(pid), 0);
    let (tally, ()) = maitred.with_load(8, || {
        // The loader of a program needs one.
        for more in 1..100 {
            std::fs::write(&fewer, more.to_string()).unwrap();
            let (code, said) = upgrade(&maitred);
            if code == 0 {
                break;
            }
            failed += 1;
            assert_eq!(code, 1, "{said}");
            assert!(said.contains("could not go on") && said.contains("the old one goes on"), "{said}");
            let now = maitred.status();
            assert_eq!((now["upgrades"].clone(), pids(&now)), (0.into(), pids(&before)), "{more}: {now:#}");
        }
    });
    // The last one succeeded.
    assert!(failed > 3, "the new binary had enough from the beginning");
    assert_eq!(maitred.status()["upgrades"], 1);
    assert_eq!((tally.failed.len(), tally.hung), (0, 0), "after {failed}: {:?}", tally.failed);
    assert_eq!(maitred.logged("the new binary could not go on; this one does again").len(), failed);
    assert!(descriptors(pid) <= open + 4, "{open} descriptors before, {} after {failed}", descriptors(pid));
    kill(maitred.pid(0), SIGKILL);
    maitred.status_until(|s| s["workers"][0]["state"] == "ready" && s["workers"][0]["restarts"] == 1);
    let status = maitred.status();
    assert_eq!(status["totals"]["accepted"], status["totals"]["handed"], "{status:#}");
    maitred.stop();
}

/// Upgrades again and again under load and checks that nobody notices.
fn nobody_notices(mode: &str, command: &[&str], times: u64) {
    nobody_notices_of(Command::new(copy()), mode, command, times);
}

fn nobody_notices_of(maitred: Command, mode: &str, command: &[&str], times: u64) {
    let args = [&["-w", "2", "--mode", mode, "--"], command].concat();
    let maitred = Maitred::start_as(maitred, &args).ready(2);
    let address = maitred.address();
    let before = maitred.status();
    let stop = AtomicBool::new(false);
    let tally = std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let clients = scope.spawn(|| load_until(address, 16, &stop));
        for time in 1..=times {
            let (code, said) = upgrade(&maitred);
            assert_eq!(code, 0, "{said}");
            assert_eq!(maitred.status()["upgrades"], time);
        }
        drop(stopping);
        clients.join().unwrap()
    });
    assert_eq!((tally.failed.len(), tally.hung), (0, 0), "{:?}", tally.failed);
    assert!(tally.answered > 0);
    let after = maitred.status();
    assert_eq!((pids(&after), after["pid"].clone()), (pids(&before), before["pid"].clone()));
    if mode == "kernel" && !crate::kernel::is_exact(&after) {
        // Without the privilege to load a program that counts, the workers count what they take.
        assert_eq!(per_worker(&after, "taken").iter().sum::<u64>(), tally.answered, "{after:#}");
    } else if mode != "shared" {
        // Not one connection was counted twice or forgotten.
        assert_eq!(after["totals"]["accepted"], tally.answered, "{after:#}");
        let fairness = &after["fairness"];
        assert!(fairness["max"].as_u64().unwrap() - fairness["min"].as_u64().unwrap() <= 1, "{after:#}");
    }
    // What was passed on goes on working: a worker that dies is followed by the next.
    kill(maitred.pid(0), SIGKILL);
    maitred.status_until(|s| s["workers"][0]["state"] == "ready" && s["workers"][0]["id"] == 3);
    assert!(matches!(request(address), Reply::Body(_)));
    maitred.stop();
}

#[test]
fn nobody_notices_in_handoff_mode() {
    nobody_notices("handoff", &[&server(), "epoll", "0"], 10);
}

#[test]
fn nobody_notices_in_shared_mode() {
    nobody_notices("shared", &[&server(), "epoll", "0"], 5);
}

#[test]
fn nobody_notices_in_kernel_mode() {
    nobody_notices("kernel", &[&server(), "epoll", "0"], 5);
    nobody_notices_of(crate::kernel::without_privileges_as(&copy()), "kernel", &[&server(), "epoll", "0"], 5);
}

#[test]
fn nobody_notices_when_calls_are_supervised() {
    for how in ["epoll", "block"] {
        nobody_notices("handoff", &[&static_server(), how, "0", "supervised"], 5);
    }
}

#[test]
fn nobody_notices_with_node() {
    let script = root().join("worker-examples/unaware.js");
    nobody_notices("handoff", &["node", script.to_str().unwrap(), "0"], 5);
}

#[test]
fn a_signal_does_it_too_and_what_workers_write_is_not_lost() {
    let script = "import os, threading, time, http.server as h
def write():
    for number in range(10**9):
        os.write(1, b'line %d\\n' % number)
        time.sleep(0.0005)  # the rhythm of the lines, which synchronises nothing
class H(h.BaseHTTPRequestHandler):
    def do_GET(self):
        os.write(1, b'served ' + self.path.encode() + b'\\n')
        self.send_response(200); self.end_headers(); self.wfile.write(b'ok')
    def log_message(self, *words): pass
server = h.HTTPServer(('127.0.0.1', 0), H)
threading.Thread(target=write, daemon=True).start()
server.serve_forever()";
    let maitred = start(&copy(), &["-w", "1", "--prefix", "always", "--", "python3", "-c", script]).ready(1);
    maitred.signal(SIGUSR2);
    maitred.wait_for("the new binary goes on", 1);
    assert_eq!(request(maitred.address()), Reply::Body("ok".into()));
    maitred.signal(SIGUSR2);
    maitred.wait_for("the new binary goes on", 2);
    assert_eq!(request(maitred.address()), Reply::Body("ok".into()));
    let (_, output) = {
        maitred.signal(nix::sys::signal::SIGTERM);
        maitred.wait()
    };
    assert_eq!(output.matches("0| served /").count(), 2, "{output}");
    // Each line once and in its place, also those that were written while nobody was there to read them.
    let numbers: Vec<u64> =
        output.lines().filter_map(|line| line.strip_prefix("0| line ")).map(|number| number.parse().unwrap()).collect();
    let whole: Vec<u64> = (0..numbers.len() as u64).collect();
    assert!(numbers.len() > 100, "only {} lines", numbers.len());
    assert_eq!(numbers, whole);
}

#[test]
fn a_binary_that_cannot_go_on_leaves_the_old_one_running() {
    let whole = std::fs::read(env!("CARGO_BIN_EXE_maitred")).unwrap();
    let binary = copy();
    let maitred = start(&binary, &["-w", "2", "--", &server(), "epoll", "0"]).ready(2);
    let before = pids(&maitred.status());
    let bad: [(&str, Vec<u8>, &str); 4] = [
        ("truncated", whole[..whole.len() / 2].to_vec(), "the file is not complete"),
        ("empty", Vec::new(), "the file is not complete"),
        ("another program", b"#!/bin/sh\nexit 0\n".to_vec(), "no maitred that can go on"),
        (
            "one that fails",
            b"#!/bin/sh\necho 'cannot read the state' >&2; exit 4\n".to_vec(),
            "exit status 4: cannot read the state",
        ),
    ];
    for (what, bytes, why) in bad {
        replace(&binary, &bytes);
        let (code, said) = upgrade(&maitred);
        assert_eq!(code, 1, "{what}: {said}");
        assert!(said.contains(why) && said.contains("the running binary goes on"), "{what}: {said}");
        assert!(matches!(request(maitred.address()), Reply::Body(_)), "{what}");
    }
    std::fs::remove_file(&binary).unwrap();
    let (code, said) = upgrade(&maitred);
    assert!(code == 1 && said.contains("No such file"), "{said}");
    let status = maitred.status();
    assert_eq!((pids(&status), status["upgrades"].as_u64()), (before, Some(0)));
    // The whole one again, and it goes.
    replace(&binary, &whole);
    assert_eq!(upgrade(&maitred).0, 0);
    maitred.stop();
}

#[test]
fn a_worker_that_drains_goes_on_draining_under_the_new_binary() {
    let switches = Switches::new();
    let maitred = start(&copy(), &[&["-w", "1", "--"], &*switches.pages(&[])].concat()).ready(1);
    let (address, old) = (maitred.address(), maitred.pid(0));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| get(address, "/wait"));
        maitred.status_until(|s| s["workers"][0]["taken"] == 1);
        maitred.signal(nix::sys::signal::SIGHUP);
        maitred.status_until(|s| s["leaving"][0]["open"] == 1);
        assert_eq!(upgrade(&maitred).0, 0);
        // It still drains: the new program neither ended it nor lets it serve again.
        let status = maitred.status();
        let leaves = &status["leaving"][0];
        assert_eq!((leaves["pid"].as_i64(), &leaves["state"]), (Some(old.into()), &"draining".into()), "{status:#}");
        assert!(runs(old));
        // Who comes now is served by the worker that took its place.
        let Reply::Body(body) = get(address, "/") else { panic!("no answer") };
        assert!(body.contains("generation 2 "), "{body}");
        switches.on("go");
        let Reply::Body(body) = client.join().unwrap() else { panic!("no answer") };
        assert!(body.contains("generation 1 ") && body.contains(&format!("process {old} ")), "{body}");
    });
    wait_gone(old);
    maitred.status_until(|s| s["leaving"].as_array().unwrap().is_empty());
    maitred.stop();
}

#[test]
fn what_was_killed_or_stopped_meanwhile_is_seen_by_the_new_binary() {
    let maitred = start(&copy(), &["-w", "3", "--stall", "200ms", "--", &server(), "epoll", "0"]).ready(3);
    for _ in 0..5 {
        let stopped = maitred.pid(2);
        kill(maitred.pid(1), SIGKILL);
        kill(stopped, SIGSTOP);
        assert_eq!(upgrade(&maitred).0, 0);
        // Nobody has noticed before: without connections nobody stalls.
        let address = maitred.address();
        std::thread::scope(|scope| {
            let clients = scope.spawn(|| load(address, 30, 30));
            maitred.status_until(|s| s["workers"][2]["state"] == "stalled");
            let tally = clients.join().unwrap();
            assert_eq!((tally.answered, tally.hung), (30, 0), "{:?}", tally.failed);
        });
        kill(stopped, SIGCONT);
        maitred.status_until(|s| s["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready"));
        let tally = load(maitred.address(), 30, 3);
        assert_eq!((tally.answered, tally.hung), (30, 0), "{:?}", tally.failed);
    }
    assert_eq!(maitred.status()["totals"]["lost"], 0);
    maitred.stop();
}
