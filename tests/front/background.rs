//! Apps in the background: how they are started, found, shown, stopped and forgotten, and where their lines go. All of it
//! as an ordinary user with a home of their own.

use crate::home::{Home, body, pages};
use crate::support::*;
use nix::sys::signal::Signal::*;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[test]
fn an_app_is_started_shown_changed_stopped_started_again_and_forgotten() {
    let home = Home::new();
    let (address, pid) = home.start("web", &["--env", "GREETING=secret"]);
    assert!(body(address, "/one").ends_with(" secret"));
    let row = home.row("web");
    assert_eq!((&row["state"], &row["workers_ready"], &row["workers_wanted"]), (&"ready".into(), &2.into(), &2.into()));
    assert_eq!((&row["remembered"], &row["mode"]), (&true.into(), &"handoff".into()));
    let table = home.said(&["ls"]);
    let line = table.lines().nth(1).unwrap();
    assert!(line.starts_with("web") && line.contains("ready") && line.contains("2/2"), "{table}");

    home.wait_for_line("web", "out", "out /one");
    home.wait_for_line("web", "err", "err /one");
    let logs = home.said(&["logs", "web", "-n", "3"]);
    assert!(logs.contains("\nout /one") && logs.contains("\nerr /one") && logs.contains("worker ready"), "{logs}");
    assert_eq!(home.said(&["logs", "web", "--err"]), "err /one");

    // A variable's value is shown nowhere, and only its user can read it.
    let described = home.said(&["describe", "web"]);
    assert!(described.contains("GREETING=...") && !described.contains("secret"), "{described}");
    assert!(described.contains(root().to_str().unwrap()) && described.contains("handoff mode"), "{described}");
    let state = home.0.join("state/maitred/apps/web.json");
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&state).unwrap();
    assert!(text.contains("GREETING=secret") && !text.contains("PATH"), "{text}");

    let old = body(address, "/two");
    assert_eq!(home.said(&["reload", "web", "--wait"]), "generation 2 serves");
    assert_eq!(home.said(&["restart", "web", "--wait"]), "generation 3 serves");
    assert_ne!(body(address, "/three"), old);
    home.said(&["scale", "web", "3"]);
    assert_eq!(home.row("web")["workers_wanted"], 3);
    home.said(&["upgrade", "web"]);
    home.wait_for_line("web", "out", "out /three");
    body(address, "/upgraded");
    home.wait_for_line("web", "out", "out /upgraded");

    assert_eq!(home.said(&["stop", "web", "--wait"]), "web has ended");
    assert!(!runs(pid));
    let row = home.row("web");
    assert_eq!((&row["state"], &row["pid"]), (&"stopped".into(), &Value::Null));
    assert!(home.said(&["describe", "web"]).contains("stopped"));
    assert_eq!(home.said(&["stop", "web"]), "web does not run");

    assert!(home.said(&["start", "web"]).starts_with("web has started"));
    let (address, _) = home.of("web");
    assert!(body(address, "/again").ends_with(" secret"));
    let forgotten = home.said(&["delete", "web"]);
    assert!(forgotten.starts_with("web is forgotten; its logs stay: "), "{forgotten}");
    assert!(home.list().is_empty() && !state.exists() && home.log("web", "out").exists());
    crate::refusals::check(&home.run(&["describe", "web"]), 1, &["no maitred named \"web\""]);
}

#[test]
fn a_start_that_fails_says_why_and_is_shown_as_failed() {
    let home = Home::new();
    let failing = ["start", "--name", "bad", "--", "python3", "tests/workers/chatty.py", "fails"];
    let output = home.run(&failing);
    crate::refusals::check(&output, 3, &["bad: ", "no worker came up"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the database is away") && said.contains("bad/master.log"), "{said}");
    assert_eq!(home.row("bad")["state"], "failed");
    crate::refusals::check(&home.run(&["restart", "bad"]), 1, &["no worker came up"]);
    // Nothing of it runs, and wrong usage is not remembered.
    crate::refusals::check(&home.run(&["start", "--name", "x", "--workers", "many", "--", "true"]), 2, &["many"]);
    crate::refusals::check(&home.run(&["start", "--name", "x", "--cwd", "/none", "--", "true"]), 2, &["/none"]);
    crate::refusals::check(&home.run(&["start", "wbe"]), 3, &["wbe"]);
    crate::refusals::check(&home.run(&["start", "--name", "all", "--", "true"]), 2, &["all means all"]);
    assert_eq!(home.list().len(), 1);
    home.said(&["delete", "bad"]);
    assert!(home.list().is_empty());
}

#[test]
fn one_name_is_started_once() {
    let home = Home::new();
    let words = ["start", "--name", "web", "-b", "127.0.0.1:0", "--", "python3", "tests/workers/chatty.py", "{port}"];
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..4).map(|_| scope.spawn(|| home.run(&words))).collect();
        started.into_iter().map(|started| started.join().unwrap()).collect()
    });
    let (good, bad): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
    assert_eq!(good.len(), 1, "{outputs:?}");
    for output in bad {
        let said = String::from_utf8_lossy(&output.stderr);
        let busy = said.contains("another command starts or deletes web") || said.contains("web runs already (pid ");
        assert!(busy && output.status.code() == Some(1), "{said}");
    }
    crate::refusals::check(&home.run(&words), 1, &["web runs already (pid ", "maitred reload web", "--name"]);
    assert_eq!(home.said(&["list", "-q"]), "web");
}

