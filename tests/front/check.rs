//! `maitred check`: what it promises is what `maitred run` then does.

use crate::support::*;
use serde_json::Value;
use std::process::{Command, Stdio};

/// What `maitred check --json COMMAND` says, and its exit code.
fn check_as(mut command: Command, server: &[&str]) -> (Value, i32) {
    command.args(["check", "--json", "--"]).args(server).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}; {output:?}"));
    (said, output.status.code().unwrap())
}

fn verdict<'a>(check: &'a Value, kind: &str, name: &str) -> &'a Value {
    check[kind].as_array().unwrap().iter().find(|v| v["name"] == name).unwrap()
}

/// Runs the server in each mode, and compares what is seen with what was said.
fn compare_with_reality(check: &Value, command: &dyn Fn() -> Command, server: &[&str]) {
    for mode in ["handoff", "shared", "kernel"] {
        let promised = verdict(check, "modes", mode)["works"].as_str().unwrap();
        let maitred = Maitred::start_as(command(), &[&["--mode", mode, "-w", "2", "--"], server].concat()).ready(2);
        let chosen = maitred.logged("chose the adapter");
        assert_eq!(chosen[0]["adapter"], check["default"]["adapter"], "{check:#}");
        assert_eq!(chosen[0]["reason"], check["default"]["reason"], "{check:#}");
        let tally = load(maitred.address(), 40, 4);
        assert_eq!((tally.answered, tally.hung), (40, 0), "{mode}: {:?}", tally.failed);
        if mode == "kernel" {
            // Partly, because a worker is drawn instead of taking its turn.
            let policy = maitred.status()["policy"].as_str().unwrap().to_owned();
            assert_eq!(promised == "yes", policy == "round-robin", "{promised} and {policy}");
        } else {
            assert_eq!(promised, "yes", "{mode}");
        }
        maitred.stop();
    }
}

#[test]
fn it_promises_what_then_happens() {
    let (dynamic, fixed) = (server(), static_server());
    for (server, adapter) in [(&dynamic, "preload"), (&fixed, "seccomp")] {
        let command = [&**server, "epoll", "0", "supervised"];
        let (check, code) = check_as(maitred(), &command);
        assert_eq!((code, &check["default"]["works"]), (0, &true.into()), "{check:#}");
        assert_eq!(check["default"]["adapter"], adapter);
        compare_with_reality(&check, &maitred, &command);
    }
}

#[test]
fn it_promises_an_ordinary_user_what_then_happens() {
    let user = || {
        let mut command = maitred();
        as_ordinary_user(&mut command);
        command
    };
    let server = for_ordinary_user(&static_server());
    let command = [&*server, "epoll", "0", "supervised"];
    let (check, code) = check_as(user(), &command);
    assert_eq!((code, &check["default"]["adapter"]), (0, &"seccomp".into()), "{check:#}");
    let kernel = verdict(&check, "modes", "kernel");
    assert_eq!(kernel["works"], "partly", "{check:#}");
    assert!(kernel["todo"].as_str().unwrap().contains("CAP_BPF"), "{kernel:#}");
    compare_with_reality(&check, &user, &command);
}

#[test]
fn a_supervisor_outside_leaves_no_room_for_another() {
    // The worker of this maitred is a maitred: the kernel allows one supervisor in a line of processes.
    let line = format!(
        "echo \"said $({} check --json -- {})\"; exec sleep 1000",
        maitred().get_program().display(),
        static_server()
    );
    let maitred = Maitred::start(&["-w", "1", "--adapter", "seccomp", "--", "sh", "-c", &line]);
    maitred.wait_for_output("said {");
    let output = maitred.output();
    let said = output.lines().find_map(|line| line.strip_prefix("said ")).unwrap_or_else(|| panic!("{output}"));
    let check: Value = serde_json::from_str(said).unwrap();
    assert_eq!((&check["default"]["works"], &check["default"]["adapter"]), (&false.into(), &"seccomp".into()));
    let seccomp = verdict(&check, "adapters", "seccomp");
    assert_eq!(seccomp["works"], "no", "{check:#}");
    assert!(seccomp["how"].as_str().unwrap().contains("busy"), "{seccomp:#}");
    assert!(seccomp["todo"].as_str().unwrap().contains("--adapter inherit"), "{seccomp:#}");
    maitred.stop();
}

#[test]
fn tables_for_people() {
    let output = run(&["check", "--", "python3", "server.py"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    for words in
        ["Linux ", "MODE", "ADAPTER", "handoff  yes", "TO GET MORE", "by default: handoff mode, preload adapter"]
    {
        assert!(text.contains(words), "{words:?} is missing in {text}");
    }
    let nothing = run(&["check"]);
    assert_eq!(nothing.status.code(), Some(0), "{nothing:?}");
}

#[test]
fn what_cannot_be_started_is_said_in_one_line() {
    let nowhere = scratch("nowhere");
    let file = scratch("file");
    std::fs::write(&file, "x").unwrap();
    for (command, words) in [(&nowhere, "nowhere"), (&file, "permission denied")] {
        for format in [&["check"][..], &["check", "--json"]] {
            let output = run(&[format, &["--", command.to_str().unwrap()]].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.starts_with("maitred: ") && said.lines().count() == 1 && said.contains(words), "{said}");
            if format.len() > 1 {
                let json: Value = serde_json::from_slice(&output.stdout).unwrap();
                assert!(json["error"].as_str().unwrap().contains(words), "{json:#}");
            }
        }
    }
}

#[test]
fn it_notes_what_will_happen_to_the_command() {
    let of = |command: &[&str]| {
        let (check, _) = check_as(maitred(), command);
        let notes = check["notes"].as_array().unwrap().iter().map(|note| note["about"].as_str().unwrap().to_owned());
        notes.collect::<Vec<_>>()
    };
    assert_eq!(of(&["sh", "-c", "sleep 1; true"]), [""; 0]);
    assert_eq!(of(&["sh", "-c", &format!("{} poll 0; true", server())]), ["wrapper"]);
    assert_eq!(of(&["node", "--inspect", "server.js"]), ["private-address"]);
}

#[test]
fn it_tries_a_command_and_says_what_was_seen() {
    let try_it = |command: &[&str]| {
        let mut check = maitred();
        check.args(["check", "--try", "--json", "--"]).args(command).stdin(Stdio::null());
        let output = check.output().unwrap();
        (serde_json::from_slice::<Value>(&output.stdout).unwrap(), output.status.code().unwrap())
    };
    let port = crate::calls::free_port().to_string();
    let (check, code) = try_it(&[&server(), "epoll", &port]);
    assert_eq!((code, &check["tried"]["ready"]), (0, &true.into()), "{check:#}");
    assert_eq!(check["tried"]["shared"], serde_json::json!([format!("tcp:127.0.0.1:{port}")]));
    let (check, code) = try_it(&["sh", "-c", "echo 'no cheese' >&2; exit 4"]);
    assert_eq!((code, &check["tried"]["ready"]), (1, &false.into()), "{check:#}");
    assert_eq!(check["tried"]["exit_code"], 3);
    assert!(check["tried"]["said"].to_string().contains("no cheese"), "{check:#}");
}
