//! A reload mends a fleet of which one slot fails, and one that is given up leaves everything as it was.

use crate::support::*;
use nix::sys::signal::Signal::*;
use std::path::{Path, PathBuf};

/// Writes a configuration whose workers do `broken` in slot 0 while there is a switch of that name.
fn write(file: &Path, switches: &Switches, options: &str, broken: &str) {
    let serve = switches.pages(&[]).join(" ");
    let (dir, quoted) = (switches.path(), serde_json::to_string);
    let script = format!("[ $MAITRED_SLOT = 0 ] && [ -e {dir}/broken ] && {broken}; exec {serve}");
    std::fs::write(file, format!("{options}\ncommand = [\"sh\", \"-c\", {}]\n", quoted(&script).unwrap())).unwrap();
}

/// A fleet of two of which the first slot does `broken` instead of serving.
fn half_broken(switches: &Switches, options: &str, broken: &str) -> (Maitred, PathBuf) {
    let file = scratch("maitred.toml");
    let options = format!("workers = 2\n{options}");
    write(&file, switches, &options, broken);
    let maitred = Maitred::start(&["--config", file.to_str().unwrap()]).ready(2);
    switches.on("broken");
    kill(maitred.pid(0), SIGKILL);
    maitred.wait_for("worker forked", 3);
    write(&file, switches, &options, "true");
    (maitred, file)
}

const MODES: [(&str, &[&str]); 3] = [
    ("mode = \"kernel\"", &["reload", "--wait"]),
    ("max-surge = 0\nmax-unavailable = 1", &["reload", "--wait"]),
    ("", &["reload", "--fleet", "--wait"]),
];

#[test]
fn a_reload_mends_a_slot_that_fails_at_every_start() {
    for (options, reload) in MODES {
        let switches = Switches::new();
        let (maitred, _) = half_broken(&switches, options, "exit 1");
        maitred.wait_for("a slot waits before its worker is forked again", 2);
        assert_eq!(maitred.told(reload), "generation 2 serves", "{options}");
        assert_eq!(per_worker(&maitred.status(), "generation"), [2, 2], "{options}");
        maitred.stop();
    }
}

#[test]
fn a_reload_does_not_wait_for_a_slot_whose_worker_is_never_ready() {
    for (options, reload) in MODES {
        let switches = Switches::new();
        let (maitred, _) = half_broken(&switches, options, "exec sleep 1000");
        assert_eq!(maitred.told(reload), "generation 2 serves", "{options}");
        assert_eq!(per_worker(&maitred.status(), "generation"), [2, 2], "{options}");
        maitred.stop();
    }
}

#[test]
fn a_reload_that_is_given_up_leaves_as_many_workers_as_there_were() {
    let switches = Switches::new();
    let file = scratch("maitred.toml");
    write(&file, &switches, "workers = 2", "true");
    let maitred = Maitred::start(&["--config", file.to_str().unwrap()]).ready(2);
    switches.on("broken");
    // The first new worker fails, and then the first in one of the slots that were added.
    for (workers, slot, forked) in [(4, 0, 3), (1, 0, 4), (3, 2, 7)] {
        write(&file, &switches, &format!("workers = {workers}"), "exit 1");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("$MAITRED_SLOT = 0", &format!("$MAITRED_SLOT = {slot}"))).unwrap();
        let why = maitred.refused(&["reload", "--wait"]);
        assert!(why.contains("given up"), "{why:?}");
        maitred.wait_for("worker forked", forked);
        let before = |s: &serde_json::Value| {
            let workers = s["workers"].as_array().unwrap();
            let serves = |w: &serde_json::Value| w["state"] == "ready" && w["generation"] == 1;
            workers.len() == 2 && workers.iter().all(serves)
        };
        maitred.status_until(before);
    }
    maitred.stop();
}
