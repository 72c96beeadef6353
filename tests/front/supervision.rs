//! Forking, crashing, stopping, scaling.

use crate::support::*;
use nix::sys::signal::Signal::{self, *};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

#[test]
fn status_has_every_documented_field() {
    let maitred = Maitred::start(&["-w", "2", "--name", "fields", "--", &server(), "poll", "0"]).ready(2);
    load(maitred.address(), 10, 2);
    let output = run(&["status", "--json", "--control", maitred.control.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for field in ["name", "pid", "version", "mode", "policy", "uptime_s", "listeners", "workers", "totals", "fairness"]
    {
        assert!(!status[field].is_null(), "{field} is missing in {status:#}");
    }
    for field in ["address", "backlog", "accepted", "queued"] {
        assert!(!status["listeners"][0][field].is_null(), "listeners[].{field} is missing in {status:#}");
    }
    let fields = "slot id pid generation state adapter handed taken queued open returned rescued restarts uptime_s rss_bytes cpu_s";
    for field in fields.split(' ') {
        assert!(!status["workers"][1][field].is_null(), "workers[].{field} is missing in {status:#}");
    }
    for field in ["accepted", "handed", "returned", "rescued", "lost"] {
        assert!(status["totals"][field].is_u64(), "totals.{field} is missing in {status:#}");
    }
    for field in ["jain", "max_over_mean", "min", "max"] {
        assert!(status["fairness"][field].is_number(), "fairness.{field} is missing in {status:#}");
    }
    assert_eq!(
        (&status["name"], &status["mode"], &status["policy"]),
        (&"fields".into(), &"handoff".into(), &"round-robin".into())
    );
    assert_eq!(status["totals"]["accepted"], 10);
    assert!(status["workers"][0]["rss_bytes"].as_u64() > Some(100_000), "{status:#}");
    let table = run(&["status", "--control", maitred.control.to_str().unwrap()]);
    let table = String::from_utf8(table.stdout).unwrap();
    for word in ["SLOT", "HANDED", "ready", "preload", "Jain", "lost 0"] {
        assert!(table.contains(word), "{word} is missing in\n{table}");
    }
    maitred.stop();
}

#[test]
fn open_connections_are_counted_while_they_are_open() {
    // This server never closes what its clients have closed, so a drain of it takes all of the grace time.
    let maitred = Maitred::start(&["-w", "2", "--grace", "1s", "--", &server(), "poll", "0", "idle"]).ready(2);
    let address = maitred.address();
    let open: Vec<_> = (0..6).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let status = maitred.status_until(|s| per_worker(s, "taken") == [3, 3]);
    assert_eq!(per_worker(&status, "open"), [3, 3]);
    drop(open);
    maitred.stop();
}

#[test]
fn a_killed_worker_loses_only_what_it_had_taken() {
    let maitred = Maitred::start(&["-w", "4", "--", &server(), "epoll", "0"]).ready(4);
    let (tally, kills) = maitred.with_kills(64, Duration::from_secs(1), Duration::from_secs(15));
    let status = maitred.status_until(|s| per_worker(s, "queued").iter().all(|&q| q == 0));
    assert_eq!(tally.hung, 0, "a client hung");
    assert_eq!(status["totals"]["lost"], 0, "{status:#}");
    assert!(kills >= 10, "{kills}");
    assert!(tally.answered > 1000, "{}", tally.answered);
    // Every connection was taken by somebody, and those that failed are among them.
    let taken: u64 = per_worker(&status, "taken").iter().sum();
    assert_eq!(taken, status["totals"]["accepted"].as_u64().unwrap(), "{status:#}");
    assert_eq!(taken, tally.answered + tally.failed.len() as u64, "{:?}", tally.failed);
    // This server takes one at a time, so each kill costs one connection at most.
    assert!(tally.failed.len() <= kills, "{kills} kills, failed: {:?}", tally.failed);
    maitred.stop();
}

#[test]
fn what_a_killed_worker_never_took_is_served_by_others() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let address = maitred.address();
    let victim = maitred.pid(0);
    kill(victim, SIGSTOP);
    let (tally, ()) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| load(address, 20, 20));
        maitred.status_until(|s| per_worker(s, "queued")[0] == 10);
        kill(victim, SIGKILL);
        (clients.join().unwrap(), ())
    });
    assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
    let status = maitred.status();
    assert_eq!(status["totals"]["rescued"], 10, "{status:#}");
    maitred.stop();
}

