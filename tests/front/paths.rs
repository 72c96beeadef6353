//! The shim's file, the control socket, and what is trusted on the way there.

use crate::support::*;
use nix::sys::signal::{SIGCONT, SIGSTOP, SIGTERM};
use nix::unistd::{Uid, geteuid};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

const NOBODY: u32 = 65534;

/// Whether this test can be another user, too; says so when it cannot.
pub fn can_be_others() -> bool {
    if !geteuid().is_root() {
        eprintln!("only root can be another user as well");
    }
    geteuid().is_root()
}

/// A directory that no other test uses.
fn directory(mode: u32) -> PathBuf {
    let path = scratch("d");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_a_worker_preloads_is_nobody_elses_also_after_the_master() {
    let line = format!("echo \"preloads $LD_PRELOAD\"; exec {} poll 0", server());
    let maitred = Maitred::start(&["-w", "1", "--", "sh", "-c", &line]).ready(1);
    let deadline = Instant::now() + PATIENCE;
    let preloads = loop {
        let output = maitred.output();
        if let Some(preloads) = output.lines().find_map(|line| line.strip_prefix("preloads ")) {
            break preloads.to_owned();
        }
        assert!(Instant::now() < deadline, "{output}");
        std::thread::yield_now();
    };
    let path = Path::new(preloads.split(':').next().unwrap());
    maitred.stop();
    assert!(path.is_absolute() && !path.starts_with("/proc"), "{}", path.display());
    for step in path.ancestors() {
        let found = step.symlink_metadata().unwrap();
        let mine = found.uid() == 0 || Uid::from_raw(found.uid()) == geteuid();
        let others = found.mode() & 0o022 != 0 && !(found.is_dir() && found.mode() & 0o1000 != 0);
        assert!(mine && !others, "{}: {found:?}", step.display());
    }
}

#[test]
fn the_shims_file_is_put_back_before_the_next_worker_needs_it() {
    let cache = directory(0o755);
    let line = format!("echo \"preloads $LD_PRELOAD\"; exec {} poll 0", server());
    let mut command = maitred();
    as_ordinary_user(&mut command);
    if geteuid().is_root() {
        std::os::unix::fs::chown(&cache, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let program = for_ordinary_user(&server());
    let line = line.replace(&server(), &program);
    command.env("XDG_RUNTIME_DIR", &cache);
    let maitred = Maitred::start_as(command, &["-w", "1", "--", "sh", "-c", &line]).ready(1);
    let place = cache.join("maitred-lib");
    assert_eq!(names(&place).len(), 1, "{}", maitred.output());
    std::fs::remove_dir_all(&place).unwrap();
    kill(maitred.pid(0), nix::sys::signal::SIGKILL);
    maitred.wait_for("worker ready", 2);
    assert_eq!(names(&place).len(), 1, "{}", maitred.output());
    maitred.stop();
}

#[test]
fn a_place_that_is_mounted_noexec_is_passed_over() {
    if !can_be_others() {
        return;
    }
    // Everywhere but in /var/lib: what is mounted is seen by this master and its workers only.
    let line = format!(
        "mount -t tmpfs -o noexec,mode=755 none /run && exec {} run -w 1 --log-format json --control {} -- sh -c '{}'",
        maitred().get_program().display(),
        scratch("c.sock").display(),
        format_args!("echo \"preloads $LD_PRELOAD\"; kill -TERM $PPID; exec {} poll 0", server()),
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &line]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("preloads /var/lib/maitred-lib/libmaitred-"), "{text}{}", said(&output));
}

#[test]
fn a_file_or_a_socket_of_others_stays_and_a_bare_name_will_do() {
    let dir = directory(0o700);
    let live = dir.join("live.sock");
    let _listener = UnixListener::bind(&live).unwrap();
    let datagrams = dir.join("datagrams.sock");
    let _datagrams = std::os::unix::net::UnixDatagram::bind(&datagrams).unwrap();
    let file = dir.join("app.toml");
    std::fs::write(&file, "precious").unwrap();
    let link = dir.join("link.sock");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    let before = names(&dir);
    for (path, words) in
        [(&file, "no socket"), (&link, "no socket"), (&live, "runs already"), (&datagrams, "something else")]
    {
        let output = run(&["--control", path.to_str().unwrap(), "-w", "1", "--", &server(), "poll", "0"]);
        crate::refusals::check(&output, 3, &[words, path.to_str().unwrap()]);
    }
    assert_eq!((names(&dir), std::fs::read_to_string(&file).unwrap()), (before, "precious".to_owned()));
    UnixStream::connect(&live).expect("it still listens under its name");

    // No lock is needed, so one that hangs is not opened.
    let mut command = maitred();
    command.current_dir(&dir);
    nix::unistd::mkfifo(&dir.join("x.lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut maitred = Maitred::start_as(command, &["--control", "x.sock", "-w", "1", "--", &server(), "poll", "0"]);
    maitred.control = dir.join("x.sock");
    let maitred = maitred.ready(1);
    assert_eq!(maitred.control.metadata().unwrap().mode() & 0o777, 0o600);
    assert!(maitred.control.metadata().unwrap().file_type().is_socket());
    maitred.stop();
    assert_eq!(names(&dir), ["app.toml", "datagrams.sock", "link.sock", "live.sock", "x.lock"]);
}

#[test]
fn a_directory_that_others_can_write_to_has_no_control_socket() {
    let dir = directory(0o777);
    let path = dir.join("x.sock");
    let output = run(&["--control", path.to_str().unwrap(), "-w", "1", "--", &server(), "poll", "0"]);
    crate::refusals::check(&output, 3, &["other users can write to", dir.to_str().unwrap(), "--control"]);
    assert_eq!(names(&dir).len(), 0);
}

/// There the machine's root is not mapped, and what belongs to it shows as the overflow user's.
#[test]
fn an_ordinary_user_has_a_control_socket_in_a_user_namespace_too() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("maitred");
    std::fs::copy(maitred().get_program(), &program).unwrap();
    let mut theirs = vec![dir.path().to_owned()];
    if geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        // What root put into a directory to which everybody can write may be anybody's.
        theirs.push(tempfile::tempdir().unwrap().keep());
        std::fs::set_permissions(&theirs[1], std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for place in theirs {
        let socket = place.join("c.sock");
        let line = format!("[ -S {} ] && echo there; kill -TERM $PPID; exec sleep 60", socket.display());
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]).arg(&program).args(["run", "-w", "1", "--control"]);
        command.arg(&socket).args(["--", "sh", "-c", &line]).stdin(Stdio::null());
        as_ordinary_user(&mut command);
        let output = command.output().unwrap();
        let there = String::from_utf8_lossy(&output.stdout).contains("there");
        assert_eq!(there, place == dir.path(), "{}", said(&output));
        if !there {
            assert!(said(&output).contains("belongs to user 65534"), "{}", said(&output));
            std::fs::remove_dir_all(place).unwrap();
        }
    }
}

#[test]
fn of_many_that_want_one_name_one_gets_it() {
    const MASTERS: usize = 8;
    let dir = directory(0o700);
    let path = dir.join("one.sock");
    // One that was killed left its socket.
    drop(UnixListener::bind(&path).unwrap());
    let start = || {
        let mut command = maitred();
        command.args(["run", "-q", "-w", "1", "--name", "one", "--control"]).arg(&path).args([
            "--",
            &server(),
            "poll",
            "0",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut all: Vec<Child> = (0..MASTERS).map(|_| start()).collect();
    let deadline = Instant::now() + PATIENCE;
    let mut ended = Vec::new();
    while ended.len() < MASTERS - 1 {
        assert!(Instant::now() < deadline, "only {} of {MASTERS} gave up", ended.len());
        if let Some(index) = all.iter_mut().position(|child| child.try_wait().unwrap().is_some()) {
            ended.push(all.remove(index).wait_with_output().unwrap());
        }
        std::thread::yield_now();
    }
    for output in ended {
        crate::refusals::check(&output, 3, &["runs already"]);
    }
    let output = maitred().args(["stop", "--wait", "--control"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let only = wait_child(&mut all[0]);
    assert_eq!((only.code(), names(&dir).len()), (Some(0), 0));
}

/// A master with its control socket in the directory of its unit.
fn in_unit(dir: &Path, name: &str) -> Child {
    let mut command = maitred();
    command.env("RUNTIME_DIRECTORY", format!("{}:/nonexistent", dir.display()));
    command.args(["run", "-q", "-w", "1", "--name", name, "--", &server(), "poll", "0"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !ask(dir, &["status", name]).status.success() {
        assert!(Instant::now() < deadline, "{name} never answers");
        std::thread::yield_now();
    }
    child
}

/// A command that looks there.
fn ask(dir: &Path, words: &[&str]) -> Output {
    maitred().env("RUNTIME_DIRECTORY", dir).args(words).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_directory_of_a_unit_is_where_it_is() {
    let dir = directory(0o755);
    let mut child = in_unit(&dir, "unit");
    assert_eq!(names(&dir), ["unit.sock"]);
    let listed = ask(&dir, &["list", "-q"]);
    assert!(String::from_utf8_lossy(&listed.stdout).lines().any(|line| line == "unit"), "{listed:?}");
    assert!(ask(&dir, &["stop", "unit", "--wait"]).status.success());
    assert_eq!((wait_child(&mut child).code(), names(&dir).len()), (Some(0), 0));
}

#[test]
fn a_stopped_master_holds_no_command_up_for_ever() {
    let dir = directory(0o755);
    let mut child = in_unit(&dir, "still");
    kill(child.id() as i32, SIGSTOP);
    let listed = ask(&dir, &["list", "-q"]);
    assert!(String::from_utf8_lossy(&listed.stdout).lines().any(|line| line == "still"), "{listed:?}");
    let (status, stop) = std::thread::scope(|scope| {
        let stop = scope.spawn(|| ask(&dir, &["stop", "still"]));
        (ask(&dir, &["status", "still"]), stop.join().unwrap())
    });
    crate::refusals::check(&status, 1, &["has not answered within 10s", "stopped or hangs"]);
    crate::refusals::check(&stop, 1, &["still under way", "carry it out all the same"]);
    kill(child.id() as i32, SIGCONT);
    // As it said.
    assert_eq!(wait_child(&mut child).code(), Some(0));
}

#[test]
fn commands_ask_nobody_elses_process() {
    if !can_be_others() {
        return;
    }
    let dir = directory(0o1777);
    let path = dir.join("web.sock");
    let script = "import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
server.listen()
print('listens', flush=True)
while True:
    try:
        server.accept()[0].sendall(b'{\"done\":\"spoofed\"}\\n')
    except OSError:
        pass
";
    let mut command = Command::new("/usr/bin/python3");
    as_ordinary_user(&mut command);
    let mut stranger = command.args(["-c", script]).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 8];
    stranger.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    for words in [&["status", "web"][..], &["stop", "web"]] {
        crate::refusals::check(&ask(&dir, words), 1, &["user 65534 listens on", "nothing was asked"]);
    }
    assert!(ask(&dir, &["list", "-q"]).stdout.iter().all(|byte| *byte != b'w'));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    std::os::unix::fs::chown(&dir, Some(NOBODY), None).unwrap();
    for words in [&["list"][..], &["status"]] {
        crate::refusals::check(&ask(&dir, words), 1, &["belongs to user 65534", dir.to_str().unwrap()]);
    }
}

#[test]
fn control_clients_that_say_nothing_make_room_for_who_comes_next() {
    let maitred = Maitred::start(&["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    let mut idle: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(&maitred.control).unwrap()).collect();
    let asked = Instant::now();
    assert_eq!(maitred.status()["pid"], maitred.child.id());
    assert!(asked.elapsed().as_secs() < 4, "{:?}", asked.elapsed());
    let mut answer = String::new();
    idle[0].read_to_string(&mut answer).unwrap();
    assert!(answer.contains("say nothing; ask again"), "{answer}");
    // The youngest is still heard.
    let last = idle.last_mut().unwrap();
    last.write_all(b"{\"command\":\"status\"}\n").unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"pid\""), "{answer}");
    maitred.wait_for("more than 32 control clients say nothing; the oldest is dismissed", 1);
    maitred.stop();
}

#[test]
fn what_a_container_refuses_is_named_by_run_and_by_check() {
    let confine = c_program("tests/workers/confine.c", "cc", &[]);
    for (refused, call) in [
        ("no-memfd", "memfd_create(2)"),
        ("no-prctl", "prctl(2)"),
        ("no-pidfd", "pidfd_open(2)"),
        ("no-socketpair", "socketpair(2)"),
    ] {
        let confined = |words: &[&str]| {
            let mut command = Command::new(&confine);
            command.arg(refused).arg(maitred().get_program()).args(words);
            command.stdin(Stdio::null()).output().unwrap()
        };
        let control = scratch("c.sock");
        let output = confined(&["-w", "1", "--control", control.to_str().unwrap(), "--", &server(), "poll", "0"]);
        crate::refusals::check(&output, 3, &["cannot start: ", call, "cannot be had", "seccomp profile"]);
        assert!(!said(&output).contains("ulimit -u"), "{}", said(&output));
        let output = confined(&["check", "--json"]);
        let check: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &check["default"]["works"]), (Some(1), &false.into()), "{check:#}");
        assert_eq!(check["facts"]["needs"][call]["errno"], libc::EPERM, "{check:#}");
        assert!(check["modes"][0]["how"].as_str().unwrap().contains(call), "{check:#}");
    }
}

#[test]
fn a_system_without_proc_is_told_to_mount_it() {
    if !can_be_others() {
        return;
    }
    let without = |words: &str| {
        let line = format!("umount -l /proc && exec {} {words}", maitred().get_program().display());
        Command::new("unshare").args(["-m", "sh", "-c", &line]).stdin(Stdio::null()).output().unwrap()
    };
    let output = without(&format!("--control {} -- sleep 1000", scratch("c.sock").display()));
    crate::refusals::check(&output, 3, &["cannot start: /proc cannot be had", "mount -t proc"]);
    let check = without("check --json");
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&check.stdout).contains("mount -t proc"), "{check:?}");
}

#[test]
fn a_signal_ends_a_master_whose_control_socket_is_gone() {
    let maitred = Maitred::start(&["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    std::fs::remove_file(&maitred.control).unwrap();
    // Somebody else's by now: it must stay.
    let _other = UnixListener::bind(&maitred.control).unwrap();
    let path = maitred.control.clone();
    maitred.signal(SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    UnixStream::connect(path).expect("the other one still listens");
}

#[test]
fn a_relative_path_under_a_long_directory_is_shared_too() {
    let mut long = scratch("long");
    (0..3).for_each(|_| long.push("d".repeat(60)));
    std::fs::create_dir_all(&long).unwrap();
    let script = "import os, socket
server = socket.socket(socket.AF_UNIX)
server.bind('./app.sock')
server.listen()
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\nslot ' + os.environ['MAITRED_SLOT'].encode())
    connection.close()";
    for mode in ["handoff", "shared"] {
        let args = ["--mode", mode, "-w", "2", "--cwd", long.to_str().unwrap(), "--", "python3", "-c", script];
        let maitred = Maitred::start(&args).ready(2);
        let status = maitred.status();
        assert_eq!(status["listeners"][0]["address"], format!("unix:{}/app.sock", long.display()));
        // As a client with the same working directory would.
        let client = "import socket
for _ in range(4):
    client = socket.socket(socket.AF_UNIX)
    client.connect('app.sock')
    client.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')
    print(client.makefile('rb').read().split(b'slot ')[1].decode())";
        let seen = std::process::Command::new("python3").args(["-c", client]).current_dir(&long).output().unwrap();
        let mut seen: Vec<&str> = std::str::from_utf8(&seen.stdout).unwrap().lines().collect();
        seen.sort_unstable();
        match mode {
            "handoff" => assert_eq!(seen, ["0", "0", "1", "1"]),
            _ => assert_eq!(seen.len(), 4),
        }
        assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
        maitred.stop();
        assert!(!long.join("app.sock").exists(), "{mode}");
    }
}
