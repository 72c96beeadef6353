//! Measuring with `maitred bench`.

use crate::support::{Maitred, PATIENCE, kill, maitred, runs, scratch, server, wait_child, wait_gone};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// A measurement that came to its end, and its JSON file.
fn bench(args: &[&str]) -> (Output, Value) {
    let json = scratch("bench.json");
    let mut command = maitred();
    command.args(["bench", "--repeat", "1", "--json"]).arg(&json).args(args);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = std::fs::read_to_string(json).unwrap_or_default();
    (output, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// The same, and it must be valid.
fn valid(args: &[&str]) -> Value {
    let (output, report) = bench(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(0), "{} {}", text(&output.stdout), text(&output.stderr));
    assert_eq!(report["complete"], true);
    report
}

fn run<'a>(report: &'a Value, subject: &str) -> &'a Value {
    let runs = report["runs"].as_array().unwrap();
    runs.iter().find(|run| run["subject"] == subject).unwrap_or_else(|| panic!("no run of {subject}: {report:#}"))
}

fn counts(run: &Value) -> Vec<u64> {
    run["per_worker"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
}

/// What was said on standard error: one line, and this exit code.
fn check_complaint(output: &Output, code: i32, said: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("maitred: ") && lines[0].contains(said), "{error}");
}

#[test]
fn modes_are_compared_with_the_built_in_worker() {
    let (csv, html, svg) = (scratch("bench.csv"), scratch("bench.html"), scratch("plots"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let files = [path(&csv), path(&html), path(&svg)];
    let report =
        valid(&["-w", "3", "--connections", "300", "--csv", &files[0], "--html", &files[1], "--svg", &files[2]]);
    let (handoff, shared) = (run(&report, "handoff"), run(&report, "shared"));
    assert_eq!(counts(handoff), [100, 100, 100]);
    assert_eq!(counts(shared).iter().sum::<u64>(), 300);
    for run in [handoff, shared, run(&report, "kernel")] {
        assert_eq!(run["counted_by"], "front");
        assert_eq!(run["endings"]["answered"], 300);
        assert!(run["latency_us"]["p50"].as_u64().unwrap() > 0);
        assert!(run["costs"]["workers"]["cpu_s"].as_f64().unwrap() > 0.0);
        assert!(run["costs"]["front"]["peak_rss_bytes"].as_u64().unwrap() > 0);
    }
    assert_eq!(handoff["spread"]["jain"], 1.0);
    let doubts = report["doubts"].to_string();
    assert!(doubts.contains("run too short") && doubts.contains("few rounds"), "{doubts}");

    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 4);
    let page = std::fs::read_to_string(html).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    for reference in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(reference), "the page needs {reference}");
    }
    assert_eq!(std::fs::read_dir(svg).unwrap().count(), 3);
}

#[test]
fn an_earlier_measurement_is_shown_again_as_it_was() {
    let (json, html, again) = (scratch("kept.json"), scratch("first.html"), scratch("again.html"));
    let first = maitred()
        .args(["bench", "-w", "2", "--connections", "100", "--repeat", "1", "--json"])
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()
        .unwrap();
    let second = maitred().args(["bench", "--from"]).arg(&json).arg("--html").arg(&again).output().unwrap();
    assert_eq!(second.status.code(), Some(0), "{}", String::from_utf8_lossy(&second.stderr));
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(std::fs::read(html).unwrap(), std::fs::read(again).unwrap());
    let broken = maitred().args(["bench", "--from", "Cargo.toml"]).output().unwrap();
    check_complaint(&broken, 2, "cannot read Cargo.toml");
}

#[test]
fn a_verdict_says_it_in_words_and_two_measurements_are_compared() {
    let markdown = scratch("bench.md");
    let mut command = maitred();
    command.args(["bench", "-w", "2", "--modes", "handoff,shared", "--connections", "300", "--repeat", "3"]);
    let output = command.args(["--json", "-", "--markdown"]).arg(&markdown).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    // Standard output has the JSON, and nothing else.
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts = report["verdicts"].as_array().unwrap();
    assert_eq!(verdicts[0], "handoff: exact turns");
    let shared = verdicts[1].as_str().unwrap();
    assert!(shared.starts_with("shared: ") && shared.contains("handoff"), "{shared}");
    let page = std::fs::read_to_string(markdown).unwrap();
    assert!(
        page.contains("- handoff: exact turns\n") && page.contains("| rate and latency | connections/s |"),
        "{page}"
    );

    let (before, after) = (scratch("before.json"), scratch("after.json"));
    std::fs::write(&before, &output.stdout).unwrap();
    let compare = || maitred().args(["bench", "--compare"]).args([&before, &after]).output().unwrap();
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    std::fs::write(&after, &output.stdout).unwrap();
    let same = compare();
    assert_eq!(same.status.code(), Some(0));
    assert!(said(&same).contains("handoff: no difference to before beyond the scatter\n"), "{}", said(&same));
    for run in report["runs"].as_array_mut().unwrap() {
        run["connections_per_s"] = (run["connections_per_s"].as_f64().unwrap() / 100.0).into();
    }
    std::fs::write(&after, report.to_string()).unwrap();
    let slower = compare();
    assert_eq!(slower.status.code(), Some(1));
    assert!(
        said(&slower).contains("times the rate of before") && said(&slower).contains("(worse)"),
        "{}",
        said(&slower)
    );
    std::fs::write(&after, "nothing").unwrap();
    check_complaint(&compare(), 2, "cannot read");
}