#[test]
fn a_stopped_worker_holds_at_most_its_depth_and_the_others_go_on() {
    // Otherwise it would be passed over after a second, and what waits there would go to others.
    let args = ["-w", "4", "--depth", "5", "--stall", "0", "--", &server(), "poll", "0"];
    let maitred = Maitred::start(&args).ready(4);
    let address = maitred.address();
    let victim = maitred.pid(2);
    kill(victim, SIGSTOP);
    // Five clients wait at the stopped worker; all others are served meanwhile.
    let waiting = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = Stop(&waiting);
        let clients = scope.spawn(|| load_until(address, 32, &waiting));
        let status = maitred
            .status_until(|s| per_worker(s, "queued")[2] == 5 && per_worker(s, "taken").iter().sum::<u64>() > 2000);
        assert_eq!(per_worker(&status, "queued")[2], 5, "{status:#}");
        kill(victim, SIGCONT);
        drop(stopping);
        let tally = clients.join().unwrap();
        assert_eq!((tally.failed.len(), tally.hung), (0, 0), "{:?}", tally.failed);
    });
    maitred.stop();
}

#[test]
fn at_a_stop_idle_workers_take_what_waits_at_a_busy_one() {
    // Two that stand still: what waits there is for the third alone, and does not wander between the two.
    let args = ["-w", "3", "--stall", "0", "--grace", "60s", "--", &server(), "poll", "0"];
    let maitred = Maitred::start(&args).ready(3);
    let address = maitred.address();
    let busy = [maitred.pid(0), maitred.pid(2)];
    busy.iter().for_each(|&pid| kill(pid, SIGSTOP));
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load(address, 30, 30));
        maitred.status_until(|s| per_worker(s, "queued") == [10, 0, 10]);
        maitred.signal(SIGTERM);
        let tally = clients.join().unwrap();
        assert_eq!((tally.answered, tally.hung), (30, 0), "{:?}", tally.failed);
    });
    busy.iter().for_each(|&pid| kill(pid, SIGCONT));
    assert_eq!(maitred.wait_for("stopped", 1)[0]["lost"], 0);
    // The log has everything that came before its last line.
    let moved = maitred.logged("gave an untaken connection to an idle worker");
    assert_eq!(moved.len(), 20, "{moved:#?}");
    assert!(moved.iter().all(|line| line["to"] == 2), "{moved:#?}");
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn when_all_workers_are_full_the_kernels_queue_holds_the_rest() {
    for depth in ["1", "4"] {
        let maitred = Maitred::start(&["-w", "2", "--depth", depth, "--", &server(), "poll", "0"]).ready(2);
        let address = maitred.address();
        let pids = [maitred.pid(0), maitred.pid(1)];
        pids.iter().for_each(|&pid| kill(pid, SIGSTOP));
        let depth: u64 = depth.parse().unwrap();
        std::thread::scope(|scope| {
            let clients = scope.spawn(|| load(address, 30, 30));
            // On its way to thirty, the kernel's queue may pass that number before anything is accepted.
            let status = maitred.status_until(|s| {
                s["listeners"][0]["queued"].as_u64() == Some(30 - 2 * depth)
                    && per_worker(s, "queued") == [depth, depth]
            });
            assert_eq!(status["totals"]["accepted"], 2 * depth);
            pids.iter().for_each(|&pid| kill(pid, SIGCONT));
            let tally = clients.join().unwrap();
            assert_eq!((tally.answered, tally.hung), (30, 0), "{:?}", tally.failed);
        });
        maitred.stop();
    }
}

#[test]
fn term_and_int_stop_gracefully_and_nothing_is_left_running() {
    for signal in [SIGTERM, SIGINT, SIGQUIT] {
        let maitred = Maitred::start(&["-w", "3", "--", &server(), "poll", "0", "fork=2"]).ready(3);
        let pids: Vec<i32> = (0..3).map(|slot| maitred.pid(slot)).collect();
        let children: Vec<i32> = pids.iter().flat_map(|&pid| children_of(pid)).collect();
        assert_eq!(children.len(), 6);
        let control = maitred.control.clone();
        maitred.signal(signal);
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(0), "{output}");
        assert!(!control.exists(), "the control socket is left behind");
        pids.iter().chain(&children).for_each(|&pid| wait_gone(pid));
    }
}