#[test]
fn a_start_waits_for_the_end_of_the_one_before() {
    let home = Home::new();
    let switches = Switches::new();
    // The old worker ends only when it may.
    let command = pages(&switches, &["--grace", "60s"], "tidy");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    home.said(&command);
    let (_, first) = home.of("web");
    home.said(&["stop", "web"]);
    switches.wait_for("terms-0");
    let second = std::thread::scope(|scope| {
        let starting = scope.spawn(|| home.said(&command));
        assert_eq!(home.row("web")["state"], "stopping");
        switches.on("tidy");
        starting.join().unwrap()
    });
    assert!(second.starts_with("web has started"), "{second}");
    assert_ne!(home.of("web").1, first);
}

#[test]
fn one_that_was_killed_is_shown_as_failed_and_can_be_started() {
    let home = Home::new();
    let (_, pid) = home.start("web", &[]);
    kill(pid, SIGKILL);
    wait_gone(pid);
    assert_eq!(home.row("web")["state"], "failed");
    assert!(home.said(&["reload", "web"]).starts_with("web has started"));
    assert_eq!(home.row("web")["state"], "ready");
}

#[test]
fn a_command_may_be_about_several() {
    let home = Home::new();
    for name in ["web-1", "web-2", "api"] {
        home.start(name, &[]);
    }
    assert_eq!(home.said(&["reload", "web-*", "--wait"]), "web-1: generation 2 serves\nweb-2: generation 2 serves");
    let output = home.run(&["stop", "--wait", "web-1", "nobody", "api"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "web-1: web-1 has ended\napi: api has ended\n");
    crate::refusals::check(&output, 1, &["nobody: no maitred named"]);
    crate::refusals::check(&home.run(&["stop", "x*"]), 1, &["no app has such a name; there are api, web-1, web-2"]);
    let states: Vec<_> = home.list().iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["stopped", "stopped", "ready"]);
    home.said(&["delete", "all"]);
    assert!(home.list().is_empty());
}

