//! Workers that do not work are passed over, and come back: stalls, probes, heartbeats, watchdogs. And
//! workers that had their time are replaced.

use crate::kernel::without_privileges;
use crate::support::*;
use nix::sys::signal::Signal::*;
use serde_json::Value;
use std::net::TcpStream;

/// Whether a slot is in this state, for this reason.
fn is(slot: usize, state: &str, reason: Option<&str>) -> impl Fn(&Value) -> bool {
    move |status| {
        let worker = &status["workers"][slot];
        worker["state"] == state && worker["reason"].as_str() == reason
    }
}

/// The slots that answer so many requests, one after the other.
fn slots(maitred: &Maitred, requests: usize) -> Vec<char> {
    let address = maitred.address();
    let slot = |_| match request(address) {
        Reply::Body(body) => body.chars().nth("slot ".len()).unwrap(),
        other => panic!("{other:?}"),
    };
    (0..requests).map(slot).collect()
}

#[test]
fn a_stalled_worker_is_passed_over_and_comes_back() {
    let maitred = Maitred::start(&["-w", "4", "--stall", "300ms", "--", &server(), "poll", "0"]).ready(4);
    let victim = maitred.pid(2);
    maitred.under_load(8, || {
        kill(victim, SIGSTOP);
        let passed = maitred.wait_for("stalled: passing over a worker", 1);
        assert_eq!((&passed[0]["slot"], &passed[0]["because"]), (&2.into(), &"takes no connection".into()));
        let before = maitred.status_until(is(2, "stalled", Some("takes no connection")));
        // The others go on without it, also with what waited for it.
        let after = maitred.status_until(|s| {
            let (now, then) = (per_worker(s, "taken"), per_worker(&before, "taken"));
            [0, 1, 3].iter().all(|&slot| now[slot] > then[slot] + 300)
        });
        assert_eq!(per_worker(&after, "handed")[2], per_worker(&before, "handed")[2], "{after:#}");
        assert_eq!(maitred.logged("stalled: passing over a worker").len(), 1);
        kill(victim, SIGCONT);
        maitred.wait_for("a stalled worker takes connections again", 1);
        let back = maitred.status_until(is(2, "ready", None));
        maitred.status_until(|s| per_worker(s, "handed")[2] > per_worker(&back, "handed")[2] + 100);
    });
    assert_eq!(maitred.pid(2), victim);
    assert_eq!(maitred.logged("worker forked").len(), 4);
    maitred.stop();
}

#[test]
fn in_kernel_mode_a_stalled_worker_is_passed_over_too() {
    let args = ["--mode", "kernel", "-w", "3", "--stall", "300ms", "--", &server(), "epoll", "0"];
    for command in [maitred(), without_privileges()] {
        let maitred = Maitred::start_as(command, &args).ready(3);
        let victim = maitred.pid(1);
        maitred.under_load(8, || {
            // Those that work do not count as stalled, also where the kernel does not count for us.
            let begun = maitred.status()["uptime_s"].as_f64().unwrap();
            maitred.status_until(|s| s["uptime_s"].as_f64().unwrap() > begun + 1.0);
            assert!(maitred.logged("a worker takes none of the connections that wait for it").is_empty());
            kill(victim, SIGSTOP);
            maitred.status_until(is(1, "stalled", Some("takes no connection")));
            // What waits for it already goes on waiting; the kernel has it. Of so many a third would be its own, also
            // where the kernel draws lots.
            assert!(!slots(&maitred, 60).contains(&'1'));
            kill(victim, SIGCONT);
            maitred.status_until(is(1, "ready", None));
        });
        assert_eq!(maitred.pid(1), victim);
        maitred.stop();
    }
}

#[test]
fn what_waits_for_a_stalled_worker_is_given_to_others() {
    let maitred = Maitred::start(&["-w", "2", "--stall", "300ms", "--", &server(), "poll", "0"]).ready(2);
    let victim = maitred.pid(0);
    kill(victim, SIGSTOP);
    // All are answered while it stands still.
    let tally = load(maitred.address(), 20, 20);
    assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
    let status = maitred.status();
    assert!(status["totals"]["rescued"].as_u64().unwrap() >= 1, "{status:#}");
    assert_eq!(status["workers"][0]["state"], "stalled");
    kill(victim, SIGCONT);
    maitred.status_until(is(0, "ready", None));
    maitred.stop();
}

