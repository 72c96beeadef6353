//! The master's loop waits for no other process: while one hangs, everybody else is served.

use crate::support::*;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// So long an answer may take on a loaded machine, and much less than what would hold the loop up.
const SOON: Duration = Duration::from_millis(250);

/// The loader that a program names.
fn loader_of(program: &str) -> PathBuf {
    let said = Command::new("readelf").args(["-l", program]).output();
    let said = said.unwrap_or_else(|e| panic!("readelf: {e}; install it with apt-get install binutils"));
    let text = String::from_utf8(said.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split("program interpreter: ").nth(1)).expect("a dynamic program");
    line.trim_end_matches(']').into()
}

/// Holds a write lease on a file (fcntl(2)): who opens it waits until the lease is given back.
const LEASE: &str = "
import fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('taken', flush=True)
signal.sigwait([signal.SIGIO])
print('wanted', flush=True)
sys.stdin.readline()
";

struct Lease {
    holder: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Lease {
    fn take(path: &Path) -> Lease {
        let mut python = Command::new("python3");
        python.args(["-c", LEASE]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = python.spawn().unwrap();
        let mut said = BufReader::new(holder.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "taken");
        Lease { holder, said }
    }

    /// Waits until somebody waits for the file.
    fn wait_until_wanted(&mut self) {
        assert_eq!(self.said.next().unwrap().unwrap(), "wanted");
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_worker_that_hangs_before_its_program_does_not_hold_the_master_up() {
    let loader = scratch("loader");
    std::fs::copy(loader_of(&server()), &loader).unwrap();
    std::fs::set_permissions(&loader, std::fs::Permissions::from_mode(0o755)).unwrap();
    let flag = format!("-Wl,--dynamic-linker={}", loader.display());
    let program = c_program("tests/workers/server.c", "cc", &["-pthread", &flag]);
    let mut lease = Lease::take(&loader);
    let maitred = Maitred::start(&["-w", "1", "--", &program, "poll", "0"]);
    lease.wait_until_wanted();
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(maitred.status()["workers"][0]["state"], "starting");
        assert!(begun.elapsed() < SOON, "the status took {:?}", begun.elapsed());
    }
    drop(lease);
    let maitred = maitred.ready(1);
    let tally = load(maitred.address(), 10, 1);
    assert_eq!((tally.answered, tally.hung), (10, 0), "{:?}", tally.failed);
    maitred.stop();
}

#[test]
fn a_program_that_cannot_be_executed_is_named_with_the_reason() {
    let gone = scratch("gone");
    // It is looked at before it is executed, so that its loader is missing shows only then.
    let flag = format!("-Wl,--dynamic-linker={}", gone.display());
    let program = c_program("tests/workers/server.c", "cc", &["-pthread", &flag]);
    let output = run(&["run", "-w", "1", "--", &program, "poll", "0"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("cannot execute") && said.contains(&program), "{said}");
}

#[test]
fn a_dead_worker_whose_standard_error_lives_on_holds_nobody_up() {
    // The first to come serves; each later one fails, and leaves its standard error with another session.
    let first = scratch("first");
    let script = format!(
        "mkdir {} 2>/dev/null && exec {} poll 0; setsid sleep 20 >/dev/null </dev/null & exit 1",
        first.display(),
        server()
    );
    let maitred = Maitred::start(&["-w", "1", "--leave-children", "--", "sh", "-c", &script]).ready(1);
    maitred.told(&["scale", "2"]);
    let address = maitred.address();
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    // Two of them fail within this time; what is measured is everybody else meanwhile.
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        let tally = load(address, 1, 1);
        assert_eq!((tally.answered, tally.hung), (1, 0), "{:?}", tally.failed);
        longest = longest.max(asked.elapsed());
    }
    assert!(maitred.logged("worker ended").len() >= 2, "no worker failed");
    assert!(longest < SOON, "a request took {longest:?}");
    maitred.signal(Signal::SIGTERM);
    maitred.wait();
}
