//! Behind a wrapper the real server gets its time to end, too, and each process gets each signal once.

use crate::supervision::children_of;
use crate::support::*;
use nix::sys::signal::Signal::*;
use std::path::Path;

/// A shell line that stays beside the server that it starts.
fn beside(words: &[&str]) -> String {
    format!("{}; true", words.join(" "))
}

/// What the server of a slot noted of its stop signals.
fn terms(switches: &Switches, slot: usize) -> String {
    std::fs::read_to_string(Path::new(switches.path()).join(format!("terms-{slot}"))).unwrap_or_default()
}

fn exists(switches: &Switches, name: &str) -> bool {
    Path::new(switches.path()).join(name).exists()
}

#[test]
fn the_server_behind_a_shell_cleans_up_before_its_worker_has_ended() {
    for mode in ["handoff", "shared", "kernel"] {
        let switches = Switches::new();
        let line = beside(&switches.pages(&["tidy"]));
        let maitred =
            Maitred::start(&["--mode", mode, "-w", "2", "-b", "127.0.0.1:0", "--", "sh", "-c", &on_port(&line)])
                .ready(2);
        assert!(matches!(request(maitred.address()), Reply::Body(_)), "{mode}");
        maitred.signal(SIGTERM);
        (0..2).for_each(|slot| switches.wait_for(&format!("tidying-{slot}")));
        // The shells are gone: they do not handle the signal.
        maitred.wait_for("a worker's first process has ended; waiting for the others of its group", 2);
        switches.on("tidy");
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(0), "{mode}: {output}");
        for slot in 0..2 {
            assert!(exists(&switches, &format!("tidied-{slot}")), "{mode}: slot {slot} was killed: {output}");
            assert_eq!(terms(&switches, slot).lines().count(), 1, "{mode}: {}", terms(&switches, slot));
        }
    }
}

/// A line in which the server takes the port that the master bound.
fn on_port(line: &str) -> String {
    line.replace("127.0.0.1:0", "127.0.0.1:{port}")
}

#[test]
fn a_request_behind_a_wrapper_is_answered_during_a_reload_in_shared_mode() {
    let switches = Switches::new();
    let line = beside(&switches.pages(&["tidy"]));
    let maitred =
        Maitred::start(&["--mode", "shared", "-w", "1", "-b", "127.0.0.1:0", "--", "sh", "-c", &on_port(&line)])
            .ready(1);
    let address = maitred.address();
    std::thread::scope(|scope| {
        let client = scope.spawn(move || get(address, "/wait"));
        maitred.status_until(|s| s["workers"][0]["open"] == 1);
        maitred.signal(SIGHUP);
        switches.wait_for("tidying-0");
        switches.on("go");
        assert!(matches!(client.join().unwrap(), Reply::Body(_)));
    });
    switches.on("tidy");
    switches.wait_for("tidied-0");
    maitred.status_until(|s| s["leaving"].as_array().unwrap().is_empty());
    maitred.stop();
}

#[test]
fn npm_start_gives_the_server_its_time() {
    let switches = Switches::new();
    let app = scratch("npm-app");
    std::fs::create_dir_all(&app).unwrap();
    let words = switches.pages(&["tidy"]).join(" ");
    let package = serde_json::json!({"name": "app", "version": "1.0.0", "scripts": {"start": words}});
    std::fs::write(app.join("package.json"), package.to_string()).unwrap();
    let maitred = Maitred::start(&["-w", "1", "--cwd", app.to_str().unwrap(), "--", "npm", "start"]).ready(1);
    maitred.signal(SIGTERM);
    switches.wait_for("tidying-0");
    switches.on("tidy");
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(exists(&switches, "tidied-0"), "{output}");
}

#[test]
fn what_does_not_end_behind_a_wrapper_is_killed_when_grace_is_over() {
    let switches = Switches::new();
    let line = beside(&switches.pages(&["deaf"]));
    let maitred = Maitred::start(&["-w", "1", "--grace", "1s", "--", "sh", "-c", &line]).ready(1);
    let server = children_of(maitred.pid(0));
    assert_eq!(server.len(), 1);
    maitred.signal(SIGTERM);
    maitred.wait_for("killing a worker", 1);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    wait_gone(server[0]);
}

#[test]
fn with_kill_mode_mixed_the_rest_is_killed_when_the_first_process_has_ended() {
    let switches = Switches::new();
    let line = beside(&switches.pages(&["tidy"]));
    let maitred = Maitred::start(&["-w", "1", "--kill-mode", "mixed", "--", "sh", "-c", &line]).ready(1);
    let server = children_of(maitred.pid(0));
    maitred.signal(SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    server.into_iter().for_each(wait_gone);
    assert_eq!(terms(&switches, 0), "", "only the first process is told");
}

#[test]
fn with_kill_mode_process_the_rest_goes_on() {
    let switches = Switches::new();
    let server = switches.pages(&[]).join(" ");
    let line = format!("sleep 1000 & exec {server}");
    let maitred = Maitred::start(&["-w", "1", "--kill-mode", "process", "--", "sh", "-c", &line]).ready(1);
    let (first, job) = (maitred.pid(0), children_of(maitred.pid(0)));
    assert_eq!(job.len(), 1);
    assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
    wait_gone(first);
    maitred.status_until(|s| s["leaving"].as_array().unwrap().is_empty());
    assert!(maitred.tell(&["upgrade"]).status.success());
    kill(maitred.pid(0), SIGKILL);
    maitred.status_until(|s| s["workers"][0]["restarts"] == 2 && s["workers"][0]["state"] == "ready");
    assert!(Path::new(&format!("/proc/{}", job[0])).exists(), "it was ended");
    // The end of the master is the end of all.
    maitred.signal(SIGTERM);
    let (status, output) = maitred.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    wait_gone(job[0]);
}