#[test]
fn workers_that_are_told_with_the_master_are_no_crash() {
    // As systemd does with KillMode=control-group: the master first, and at once everybody else.
    for _ in 0..10 {
        let maitred = Maitred::start(&["-w", "3", "--", &server(), "poll", "0"]).ready(3);
        let pids: Vec<i32> = (0..3).map(|slot| maitred.pid(slot)).collect();
        maitred.signal(SIGTERM);
        pids.into_iter().for_each(|pid| kill(pid, SIGTERM));
        maitred.wait_for("stopped", 1);
        assert_eq!(maitred.logged("worker forked").len(), 3);
        let warnings: Vec<_> = maitred.log().into_iter().filter(|line| line["level"] == "WARN").collect();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(maitred.wait().0.code(), Some(0));
    }
}

#[test]
fn a_graceful_stop_lets_a_request_come_to_its_end() {
    for signal in [SIGTERM, SIGINT, SIGQUIT] {
        let switches = Switches::new();
        let maitred = Maitred::start(&[&["-w", "2", "--"], &*switches.pages(&[])].concat()).ready(2);
        let address = maitred.address();
        std::thread::scope(|scope| {
            let client = scope.spawn(|| get(address, "/wait"));
            maitred.status_until(|s| per_worker(s, "taken").iter().sum::<u64>() == 1);
            maitred.signal(signal);
            maitred.wait_for("stopping", 1);
            // The other one, which has nothing to do, ends.
            maitred.wait_for("worker ended", 1);
            switches.on("go");
            let reply = client.join().unwrap();
            assert!(matches!(&reply, Reply::Body(body) if body.starts_with("slot ")), "{signal}: {reply:?}");
        });
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(0), "{output}");
    }
}

/// The children of a process, as soon as it has some.
fn wait_children(pid: i32) -> Vec<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let children = children_of(pid);
        if !children.is_empty() {
            return children;
        }
        assert!(Instant::now() < deadline, "process {pid} has no child");
        std::thread::yield_now();
    }
}

pub fn children_of(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn deaf(extra: &[&str]) -> Maitred {
    let script = root().join("tests/workers/misbehave.py");
    let command = ["--adapter", "native", "-w", "1", "--", "python3", script.to_str().unwrap(), "deaf"];
    Maitred::start(&[extra, &command].concat()).ready(1)
}

#[test]
fn a_worker_that_will_not_end_is_killed_after_the_grace_time() {
    let maitred = deaf(&["--grace", "300ms"]);
    let begun = Instant::now();
    maitred.signal(SIGTERM);
    maitred.wait_for("killing a worker", 1);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn a_second_signal_kills_at_once_also_after_quit() {
    let cases: [(&[Signal], usize); 2] = [(&[SIGTERM, SIGINT], 0), (&[SIGQUIT, SIGTERM, SIGTERM], 1)];
    for (signals, _) in cases {
        let maitred = deaf(&[]);
        for (sent, &signal) in signals.iter().enumerate() {
            maitred.signal(signal);
            maitred.wait_for("stopping", sent + 1);
        }
        // A repetition at once is taken for the same request, so the last is sent until it is heard.
        let deadline = Instant::now() + PATIENCE;
        while maitred.logged("asked to stop a second time, killing what still runs").is_empty() {
            assert!(Instant::now() < deadline, "a second signal is never heard");
            maitred.signal(signals[signals.len() - 1]);
            // Only so as not to flood the master with signals; the log line is what is waited for.
            std::thread::sleep(Duration::from_millis(100));
        }
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(0), "{output}");
    }
}

#[test]
fn the_stop_signal_can_be_chosen() {
    let script = "import signal, socket, sys
signal.signal(signal.SIGUSR2, lambda *_: (print('asked with USR2', file=sys.stderr), sys.exit(0)))
socket.create_server(('127.0.0.1', 0))
signal.pause()";
    let maitred = Maitred::start(&["-w", "1", "--stop-signal", "USR2", "--", "python3", "-c", script]).ready(1);
    maitred.signal(SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0));
    assert!(output.contains("asked with USR2"), "{output}");
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    maitred.signal(SIGTTIN);
    maitred.wait_for("worker ready", 3);
    check_exact_spread(&maitred, 30, 3);
    maitred.signal(SIGTTOU);
    maitred.status_until(|s| s["workers"].as_array().unwrap().len() == 2);
    check_exact_spread(&maitred, 30, 3);
    maitred.stop();
}