#[test]
fn a_worker_that_stays_stalled_is_killed_and_replaced() {
    let args = ["-w", "3", "--stall", "300ms", "--stall-kill", "500ms", "--", &server(), "poll", "0"];
    let maitred = Maitred::start(&args).ready(3);
    let victim = maitred.pid(1);
    let (tally, ()) = maitred.with_load(8, || {
        kill(victim, SIGSTOP);
        let killed = maitred.wait_for("killing a worker", 1);
        assert_eq!((&killed[0]["because"], &killed[0]["pid"]), (&"Stalled".into(), &victim.into()));
        maitred.wait_for("worker ready", 4);
    });
    // The one that it had taken, at most.
    assert!(tally.failed.len() <= 1 && tally.hung == 0, "{tally:?}");
    wait_gone(victim);
    let status = maitred.status_until(is(1, "ready", None));
    assert_eq!((&status["workers"][1]["restarts"], &status["totals"]["lost"]), (&1.into(), &0.into()));
    maitred.stop();
}

#[test]
fn when_all_are_stalled_nobody_is_passed_over() {
    let maitred = Maitred::start(&["-w", "2", "--stall", "300ms", "--", &server(), "poll", "0"]).ready(2);
    let (address, pids) = (maitred.address(), maitred.pids());
    pids.iter().for_each(|&pid| kill(pid, SIGSTOP));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| load(address, 4, 4));
        maitred.status_until(|s| (0..2).all(|slot| is(slot, "stalled", Some("takes no connection"))(s)));
        let before = per_worker(&maitred.status(), "queued");
        // Both get what comes now.
        let second = scope.spawn(|| load(address, 4, 4));
        maitred.status_until(|s| {
            let queued = per_worker(s, "queued");
            queued[0] >= 2 && queued[1] >= 2 && queued.iter().sum::<u64>() == before.iter().sum::<u64>() + 4
        });
        pids.iter().for_each(|&pid| kill(pid, SIGCONT));
        for clients in [first, second] {
            let tally = clients.join().unwrap();
            assert_eq!((tally.answered, tally.hung), (4, 0), "{:?}", tally.failed);
        }
    });
    maitred.status_until(|s| (0..2).all(|slot| is(slot, "ready", None)(s)));
    assert_eq!(maitred.pids(), pids);
    maitred.stop();
}

#[test]
fn without_a_limit_nobody_counts_as_stalled() {
    let args = ["-w", "2", "--stall", "0", "--probe", "tcp", "--probe-interval", "50ms", "--probe-timeout", "100ms"];
    let maitred = Maitred::start(&[&args[..], &["--", &server(), "poll", "0"]].concat()).ready(2);
    let victim = maitred.pid(0);
    kill(victim, SIGSTOP);
    // A probe says so, and only that.
    maitred.status_until(is(0, "stalled", Some("fails its probe")));
    assert_eq!(slots(&maitred, 4), ['1'; 4]);
    assert!(maitred.logged("a worker takes none of the connections that wait for it").is_empty());
    kill(victim, SIGCONT);
    maitred.status_until(is(0, "ready", None));
    maitred.wait_for("a worker answers its probe again", 1);
    maitred.stop();
}

/// Two workers that are asked how they are.
fn probed(switches: &Switches) -> Maitred {
    switches.on("ready-0");
    switches.on("ready-1");
    let args = ["-w", "2", "--probe", "http:/health", "--probe-interval", "50ms", "--probe-timeout", "1s"];
    let more = ["--probe-fall", "2", "--probe-rise", "3", "--"];
    Maitred::start(&[&args[..], &more, &switches.pages(&[])].concat()).ready(2)
}

#[test]
fn a_worker_whose_probe_answers_500_is_passed_over_until_it_is_well() {
    let switches = Switches::new();
    let maitred = probed(&switches);
    let pids = maitred.pids();
    switches.on("ill-1");
    maitred.status_until(is(1, "stalled", Some("fails its probe")));
    let failed = maitred.wait_for("a worker failed its probe", 2);
    assert_eq!((failed.len(), &failed[1]["why"]), (2, &"it answered with status 500".into()));
    assert!(failed.iter().all(|entry| entry["slot"] == 1), "{failed:?}");
    assert_eq!(slots(&maitred, 10), ['0'; 10]);
    switches.off("ill-1");
    maitred.status_until(is(1, "ready", None));
    let ten = slots(&maitred, 10);
    assert_eq!(ten.iter().filter(|&&slot| slot == '1').count(), 5, "{ten:?}");
    assert_eq!(maitred.pids(), pids);
    // Only clients are counted.
    assert_eq!(maitred.status()["totals"]["accepted"], 20);
    maitred.stop();
}

#[test]
fn a_worker_that_does_not_answer_its_probe_is_passed_over() {
    let switches = Switches::new();
    let maitred = probed(&switches);
    switches.on("mute-0");
    maitred.status_until(is(0, "stalled", Some("fails its probe")));
    assert_eq!(maitred.wait_for("a worker failed its probe", 1)[0]["why"], "it gave no answer within 1s");
    assert_eq!(slots(&maitred, 4), ['1'; 4]);
    switches.off("mute-0");
    maitred.status_until(is(0, "ready", None));
    maitred.stop();
}

