//! Other workers in the place of those that run: nobody's request is lost, whether the new ones are good
//! or not.

use crate::support::*;
use nix::sys::signal::Signal::*;
use std::path::PathBuf;

/// A configuration file that can be written again.
struct File(PathBuf);

impl File {
    fn new(options: &str, command: &[&str], env: &str) -> File {
        let file = File(scratch("maitred.toml"));
        file.write(options, command, env);
        file
    }

    fn write(&self, options: &str, command: &[&str], env: &str) {
        // A list of plain texts looks the same in JSON and in TOML.
        let command = serde_json::to_string(command).unwrap();
        std::fs::write(&self.0, format!("{options}\ncommand = {command}\n[env]\n{env}\n")).unwrap();
    }

    fn run(&self) -> Maitred {
        Maitred::start(&["--config", self.0.to_str().unwrap()])
    }
}

fn body(maitred: &Maitred) -> String {
    match request(maitred.address()) {
        Reply::Body(body) => body,
        other => panic!("{other:?}"),
    }
}

fn generations(maitred: &Maitred) -> Vec<u64> {
    per_worker(&maitred.status(), "generation")
}

#[test]
fn every_kind_of_reload_under_load_fails_no_connection() {
    let maitred = Maitred::start(&["-w", "4", "--", &server(), "poll", "0"]).ready(4);
    let before = maitred.pids();
    maitred.under_load(8, || {
        maitred.signal(SIGHUP);
        maitred.wait_for("reload done: the new generation serves", 1);
        assert_eq!(generations(&maitred), [2; 4]);
        let pids = maitred.pids();
        assert!(before.iter().all(|pid| !pids.contains(pid)), "{before:?} {pids:?}");
        assert_eq!(maitred.told(&["reload", "--wait"]), "generation 3 serves");
        assert_eq!(maitred.told(&["reload", "--fleet", "--wait"]), "generation 4 serves");
        assert_eq!(maitred.told(&["restart", "--wait"]), "generation 5 serves");
        // While workers of four generations live, one more would have to wait.
        maitred.status_until(|s| s["leaving"].as_array().unwrap().is_empty());
        assert_eq!(maitred.told(&["reload"]), "reloading: generation 6 starts");
        maitred.wait_for("reload done: the new generation serves", 5);
        assert_eq!(generations(&maitred), [6; 4]);
    });
    before.into_iter().for_each(wait_gone);
    let status = maitred.status_until(|s| s["leaving"].as_array().unwrap().is_empty());
    assert_eq!((&status["generation"], &status["reloading"]), (&6.into(), &serde_json::Value::Null));
    assert_eq!(status["last_reload"], "generation 6 serves");
    assert_eq!(maitred.logged("worker forked").len(), 6 * 4);
    assert!(maitred.logged("killing a worker").is_empty());
    maitred.stop();
}

#[test]
fn in_kernel_mode_a_reload_under_load_fails_no_connection_either() {
    let maitred = Maitred::start(&["--mode", "kernel", "-w", "3", "--", &server(), "epoll", "0"]).ready(3);
    let before = maitred.pids();
    maitred.under_load(8, || {
        assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
    });
    assert_eq!(generations(&maitred), [2; 3]);
    before.into_iter().for_each(wait_gone);
    maitred.stop();
}

#[test]
fn a_reload_of_node_under_load_fails_no_connection() {
    let script = root().join("worker-examples/unaware.js");
    let maitred = Maitred::start(&["-w", "2", "--", "node", script.to_str().unwrap(), "0"]).ready(2);
    maitred.under_load(4, || {
        assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
    });
    assert_eq!(generations(&maitred), [2, 2]);
    maitred.stop();
}

