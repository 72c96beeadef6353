//! The lives of workers from outside: draining without their help, scaling, crash loops, pausing, and
//! the control socket that commands go through.

use crate::refusals::check;
use crate::support::*;
use nix::sys::signal::Signal::*;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// What makes workers leave.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leave {
    Scale,
    Reload,
    Stop,
}

/// Workers of which each has one slow request leave; the requests are answered all the same, although
/// the servers end at once when they are told to.
fn check_drain(command: &[&str], switches: &Switches, leave: Leave) {
    let maitred = Maitred::start(&[&["-w", "2", "--grace", "60s", "--"], command].concat()).ready(2);
    let (address, before) = (maitred.address(), maitred.pids());
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(|| get(address, "/wait"))).collect();
        maitred.status_until(|s| per_worker(s, "taken") == [1, 1] && per_worker(s, "open") == [1, 1]);
        let leaving = match leave {
            Leave::Scale => {
                assert_eq!(maitred.told(&["scale", "-1"]), "2 workers become 1");
                let status = maitred.status_until(|s| s["workers"][1]["state"] == "draining");
                assert_eq!(
                    (&status["workers"][1]["open"], &status["workers"][1]["pid"]),
                    (&1.into(), &before[1].into())
                );
                1
            }
            Leave::Reload => {
                assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
                let status = maitred.status_until(|s| s["leaving"].as_array().unwrap().len() == 2);
                for (row, slot) in status["leaving"].as_array().unwrap().iter().zip(0..) {
                    assert_eq!((&row["slot"], &row["open"], &row["generation"]), (&slot.into(), &1.into(), &1.into()));
                    assert_eq!((&row["state"], &row["pid"]), (&"draining".into(), &before[slot].into()));
                    let since = row["since_s"].as_f64().unwrap();
                    assert!((0.0..20.0).contains(&since), "{row}");
                }
                let line = format!("worker 1 (pid {}) of generation 1 is leaving slot 0", before[0]);
                let table = maitred.told(&["status"]);
                assert!(table.contains(&line), "{table}");
                // Others are served meanwhile, by the new ones.
                assert!(matches!(request(address), Reply::Body(body) if body.contains("generation 2 ")));
                2
            }
            Leave::Stop => {
                assert_eq!(maitred.told(&["stop"]), "stopping");
                2
            }
        };
        maitred.wait_for("draining, until its connections are closed", leaving);
        assert!(maitred.logged("asking a worker to end").is_empty());
        assert!(before.iter().all(|&pid| runs(pid)));
        switches.on("go");
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for reply in replies {
        assert!(matches!(&reply, Reply::Body(body) if body.contains("generation 1 ")), "{leave:?}: {reply:?}");
    }
    maitred.wait_for("asking a worker to end", if leave == Leave::Scale { 1 } else { 2 });
    wait_gone(before[1]);
    match leave {
        Leave::Scale => assert!(runs(before[0])),
        Leave::Reload | Leave::Stop => wait_gone(before[0]),
    }
    if leave == Leave::Stop {
        let (status, output) = maitred.wait();
        return assert_eq!(status.code(), Some(0), "{output}");
    }
    maitred.status_until(|s| {
        let serve = s["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready");
        serve && s["leaving"].as_array().unwrap().is_empty()
    });
    assert!(maitred.logged("killing a worker").is_empty());
    maitred.stop();
}

#[test]
fn a_slow_request_is_answered_although_its_python_server_leaves() {
    for leave in [Leave::Scale, Leave::Reload, Leave::Stop] {
        let switches = Switches::new();
        check_drain(&switches.pages(&[]), &switches, leave);
    }
}

#[test]
fn a_slow_request_is_answered_although_its_node_server_leaves() {
    let script = root().join("tests/workers/pages.js");
    for leave in [Leave::Scale, Leave::Reload, Leave::Stop] {
        let switches = Switches::new();
        check_drain(&["node", script.to_str().unwrap(), "0", switches.path()], &switches, leave);
    }
}

/// A connection that was answered once and stays open.
fn kept_alive(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"well") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    stream
}

