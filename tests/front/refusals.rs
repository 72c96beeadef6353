//! What cannot be started: one clear line that says what failed, on what, why, and what to do; the
//! exit code that scripts know; nothing left running.

use crate::support::*;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

pub fn check(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let line = said.lines().rev().find(|line| line.starts_with("maitred: ") || line.starts_with("error: "));
    let line = line.unwrap_or_else(|| panic!("no line of ours in {said:?}"));
    for word in words {
        assert!(line.contains(word), "{word:?} is missing in {line:?}");
    }
}

#[test]
fn wrong_usage() {
    assert_eq!(run(&[]).status.code(), Some(2));
    check(&run(&["-w", "0", "--", "true"]), 2, &["--workers", "0 workers would serve nobody", "use 1 or more"]);
    check(&run(&["-w", "1000000", "--", "true"]), 2, &["--workers", "1000000", "1024"]);
    check(&run(&["-w", "99999999999999999999", "--", "true"]), 2, &["--workers", "1024"]);
    check(&run(&["-w", "many", "--", "true"]), 2, &["--workers", "a number, A..B, auto, or -K"]);
    check(&run(&["-b", "8080", "--", "true"]), 2, &["--bind", "a port needs a colon", ":8080"]);
    check(&run(&["-b", "127.0.0.1:99999", "--", "true"]), 2, &["--bind", "99999", "0 to 65535"]);
    check(&run(&["-b", "::1:80", "--", "true"]), 2, &["brackets", "[::1]:80"]);
    check(&run(&["-b", "unix:relative", "--", "true"]), 2, &["absolute path"]);
    check(&run(&["-b", "nowhere", "--", "true"]), 2, &["expected HOST:PORT"]);
    check(&run(&["--depth", "0", "--", "true"]), 2, &["--depth", "1..=512"]);
    check(&run(&["--grace", "soon", "--", "true"]), 2, &["--grace"]);
    check(&run(&["--stop-signal", "NOPE", "--", "true"]), 2, &["--stop-signal", "TERM, INT or QUIT"]);
    check(&run(&["--name", "../x", "--", "true"]), 2, &["--name", "letters, digits"]);
    check(&run(&["--env", "NOVALUE", "--", "true"]), 2, &["KEY=VALUE"]);
    check(&run(&["--cwd", "/no/such/dir", "--", "true"]), 2, &["/no/such/dir", "--cwd"]);
    check(&run(&["--mode", "magic", "--", "true"]), 2, &["--mode", "magic"]);
}

#[test]
fn what_others_would_type_is_wrong_usage_and_no_program() {
    check(&run(&["-w2", "--polcy", "x", "--", "true"]), 2, &["unexpected argument '--polcy'"]);
    check(&run(&["--daemon", "--", "true"]), 2, &["--daemon", "maitred start"]);
    check(&run(&["-i", "max", "--", "true"]), 2, &["-w auto"]);
    check(&run(&["bench", "--conections", "9", "--", "true"]), 2, &["unexpected argument '--conections'"]);
    check(&run(&["check", "--adaptor", "none", "--", "true"]), 2, &["unexpected argument '--adaptor'"]);
    check(&run(&["dash"]), 2, &["maitred top", "maitred -- dash"]);
    check(&run(&["-w", "2", "ps"]), 2, &["maitred list", "maitred -- ps"]);
    check(&run(&["relaod", "web"]), 2, &["did you mean reload?"]);
    let file = scratch("app.toml");
    std::fs::write(&file, "command = [\"true\"]\nworkrs = 2\n").unwrap();
    let file = file.to_str().unwrap();
    let said = format!("{file}:2: unknown key \"workrs\"; did you mean \"workers\"?");
    check(&run(&[&format!("-c{file}")]), 2, &[&said]);
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = taken.local_addr().unwrap().port().to_string();
    let control = scratch("c.sock");
    let control = control.to_str().unwrap();
    let words = ["cannot bind", &address, "in use", "ss -ltnp"];
    check(&run(&["--control", control, "-w", "2", "-b", &address, "--", "sleep", "1000"]), 3, &words);
    // The same when it is a worker that asks for it.
    check(&run(&["--control", control, "-w", "2", "--", &server(), "poll", &port]), 3, &words);
}