#[test]
fn a_new_generation_that_is_no_good_changes_nothing() {
    let switches = Switches::new();
    let options = "workers = 2\nboot-timeout = \"5s\"";
    let server = server();
    let good = [&*server, "poll", "0"];
    let elsewhere = [&switches.pages(&[])[..2], &["127.0.0.2:0", switches.path()]].concat();
    let file = File::new(options, &good, "");
    let maitred = file.run().ready(2);
    let before = maitred.pids();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["no-such-command-anywhere"], &["no-such-command-anywhere", "spelling"]),
        (
            &["sh", "-c", "echo 'out of cheese' >&2; exit 7"],
            &["generation 2 was given up", "exit status 7", "out of cheese"],
        ),
        (&["sh", "-c", "kill -9 $$"], &["generation 3 was given up", "ended before it was ready", "signal 9"]),
        (
            &["sh", "-c", "echo 'busy thinking' >&2; exec sleep 1000"],
            &["generation 4 was given up", "not ready in time", "busy thinking"],
        ),
        (&elsewhere, &["generation 5 was given up", "listens on", "127.0.0.2", "restart"]),
    ];
    maitred.under_load(4, || {
        for (command, words) in cases {
            file.write(options, command, "");
            let why = maitred.refused(&["reload", "--wait"]);
            for word in words.iter().chain(&["serve on"]) {
                assert!(why.contains(word), "{word:?} is missing in {why:?}");
            }
            let status = maitred.status();
            assert_eq!(maitred.pids(), before, "{command:?}");
            assert_eq!((&status["generation"], &status["reloading"]), (&1.into(), &serde_json::Value::Null));
        }
    });
    let status = maitred.status();
    assert!(status["last_reload"].as_str().unwrap().starts_with("generation 5 was given up"), "{status:#}");
    // What was started in vain is gone.
    maitred.status_until(|s| s["leaving"].as_array().unwrap().is_empty());
    let forked = maitred.wait_for("worker forked", 6);
    let tried: Vec<i32> = forked.iter().skip(2).map(|entry| entry["pid"].as_i64().unwrap() as i32).collect();
    assert_eq!(tried.len(), 4, "{forked:?}");
    tried.into_iter().for_each(wait_gone);
    // The next good one serves.
    file.write(options, &good, "");
    assert_eq!(maitred.told(&["reload", "--wait"]), "generation 6 serves");
    maitred.stop();
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_before_anything_is_touched() {
    let server = server();
    let command = [&*server, "poll", "0"];
    let file = File::new("workers = 2", &command, "");
    let maitred = file.run().ready(2);
    let before = maitred.pids();
    let bad = [
        ("workers = ", "maitred.toml"),
        ("workers = 0", "0 workers would serve nobody"),
        ("no-such-option = 1", "unknown key \"no-such-option\""),
        ("grace = 1.5", "grace has a value that no option takes"),
        ("cwd = \"/no/such/dir\"", "/no/such/dir"),
    ];
    for (refusals, (options, word)) in (2..).step_by(2).zip(bad) {
        file.write(options, &command, "");
        let why = maitred.refused(&["reload"]);
        assert!(why.contains(word) && why.contains("serve on") && !why.contains('\n'), "{options}: {why:?}");
        maitred.signal(SIGHUP);
        // One at a time: a signal that comes while the same one waits is lost.
        maitred.wait_for("cannot reload; the running workers serve on", refusals);
    }
    std::fs::remove_file(&file.0).unwrap();
    let why = maitred.refused(&["reload"]);
    assert!(why.contains("cannot read") && why.contains("maitred.toml"), "{why:?}");
    assert_eq!(maitred.pids(), before);
    assert_eq!(maitred.logged("worker forked").len(), 2);
    maitred.stop();
}

#[test]
fn a_new_command_its_environment_and_number_take_effect() {
    let (one, two) = (Switches::new(), Switches::new());
    let file = File::new("workers = 1", &one.pages(&[]), "GREETING = \"hello\"");
    let maitred = file.run().ready(1);
    assert!(body(&maitred).contains("generation 1 ") && body(&maitred).contains(" hello "), "{}", body(&maitred));
    file.write("workers = 2", &two.pages(&[]), "GREETING = \"good evening\"");
    // Nothing changes before somebody asks.
    assert!(body(&maitred).contains(" hello "));
    maitred.told(&["reload", "--wait"]);
    let mut bodies = [body(&maitred), body(&maitred)];
    bodies.sort();
    for (slot, body) in bodies.iter().enumerate() {
        assert!(body.starts_with(&format!("slot {slot} generation 2 ")), "{bodies:?}");
        assert!(body.contains(" good evening "), "{bodies:?}");
    }
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", maitred.pid(0))).unwrap();
    assert!(command.contains(two.path()), "{command:?}");
    // Who is forked again belongs to the new generation.
    kill(maitred.pid(1), SIGKILL);
    maitred.wait_for("worker ready", 4);
    assert!([body(&maitred), body(&maitred)].iter().all(|body| body.contains(" good evening ")));
    maitred.stop();
}