#[test]
fn an_idle_connection_holds_a_worker_for_the_grace_time_and_no_longer() {
    let switches = Switches::new();
    let args = ["-w", "1", "--grace", "1s", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(1);
    let old = maitred.pid(0);
    let mut idle = kept_alive(maitred.address());
    let begun = Instant::now();
    maitred.told(&["reload", "--wait"]);
    let status = maitred.status();
    assert_eq!((&status["leaving"][0]["open"], &status["leaving"][0]["pid"]), (&1.into(), &old.into()), "{status:#}");
    // Broken off or closed: in any case over.
    assert!(!matches!(idle.read(&mut [0]), Ok(1..)));
    let took = begun.elapsed();
    assert!((Duration::from_millis(850)..Duration::from_secs(10)).contains(&took), "{took:?}");
    wait_gone(old);
    // That it is asked before it is killed is a story of the fleet's own tests; here a loaded machine may
    // be late for the one and see the other due.
    maitred.wait_for("worker ended", 1);
    let told = [maitred.logged("asking a worker to end"), maitred.logged("killing a worker")].concat();
    assert_eq!(told[0]["pid"], old, "{told:?}");
    maitred.stop();
}

#[test]
fn a_worker_leaves_as_soon_as_its_last_connection_is_closed() {
    let switches = Switches::new();
    let maitred = Maitred::start(&[&["-w", "1", "--grace", "60s", "--"], &*switches.pages(&[])].concat()).ready(1);
    let old = maitred.pid(0);
    let idle = kept_alive(maitred.address());
    maitred.told(&["reload", "--wait"]);
    maitred.wait_for("draining, until its connections are closed", 1);
    assert!(runs(old));
    drop(idle);
    wait_gone(old);
    maitred.stop();
}

#[test]
fn scaling_by_command_under_load_fails_no_connection() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let workers = |number: usize| {
        let serve = |w: &Value| w["state"] == "ready";
        maitred.status_until(|s| {
            let workers = s["workers"].as_array().unwrap();
            workers.len() == number && workers.iter().all(serve)
        });
    };
    maitred.under_load(8, || {
        for (size, said, number) in [
            ("5", "2 workers become 5", 5),
            ("-3", "5 workers become 2", 2),
            ("+2", "2 workers become 4", 4),
            ("1", "4 workers become 1", 1),
            ("3", "1 workers become 3", 3),
        ] {
            assert_eq!(maitred.told(&["scale", size]), said);
            workers(number);
        }
    });
    assert!(maitred.logged("killing a worker").is_empty());
    maitred.stop();
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    for size in ["0", "-2", "-100"] {
        assert_eq!(maitred.refused(&["scale", size]), "0 workers would serve nobody; to end them all use stop");
    }
    for size in ["10000", "+9998"] {
        let why = maitred.refused(&["scale", size]);
        assert!(why.starts_with("10000 workers are more than the ") && why.contains("descriptors"), "{why:?}");
    }
    for size in ["many", "1.5", "+", "99999999999999999999"] {
        check(&maitred.tell(&["scale", size]), 2, &[size, "expected a number of workers, +N or -N"]);
    }
    assert_eq!(maitred.tell(&["scale"]).status.code(), Some(2));
    assert_eq!(maitred.pids().len(), 2);
    assert_eq!(maitred.logged("worker forked").len(), 2);
    // The last one is not sent away by a signal either.
    maitred.signal(SIGTTOU);
    maitred.status_until(|s| s["workers"].as_array().unwrap().len() == 1);
    maitred.signal(SIGTTOU);
    let refused = maitred.wait_for("the number of workers stays", 1);
    assert!(refused[0]["refused"].as_str().unwrap().starts_with("0 workers"), "{refused:?}");
    assert!(matches!(request(maitred.address()), Reply::Body(_)));
    maitred.stop();
}

#[test]
fn commands_that_reach_nobody_say_so() {
    for words in [&["stop"][..], &["reload"], &["restart"], &["scale", "2"]] {
        let args = [words, &["--control", "/no/such/socket"]].concat();
        check(&run(&args), 1, &["no maitred", "/no/such/socket"]);
    }
}