#[test]
fn a_probe_that_all_fail_keeps_nobody_from_clients() {
    let switches = Switches::new();
    let maitred = probed(&switches);
    switches.on("ill-0");
    switches.on("ill-1");
    maitred.status_until(|s| (0..2).all(|slot| is(slot, "stalled", Some("fails its probe"))(s)));
    let four = slots(&maitred, 4);
    assert_eq!(four.iter().filter(|&&slot| slot == '1').count(), 2, "{four:?}");
    maitred.stop();
}

/// Speaks the protocol and answers `PING` unless a file says not to.
const NATIVE: &str = "import os, pathlib, socket, sys, threading
slot, home = os.environ['MAITRED_SLOT'], pathlib.Path(sys.argv[1])
channel = socket.socket(fileno=int(os.environ['MAITRED_CHANNEL']))
channel.send(b'LISTEN=tcp:127.0.0.1:0\\nID=1\\n')
while True:
    text, fds, _, _ = socket.recv_fds(channel, 4096, 1)
    if fds:
        break
door = socket.socket(fileno=fds[0])
channel.send(b'ACCEPTING=tcp:127.0.0.1:0\\nID=1\\n')
def pong():
    while True:
        for line in channel.recv(4096).decode().splitlines():
            if line.startswith('PING=') and not (home / f'mute-{slot}').exists():
                channel.send(f'PONG={line[5:]}\\n'.encode())
                (home / f'answered-{slot}').touch()
threading.Thread(target=pong, daemon=True).start()
while True:
    _, fds, _, _ = socket.recv_fds(door, 128, 1)
    if not fds:
        break
    with socket.socket(fileno=fds[0]) as connection:
        connection.recv(4096)
        connection.sendall(f'HTTP/1.1 200 OK\\r\\n\\r\\nslot {slot}'.encode())";

#[test]
fn a_worker_that_stops_to_answer_pings_is_passed_over_until_it_does_again() {
    let switches = Switches::new();
    let args = ["-w", "2", "--adapter", "native", "--heartbeat", "500ms", "--", "python3", "-c", NATIVE];
    let maitred = Maitred::start(&[&args[..], &[switches.path()]].concat()).ready(2);
    // It must have answered once to be held to it.
    switches.wait_for("answered-1");
    switches.on("mute-1");
    maitred.status_until(is(1, "stalled", Some("does not answer PING")));
    assert_eq!(slots(&maitred, 6), ['0'; 6]);
    switches.off("mute-1");
    maitred.wait_for("a worker answers PING again", 1);
    maitred.status_until(is(1, "ready", None));
    maitred.stop();
}

#[test]
fn workers_that_know_no_ping_are_not_held_to_it() {
    let maitred =
        Maitred::start(&["-w", "2", "--heartbeat", "20ms", "--max-age", "2s", "--", &server(), "poll", "0"]).ready(2);
    // Long enough for a hundred of them.
    maitred.wait_for("a worker had its time, replacing it", 1);
    assert!(maitred.logged("stalled: passing over a worker").is_empty());
    maitred.stop();
}

#[test]
fn a_worker_that_misses_its_watchdog_is_killed_and_replaced() {
    let switches = Switches::new();
    let args = ["-w", "2", "--watchdog", "2s", "--"];
    let maitred = Maitred::start(&[&args[..], &switches.pages(&["watchdog"])].concat()).ready(2);
    let before = maitred.pids();
    switches.on("mute-0");
    let missed = maitred.wait_for("a worker missed its watchdog", 1);
    assert_eq!(missed[0]["slot"], 0);
    let killed = maitred.wait_for("killing a worker", 1);
    assert_eq!((&killed[0]["because"], &killed[0]["pid"]), (&"Watchdog".into(), &before[0].into()));
    switches.off("mute-0");
    maitred.wait_for("worker ready", 3);
    assert_eq!(maitred.pid(1), before[1]);
    maitred.stop();
}

#[test]
fn workers_that_never_feed_a_watchdog_are_not_held_to_it() {
    let maitred =
        Maitred::start(&["-w", "1", "--watchdog", "50ms", "--max-age", "1s", "--", &server(), "poll", "0"]).ready(1);
    maitred.wait_for("a worker had its time, replacing it", 1);
    assert!(maitred.logged("a worker missed its watchdog").is_empty());
    maitred.stop();
}