#[test]
fn a_privileged_port_without_rights() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let first: u16 = first.trim().parse().unwrap();
    assert!(first > 81, "this system has no privileged ports; set net.ipv4.ip_unprivileged_port_start to 1024");
    let mut command = maitred();
    as_ordinary_user(&mut command);
    let control = scratch("dir");
    command.env("XDG_RUNTIME_DIR", "/nonexistent").args(["-w", "1", "-b", "127.0.0.1:81", "--", "sleep", "1000"]);
    drop(control);
    check(
        &command.output().unwrap(),
        3,
        &["cannot bind 127.0.0.1:81", "ermission denied", "above 1023", "CAP_NET_BIND_SERVICE"],
    );
}

#[test]
fn an_address_that_this_machine_does_not_have() {
    check(&run(&["-b", "192.0.2.1:8080", "--", "sleep", "1000"]), 3, &["cannot bind 192.0.2.1:8080", "no interface"]);
}

#[test]
fn a_command_that_cannot_be_executed() {
    check(&run(&["--", "no-such-command-anywhere"]), 3, &["no-such-command-anywhere", "PATH", "spelling"]);
    check(&run(&["--", "./no/such/file"]), 3, &["no/such/file", "no such file"]);
    check(&run(&["--", "/"]), 3, &["directory"]);
    let file = scratch("not-executable");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    check(&run(&["--", file.to_str().unwrap()]), 3, &["permission denied", "chmod +x"]);
    let garbage = scratch("garbage");
    std::fs::write(&garbage, [0u8; 64]).unwrap();
    std::fs::set_permissions(&garbage, std::fs::Permissions::from_mode(0o755)).unwrap();
    check(&run(&["-w", "2", "--", garbage.to_str().unwrap()]), 3, &["cannot execute", "garbage", "format"]);
}

#[test]
fn a_static_binary_is_told_why_and_what_else() {
    let program = c_program("worker-examples/unaware.c", "cc", &["-static"]);
    let words = ["cannot load the shim", "statically linked", "--adapter seccomp"];
    check(&run(&["-w", "2", "--adapter", "preload", "--", &program, "0"]), 3, &words);
}

#[test]
fn a_worker_that_never_boots_ends_the_master_with_its_last_words() {
    let marker = scratch("marker");
    let line = format!("echo 'configuration is missing' >&2; : {}; exit 7", marker.display());
    let control = scratch("c.sock");
    let output = run(&["--control", control.to_str().unwrap(), "-w", "3", "--", "sh", "-c", &line]);
    check(&output, 3, &["no worker came up", "exit status 7", "before it listened"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.trim_end().ends_with("configuration is missing"), "{said}");
    nothing_runs(marker.to_str().unwrap());
    let output = run(&["--control", control.to_str().unwrap(), "-w", "2", "--", "true"]);
    check(&output, 3, &["no worker came up", "exit status 0", "wrote nothing"]);
}

/// No process has this text in its arguments.
fn nothing_runs(marker: &str) {
    let me = std::process::id().to_string();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let found = String::from_utf8_lossy(&arguments).contains(marker) && process.file_name().to_str() != Some(&me);
        assert!(!found, "process {:?} is left running", process.file_name());
    }
}

#[test]
fn status_of_nobody() {
    check_failure(&["status", "--control", "/no/such/socket"], &["no maitred", "/no/such/socket"]);
}

fn check_failure(args: &[&str], words: &[&str]) {
    check(&run(args), 1, words);
}

#[test]
fn a_command_that_is_a_pipe_with_a_name_is_refused_at_once() {
    let pipe = scratch("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    check(&run(&["-w", "1", "--", pipe.to_str().unwrap()]), 3, &["cannot execute", "ermission denied"]);
}