/// Two slots, of which the second crashes in a loop once there is a file `broken`, unless there is one
/// `mended`; it rests after the fourth time.
fn with_a_broken_slot(switches: &Switches) -> Maitred {
    let line = format!(
        "if [ $MAITRED_SLOT = 1 ]; then
           while [ ! -e broken ]; do sleep 0.01; done
           if [ ! -e mended ]; then echo 'slot one is broken' >&2; exit 9; fi
         fi
         exec {} poll 0",
        server()
    );
    let args = ["-w", "2", "--max-restarts", "3", "--cwd", switches.path(), "--", "sh", "-c", &line];
    let maitred = Maitred::start(&args).ready(1);
    switches.on("broken");
    let rests = maitred.wait_for("a slot failed too often and rests; reload or scale brings it back", 1);
    assert_eq!((&rests[0]["slot"], &rests[0]["failures"]), (&1.into(), &4.into()));
    let status = maitred.status();
    let reason = status["workers"][1]["reason"].as_str().unwrap();
    assert_eq!(status["workers"][1]["state"], "stopped");
    for words in ["failed too often and rests", "exit status 9", "slot one is broken"] {
        assert!(reason.contains(words), "{words:?} is missing in {reason:?}");
    }
    // The other serves on.
    for _ in 0..4 {
        assert!(matches!(request(maitred.address()), Reply::Body(body) if body.starts_with("slot 0")));
    }
    maitred
}

#[test]
fn a_slot_that_crashes_in_a_loop_rests_and_the_exit_code_tells() {
    let switches = Switches::new();
    let maitred = with_a_broken_slot(&switches);
    assert_eq!(maitred.logged("worker forked").len(), 5);
    let table = maitred.told(&["status"]);
    assert!(table.contains("slot 1 is stopped: failed too often") && table.contains("slot one is broken"), "{table}");
    maitred.signal(SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(1), "{output}");
    let last = output.rsplit_once("maitred: ").expect("a line of ours").1;
    for words in ["slots failed too often", "slot 1: ", "exit status 9", "slot one is broken"] {
        assert!(last.contains(words), "{words:?} is missing in {last:?}");
    }
}

#[test]
fn a_slot_that_rests_comes_back_with_a_reload_or_another_number() {
    for words in [&["reload", "--wait"][..], &["scale", "2"]] {
        let switches = Switches::new();
        let maitred = with_a_broken_slot(&switches);
        switches.on("mended");
        maitred.told(words);
        let status = maitred.status_until(|s| s["workers"][1]["state"] == "ready");
        assert_eq!(status["workers"][1]["reason"], Value::Null);
        check_exact_spread(&maitred, 10, 2);
        // All is well, so the exit code is 0.
        maitred.stop();
    }
}

#[test]
fn when_all_slots_rest_the_master_ends() {
    let switches = Switches::new();
    let args = ["-w", "2", "--max-restarts", "3", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(2);
    // Both are beyond the point where they would crash by themselves.
    assert_eq!(load(maitred.address(), 4, 1).answered, 4);
    switches.on("crash");
    maitred.pids().into_iter().for_each(|pid| kill(pid, SIGKILL));
    maitred.wait_for("a slot failed too often and rests; reload or scale brings it back", 2);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(1), "{output}");
    for words in ["every worker failed too often", "slot 0: ", "slot 1: ", "there is a file that says crash"] {
        assert!(output.contains(words), "{words:?} is missing in {output:?}");
    }
}

