//! Unix sockets.

use super::*;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub fn all() -> Vec<Case> {
    [
        in_each_mode("Node's cluster: http-pipe", &[NODE], BOTH, no_peer_address),
        in_each_mode("Node's cluster: listen-pipe-readable-writable", &[NODE], BOTH, for_everybody),
        in_each_mode("Node's cluster: net-listen-relative-path", &[NODE], BOTH, long),
        in_each_mode("Node's cluster: eaccess, worker-disconnect-on-error", &[NODE], BOTH, taken),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn body(path: &Path) -> String {
    match ask_unix(path) {
        Reply::Body(said) => said.split_once("\r\n\r\n").unwrap().1.to_owned(),
        other => panic!("{}: {other:?}", path.display()),
    }
}

/// http-pipe.
fn no_peer_address(way: Way) -> String {
    let path = scratch("pipe");
    let maitred = node(way, &["-w", "2"], "path.js", &[path.to_str().unwrap()]);
    all_ready(&maitred, 2);
    for _ in 0..10 {
        let said = body(&path);
        assert!(said.ends_with("undefined undefined undefined undefined"), "{said}");
    }
    maitred.stop();
    assert!(!path.exists());
    "undefined".to_owned()
}

/// listen-pipe-readable-writable: also for those that come after a crash and a reload.
fn for_everybody(way: Way) -> String {
    let path = scratch("pipe");
    let maitred = node(way, &["-w", "2"], "path.js", &[path.to_str().unwrap(), "all"]);
    all_ready(&maitred, 2);
    let mode = || format!("{:o}", std::fs::metadata(&path).unwrap().permissions().mode() & 0o777);
    assert_eq!(mode(), "777");
    kill(maitred.pid(0), nix::sys::signal::Signal::SIGKILL);
    all_ready(&maitred, 3);
    reload(&maitred);
    body(&path);
    let mode = mode();
    maitred.stop();
    mode
}

/// net-listen-relative-path: the absolute path would not fit. The file is there all the time, also while workers leave;
/// with seccomp the master puts it back when a worker has removed it.
fn long(way: Way) -> String {
    let directory = scratch(&"x".repeat(100));
    std::fs::create_dir_all(&directory).unwrap();
    let options = ["-w", "2", "--cwd", directory.to_str().unwrap()];
    let maitred = node(way, &options, "path.js", &["./pipe"]);
    all_ready(&maitred, 2);
    // A short way to the same file.
    let short = scratch("short");
    std::os::unix::fs::symlink(&directory, &short).unwrap();
    (0..10).for_each(|_| drop(body(&short.join("pipe"))));
    if way.adapter == "preload" {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                while !done.load(Relaxed) {
                    body(&short.join("pipe"));
                }
            });
            let end = Stop(&done);
            reload(&maitred);
            drop(end);
            asking.join().unwrap();
        });
    }
    maitred.stop();
    assert!(!directory.join("pipe").exists());
    "removed".to_owned()
}

/// eaccess, worker-disconnect-on-error: somebody else serves there. The worker ends without a complaint; that was no
/// start, so the master gives up, and the other server goes on.
fn taken(way: Way) -> String {
    let path = scratch("pipe");
    let _holder = UnixListener::bind(&path).unwrap();
    let maitred = node(way, &["-w", "2"], "path.js", &[path.to_str().unwrap()]);
    wait_said(&maitred, "EADDRINUSE", 2);
    let ended = maitred.wait_for("worker ended", 1);
    assert_eq!(ended[0]["exit"], json!("exit status 0"));
    gives_up(maitred);
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    "EADDRINUSE".to_owned()
}
