//! Workers get from the master what their own user may have, and no more; wrappers that change the user work.

use crate::paths::can_be_others;
use crate::support::*;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

const NOBODY: u32 = 65534;
const EACCES: i32 = nix::errno::Errno::EACCES as i32;
const EADDRINUSE: i32 = nix::errno::Errno::EADDRINUSE as i32;
/// Every way to ask: adapter, and whether by sockets or on the channel.
const WAYS: [(&str, &str); 3] = [("preload", "sockets"), ("seccomp", "sockets"), ("native", "channel")];

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A port for the privileged that nobody has.
fn privileged_port() -> u16 {
    // Tests that run beside this one look for one, too.
    static NEXT: AtomicU16 = AtomicU16::new(600);
    let ports = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).take_while(|port| *port < 1024);
    let mut free = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port below 1024")
}

/// Starts a worker that becomes another user and asks for addresses; what came of each.
fn ask(options: &[&str], (adapter, how): (&str, &str), uid: u32, addresses: &[&str]) -> (Maitred, Vec<i32>) {
    let script = root().join("tests/workers/lesser.py");
    let uid = uid.to_string();
    let command = ["--", "/usr/bin/python3", script.to_str().unwrap(), how, &uid];
    let maitred = Maitred::start(&[&["-w", "1", "--adapter", adapter], options, &command, addresses].concat());
    maitred.wait_for_output("asked all");
    let output = maitred.output();
    let result = |address: &&str| {
        let line = output.lines().find_map(|line| line.strip_prefix(&format!("asked {address}: ")));
        line.unwrap_or_else(|| panic!("{address}: {output}")).parse().unwrap()
    };
    let results = addresses.iter().map(result).collect();
    (maitred, results)
}

/// A directory with this owner and mode.
fn directory(owner: u32, mode: u32) -> PathBuf {
    let path = scratch("d");
    std::fs::create_dir(&path).unwrap();
    chown(&path, Some(owner), None).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_worker_that_gave_up_root_gets_nothing_that_its_user_may_not_have() {
    if !can_be_others() {
        return;
    }
    for way in WAYS {
        let (port, free) = (privileged_port().to_string(), free_port().to_string());
        let (roots, theirs, shared) = (directory(0, 0o755), directory(NOBODY, 0o700), directory(0, 0o1777));
        let in_roots = roots.join("x.sock").display().to_string();
        // Its own directory is no way into another one.
        std::os::unix::fs::symlink(&roots, theirs.join("way")).unwrap();
        let through = theirs.join("way/y.sock").display().to_string();
        let own = theirs.join("z.sock").display().to_string();
        // A dead socket of another service: it may be removed by who owns it only.
        let dead = shared.join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        let dead_text = dead.display().to_string();
        let asked = [&*port, &in_roots, &through, "/root/w.sock", &dead_text, &own, &free];
        let (maitred, results) = ask(&[], way, NOBODY, &asked);
        assert_eq!(results[..4], [EACCES; 4], "{way:?}: {}", maitred.output());
        assert!([EACCES, EADDRINUSE, 1].contains(&results[4]), "{way:?}: {results:?}");
        assert_eq!(results[5..], [0, 0], "{way:?}: {}", maitred.output());
        assert!(dead.symlink_metadata().is_ok() && std::fs::read_dir(&roots).unwrap().next().is_none());
        // It is as if it had made it itself.
        assert_eq!(std::fs::symlink_metadata(&own).unwrap().uid(), NOBODY, "{way:?}");
        assert!(
            !maitred
                .logged("a worker's user asks for what it may not have itself; give it to the workers with --bind")
                .is_empty()
        );
        maitred.signal(nix::sys::signal::SIGTERM);
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(0), "{output}");
        let left: Vec<_> = std::fs::read_dir(&theirs).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["way"], "{way:?}");
    }
}

#[test]
fn what_the_operator_bound_is_the_workers_whoever_they_are() {
    if !can_be_others() {
        return;
    }
    for way in WAYS {
        let (port, path) = (privileged_port().to_string(), directory(0, 0o755).join("x.sock").display().to_string());
        let binds = [format!("127.0.0.1:{port}"), format!("unix:{path}?mode=666")];
        let (maitred, results) = ask(&["-b", &binds[0], "-b", &binds[1]], way, NOBODY, &[&port, &path]);
        assert_eq!(results, [0, 0], "{way:?}: {}", maitred.output());
        assert_eq!(std::fs::symlink_metadata(&path).unwrap().uid(), 0);
        maitred.stop();
    }
}

#[test]
fn a_worker_that_is_what_the_master_is_gets_what_the_master_may() {
    let me = nix::unistd::geteuid().as_raw();
    let path = scratch("own.sock").display().to_string();
    for way in WAYS {
        let mut asked = vec![path.clone(), free_port().to_string()];
        if nix::unistd::geteuid().is_root() {
            asked.push(privileged_port().to_string());
        }
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        let (maitred, results) = ask(&[], way, me, &asked);
        assert!(results.iter().all(|errno| *errno == 0), "{way:?}: {results:?} {}", maitred.output());
        maitred.stop();
        assert!(std::fs::symlink_metadata(&path).is_err(), "{way:?}");
    }
}

#[test]
fn wrappers_that_change_the_user_work_with_every_mode_and_adapter() {
    if !can_be_others() {
        return;
    }
    let program = for_ordinary_user(&server());
    let setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    for (mode, adapter) in
        ["handoff", "shared", "kernel"].iter().flat_map(|mode| ["preload", "seccomp"].map(|adapter| (*mode, adapter)))
    {
        for wrapper in ["setpriv", "runuser", "su"] {
            let port = free_port().to_string();
            // What a supervised socket cannot keep is not looked at.
            let option = if adapter == "seccomp" { "supervised" } else { "plain" };
            let line = format!("{program} poll {port} {option}");
            let command: Vec<&str> = match wrapper {
                "setpriv" => [&setpriv[..], &[&program, "poll", &port, option]].concat(),
                "runuser" => vec!["runuser", "-u", "nobody", "--", &program, "poll", &port, option],
                _ => vec!["su", "-s", "/bin/sh", "nobody", "-c", &line],
            };
            let options = ["-w", "2", "--mode", mode, "--adapter", adapter, "--"];
            let maitred = Maitred::start(&[&options[..], &command].concat()).ready(2);
            let tally = load(maitred.address(), 20, 2);
            assert_eq!((tally.answered, tally.hung), (20, 0), "{wrapper} {mode} {adapter}: {:?}", tally.failed);
            maitred.stop();
        }
    }
}

#[test]
fn behind_a_wrapper_that_drops_the_environment_calls_are_supervised() {
    let port = free_port().to_string();
    let command = ["env", "-i", &server(), "poll", &port, "supervised"];
    let maitred = Maitred::start(&[&["-w", "2", "--"], &command[..]].concat()).ready(2);
    let chosen = maitred.logged("chose the adapter");
    assert_eq!(chosen[0]["adapter"], "seccomp", "{chosen:?}");
    let tally = load(maitred.address(), 20, 2);
    assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
    maitred.stop();
}