#[test]
fn a_server_that_tells_nothing_is_counted_by_the_front_in_every_mode() {
    let report = valid(&["-w", "2", "--connections", "200", "--", &server(), "epoll", "0"]);
    assert_eq!(counts(run(&report, "handoff")), [100, 100]);
    let shared = run(&report, "shared");
    assert_eq!((counts(shared).iter().sum::<u64>(), &shared["counted_by"]), (200, &"front".into()));
}

#[test]
fn variants_are_measured_beside_modes_with_options_of_their_own() {
    let variants = ["--variant", "one=-w 1 --depth 3", "--variant", "kernel way=--mode kernel", "--variant", "plain="];
    let report = valid(&[&["-w", "2", "--modes", "shared", "--connections", "200"][..], &variants].concat());
    let subjects: Vec<_> = report["summaries"].as_array().unwrap().iter().map(|s| s["subject"].as_str()).collect();
    assert_eq!(subjects, ["shared", "one", "kernel way", "plain"].map(Some));
    assert_eq!(counts(run(&report, "one")), [200]);
    assert_eq!(counts(run(&report, "plain")), [100, 100]);
    assert_eq!(counts(run(&report, "kernel way")).iter().sum::<u64>(), 200);
    // What happens to workers happens to those of a variant, too.
    let slow = ["-w", "2", "--modes", "none", "--workload", "one-slow-worker", "--duration", "300ms"];
    let report = valid(&[&slow[..], &["--variant", "plain="]].concat());
    assert!(run(&report, "plain")["disturbances"].as_u64().unwrap() > 0);
}

#[test]
fn open_connections_are_seen_by_the_clients_where_they_stay() {
    let stay = ["-w", "2", "--modes", "none", "--workload", "long-lived", "--concurrency", "20", "--connections", "60"];
    let server = "import http.server, sys\n\
         class H(http.server.BaseHTTPRequestHandler):\n\
         \x20   protocol_version = 'HTTP/1.1'\n\
         \x20   def do_GET(self):\n\
         \x20       self.send_response(200); self.send_header('Maitred-Slot', '1')\n\
         \x20       self.send_header('Content-Length', '0'); self.end_headers()\n\
         \x20   def log_message(self, *_): pass\n\
         http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()";
    let peer = format!("stranger=exec python3 -c \"{server}\" $PORT");
    let report = valid(&[&stay[..], &["--variant", "least=--policy least-connections", "--peer", &peer]].concat());
    let least = run(&report, "least");
    let (known, seen) = (&least["open"], &least["open_by_kernel"]);
    assert_eq!((&known["seen_by"], &seen["seen_by"]), (&"clients".into(), &"kernel".into()), "{least:#}");
    let figure = |name: &str| known[name].as_f64().unwrap();
    assert!(figure("samples") > 1.0 && figure("mean") <= 20.0 && figure("sd") < figure("mean"), "{known:#}");
    // A stranger has all of them in one slot of two.
    let stranger = &run(&report, "stranger")["open"];
    assert_eq!((&stranger["seen_by"], &stranger["max_over_mean"]), (&"clients".into(), &2.0.into()), "{stranger:#}");
}