#[test]
fn what_was_typed_wins_over_the_file_and_what_cannot_change_is_named() {
    let server = server();
    let command = [&*server, "poll", "0"];
    let file = File::new("workers = 1\ndepth = 7", &command, "");
    let maitred = Maitred::start(&["-w", "2", "--config", file.0.to_str().unwrap()]).ready(2);
    assert_eq!(maitred.status()["depth"], 7);
    file.write("workers = 3\ndepth = 9\nmode = \"shared\"\nbind = \"127.0.0.1:0\"\nname = \"another\"", &command, "");
    maitred.told(&["reload", "--wait"]);
    let warned = maitred.wait_for("these options cannot change while maitred runs; the old values stay", 1);
    let kept = warned[0]["kept"].as_str().unwrap();
    for option in ["depth", "mode", "bind", "name"] {
        assert!(kept.contains(option), "{option}: {kept}");
    }
    let status = maitred.status();
    assert_eq!((&status["depth"], &status["mode"]), (&7.into(), &"handoff".into()));
    assert_eq!(status["workers"].as_array().unwrap().len(), 2, "{status:#}");
    maitred.stop();
}

/// Two workers of generation 1, each of which is ready when its switch says so.
fn gated(switches: &Switches) -> Maitred {
    let gates = ["ready-0", "ready-1"];
    gates.iter().for_each(|gate| switches.on(gate));
    let maitred = Maitred::start(&[&["-w", "2", "--ready", "notify", "--"], &*switches.pages(&["notify"])].concat());
    maitred.wait_for("worker counts as ready", 2);
    gates.iter().for_each(|gate| switches.off(gate));
    maitred
}

#[test]
fn the_first_new_worker_goes_ahead_alone_and_the_old_one_serves_until_it_is_ready() {
    let switches = Switches::new();
    let maitred = gated(&switches);
    let before = maitred.pids();
    assert_eq!(maitred.told(&["reload"]), "reloading: generation 2 starts");
    maitred.wait_for("worker listens", 3);
    let status = maitred.status();
    assert_eq!((&status["reloading"], &status["generation"]), (&2.into(), &1.into()));
    assert_eq!((maitred.pids(), maitred.logged("worker forked").len()), (before.clone(), 3));
    (0..4).for_each(|_| assert!(body(&maitred).contains("generation 1 ")));
    switches.on("ready-0");
    maitred.wait_for("the first worker of the new generation serves", 1);
    wait_gone(before[0]);
    maitred.wait_for("worker listens", 4);
    // The other old one serves on.
    assert_eq!(maitred.pid(1), before[1]);
    switches.on("ready-1");
    maitred.wait_for("reload done: the new generation serves", 1);
    assert_eq!(maitred.logged("worker forked").len(), 4);
    maitred.stop();
}

#[test]
fn reloads_that_are_asked_for_meanwhile_become_one() {
    let switches = Switches::new();
    let maitred = gated(&switches);
    maitred.told(&["reload"]);
    assert_eq!(maitred.told(&["reload"]), "reloading: generation 2 starts");
    maitred.signal(SIGHUP);
    maitred.wait_for("a reload waits until the one under way is done", 2);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| maitred.told(&["reload", "--wait"]));
        maitred.wait_for("a reload waits until the one under way is done", 3);
        switches.on("ready-0");
        switches.on("ready-1");
        assert_eq!(waiter.join().unwrap(), "generation 3 serves");
    });
    assert_eq!(generations(&maitred), [3, 3]);
    assert_eq!(maitred.wait_for("reload done: the new generation serves", 2).len(), 2);
    assert_eq!(maitred.logged("worker forked").len(), 6);
    maitred.stop();
}