#[test]
fn winch_ends_the_workers_and_hup_or_ttin_brings_them_back() {
    // In a session of its own, which no terminal controls.
    let maitred = Maitred::start_as(maitred_by(&["setsid"]), &["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let address = maitred.address();
    for (signal, ready, workers) in [(SIGHUP, 4, 2), (SIGTTIN, 7, 3)] {
        let before = maitred.pids();
        maitred.signal(SIGWINCH);
        before.iter().for_each(|&pid| wait_gone(pid));
        let status = maitred.status_until(|s| s["workers"].as_array().unwrap().iter().all(|w| w["state"] == "stopped"));
        assert_eq!(status["workers"][0]["pid"], Value::Null);
        assert_eq!(maitred.tell(&["status", "--ready"]).status.code(), Some(1));
        // Who comes now waits.
        std::thread::scope(|scope| {
            let client = scope.spawn(|| request(address));
            maitred.status_until(|s| {
                s["listeners"][0]["queued"] == 1 || s["totals"]["accepted"].as_u64() > s["totals"]["handed"].as_u64()
            });
            maitred.signal(signal);
            maitred.wait_for("worker ready", ready);
            assert_eq!(maitred.tell(&["status", "--ready"]).status.code(), Some(0));
            assert!(matches!(client.join().unwrap(), Reply::Body(_)));
        });
        maitred.status_until(|s| {
            s["workers"].as_array().unwrap().iter().filter(|w| w["state"] == "ready").count() == workers
        });
    }
    maitred.stop();
}

#[test]
fn a_window_that_changes_its_size_drains_nobody_wherever_input_and_output_go() {
    // Python makes the terminal, which controls the master, and ends with it.
    let terminal = "import ctypes, os, pty, signal, sys
os.dup2(0, 8); os.dup2(2, 9)
pid, _ = pty.fork()
if pid == 0:
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.dup2(8, 0); os.dup2(9, 1); os.dup2(9, 2)
    os.execv(sys.argv[1], sys.argv[1:])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let command = maitred_by(&["python3", "-c", terminal]);
    let maitred = Maitred::start_as(command, &["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let master = i32::try_from(maitred.status()["pid"].as_i64().unwrap()).unwrap();
    kill(master, SIGWINCH);
    let said = maitred.wait_for("signal without effect", 1);
    assert_eq!(said[0]["signal"], "WINCH");
    assert!(matches!(request(maitred.address()), Reply::Body(_)));
    kill(master, SIGTERM);
    assert!(maitred.wait().0.success());
}

/// Another master that wants this control socket.
fn also_at(control: &Path) -> Maitred {
    let mut second = Maitred::start(&["--control", control.to_str().unwrap(), "-w", "1", "--", &server(), "poll", "0"]);
    second.control = control.to_owned();
    second
}

#[test]
fn a_control_socket_belongs_to_one_master() {
    let maitred = Maitred::start(&["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    let (status, output) = also_at(&maitred.control).wait();
    assert_eq!(status.code(), Some(3), "{output}");
    let said = output.lines().find(|line| line.starts_with("maitred: ")).expect("a line of ours");
    for words in ["runs already", ".sock"] {
        assert!(said.contains(words), "{words:?} is missing in {said:?}");
    }
    // The first has lost nothing.
    assert_eq!(maitred.status()["pid"], maitred.child.id());
    maitred.stop();
}

#[test]
fn a_control_socket_of_a_master_that_was_killed_is_replaced() {
    let mut first = Maitred::start(&["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    let control = first.control.clone();
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(control.exists());
    check(&run(&["stop", "--control", control.to_str().unwrap()]), 1, &["no maitred"]);
    let second = also_at(&control).ready(1);
    assert_eq!(second.status()["pid"], second.child.id());
    assert_eq!(second.told(&["stop", "--wait"]), format!("{} has ended", control.display()));
    assert!(!control.exists());
}

#[test]
fn with_a_stop_delay_clients_are_served_until_the_balancer_has_noticed() {
    let maitred = Maitred::start(&["-w", "2", "--stop-delay", "1h", "--", &server(), "poll", "0"]).ready(2);
    assert_eq!(maitred.tell(&["status", "--ready"]).status.code(), Some(0));
    maitred.signal(SIGTERM);
    maitred.wait_for("asked to stop; serving on for --stop-delay", 1);
    let status = maitred.status();
    assert_eq!((&status["stopping"], &status["workers"][0]["state"]), (&true.into(), &"ready".into()), "{status:#}");
    assert_eq!(maitred.tell(&["status", "--ready"]).status.code(), Some(1));
    check_exact_spread(&maitred, 10, 2);
    // Who crashes meanwhile comes back.
    kill(maitred.pid(0), SIGKILL);
    maitred.status_until(|s| s["workers"][0]["restarts"] == 1 && s["workers"][0]["state"] == "ready");
    for words in [&["reload"][..], &["scale", "3"]] {
        let why = maitred.refused(words);
        assert!(why.contains("stopping"), "{words:?}: {why}");
    }
    // Another signal ends the delay; a wrapper's copy of the first one does not.
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(600) {
        std::thread::yield_now();
    }
    maitred.stop();
}

#[test]
fn a_stop_delay_ends_by_itself() {
    let maitred = Maitred::start(&["-w", "1", "--stop-delay", "300ms", "--", &server(), "poll", "0"]).ready(1);
    maitred.signal(SIGTERM);
    maitred.wait_for("stopped", 1);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
}