#[test]
fn scaling_under_load_fails_no_connection() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let address = maitred.address();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let clients = scope.spawn(|| load_until(address, 16, &stop));
        for round in 0..5 {
            maitred.signal(SIGTTIN);
            maitred.wait_for("worker ready", 3 + round);
        }
        for round in 0..5 {
            maitred.signal(SIGTTOU);
            maitred.wait_for("worker ended", 1 + round);
        }
        assert_eq!(maitred.status()["workers"].as_array().unwrap().len(), 2);
        drop(stopping);
        let tally = clients.join().unwrap();
        assert_eq!((tally.failed.len(), tally.hung), (0, 0), "{:?}", tally.failed);
    });
    maitred.stop();
}

#[test]
fn no_worker_survives_a_killed_master_even_in_a_busy_loop() {
    let script = root().join("tests/workers/misbehave.py");
    let args = ["-w", "2", "--adapter", "native", "--", "python3", script.to_str().unwrap(), "busy"];
    let mut maitred = Maitred::start(&args).ready(2);
    let pids = [maitred.pid(0), maitred.pid(1)];
    // Each has forked a child that is in a loop, too.
    let children: Vec<i32> = pids.iter().flat_map(|&pid| wait_children(pid)).collect();
    maitred.child.kill().unwrap();
    maitred.child.wait().unwrap();
    pids.iter().chain(&children).for_each(|&pid| wait_gone(pid));
}

#[test]
fn no_grandchild_survives_a_killed_master_either() {
    let line = format!("{} poll 0 fork=2; true", server());
    let mut maitred = Maitred::start(&["-w", "2", "--", "sh", "-c", &line]).ready(2);
    let pids = [maitred.pid(0), maitred.pid(1)];
    let servers: Vec<i32> = pids.iter().flat_map(|&pid| children_of(pid)).collect();
    let grandchildren: Vec<i32> = servers.iter().flat_map(|&pid| children_of(pid)).collect();
    assert_eq!((servers.len(), grandchildren.len()), (2, 4));
    maitred.child.kill().unwrap();
    maitred.child.wait().unwrap();
    pids.iter().chain(&servers).chain(&grandchildren).for_each(|&pid| wait_gone(pid));
}

#[test]
fn a_thousand_workers_later_no_descriptor_is_leaked_and_no_zombie_left() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "poll", "0"]).ready(2);
    let master = maitred.child.id();
    let cycle = |round: usize| {
        maitred.signal(SIGTTIN);
        maitred.wait_for("worker ready", 3 + round);
        maitred.signal(SIGTTOU);
        maitred.wait_for("worker ended", 1 + round);
    };
    // The first ones open what stays open, such as the reactor's own.
    (0..10).for_each(cycle);
    let settled = || maitred.status_until(|s| s["workers"].as_array().unwrap().len() == 2);
    settled();
    let before = descriptors(master);
    (10..1010).for_each(cycle);
    settled();
    // The output thread closes its pipes in its own time.
    let deadline = Instant::now() + PATIENCE;
    while descriptors(master) > before && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(descriptors(master) <= before, "{} descriptors instead of {before}", descriptors(master));
    assert_eq!(zombies_of(master as i32), 0);
    check_exact_spread(&maitred, 30, 3);
    maitred.stop();
}

/// Ended children of a process that it has not reaped.
fn zombies_of(parent: i32) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    let after_name = stats.filter_map(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()));
    after_name.filter(|rest| rest.starts_with(&format!("Z {parent} "))).count()
}

