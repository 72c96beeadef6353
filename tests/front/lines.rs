//! The last lines that a master keeps in memory, and the forms in which workers' lines are passed on.

use crate::home::{Home, body};
use crate::refusals::check;
use crate::support::*;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

const CHATTY: [&str; 4] = ["--", "python3", "tests/workers/chatty.py", "{port}"];

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until `logs` with these words shows so many lines.
fn shown(home: &Home, words: &[&str], count: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lines: Vec<String> = home.said(words).lines().map(str::to_owned).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < deadline, "{words:?}: {lines:?}");
        std::thread::yield_now();
    }
}

#[test]
fn what_runs_in_the_foreground_has_logs_with_slot_and_time() {
    let home = Home::new();
    let words = ["-w", "2", "-b", "127.0.0.1:0", "--name", "fg"];
    let mut child =
        home.command(&[&words[..], &CHATTY].concat()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    home.serves("fg", 2);
    let (address, _) = home.of("fg");
    for path in ["/0", "/1", "/2", "/3"] {
        body(address, path);
    }
    // Round-robin: each worker answered two.
    let all = shown(&home, &["logs", "fg", "--out"], 4);
    assert_eq!(all.iter().filter(|line| line.starts_with("out 0| out /")).count(), 2, "{all:?}");
    let of_one = shown(&home, &["logs", "fg", "--slot", "1", "--json", "--err"], 2);
    for line in objects(&of_one.join("\n")) {
        assert_eq!((&line["app"], &line["slot"], &line["stream"]), (&"fg".into(), &1.into(), &"err".into()));
        assert!(line["line"].as_str().unwrap().starts_with("err /") && line["time"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(home.said(&["logs", "fg", "--out", "-n", "1"]).lines().count(), 1);
    assert_eq!(home.said(&["logs", "fg", "--since", "1h", "--out"]).lines().count(), 4);
    assert_eq!(home.said(&["logs", "fg", "--since", "2100-01-01T00:00:00Z"]), "");
    assert_eq!(home.said(&["logs", "fg", "--since", "2026-01-31", "--out"]).lines().count(), 4);
    assert!(home.said(&["logs", "fg", "--master"]).contains("worker ready"));
    check(&home.run(&["logs", "fg", "--since", "yesterday"]), 2, &["--since", "5m"]);
    // What comes is followed.
    let mut follower = home.command(&["logs", "fg", "-f", "-n", "0", "--out"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap()).lines();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                body(address, "/later");
            }
        });
        assert!(followed.next().unwrap().unwrap().ends_with("| out /later"));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    follower.kill().unwrap();
    follower.wait().unwrap();
    home.said(&["stop", "fg"]);
    // It was also written where it always is.
    let written: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    assert_eq!(wait_child(&mut child).code(), Some(0));
    assert!(["out /0", "out /1", "out /2", "out /3"].iter().all(|line| written.contains(&(*line).to_owned())));
    check(&home.run(&["logs", "fg"]), 1, &["no maitred named \"fg\""]);
}

#[test]
fn no_more_is_kept_than_is_allowed_and_nothing_if_that_is_wanted() {
    let home = Home::new();
    let script = "import http.server\nfor n in range(5000): print(n, 'x' * 100)\n\
                  http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler).serve_forever()";
    let start = |name: &str, size: &str| {
        let words =
            ["-w", "1", "--share-port-zero", "--name", name, "--log-buffer", size, "--", "python3", "-uc", script];
        home.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut small = start("small", "64K");
    home.serves("small", 1);
    let kept = home.said(&["logs", "small", "--out", "-n", "10000"]);
    assert!(kept.lines().last().unwrap().starts_with("out 0| 4999 x"), "{kept}");
    assert!((100..700).contains(&kept.lines().count()), "{}", kept.lines().count());
    let mut none = start("none", "0");
    home.serves("none", 1);
    check(&home.run(&["logs", "none"]), 1, &["none keeps no lines", "--log-buffer 0"]);
    home.said(&["stop", "small", "none"]);
    assert_eq!((wait_child(&mut small).code(), wait_child(&mut none).code()), (Some(0), Some(0)));
}

#[test]
fn lines_become_objects_or_get_the_name_if_that_is_wanted() {
    let home = Home::new();
    let said = |options: &[&str]| {
        let words = [&["-w", "1", "-b", "127.0.0.1:0", "--name", "fg"], options, &CHATTY].concat();
        let mut child = home.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        home.serves("fg", 1);
        body(home.of("fg").0, "/\"x\"");
        home.said(&["stop", "fg"]);
        let output = child.stdout.take().unwrap();
        let lines: Vec<String> = BufReader::new(output).lines().map_while(Result::ok).collect();
        let errors = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect::<Vec<_>>();
        wait_child(&mut child);
        (lines, errors)
    };
    let (lines, _) = said(&["--worker-log", "json"]);
    let line = &objects(&lines.join("\n"))[0];
    assert_eq!((&line["slot"], &line["stream"], &line["line"]), (&0.into(), &"out".into(), &"out /\"x\"".into()));
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
    let (lines, errors) = said(&["--prefix", "name"]);
    assert_eq!(lines, ["fg.0| out /\"x\""]);
    assert!(errors.iter().all(|line| line.starts_with("fg| ") || line.starts_with("fg.0| ")), "{errors:?}");
}

#[test]
fn all_streams_can_go_to_one_file_which_is_put_aside_once() {
    let home = Home::new();
    let (address, _) = home.start("web", &["--merge-logs", "--log-max-size", "4K", "--log-keep", "100"]);
    for number in 0..200 {
        body(address, &format!("/{number:040}"));
    }
    home.said(&["stop", "web", "--wait"]);
    let directory = home.log("web", "all").parent().unwrap().to_owned();
    let names = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.collect();
    assert!(names.len() > 2 && names.iter().all(|name| name.starts_with("all.log")), "{names:?}");
    let text: String = names.iter().map(|name| std::fs::read_to_string(directory.join(name)).unwrap()).collect();
    for number in 0..200 {
        for stream in ["out", "err"] {
            let line = format!("{stream} /{number:040}");
            assert_eq!(text.lines().filter(|there| **there == line).count(), 1, "{line}");
        }
    }
    assert!(home.said(&["describe", "web"]).contains("all.log"));
}

#[test]
fn a_signal_goes_to_the_workers_that_are_meant() {
    let home = Home::new();
    let (_, _) = home.start("web", &[]);
    let pids = |home: &Home| -> Vec<Value> {
        let status: Value = serde_json::from_str(&home.said(&["status", "web", "--json"])).unwrap();
        status["workers"].as_array().unwrap().iter().map(|worker| worker["pid"].clone()).collect()
    };
    let before = pids(&home);
    assert_eq!(home.said(&["signal", "web", "USR1", "--slot", "1"]), "SIGUSR1 is sent to 1 worker");
    // Nothing else handles it, so it ends that worker, which comes again.
    home.until("web", |row| row["restarts"] == 1 && row["state"] == "ready");
    let after = pids(&home);
    assert!(after[0] == before[0] && after[1] != before[1], "{before:?} {after:?}");
    assert_eq!(home.said(&["signal", "web", "SIGCONT"]), "SIGCONT is sent to 2 workers");
    check(&home.run(&["signal", "web", "TERM", "--slot", "7"]), 1, &["no worker in slot 7"]);
    check(&home.run(&["signal", "web", "NOPE"]), 2, &["TERM, INT or QUIT"]);
}