#[test]
fn workers_that_had_their_connections_are_replaced_under_load() {
    let maitred = Maitred::start(&["-w", "3", "--max-connections", "200", "--", &server(), "poll", "0"]).ready(3);
    let before = maitred.pids();
    let replaced = maitred.under_load(8, || maitred.wait_for("a worker had its time, replacing it", 6));
    for entry in replaced {
        assert!(entry["connections"].as_u64().unwrap() >= 180, "{entry}");
    }
    maitred.wait_for("worker ended", 5);
    before.into_iter().for_each(wait_gone);
    let status = maitred.status();
    assert!(per_worker(&status, "restarts").iter().all(|&restarts| restarts >= 1), "{status:#}");
    assert_eq!((&status["generation"], maitred.logged("killing a worker").len()), (&1.into(), 0));
    maitred.stop();
}

#[test]
fn old_workers_are_replaced_under_load() {
    let maitred = Maitred::start(&["-w", "2", "--max-age", "1s", "--", &server(), "poll", "0"]).ready(2);
    let before = maitred.pids();
    maitred.under_load(4, || {
        maitred.wait_for("a worker had its time, replacing it", 4);
        maitred.wait_for("worker ready", 6);
    });
    before.into_iter().for_each(wait_gone);
    for entry in maitred.logged("worker ended") {
        let uptime: u64 = entry["uptime_ms"].as_u64().unwrap();
        assert!(uptime >= 900, "{entry}");
    }
    maitred.stop();
}

#[test]
fn a_worker_that_has_grown_is_replaced_under_load() {
    let switches = Switches::new();
    let maitred = Maitred::start(&[&["-w", "2", "--max-rss", "100M", "--"], &*switches.pages(&[])].concat()).ready(2);
    let before = maitred.pids();
    assert!(matches!(get(maitred.address(), "/grow"), Reply::Body(body) if body.starts_with("slot 0 ")));
    maitred.under_load(2, || {
        let grown = maitred.wait_for("a worker has grown too big, replacing it", 1);
        assert_eq!(grown[0]["slot"], 0);
        assert!(grown[0]["rss_bytes"].as_u64().unwrap() > 128 << 20, "{grown:?}");
        wait_gone(before[0]);
    });
    let status = maitred.status_until(is(0, "ready", None));
    assert!(status["workers"][0]["rss_bytes"].as_u64().unwrap() < 90 << 20, "{status:#}");
    assert_eq!(maitred.pid(1), before[1]);
    maitred.stop();
}

#[test]
fn an_open_connection_keeps_a_worker_that_had_its_time() {
    let args = ["-w", "1", "--max-connections", "2", "--grace", "20s", "--"];
    let switches = Switches::new();
    let maitred = Maitred::start(&[&args[..], &switches.pages(&[])].concat()).ready(1);
    let (address, old) = (maitred.address(), maitred.pid(0));
    let open = TcpStream::connect(address).unwrap();
    maitred.status_until(|s| per_worker(s, "taken") == [1]);
    assert!(matches!(request(address), Reply::Body(_)));
    let status = maitred.status_until(|s| s["leaving"][0]["open"] == 1 && s["workers"][0]["state"] == "ready");
    assert_eq!(status["leaving"][0]["pid"], old);
    assert!(matches!(exchange(open, PATIENCE), Reply::Body(body) if body.contains(&format!("process {old} "))));
    wait_gone(old);
    maitred.stop();
}

#[test]
fn what_the_master_lays_before_a_stalled_worker_is_no_clients_connection() {
    let args = ["-w", "2", "--stall", "200ms", "--grace", "1s", "--", &server(), "epoll", "0"];
    let maitred = Maitred::start(&args).ready(2);
    let victim = maitred.pid(0);
    kill(victim, SIGSTOP);
    let tally = load(maitred.address(), 20, 4);
    assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
    // The clients' connections are gone from there, and one of the master's own waits.
    let status = maitred.status_until(|s| s["workers"][0]["state"] == "stalled" && s["workers"][0]["queued"] == 1);
    let rescued = status["totals"]["rescued"].clone();
    kill(victim, SIGKILL);
    maitred.status_until(|s| s["workers"][0]["state"] == "ready" && s["workers"][0]["id"] == 3);
    let totals = maitred.status()["totals"].clone();
    assert_eq!((&totals["rescued"], &totals["lost"]), (&rescued, &0.into()), "{totals}");
    // The same when the fleet ends while it waits.
    kill(maitred.pid(1), SIGSTOP);
    let tally = load(maitred.address(), 20, 4);
    assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
    maitred.status_until(|s| s["workers"][1]["state"] == "stalled" && s["workers"][1]["queued"] == 1);
    maitred.signal(nix::sys::signal::SIGTERM);
    assert_eq!(maitred.wait_for("stopped", 1)[0]["lost"], 0);
}
