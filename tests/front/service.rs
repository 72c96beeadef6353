//! What a service manager hears (`sd_notify(3)`), from a socket in its place.

use crate::support::*;
use nix::sys::signal::Signal::*;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::Command;

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new() -> Manager {
        let path = scratch("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, path }
    }

    fn command(&self) -> Command {
        let mut command = maitred();
        command.env("NOTIFY_SOCKET", &self.path);
        command
    }

    fn hears(&self) -> String {
        let mut packet = [0; 4096];
        let length = self.socket.recv(&mut packet).expect("nothing more is said");
        String::from_utf8(packet[..length].to_vec()).unwrap()
    }

    /// Waits for a message with this line.
    fn hears_line(&self, line: &str) -> String {
        loop {
            let said = self.hears();
            if said.lines().any(|there| there == line) {
                return said;
            }
        }
    }
}

fn monotonic_micros() -> u128 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    std::time::Duration::from(now).as_micros()
}

/// The value of a variable in a message.
fn value(said: &str, name: &str) -> u128 {
    said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap().parse().unwrap()
}

#[test]
fn it_hears_of_the_start_each_reload_an_upgrade_and_the_end() {
    let manager = Manager::new();
    let file = scratch("app.toml");
    let right = format!("workers = 2\ncommand = [\"{}\", \"poll\", \"0\"]\n", server());
    std::fs::write(&file, &right).unwrap();
    let maitred = Maitred::start_as(manager.command(), &["-c", file.to_str().unwrap()]);
    let ready = manager.hears_line("READY=1");
    let pid = value(&ready, "MAINPID");
    manager.hears_line("STATUS=2/2 ready, generation 1");
    maitred.wait_for("worker ready", 2);

    let before = monotonic_micros();
    maitred.signal(SIGHUP);
    let reloading = manager.hears_line("RELOADING=1");
    assert!((before..=monotonic_micros()).contains(&value(&reloading, "MONOTONIC_USEC")), "{reloading}");
    manager.hears_line("READY=1");
    manager.hears_line("STATUS=2/2 ready, generation 2");
    // Also one that is refused is answered, or the manager would wait.
    std::fs::write(&file, "wrkers = 2\n").unwrap();
    maitred.signal(SIGHUP);
    manager.hears_line("RELOADING=1");
    manager.hears_line("READY=1");
    std::fs::write(&file, &right).unwrap();
    // And one that came over the control socket.
    assert_eq!(maitred.told(&["reload", "--wait"]), "generation 3 serves");
    manager.hears_line("RELOADING=1");
    manager.hears_line("READY=1");

    maitred.told(&["upgrade"]);
    assert_eq!(value(&manager.hears_line("READY=1"), "MAINPID"), pid);
    maitred.signal(SIGTERM);
    manager.hears_line("STOPPING=1");
    assert!(value(&manager.hears(), "EXTEND_TIMEOUT_USEC") >= 10_000_000);
    assert_eq!(maitred.wait().0.code(), Some(0));
}

#[test]
fn a_start_that_fails_is_never_ready() {
    let manager = Manager::new();
    let output = manager.command().args(["-w", "1", "--", "false"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    manager.socket.set_nonblocking(true).unwrap();
    let mut packet = [0; 4096];
    while let Ok(length) = manager.socket.recv(&mut packet) {
        let said = String::from_utf8_lossy(&packet[..length]).into_owned();
        assert!(!said.contains("READY=1"), "{said}");
    }
}

#[test]
fn its_watchdog_is_fed_by_the_loop_and_only_if_it_is_meant() {
    let manager = Manager::new();
    let mut command = manager.command();
    command.env("WATCHDOG_USEC", "300000");
    let maitred = Maitred::start_as(command, &["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    for _ in 0..5 {
        manager.hears_line("WATCHDOG=1");
    }
    // A loop that stands still feeds nothing.
    maitred.signal(SIGSTOP);
    manager.socket.set_read_timeout(Some(std::time::Duration::from_millis(900))).unwrap();
    let mut packet = [0; 4096];
    while manager.socket.recv(&mut packet).is_ok() {}
    maitred.signal(SIGCONT);
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    manager.hears_line("WATCHDOG=1");
    maitred.stop();

    // Another process is meant.
    let manager = Manager::new();
    let mut command = manager.command();
    command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let maitred = Maitred::start_as(command, &["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    maitred.signal(SIGTERM);
    loop {
        let said = manager.hears();
        assert!(!said.contains("WATCHDOG=1"), "{said}");
        if said.contains("STOPPING=1") {
            break;
        }
    }
    maitred.wait();
}

#[test]
fn a_manager_that_does_not_read_or_is_gone_holds_nobody_up() {
    let full = Manager::new();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", &full.path).is_ok() {}
    let gone = Manager::new();
    std::fs::remove_file(&gone.path).unwrap();
    for manager in [full, gone] {
        let mut command = manager.command();
        command.env("WATCHDOG_USEC", "3000");
        let maitred = Maitred::start_as(command, &["-w", "2", "--", &server(), "poll", "0"]).ready(2);
        check_exact_spread(&maitred, 200, 4);
        maitred.signal(SIGHUP);
        maitred.wait_for("reload done: the new generation serves", 1);
        maitred.signal(SIGTERM);
        assert_eq!(maitred.wait().0.code(), Some(0));
    }
}

#[test]
fn a_name_that_is_no_file_is_found_too() {
    let name = format!("maitred-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let manager = Manager { socket, path: PathBuf::new() };
    let mut command = maitred();
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let maitred = Maitred::start_as(command, &["-w", "1", "--", &server(), "poll", "0"]).ready(1);
    manager.hears_line("READY=1");
    maitred.stop();
}