#[test]
fn log_files_are_followed_opened_again_and_never_hold_a_worker_up() {
    let home = Home::new();
    let (address, pid) = home.start("web", &[]);
    body(address, "/first");
    home.wait_for_line("web", "out", "out /first");
    let mut follower = home.command(&["logs", "web", "-f", "-n", "0", "--out"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // It shows what comes after it looked at the end of the file: until then, requests are repeated.
    let seen = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = Stop(&seen);
        let asking = scope.spawn(|| {
            while !seen.load(Ordering::Relaxed) {
                body(address, "/follow");
            }
        });
        assert_eq!(lines.next().unwrap().unwrap(), "out /follow");
        drop(stop);
        asking.join().unwrap();
    });
    let (out, old) = (home.log("web", "out"), home.log("web", "out.1"));
    std::fs::rename(&out, &old).unwrap();
    kill(pid, SIGUSR1);
    home.wait_for_log("web", "opening the log files again");
    body(address, "/rotated");
    home.wait_for_line("web", "out", "out /rotated");
    assert!(!std::fs::read_to_string(&old).unwrap().contains("/rotated"));
    assert!(lines.map_while(Result::ok).any(|line| line == "out /rotated"));
    follower.kill().unwrap();
    follower.wait().unwrap();
    // A pipe that nobody reads does not take its place.
    std::fs::remove_file(&out).unwrap();
    nix::unistd::mkfifo(&out, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    kill(pid, SIGUSR1);
    load(address, 200, 4);
    assert_eq!(home.row("web")["state"], "ready");
}

impl Home {
    /// Waits until the master's log has a line with these words.
    fn wait_for_log(&self, name: &str, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(self.log(name, "master")).unwrap_or_default().contains(words) {
            assert!(Instant::now() < deadline, "{words:?} is never logged");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_full_disk_loses_lines_and_nothing_else() {
    let home = Home::new();
    let (address, _) = home.start("web", &["--out-file", "/dev/full", "--err-file", "/dev/full"]);
    let tally = load(address, 300, 8);
    assert_eq!((tally.answered, tally.hung), (300, 0), "{:?}", tally.failed);
    let deadline = Instant::now() + PATIENCE;
    let lost = || {
        let status: Value = serde_json::from_str(&home.said(&["status", "web", "--json"])).unwrap();
        status["lines_lost"].as_u64().unwrap()
    };
    while lost() < 600 {
        assert!(Instant::now() < deadline, "{} lines", lost());
    }
    assert_eq!(lost(), 600);
    for (path, why) in [("/proc/none/x", "No such file"), ("/tmp", "Is a directory")] {
        let words = ["start", "--name", "bad", "--out-file", path, "--", "true"];
        crate::refusals::check(&home.run(&words), 3, &[path, why]);
    }
}

#[test]
fn files_are_put_aside_at_their_size_and_no_line_is_missing() {
    use std::io::Read;
    let home = Home::new();
    let (address, _) = home.start("web", &["--log-max-size", "1K", "--log-keep", "500", "--log-compress"]);
    let tally = load(address, 1000, 8);
    assert_eq!((tally.answered, tally.hung), (1000, 0), "{:?}", tally.failed);
    home.said(&["stop", "web", "--wait"]);
    let mut names = Vec::new();
    let mut lines = 0;
    for entry in std::fs::read_dir(home.log("web", "out").parent().unwrap()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if !name.starts_with("out.log") {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        let mut text = String::new();
        match name.ends_with(".gz") {
            true => drop(flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap()),
            false => text = String::from_utf8(bytes).unwrap(),
        }
        assert!(text.lines().all(|line| line == "out /"), "{name}: {text}");
        lines += text.lines().count();
        names.push(name);
    }
    assert_eq!(lines, 1000, "{names:?}");
    assert!(names.iter().any(|name| name == "out.log.1" || name == "out.log.1.gz"), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with(".gz")), "{names:?}");
}

#[test]
fn what_served_before_is_remembered_until_something_else_serves() {
    let home = Home::new();
    home.start("web", &["--env", "GREETING=old"]);
    home.said(&["stop", "web", "--wait"]);
    let failing = ["start", "--name", "web", "--", "python3", "tests/workers/chatty.py", "fails"];
    crate::refusals::check(&home.run(&failing), 3, &["no worker came up"]);
    home.said(&["start", "all"]);
    let (address, _) = home.of("web");
    assert!(body(address, "/").ends_with(" old"));
}

#[test]
fn an_app_whose_control_socket_is_gone_is_not_started_twice_and_can_be_stopped() {
    let home = Home::new();
    let (address, pid) = home.start("web", &[]);
    std::fs::remove_file(home.0.join("maitred/web.sock")).unwrap();
    let row = home.row("web");
    assert_eq!((&row["state"], &row["pid"]), (&"silent".into(), &pid.into()));
    crate::refusals::check(
        &home.run(&["start", "web"]),
        1,
        &["web runs already", "control socket is gone", "maitred stop web"],
    );
    assert!(home.said(&["describe", "web"]).contains("its control socket is gone"));
    body(address, "/still");
    assert!(home.said(&["stop", "web"]).contains("told by a signal"));
    assert!(!runs(pid));
    assert_eq!(home.row("web")["state"], "stopped");
    home.said(&["start", "web"]);
}

#[test]
fn an_app_is_found_wherever_its_control_socket_is() {
    let home = Home::new();
    let socket = home.0.join("own.sock");
    let (_, pid) = home.start("web", &["--control", socket.to_str().unwrap()]);
    let elsewhere = |words: &[&str]| home.command(words).env("XDG_RUNTIME_DIR", home.0.join("none")).output().unwrap();
    let listed: Vec<Value> = serde_json::from_slice(&elsewhere(&["list", "--json"]).stdout).unwrap();
    assert_eq!((&listed[0]["state"], &listed[0]["pid"]), (&"ready".into(), &pid.into()));
    crate::refusals::check(&elsewhere(&["start", "web"]), 1, &["web runs already"]);
    let status: Value = serde_json::from_slice(&elsewhere(&["status", "web", "--json"]).stdout).unwrap();
    assert_eq!(status["pid"], pid);
    assert_eq!(String::from_utf8_lossy(&elsewhere(&["reload", "web", "--wait"]).stdout), "generation 2 serves\n");
    assert!(elsewhere(&["delete", "web"]).status.success());
    assert!(!runs(pid) && home.list().is_empty());
}

#[test]
fn a_start_that_waits_can_be_upgraded_and_deleted() {
    let home = Home::new();
    let switches = Switches::new();
    let command = pages(&switches, &["--ready", "notify"], "notify");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let wait = |state: &str| {
        let deadline = Instant::now() + PATIENCE;
        while home.row("web")["state"] != state {
            assert!(Instant::now() < deadline, "never {state}: {}", home.row("web"));
        }
    };
    std::thread::scope(|scope| {
        let started = scope.spawn(|| home.run(&command));
        wait("starting");
        home.said(&["upgrade", "web"]);
        switches.on("ready-0");
        let output = started.join().unwrap();
        assert!(output.status.success(), "{output:?}");
    });
    home.said(&["delete", "web"]);
    switches.off("ready-0");
    std::thread::scope(|scope| {
        let started = scope.spawn(|| home.run(&command));
        wait("starting");
        home.said(&["delete", "web"]);
        crate::refusals::check(&started.join().unwrap(), 1, &["web: it was stopped before it served"]);
    });
    assert!(home.list().is_empty());
}

#[test]
fn what_cannot_be_read_is_said_before_anything_is_done() {
    let home = Home::new();
    let (_, pid) = home.start("web", &[]);
    let state = home.0.join("state/maitred/apps/web.json");
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, text.replace("\"version\": 1", "\"version\": 7")).unwrap();
    for words in [["stop", "web"], ["delete", "web"], ["reload", "web"]] {
        crate::refusals::check(&home.run(&words), 1, &["web.json", "it has the form 7"]);
    }
    assert!(runs(pid));
    std::fs::write(&state, text).unwrap();
    home.said(&["delete", "web"]);
}

#[test]
fn logs_that_nobody_reads_end_and_no_descriptor_is_kept() {
    let home = Home::new();
    let (_, pid) = home.start("web", &[]);
    let mut follower = home.command(&["logs", "web", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(follower.stdout.take());
    wait_child(&mut follower);
    // What happens to be open where it is started is not passed on.
    home.said(&["delete", "web"]);
    assert!(!runs(pid));
    let lock = home.0.join("lock");
    let inner = home.command(&[
        "start",
        "--name",
        "web",
        "-b127.0.0.1:0",
        "--",
        "python3",
        "tests/workers/chatty.py",
        "{port}",
    ]);
    let words = inner.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 9>{}; {} {words}", lock.display(), inner.get_program().display())]);
    shell.current_dir(root()).envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    as_ordinary_user(&mut shell);
    assert!(shell.status().unwrap().success());
    let pid = home.row("web")["pid"].as_i64().unwrap();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    assert!(open.flatten().all(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path != lock)));
}

#[test]
fn the_apps_of_a_file_are_started_each_after_those_that_it_needs() {
    let home = Home::new();
    let file = home.0.join("maitred.toml");
    let chatty = root().join("tests/workers/chatty.py");
    let text = format!(
        "workers = 1\nbind = [\"127.0.0.1:0\"]\ncommand = [\"python3\", {chatty:?}, \"{{port}}\"]\n\
         [app.web]\ndepends_on = [\"db\"]\n[app.web.env]\nGREETING = \"${{WHO:-nobody}}\"\n\
         [app.db]\nenabled = false\n\
         [app.bad]\ncommand = [\"python3\", {chatty:?}, \"fails\"]\n[app.after]\ndepends_on = [\"bad\"]\n\
         [profile.two]\nworkers = 2\n"
    );
    std::fs::write(&file, &text).unwrap();
    let file_name = file.to_str().unwrap();
    let said = home.said(&["start", "-c", file_name, "--profile", "two", "web"]);
    let names: Vec<_> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["db", "web"], "{said}");
    assert!(said.lines().all(|line| line.contains("2 workers")), "{said}");
    assert!(body(home.of("web").0, "/").ends_with(" nobody"));
    let output = home.run(&["start", "-c", file_name]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        out.contains("web runs already: pid") && err.contains("after is not started: it depends on bad"),
        "{out}{err}"
    );
    crate::refusals::check(&home.run(&["start", "-c", file_name, "nobody"]), 2, &["no app \"nobody\"", "db"]);

    // A reload reads the file again, and the app of it that was started.
    std::fs::write(&file, text.replace("nobody", "somebody")).unwrap();
    home.said(&["reload", "web", "--wait"]);
    assert!(body(home.of("web").0, "/").ends_with(" somebody"));
    std::fs::write(
        &file,
        text.replace("[profile", "depends_on = [\"web\"]\n[app.web2]\ndepends_on = [\"web2\"]\n[profile"),
    )
    .unwrap();
    crate::refusals::check(&home.run(&["start", "-c", file_name]), 2, &["maitred.toml:"]);
}