#[test]
fn who_is_turned_away_as_told_is_counted_apart_and_ends_nothing_early() {
    // Two milliseconds each, so that far more come than one worker can serve.
    let load = ["-w", "1", "--modes", "none", "--path", "/burn/2000", "--rate", "3000", "--connections", "2400"];
    let variants = ["reset=--max-open 2 --when-full reset", "503=--max-open 2 --when-full 503"];
    let report = valid(&[&load[..], &["--variant", variants[0], "--variant", variants[1]]].concat());
    for (subject, ending, with_503) in [("reset", "reset", false), ("503", "unavailable", true)] {
        let run = run(&report, subject);
        let (ends, front) = (&run["endings"], &run["front"]);
        let number = |of: &Value, name: &str| of[name].as_u64().unwrap();
        let (answered, away) = (number(ends, "answered"), number(ends, ending));
        assert_eq!((answered + away, number(front, "accepted")), (2400, 2400), "{ends:#} {front:#}");
        assert!(away > 1000 && away == number(front, "refused"), "{ends:#} {front:#}");
        assert_eq!(number(front, "answered_503"), if with_503 { away } else { 0 });
        assert_eq!((number(front, "handed"), number(run, "requests")), (answered, answered));
    }
    assert!(!report["doubts"].to_string().contains("were not answered"), "{}", report["doubts"]);
}

#[test]
fn a_source_stays_with_its_slot_where_the_policy_goes_by_it() {
    let variants = ["--variant", "hash=--policy source-hash", "--variant", "turns="];
    let load = ["-w", "3", "--modes", "none", "--concurrency", "8", "--connections", "1500", "--sources", "30"];
    let report = valid(&[&load[..], &variants].concat());
    let (hash, turns) = (&run(&report, "hash")["sources"], &run(&report, "turns")["sources"]);
    assert_eq!((&hash["answered"], &hash["mixed"], &hash["astray"]), (&30.into(), &0.into(), &0.into()));
    assert_eq!(hash["slot_of_source"].as_object().unwrap().len(), 30);
    assert!(hash["slot_of_source"]["127.0.0.2"].as_u64().unwrap() < 3, "{hash:#}");
    assert!(turns["mixed"].as_u64().unwrap() > 20, "{turns:#}");
}

#[test]
fn every_workload_and_protocol_runs() {
    for (workload, arguments) in [
        ("bursty", ["--connections", "1000"]),
        ("trickle", ["--connections", "200"]),
        ("long-lived", ["--connections", "60"]),
        ("costly", ["--connections", "100"]),
        ("one-slow-worker", ["--duration", "300ms"]),
    ] {
        let report = valid(&["-w", "2", "--modes", "handoff", "--workload", workload, arguments[0], arguments[1]]);
        let handoff = run(&report, "handoff");
        let spread = counts(handoff);
        // A burst fills both workers' depth, and then the first that has room is next.
        let most = if workload == "bursty" { 128 } else { 1 };
        assert!(spread[0].abs_diff(spread[1]) <= most, "{workload}: {spread:?}");
    }
    for (protocol, requests) in [("http", 1), ("keep-alive", 10), ("echo", 1)] {
        let report = valid(&["-w", "2", "--connections", "100", "--protocol", protocol]);
        for subject in ["handoff", "shared"] {
            assert_eq!(run(&report, subject)["requests"], 100 * requests, "{protocol}");
        }
    }
}

#[test]
fn killed_workers_are_part_of_a_crash_and_make_other_runs_invalid() {
    let report = valid(&["-w", "2", "--modes", "handoff", "--workload", "crash", "--duration", "2500ms"]);
    assert!(run(&report, "handoff")["disturbances"].as_u64().unwrap() >= 2);
    // Each worker ends of itself after some requests.
    let server = "import http.server, os\n\
         class H(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       self.send_response(200); self.send_header('Content-Length', '0'); self.end_headers()\n\
         \x20       H.left -= 1\n\
         \x20       if not H.left: self.wfile.flush(); self.request.close(); os._exit(1)\n\
         \x20   def log_message(self, *_): pass\n\
         H.left = 700\n\
         http.server.HTTPServer(('127.0.0.1', 0), H).serve_forever()";
    let (output, _) = bench(&[
        "-w",
        "1",
        "--modes",
        "handoff",
        "--connections",
        "400",
        "--concurrency",
        "1",
        "--",
        "python3",
        "-c",
        server,
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("INVALID") && text.contains("workers ended 1 times"), "{text}");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let report = valid(&["-w", "2", "--modes", "handoff", "--rate", "500", "--connections", "500"]);
    let run = run(&report, "handoff");
    assert_eq!(run["endings"]["answered"], 500);
    // The last is due after 499 of them; a busy machine makes it later, and nothing makes it earlier.
    let took_s = run["took_s"].as_f64().unwrap();
    assert!(took_s >= 0.998, "{took_s}");
}

#[test]
fn a_worker_that_lies_about_its_slot_makes_the_run_invalid() {
    let lie = format!("MAITRED_SLOT=0 exec {} bench-worker", env!("CARGO_BIN_EXE_maitred"));
    let (output, report) = bench(&["-w", "2", "--modes", "handoff", "--connections", "100", "--", "sh", "-c", &lie]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the front and the clients disagree"), "{text}");
    assert!(report["summaries"].as_array().unwrap().is_empty());
}

#[test]
fn a_server_that_does_not_keep_connections_is_told_so() {
    let address = stub(|s| answer(s, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"));
    let (output, _) = bench(&["--target", &address, "--protocol", "keep-alive"]);
    check_complaint(&output, 1, "does not keep the connection");
}

#[test]
fn a_name_cannot_bring_markup_into_the_page() {
    let html = scratch("markup.html");
    let worker = Maitred::start(&["-w", "1", "--", &server(), "epoll", "0"]).ready(1);
    let target = format!("<script>&\"'={}", worker.address());
    let path = html.to_str().unwrap();
    valid(&["--target", &target, "--connections", "50", "--html", path]);
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("&#60;script&#62;") || page.contains("&lt;script&gt;"), "{page}");
    assert!(!page.contains("<script"), "{page}");
}

/// A server in this process that does the same to every connection.
fn stub(serve: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        // Kept open, so that one which is not answered hangs.
        let mut kept = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            kept.push(stream.try_clone().unwrap());
            serve(stream);
            if kept.len() > 8 {
                kept.clear();
            }
        }
    });
    address
}