#[test]
fn a_fleet_comes_all_at_once() {
    let switches = Switches::new();
    let maitred = gated(&switches);
    let before = maitred.pids();
    maitred.told(&["reload", "--fleet"]);
    maitred.wait_for("worker listens", 4);
    switches.on("ready-1");
    maitred.wait_for("worker counts as ready", 3);
    // One is ready and waits for the other.
    (0..4).for_each(|_| assert!(body(&maitred).contains("generation 1 ")));
    assert_eq!(maitred.pids(), before);
    switches.on("ready-0");
    maitred.wait_for("reload done: the new generation serves", 1);
    (0..4).for_each(|_| assert!(body(&maitred).contains("generation 2 ")));
    before.into_iter().for_each(wait_gone);
    maitred.stop();
}

#[test]
fn a_fleet_of_which_one_fails_does_not_come_at_all() {
    let switches = Switches::new();
    let maitred = gated(&switches);
    let before = maitred.pids();
    let why = std::thread::scope(|scope| {
        let asked = scope.spawn(|| maitred.refused(&["reload", "--fleet", "--wait"]));
        maitred.wait_for("worker listens", 4);
        switches.on("ready-0");
        maitred.wait_for("worker counts as ready", 3);
        let last = maitred.wait_for("worker forked", 4)[3]["pid"].as_i64().unwrap();
        kill(last as i32, SIGKILL);
        asked.join().unwrap()
    });
    assert!(why.contains("generation 2 was given up") && why.contains("signal 9"), "{why:?}");
    (0..4).for_each(|_| assert!(body(&maitred).contains("generation 1 ")));
    assert_eq!(maitred.pids(), before);
    // Nobody of the new generation is left behind.
    maitred.status_until(|s| s["leaving"].as_array().unwrap().is_empty());
    for entry in &maitred.logged("worker forked")[2..] {
        wait_gone(entry["pid"].as_i64().unwrap() as i32);
    }
    maitred.stop();
}

#[test]
fn a_restart_may_change_the_address() {
    let switches = Switches::new();
    let file = File::new("workers = 2", &switches.pages(&[]), "");
    let maitred = file.run().ready(2);
    let (old, before) = (maitred.address(), maitred.pids());
    file.write("workers = 2", &[&switches.pages(&[])[..2], &["127.0.0.2:0", switches.path()]].concat(), "");
    assert_eq!(maitred.told(&["restart", "--wait"]), "generation 2 serves");
    before.into_iter().for_each(wait_gone);
    let status = maitred.status_until(|s| s["listeners"].as_array().unwrap().len() == 1);
    let new = tcp(&status["listeners"][0]["address"]);
    assert_eq!(new.ip().to_string(), "127.0.0.2");
    assert!(matches!(request(new), Reply::Body(body) if body.contains("generation 2 ")));
    // Nobody serves the old one, so nobody holds it.
    assert_eq!(request(old), Reply::Failed("connect: Connection refused (os error 111)".into()));
    maitred.stop();
}

#[test]
fn another_number_of_workers_during_a_reload_is_of_the_new_generation_in_the_end() {
    for (size, generations_after) in [("3", vec![2, 2, 2]), ("1", vec![2])] {
        let switches = Switches::new();
        let maitred = gated(&switches);
        maitred.told(&["reload"]);
        maitred.wait_for("worker listens", 3);
        maitred.told(&["scale", size]);
        ["ready-0", "ready-1", "ready-2"].iter().for_each(|gate| switches.on(gate));
        maitred.wait_for("reload done: the new generation serves", 1);
        let settled = |s: &serde_json::Value| {
            per_worker(s, "generation") == generations_after
                && s["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready")
        };
        maitred.status_until(settled);
        maitred.stop();
    }
}

