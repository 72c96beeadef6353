//! What is said to people: nothing that a worker writes acts on their terminal or floods it, and neither a stream
//! that nobody reads nor a thread that cannot be had keeps the master from its work or from its end.

use crate::support::*;
use nix::sys::signal::{SIGALRM, SIGHUP, SIGIO, SIGKILL, SIGPROF, SIGPWR, SIGSTKFLT, SIGVTALRM, SIGXFSZ};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

fn misbehave(options: &[&str], habit: &[&str]) -> Vec<String> {
    let script = root().join("tests/workers/misbehave.py");
    let words = [options, &["--adapter", "native", "--", "python3", script.to_str().unwrap()], habit].concat();
    words.into_iter().map(str::to_owned).collect()
}

fn start(options: &[&str], habit: &[&str]) -> Maitred {
    let words = misbehave(options, habit);
    Maitred::start(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Nothing but text, line ends and tabs.
fn check_only_text(text: &str) {
    let acts = |c: char| (c.is_control() && c != '\n') || ('\u{200e}'..='\u{202e}').contains(&c);
    assert!(!text.contains(acts), "{text:?}");
}

/// What a worker writes to its own streams is its own affair, all else is text.
fn check_all_but_own_words(output: &str) {
    let own = "own words \u{1b}[31m\u{9b}32m\u{202e}\r\u{7}";
    assert!(output.lines().any(|line| line == own), "{output:?}");
    output.lines().filter(|line| *line != own).for_each(check_only_text);
}

#[test]
fn nothing_that_a_worker_says_acts_on_a_terminal() {
    let maitred = start(&["-w", "1", "--log-format", "text"], &["escapes"]);
    maitred.wait_for_output("worker ready");
    let shown = maitred.told(&["status"]);
    check_only_text(&shown);
    assert!(shown.contains("\\x1b[31m\\u{9b}32m\\u{202e}\\r\\x07"), "{shown}");
    check_only_text(&maitred.told(&["status", "--json"]));
    let mut socket = UnixStream::connect(&maitred.control).unwrap();
    socket.write_all(b"{\"command\":\"status\"}\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    check_only_text(&answer);
    // Whoever reads the JSON still gets the address as it is.
    let address = maitred.status()["listeners"][0]["address"].as_str().unwrap().to_owned();
    assert!(address.ends_with("\u{1b}[31m\u{9b}32m\u{202e}\r\u{7}"), "{address:?}");
    maitred.signal(nix::sys::signal::SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    check_all_but_own_words(&output);
    for said in ["says \\u{1b}[31m\\u{9b}32m", "nonsense \\\\u{1b}[31m\\\\u{9b}32m", "/no/such/\\x1b[31m"] {
        assert!(output.contains(said), "{said}: {output}");
    }
}

#[test]
fn the_log_as_json_acts_on_nothing_either() {
    let maitred = start(&["-w", "1"], &["escapes"]).ready(1);
    let says = maitred.wait_for("the worker says", 1);
    assert_eq!(says[0]["text"], "says \u{1b}[31m\u{9b}32m\u{202e}\r\u{7}");
    maitred.stop();
    let words = misbehave(&["-w", "1", "--log-format", "json"], &["escapes", "exit"]);
    let output = maitred_output(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.0.code(), Some(3));
    check_all_but_own_words(&output.1);
    assert!(output.1.contains("own words \\x1b[31m\\u{9b}32m\\u{202e}\\r\\x07"), "{}", output.1);
}

/// Runs a master to its end, with a control socket of its own.
fn maitred_output(args: &[&str]) -> (ExitStatus, String) {
    let control = scratch("control.sock");
    let output = run(&[&["run", "--control", control.to_str().unwrap()], args].concat());
    (output.status, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_flood_of_refused_addresses_becomes_a_few_lines() {
    let maitred = start(&["-w", "1"], &["refused", "3000"]).ready(1);
    let logged = maitred.logged("a worker cannot have the address; create its directory first");
    assert!((20..40).contains(&logged.len()), "{}", logged.len());
    assert_eq!(maitred.status()["log_left_out"].as_u64().unwrap() + logged.len() as u64, 3000);
    // Each line accounts for those before it.
    let left_out: u64 = logged.iter().filter_map(|line| line["left_out"].as_u64()).sum();
    assert_eq!(left_out + logged.len() as u64, 2048);
    let pid = maitred.pid(0);
    kill(pid, SIGKILL);
    let rest = maitred.wait_for("more such lines of a worker were left out", 1);
    assert_eq!(rest[0]["left_out"], 3000 - 2048);
}

#[test]
fn a_flood_of_addresses_that_are_given_up_becomes_a_few_lines() {
    let maitred = start(&["-w", "1"], &["cycle", "1000"]).ready(1);
    let left_out = |status: &Value| status["log_left_out"].as_u64().unwrap();
    let status =
        maitred.status_until(|status| left_out(status) > 900 && status["listeners"].as_array().unwrap().len() == 1);
    let closed = maitred.logged("nobody listens here any more; closing the address").len();
    assert!((20..40).contains(&closed), "{closed}: {status}");
    check_exact_spread(&maitred, 10, 1);
}

#[test]
fn a_signal_of_no_use_is_named_and_ends_nothing() {
    let maitred = start(&["-w", "1"], &["return-half"]).ready(1);
    let before = maitred.pid(0);
    for (told, signal) in (1..).zip([SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGSTKFLT, SIGPWR]) {
        maitred.signal(signal);
        let name = signal.as_str().trim_start_matches("SIG");
        let logged = maitred.wait_for("signal without effect", told);
        assert_eq!(logged.last().unwrap()["signal"], name);
    }
    maitred.signal(SIGXFSZ);
    assert_eq!(maitred.pids(), [before]);
    maitred.stop();
}

/// A master of an ordinary user, whose processes can be limited.
fn limited(options: &[&str]) -> Maitred {
    let (master, worker) = (for_ordinary_user(env!("CARGO_BIN_EXE_maitred")), for_ordinary_user(&server()));
    let mut command = Command::new(master);
    as_ordinary_user(&mut command);
    Maitred::start_as(command, &[options, &["--", &worker, "poll", "0"]].concat())
}

/// Sets the soft limit of processes of the master's user, for the master alone.
fn limit(maitred: &Maitred, processes: &str) {
    let mut set = Command::new("prlimit");
    as_ordinary_user(&mut set);
    set.args(["--pid", &maitred.child.id().to_string(), &format!("--nproc={processes}:")]);
    assert!(set.status().unwrap().success());
}

#[test]
fn a_full_limit_of_processes_stops_neither_the_master_nor_its_answers() {
    let maitred = limited(&["-w", "2", "--max-rss", "10G"]).ready(2);
    let before = std::fs::read_to_string(format!("/proc/{}/limits", maitred.child.id())).unwrap();
    let soft =
        before.lines().find(|line| line.starts_with("Max processes")).unwrap().split_whitespace().nth(2).unwrap();
    limit(&maitred, "1");
    check_exact_spread(&maitred, 10, 2);
    maitred.told(&["status"]);
    // A fork that fails is waited out.
    kill(maitred.pid(0), SIGKILL);
    let failed = maitred.wait_for("cannot start a worker", 2);
    assert!(failed[0]["error"].as_str().unwrap().contains("Resource temporarily unavailable"), "{failed:?}");
    maitred.told(&["status"]);
    assert_eq!(load(maitred.address(), 5, 1).answered, 5);
    maitred.signal(SIGHUP);
    maitred.wait_for("cannot start a worker", 3);
    let refused = maitred.refused(&["upgrade"]);
    assert!(refused.contains("Resource temporarily unavailable"), "{refused}");
    limit(&maitred, soft);
    maitred.status_until(|s| s["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready"));
    check_exact_spread(&maitred, 10, 2);
    maitred.stop();
}

#[test]
fn a_thread_that_cannot_be_had_at_the_start_is_one_line() {
    let (master, worker) = (for_ordinary_user(env!("CARGO_BIN_EXE_maitred")), for_ordinary_user(&server()));
    if nix::unistd::geteuid().is_root() {
        // All of them are made before the first worker is forked, so each of these limits meets another.
        for processes in 1..=6 {
            let mut command = Command::new("prlimit");
            as_ordinary_user(&mut command);
            let control = scratch("control.sock");
            command.arg(format!("--nproc={processes}")).args([&master, "-q", "-w", "1", "--control"]).arg(&control);
            let output = command.args(["--", &worker, "poll", "0"]).stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(3), "{processes}: {said}");
            let line = said.lines().last().unwrap();
            assert!(line.starts_with("maitred: cannot start: ") && line.contains("ulimit -u"), "{processes}: {said}");
            assert!(!said.contains("panicked"), "{said}");
        }
    }
}

/// A pipe that takes nothing more; its reader.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = |flags| nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    flags(nix::fcntl::OFlag::O_NONBLOCK);
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    flags(nix::fcntl::OFlag::empty());
    let _ = writer.flush();
    (reader, writer)
}

/// Where output goes that cannot be written.
#[derive(Clone, Copy, Debug)]
enum To {
    /// A full disk.
    Full,
    /// A pipe that nobody reads any more.
    Broken,
    /// A pipe that nobody reads at the moment, and that is full.
    Blocked,
}

fn outlet(to: To) -> (Stdio, Option<PipeReader>) {
    match to {
        To::Full => (OpenOptions::new().write(true).open("/dev/full").unwrap().into(), None),
        To::Broken => (pipe().unwrap().1.into(), None),
        To::Blocked => {
            let (reader, writer) = full_pipe();
            (writer.into(), Some(reader))
        }
    }
}

#[test]
fn the_exit_code_comes_also_when_nobody_reads_why() {
    let control = scratch("control.sock");
    let control = control.to_str().unwrap();
    let cases: [(&[&str], i32); 6] = [
        (&["-w", "0", "--", "true"], 2),
        (&["-c", "/no/such/file"], 2),
        (&["--control", control, "--cwd", "/no/such", "--", "true"], 2),
        (&["--control", control, "-w", "1", "--", "false"], 3),
        (&["status", "--control", "/no/such"], 1),
        (&["check", "/no/such"], 1),
    ];
    for (words, code) in cases {
        for to in [To::Full, To::Broken, To::Blocked] {
            let (stderr, reader) = outlet(to);
            let mut child =
                maitred().args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
            let status = wait_child(&mut child);
            assert_eq!(status.code(), Some(code), "{words:?} {to:?}");
            drop(reader);
        }
        let line = "exec \"$0\" \"$@\" <&- >&- 2>&-";
        let closed = Command::new("sh").args(["-c", line, env!("CARGO_BIN_EXE_maitred")]).args(words).status().unwrap();
        assert_eq!(closed.code(), Some(code), "{words:?} closed");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is_one() {
    let running = Maitred::start(&["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    let control = running.control.to_str().unwrap();
    let commands: [&[&str]; 7] = [
        &["--help"],
        &["run", "--help"],
        &["--version"],
        &["check"],
        &["check", "--json", "true"],
        &["status", "--control", control],
        &["status", "--json", "--control", control],
    ];
    for words in commands {
        let told = |to| {
            let child = maitred().args(words).stdin(Stdio::null()).stdout(outlet(to).0).stderr(Stdio::piped()).spawn();
            let output = child.unwrap().wait_with_output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let expected = run(words).status.code();
        assert_eq!(told(To::Broken), (expected, String::new()), "{words:?}");
        let no_space = "maitred: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!(told(To::Full), (Some(1), no_space.to_owned()), "{words:?}");
    }
    running.stop();
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up_and_says_later_what_it_left_out() {
    let control = scratch("control.sock");
    let mut command = maitred();
    command.args(["run", "-v", "--control"]).arg(&control).args(misbehave(&["-w", "1"], &["chatter", "8000"]));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Who has said all of it serves, so the master has heard it.
    let deadline = Instant::now() + PATIENCE;
    let status = || maitred().args(["status", "--control"]).arg(&control).output().unwrap();
    while !String::from_utf8_lossy(&status().stdout).contains(" ready ") {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "it never serves");
    }
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text).unwrap()
    });
    kill(child.id() as i32, nix::sys::signal::SIGTERM);
    assert_eq!(wait_child(&mut child).code(), Some(0));
    let text = reader.join().unwrap();
    let left_out = "log lines were left out: nobody read them, or they could not be written left_out=";
    assert!(text.contains(left_out), "{} bytes", text.len());
}

#[test]
fn the_journal_gets_the_level_and_no_time() {
    use std::os::unix::fs::MetadataExt;
    let lines = |is_it: bool| {
        let (reader, writer) = std::io::pipe().unwrap();
        let writer = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let found = writer.metadata().unwrap();
        let named = format!("{}:{}", found.dev(), if is_it { found.ino() } else { found.ino() + 1 });
        let mut command = maitred();
        command.args(["-w", "1", "--control"]).arg(scratch("journal.sock")).args(["--", "false"]);
        let mut child = command.env("JOURNAL_STREAM", named).stderr(writer).spawn().unwrap();
        // The writing end is in the command, too.
        drop(command);
        let text = std::io::read_to_string(reader).unwrap();
        assert_eq!(wait_child(&mut child).code(), Some(3), "{text}");
        text
    };
    let text = lines(true);
    let begins = |beginning: &str, words: &str| text.lines().any(|l| l.starts_with(beginning) && l.contains(words));
    assert!(begins("<6>", "worker forked") && begins("<4>", "worker ended") && begins("<3>", "giving up"), "{text}");
    let other = lines(false);
    assert!(other.starts_with("20") && other.contains("worker forked") && !other.contains("<6>"), "{other}");
}