fn answer(mut stream: TcpStream, text: &str) {
    let _ = stream.read(&mut [0; 1024]);
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_server_that_cannot_be_measured_is_told_in_one_line() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (address, said) in [
        (nobody, "refused: nobody listens there"),
        (stub(drop), "no answer came in time"),
        (stub(|s| answer(s, "SSH-2.0-x\r\n\r\n")), "what came is not HTTP/1"),
        (stub(|s| answer(s, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")), "closed before a whole answer"),
        (stub(|s| answer(s, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")), "status 503"),
    ] {
        let (output, _) = bench(&["--target", &address, "--timeout", "300ms"]);
        check_complaint(&output, 1, said);
    }
}

#[test]
fn a_server_that_stops_answering_is_given_up_and_what_was_measured_is_shown() {
    static LEFT: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(700);
    let address = stub(|stream| {
        if LEFT.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) > 0 {
            answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        } else {
            // Forgotten on purpose: it hangs.
            std::mem::forget(stream);
        }
    });
    let (output, report) = bench(&["--target", &address, "--timeout", "200ms", "--connections", "1000"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the rest was not tried"), "{text}");
    assert!(report["runs"][0]["endings"]["hung"].as_u64().unwrap() >= 20);
}

#[test]
fn a_server_that_does_not_start_is_told_with_its_last_words() {
    let (output, _) = bench(&["--", "sh", "-c", "echo out of cheese >&2; exit 7"]);
    check_complaint(&output, 1, "out of cheese");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (output, _) = bench(&["--", &server(), "epoll", &port]);
    check_complaint(&output, 1, &format!("cannot bind 127.0.0.1:{port}"));
}

#[test]
fn a_command_disturbs_whatever_is_measured() {
    let reload = format!(
        "[ -z \"$MAITRED_CONTROL\" ] || exec {} reload --wait --control \"$MAITRED_CONTROL\"",
        env!("CARGO_BIN_EXE_maitred")
    );
    let peer = format!("stranger=exec {} epoll $PORT", server());
    let command = ["--disturb", &reload, "--disturb-every", "50ms", "--disturb-times", "2"];
    let rest = [
        "-w",
        "2",
        "--modes",
        "handoff",
        "--run-args",
        "--grace 2s --min-ready 100ms",
        "--duration",
        "2s",
        "--peer",
        &peer,
        "--",
    ];
    let worker = [&server(), "epoll", "0"];
    let report = valid(&[&command[..], &rest, &worker].concat());
    for subject in ["handoff", "stranger"] {
        let commands = &run(&report, subject)["commands"];
        assert_eq!((&commands["times"], &commands["failed"]), (&2.into(), &0.into()), "{subject}: {commands:#}");
    }
    let handoff = run(&report, "handoff");
    let (ends, front) = (&handoff["endings"], &handoff["front"]);
    assert_eq!((&front["lost"], &front["restarts"]), (&0.into(), &4.into()));
    assert_eq!(ends["answered"], front["accepted"], "{handoff:#}");
    assert!(run(&report, "stranger")["front"].is_null());
}

#[test]
fn a_command_that_fails_is_told_with_its_last_words() {
    let failing = ["--disturb", "echo no cheese left >&2; exit 3", "--disturb-every", "10ms"];
    let report = valid(&[&["-w", "1", "--modes", "handoff", "--duration", "300ms"][..], &failing].concat());
    let commands = &run(&report, "handoff")["commands"];
    assert!(commands["failed"].as_u64() > Some(0) && commands["failed"] == commands["times"], "{commands:#}");
    assert!(report["doubts"].to_string().contains("no cheese left"), "{}", report["doubts"]);
}

#[test]
fn contradictions_are_told_before_anything_starts() {
    for (args, said) in [
        (&["--workload", "trickle", "--concurrency", "2"][..], "--concurrency and --workload trickle contradict"),
        (&["--requests", "3", "--protocol", "http"], "--requests and --protocol http contradict"),
        (&["--workload", "costly", "--target", "127.0.0.1:1"], "give --path"),
        (&["--workload", "crash", "--target", "127.0.0.1:1"], "only workers of maitred can be disturbed"),
        (&["--concurrency", "100000000"], "lower --concurrency or raise ulimit -n"),
        (&["--html", "/nonexistent/x.html"], "cannot write /nonexistent/x.html"),
        (&["--modes", "none"], "leaves nothing to measure"),
        (&["--run-args", "'--stall"], "has a quote that is not closed"),
        (&["--variant", "handoff=--depth 1"], "two things to measure are called \"handoff\""),
        (&["--sources", "9", "--target", "192.0.2.1:80"], "--sources and --target"),
        (&["--rate", "0"], "--rate must be between 0.01 and a million"),
    ] {
        let output = maitred().arg("bench").args(args).output().unwrap();
        check_complaint(&output, 2, said);
    }
}

#[test]
fn too_few_descriptors_are_told_before_anything_starts() {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=100:100", env!("CARGO_BIN_EXE_maitred"), "bench", "--concurrency", "64"]);
    check_complaint(
        &command.output().unwrap(),
        2,
        "64 connections at a time need 128 descriptors, and 100 are allowed",
    );
}

#[test]
fn a_peer_that_fails_does_not_keep_the_others_from_being_measured() {
    let good = format!("exec {} run -q -w 2 -- {} epoll {{port}}", env!("CARGO_BIN_EXE_maitred"), server());
    let good = format!("nested={good}");
    let args = ["-w", "2", "--modes", "handoff", "--connections", "100", "--peer", "bad=exit 3", "--peer", &good];
    let (output, report) = bench(&args);
    check_complaint(&output, 1, "bad did not start");
    assert_eq!(run(&report, "nested")["endings"]["answered"], 100);
    assert_eq!(report["complete"], false);
}

#[test]
fn something_that_runs_already_is_measured_and_left_running() {
    let maitred = Maitred::start(&["-w", "2", "--", &server(), "epoll", "0"]).ready(2);
    let address = maitred.address().to_string();
    let report = valid(&["--target", &format!("mine={address}"), "--connections", "100"]);
    assert_eq!(run(&report, "mine")["endings"]["answered"], 100);
    assert!(report["doubts"].to_string().contains("who served what is not known"));
    maitred.stop();
}

/// All that descends from a process now.
fn descendants(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<i32> = list.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    children.iter().flat_map(|&child| std::iter::once(child).chain(descendants(child))).collect()
}

/// A measurement in its second round at least, and what it started.
fn under_way() -> (std::process::Child, Vec<i32>) {
    let started = scratch("started");
    let serve = format!("echo x >>{}; exec {} bench-worker", started.display(), env!("CARGO_BIN_EXE_maitred"));
    let mut command = maitred();
    command.args(["bench", "-w", "2", "--modes", "handoff", "--repeat", "1000", "--connections", "500"]);
    command.args(["--", "sh", "-c", &serve]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    // The third round begins when the second one is over.
    while std::fs::read_to_string(&started).unwrap_or_default().lines().count() < 5 {
        assert!(Instant::now() < until, "no third round");
        std::thread::yield_now();
    }
    let pids = descendants(child.id() as i32);
    (child, pids)
}

#[test]
fn ctrl_c_ends_the_children_and_shows_what_was_measured() {
    let (child, pids) = under_way();
    kill(child.id() as i32, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("INCOMPLETE: cut short by a signal"), "{text}");
    assert!(text.contains("handoff"), "{text}");
    pids.into_iter().for_each(wait_gone);
}

#[test]
fn nothing_is_left_of_a_measurement_that_is_killed() {
    let (mut child, pids) = under_way();
    assert!(pids.len() > 1 && runs(pids[0]));
    kill(child.id() as i32, Signal::SIGKILL);
    wait_child(&mut child);
    pids.into_iter().for_each(wait_gone);
}