#[test]
fn who_waits_for_a_reload_is_told_when_the_master_stops_instead() {
    let switches = Switches::new();
    let maitred = gated(&switches);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| maitred.refused(&["reload", "--wait"]));
        maitred.wait_for("worker listens", 3);
        assert_eq!(maitred.told(&["stop"]), "stopping");
        let why = asked.join().unwrap();
        assert!(why.contains("the workers are being stopped"), "{why:?}");
    });
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn one_slot_after_the_other_is_replaced_with_a_surge_or_with_a_gap() {
    for (surge, unavailable) in [("1", "0"), ("0", "1")] {
        let options = ["-w", "3", "--max-surge", surge, "--max-unavailable", unavailable, "--"];
        let maitred = Maitred::start(&[&options[..], &[&server(), "poll", "0"]].concat()).ready(3);
        maitred.under_load(4, || maitred.told(&["reload", "--wait"]));
        assert_eq!(generations(&maitred), [2, 2, 2]);
        maitred.wait_for("worker ended", 3);
        // The next is forked only when the last one is ready, which with a gap the log says right after.
        let log = maitred.log();
        let new = log.iter().skip_while(|entry| entry["message"] != "reload begins");
        let (mut forked, mut ready) = (0, 0);
        for entry in new {
            forked += u32::from(entry["message"] == "worker forked");
            ready += u32::from(entry["message"] == "worker ready");
            assert!(forked <= ready + if surge == "1" { 1 } else { 2 }, "{log:#?}");
        }
        assert_eq!((forked, ready), (3, 3), "{log:#?}");
        maitred.stop();
    }
}

/// A server of which one at a time can run, as its lock says.
fn locked() -> (Vec<String>, PathBuf) {
    let lock = scratch("lock");
    let line = format!(
        "exec 9>{}; flock -n 9 || {{ echo 'another server is already running' >&2; exit 1; }}; exec {} poll 0",
        lock.display(),
        server()
    );
    (vec!["sh".to_owned(), "-c".to_owned(), line], lock)
}

#[test]
fn a_server_with_a_lock_can_be_restarted_and_a_refused_reload_says_how() {
    let (command, lock) = locked();
    let words: Vec<&str> = ["-w", "1", "--"].into_iter().chain(command.iter().map(String::as_str)).collect();
    let maitred = Maitred::start(&words).ready(1);
    let why = maitred.refused(&["reload", "--wait"]);
    for word in ["already running", "maitred restart", "--max-surge 0 --max-unavailable 1", "serve on"] {
        assert!(why.contains(word), "{why}");
    }
    maitred.under_load(4, || assert_eq!(maitred.told(&["restart", "--wait"]), "generation 3 serves"));
    maitred.stop();
    let old_first = [&["--max-surge", "0", "--max-unavailable", "1"], &words[..]].concat();
    let maitred = Maitred::start(&old_first).ready(1);
    maitred.under_load(4, || assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves"));
    maitred.stop();
    std::fs::remove_file(lock).unwrap();
}

#[test]
fn a_restart_takes_one_slot_at_a_time() {
    let maitred = Maitred::start(&["-w", "3", "--", &server(), "poll", "0"]).ready(3);
    let before = maitred.pids();
    maitred.under_load(4, || {
        assert_eq!(maitred.told(&["restart", "--wait"]), "generation 2 serves");
    });
    // As the log has it: each old one ends before the next one is asked to.
    let log = maitred.log();
    let of = |entry: &serde_json::Value| entry["pid"].as_i64().map(|pid| pid as i32);
    let ends = |entry: &&serde_json::Value| {
        let message = entry["message"].as_str().unwrap_or_default();
        ["asking a worker to end", "worker ended"].contains(&message)
            && of(entry).is_some_and(|pid| before.contains(&pid))
    };
    let order: Vec<i32> = log.iter().filter(ends).filter_map(of).collect();
    assert_eq!(order, before.iter().flat_map(|pid| [*pid, *pid]).collect::<Vec<_>>());
    maitred.stop();
}

/// Reloads workers of which each has its second address late, while clients use that one.
fn check_late(maitred: &Maitred, switches: &Switches, address: std::net::SocketAddr) {
    switches.off("main");
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| maitred.told(&["reload", "--wait"]));
        maitred.wait_for("reload begins", 1);
        // Longer than any program takes that opens its addresses one after the other.
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(2500) {
            assert!(matches!(request(address), Reply::Body(_)), "the old ones have left");
        }
        assert!(!reload.is_finished(), "the new worker has only one of two addresses");
        switches.on("main");
        while !reload.is_finished() {
            assert!(matches!(request(address), Reply::Body(_)), "the old ones have left");
        }
        assert_eq!(reload.join().unwrap(), "generation 2 serves");
    });
}