#[test]
fn processes_that_workers_leave_behind_are_reaped() {
    let script = root().join("tests/workers/misbehave.py");
    let args = ["-w", "2", "--adapter", "native", "--", "python3", script.to_str().unwrap(), "orphans"];
    let maitred = Maitred::start(&args).ready(2);
    let master = maitred.child.id() as i32;
    let deadline = Instant::now() + PATIENCE;
    // Two workers and the guard stay.
    while zombies_of(master) > 0 || children_of(master).len() > 3 {
        assert!(Instant::now() < deadline, "{} zombies", zombies_of(master));
        std::thread::yield_now();
    }
    check_exact_spread(&maitred, 10, 1);
    maitred.stop();
}

#[test]
fn lines_of_workers_get_their_slot_when_asked_for() {
    let line = format!("echo out; echo err >&2; exec {} poll 0", server());
    for (prefix, out, err) in [("always", "1| out", "1| err"), ("never", "\nout\n", "\nerr\n")] {
        let maitred = Maitred::start(&["-w", "2", "--prefix", prefix, "--", "sh", "-c", &line]).ready(2);
        maitred.signal(SIGTERM);
        let (_, output) = maitred.wait();
        let output = format!("\n{output}");
        assert!(output.contains(out) && output.contains(err), "{prefix}: {output}");
    }
}

#[test]
fn a_worker_is_scheduled_as_it_would_be_without_us() {
    let maitred = Maitred::start(&["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    // Field 41 of /proc/PID/stat; the name before it may contain anything, so count from its end.
    let policy = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(38).unwrap().to_owned()
    };
    // The tests' own policy is the ordinary one, 0; the master's is SCHED_BATCH, 3.
    assert_eq!(policy(maitred.pid(0)), policy(std::process::id() as i32));
    assert_eq!(policy(maitred.child.id() as i32), "3");
    maitred.stop();
}

#[test]
fn a_worker_finds_its_place_in_its_environment() {
    let script = "import os, socket
server = socket.create_server(('127.0.0.1', 0))
while True:
    c, _ = server.accept()
    c.recv(4096)
    names = ['MAITRED_SLOT', 'NODE_APP_INSTANCE', 'MAITRED_WORKER', 'MAITRED_GENERATION', 'EXTRA']
    words = [os.environ.get(n, '-') for n in names]
    words.append('own' if os.environ['NOTIFY_SOCKET'].startswith('@maitred-') else 'foreign')
    c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + ' '.join(words + [os.getcwd()]).encode())
    c.close()";
    let mut command = maitred();
    command.env("NOTIFY_SOCKET", "/run/not/for/workers");
    let args = ["-w", "2", "--env", "EXTRA=1", "--cwd", "/usr", "--", "python3", "-c", script];
    let maitred = Maitred::start_as(command, &args).ready(2);
    let mut bodies: Vec<_> = (0..2).map(|_| request(maitred.address())).collect();
    bodies.sort_by_key(|body| format!("{body:?}"));
    let expected = ["0 0 1 1 1 own /usr", "1 1 2 1 1 own /usr"].map(|text| Reply::Body(text.into()));
    assert_eq!(bodies, expected, "{:?} {}", maitred.logged("worker ended"), maitred.output());
    // The slot stays, the worker's id grows.
    kill(maitred.pid(0), SIGKILL);
    maitred.wait_for("worker ready", 3);
    let bodies: Vec<_> = (0..2).map(|_| request(maitred.address())).collect();
    assert!(bodies.contains(&Reply::Body("0 0 3 1 1 own /usr".into())), "{bodies:?}");
    maitred.stop();
}

/// Makes commands of an ordinary user with a runtime directory of their own.
fn at_home(name: &str) -> impl Fn(&[&str]) -> std::process::Command {
    let home = scratch(name);
    std::fs::create_dir_all(&home).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    }
    move |words| {
        let mut command = maitred();
        command.env("XDG_RUNTIME_DIR", &home).args(words);
        as_ordinary_user(&mut command);
        command
    }
}

