//! A user's home, in which apps are started as an ordinary user.

use crate::support::*;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// A home with its own runtime directory and state; all that was started from there ends with it.
pub struct Home(pub PathBuf);

impl Home {
    pub fn new() -> Home {
        let home = scratch("home");
        std::fs::create_dir_all(&home).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
        }
        Home(home)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = maitred();
        command.env("XDG_RUNTIME_DIR", &self.0).env("XDG_STATE_HOME", self.0.join("state")).args(words);
        command.current_dir(root()).stdin(Stdio::null());
        as_ordinary_user(&mut command);
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What a command says that succeeds.
    pub fn said(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub fn start(&self, name: &str, options: &[&str]) -> (SocketAddr, i32) {
        let command = ["start", "-w", "2", "-b", "127.0.0.1:0", "--name", name];
        let said = self.said(&[&command, options, &["--", "python3", "tests/workers/chatty.py", "{port}"]].concat());
        assert!(said.starts_with(&format!("{name} has started: pid ")) && said.contains(", 2 workers, tcp:"), "{said}");
        self.of(name)
    }

    /// Where an app serves, and its master.
    pub fn of(&self, name: &str) -> (SocketAddr, i32) {
        let row = self.row(name);
        (tcp(&row["addresses"][0]), row["pid"].as_i64().unwrap() as i32)
    }

    pub fn list(&self) -> Vec<Value> {
        serde_json::from_str(&self.said(&["list", "--json"])).unwrap()
    }

    pub fn row(&self, name: &str) -> Value {
        self.list().into_iter().find(|row| row["name"] == name).unwrap_or_default()
    }

    pub fn log(&self, name: &str, log: &str) -> PathBuf {
        self.0.join(format!("state/maitred/logs/{name}/{log}.log"))
    }

    /// Waits until a log has this line.
    pub fn wait_for_line(&self, name: &str, log: &str, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(self.log(name, log)).unwrap_or_default();
            if text.lines().any(|there| there == line) {
                return;
            }
            assert!(Instant::now() < deadline, "{line:?} is never in {text:?}");
            std::thread::yield_now();
        }
    }
}

impl Home {
    /// Writes the file of apps, which is found from here.
    pub fn write(&self, text: &str) {
        std::fs::write(self.0.join("maitred.toml"), text).unwrap();
    }

    /// A command that is typed here, and not in the directory of the tests' programs.
    pub fn here(&self, words: &[&str]) -> Command {
        let mut command = self.command(words);
        command.current_dir(&self.0);
        command
    }

    /// What such a command says that succeeds.
    pub fn said_here(&self, words: &[&str]) -> String {
        let output = self.here(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Waits until an app is listed as wanted.
    pub fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let row = self.row(name);
            if wanted(&row) {
                return row;
            }
            assert!(Instant::now() < deadline, "{name} stays {row}");
            std::thread::yield_now();
        }
    }

    /// Waits until an app serves with so many workers.
    pub fn serves(&self, name: &str, workers: u64) -> Value {
        self.until(name, |row| row["state"] == "ready" && row["workers_ready"] == workers)
    }
}

/// `chatty.py` as a line of a file.
pub fn chatty() -> String {
    let program = root().join("tests/workers/chatty.py");
    format!("command = [\"python3\", \"{}\", \"{{port}}\"]\nbind = \"127.0.0.1:0\"\n", program.display())
}

/// The words that start one worker that does as its switches say.
pub fn pages(switches: &Switches, options: &[&str], of_pages: &str) -> Vec<String> {
    std::fs::set_permissions(switches.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let start = ["start", "-w", "1", "-b", "127.0.0.1:0", "--name", "web"];
    let pages = switches.pages(&[of_pages]).into_iter().map(|word| word.replace("127.0.0.1:0", "127.0.0.1:{port}"));
    start.iter().chain(options).chain(&["--"]).map(|word| (*word).to_owned()).chain(pages).collect()
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.run(&["delete", "all"]);
    }
}

pub fn body(address: SocketAddr, path: &str) -> String {
    match get(address, path) {
        Reply::Body(body) => body,
        failed => panic!("{path}: {failed:?}"),
    }
}