#[test]
fn a_new_worker_may_take_its_time_for_the_second_address() {
    let switches = Switches::new();
    switches.on("main");
    let maitred =
        Maitred::start(&[&["-w", "2", "-b", "127.0.0.1:0", "--"], &on_port(&switches.pages(&["health"]))[..]].concat())
            .ready(2);
    check_late(&maitred, &switches, maitred.address());
    maitred.stop();
}

#[test]
fn an_address_that_all_workers_open_late_is_awaited_at_a_reload() {
    let switches = Switches::new();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], crate::calls::free_port()));
    let at = address.to_string();
    let command: Vec<&str> = switches.pages(&["health"]);
    let command: Vec<&str> = command.into_iter().map(|word| if word == "127.0.0.1:0" { &at } else { word }).collect();
    let maitred = Maitred::start(&[&["-w", "2", "--"], &command[..]].concat()).ready(2);
    maitred.status_until(|s| s["workers"].as_array().unwrap().iter().all(|w| w["uptime_s"].as_f64().unwrap() > 1.5));
    switches.on("main");
    maitred.wait_for("worker ready", 4);
    check_late(&maitred, &switches, address);
    maitred.stop();
}

fn on_port<'a>(command: &[&'a str]) -> Vec<&'a str> {
    command.iter().map(|word| if *word == "127.0.0.1:0" { "127.0.0.1:{port}" } else { *word }).collect()
}

#[test]
fn a_socket_that_is_named_after_its_process_is_not_expected_of_the_next() {
    for workers in ["1", "2"] {
        let switches = Switches::new();
        let command = [&["-w", workers, "--share-port-zero", "--"], &switches.pages(&["pipe"])[..]].concat();
        let maitred = Maitred::start(&command).ready(workers.parse().unwrap());
        assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves", "{workers} workers");
        maitred.stop();
    }
}

#[test]
fn who_ends_right_after_it_listened_was_never_ready() {
    let server = server();
    let options = "workers = 2\nmax-surge = 0\nmax-unavailable = 1\nmin-ready = \"2s\"\nbind = \"127.0.0.1:0\"";
    let file = File::new(options, &[&server, "poll", "{port}"], "");
    let maitred = file.run().ready(2);
    // It listens, finds another one's pid file, and ends.
    let brief = format!("{server} poll {{port}} & sleep 0.2; kill $!; echo 'there is a pid file' >&2; exit 1");
    file.write(options, &["sh", "-c", &brief], "");
    let why = maitred.refused(&["reload", "--wait"]);
    assert!(why.contains("ended before it was ready") && why.contains("there is a pid file"), "{why}");
    maitred.status_until(|s| s["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready"));
    assert_eq!(generations(&maitred), [1, 1]);
    assert!(matches!(request(maitred.address()), Reply::Body(_)));
    maitred.stop();
}

#[test]
fn a_reload_follows_the_link_through_which_the_working_directory_was_entered() {
    let releases = scratch("releases");
    let (one, two, current) = (releases.join("1"), releases.join("2"), releases.join("current"));
    [&one, &two].into_iter().for_each(|dir| std::fs::create_dir_all(dir).unwrap());
    std::os::unix::fs::symlink(&one, &current).unwrap();
    let script = "import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (os.getcwd() + ' ' + os.environ['PWD']).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(('127.0.0.1', 0), Answer).serve_forever()";
    let mut command = maitred();
    command.current_dir(&current).env("PWD", &current);
    let maitred = Maitred::start_as(command, &["-w", "1", "--", "python3", "-c", script]).ready(1);
    let seen = |release: &PathBuf| format!("{} {}", release.display(), current.display());
    assert_eq!(body(&maitred), seen(&one));
    let next = releases.join("next");
    std::os::unix::fs::symlink(&two, &next).unwrap();
    std::fs::rename(&next, &current).unwrap();
    assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
    assert_eq!(body(&maitred), seen(&two));
    // The next binary knows it, too.
    assert!(maitred.tell(&["upgrade"]).status.success());
    kill(maitred.pid(0), SIGKILL);
    maitred.status_until(|s| s["workers"][0]["state"] == "ready" && s["workers"][0]["restarts"] == 2);
    assert_eq!(body(&maitred), seen(&two));
    maitred.stop();
}