#[test]
fn two_servers_of_one_interpreter_get_two_names() {
    use std::io::BufRead;
    let in_home = at_home("names");
    let line = format!("exec {} poll 0", server());
    let mut children: Vec<_> = (0..2)
        .map(|_| {
            let mut command = in_home(&["-w", "1", "--share-port-zero", "--", "sh", "-c", &line]);
            let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
            let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
            assert!(lines.any(|line| line.contains("worker ready")));
            (child, lines)
        })
        .collect();
    let listed = in_home(&["list", "-q"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "sh\nsh-2\n");
    for (child, _) in &mut children {
        kill(child.id() as i32, SIGTERM);
        assert_eq!(wait_child(child).code(), Some(0));
    }
}

#[test]
fn a_closed_terminal_ends_the_master() {
    // A terminal of its own, closed once a worker serves.
    let script = "import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b''
while b'worker ready' not in seen:
    seen += os.read(terminal, 4096)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let control = scratch("tty.sock");
    let mut command = std::process::Command::new("timeout");
    command.args(["20", "python3", "-c", script]).arg(maitred().get_program());
    command.args(["run", "-w", "1", "--share-port-zero", "--control"]).arg(&control).args([
        "--",
        &server(),
        "poll",
        "0",
    ]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{said}");
}

#[test]
fn list_and_status_find_a_master_by_its_name() {
    let name = format!("listed-{}", std::process::id());
    let in_home = at_home("home");
    let mut child = in_home(&[
        "-w",
        "1",
        "--share-port-zero",
        "--name",
        &name,
        "--log-format",
        "json",
        "--",
        &server(),
        "poll",
        "0",
    ])
    .stderr(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    use std::io::BufRead;
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("worker ready")));
    let listed = in_home(&["list", "-q"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), name);
    // The only one needs no name.
    let status = in_home(&["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["name"], name.as_str());
    let unknown = in_home(&["status", "somebody-else"]).output().unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(said.contains("no maitred named \"somebody-else\"") && said.contains(&name), "{said}");
    // A second master with that name is refused, and the first goes on.
    let second = in_home(&["-q", "-q", "-w", "1", "--name", &name, "--", &server(), "poll", "0"]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(3), "{said}");
    assert!(said.contains("runs already") && said.contains("--name"), "{said}");
    kill(child.id() as i32, SIGTERM);
    assert_eq!(wait_child(&mut child).code(), Some(0));
}

#[test]
fn all_that_node_writes_before_its_end_arrives() {
    const LINES: usize = 20_000;
    let script = format!(
        "require('http').createServer((_, answer) => answer.end()).listen(0, '127.0.0.1');\n\
         process.on('SIGTERM', () => {{\n\
         for (let i = 0; i < {LINES}; i++) console.error(`last word ${{i}} ${{'x'.repeat(40)}}`);\n\
         process.exit(0) }})"
    );
    for prefix in ["never", "always"] {
        let args = ["-w", "1", "--share-port-zero", "--prefix", prefix, "--", "node", "-e", &script];
        let maitred = Maitred::start(&args).ready(1);
        maitred.signal(SIGTERM);
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(0), "{prefix}");
        let arrived = output.lines().filter(|line| line.contains("last word ")).count();
        assert_eq!(arrived, LINES, "{prefix}");
    }
}

#[test]
fn in_shared_mode_a_worker_that_takes_its_time_to_end_does_not_spin() {
    let script = "import os, select, signal, socket, sys
host, port, home = sys.argv[1], int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGTERM, lambda *_: open(home + '/asked', 'w').close())
server = socket.create_server((host, port))
failures = 0
while not os.path.exists(home + '/end'):
    if select.select([server], [], [], 0.02)[0]:
        try:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok')
            connection.close()
        except OSError:
            failures += 1
print('accept failed', failures, 'times', flush=True)";
    for bind in [&["-b", "127.0.0.1:0"][..], &[]] {
        let switches = Switches::new();
        let port = if bind.is_empty() { crate::calls::free_port().to_string() } else { "{port}".to_owned() };
        let command = ["--", "python3", "-c", script, "127.0.0.1", &port, switches.path()];
        let maitred = Maitred::start(&[&["--mode", "shared", "-w", "1"], bind, &command].concat()).ready(1);
        assert!(matches!(request(maitred.address()), Reply::Body(_)));
        let address = maitred.address();
        maitred.signal(SIGTERM);
        switches.wait_for("asked");
        // Nobody gets in any more, and nobody is let down who was.
        let late = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert!(late.is_err(), "{bind:?}");
        switches.on("end");
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(0), "{output}");
        assert!(output.contains("accept failed 0 times"), "{bind:?}: {output}");
    }
}
