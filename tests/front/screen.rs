//! `maitred top` on a terminal.

use crate::home::Home;
use crate::refusals::check;
use crate::support::*;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal::*;
use nix::sys::termios::tcgetattr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A program on a terminal.
struct OnTerminal {
    child: Child,
    terminal: File,
    side: File,
    screen: vt100::Parser,
}

impl OnTerminal {
    fn start(home: &Home, columns: u16, rows: u16) -> OnTerminal {
        // Closed in every other program that is started meanwhile, or the terminal would not go away.
        let terminal = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let path = ptsname_r(&terminal).unwrap();
        let side = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&path).unwrap();
        let size = ["-F", &path, "rows", &rows.to_string(), "cols", &columns.to_string()];
        assert!(Command::new("stty").args(size).status().unwrap().success());
        let mut command = home.command(&["top"]);
        let stdio = || Stdio::from(side.try_clone().unwrap());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio()).env("TERM", "xterm");
        let child = command.spawn().unwrap();
        OnTerminal {
            child,
            terminal: File::from(OwnedFd::from(terminal)),
            side,
            screen: vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0),
        }
    }

    fn until(&mut self, wanted: impl Fn(&vt100::Screen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(self.screen.screen()) {
            assert!(Instant::now() < deadline, "{}", self.screen.screen().contents());
            let mut chunk = [0; 4096];
            let read = self.terminal.read(&mut chunk).unwrap();
            self.screen.process(&chunk[..read]);
        }
    }

    /// Waits until these words are on the screen.
    fn shows(&mut self, words: &str) {
        self.until(|screen| screen.contents().contains(words));
    }

    /// Waits until the screen is again what it was before.
    fn is_left(&mut self) {
        self.until(|screen| !screen.alternate_screen() && !screen.hide_cursor());
    }

    fn presses(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_shows_what_runs_acts_on_it_and_leaves_the_terminal_as_it_was() {
    let home = Home::new();
    home.start("web", &[]);
    for (columns, rows) in [(80, 24), (44, 12)] {
        let mut top = OnTerminal::start(&home, columns, rows);
        let before = tcgetattr(top.side.as_fd()).unwrap();
        top.shows("1 of 1 apps run");
        top.shows("web");
        top.presses("+");
        top.shows("web: ");
        home.until("web", |row| row["workers_wanted"] == 3);
        top.presses("-");
        home.until("web", |row| row["workers_wanted"] == 2);
        top.presses("?");
        top.shows("reload: new workers first");
        top.presses("q");
        top.is_left();
        assert_eq!(wait_child(&mut top.child).code(), Some(0));
        assert_eq!(tcgetattr(top.side.as_fd()).unwrap(), before);
    }
}

#[test]
fn a_signal_and_a_terminal_that_goes_away_end_it() {
    let home = Home::new();
    let mut top = OnTerminal::start(&home, 80, 24);
    let before = tcgetattr(top.side.as_fd()).unwrap();
    top.shows("no app runs");
    kill(top.child.id() as i32, SIGTERM);
    top.is_left();
    assert_eq!(wait_child(&mut top.child).code(), Some(128 + 15));
    assert_eq!(tcgetattr(top.side.as_fd()).unwrap(), before);

    let mut top = OnTerminal::start(&home, 80, 24);
    top.shows("no app runs");
    let OnTerminal { terminal, side, .. } = &mut top;
    (*terminal, *side) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
    assert_ne!(wait_child(&mut top.child).code(), Some(0));
    check(&home.run(&["top"]), 1, &["needs a terminal", "maitred list"]);
}
