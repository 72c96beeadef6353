//! `maitred check --try`: runs the command for a moment under a maitred of its own, and says what was seen.

use crate::control::client;
use crate::control::status::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the workers may take to be ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Copies that are tried: with two it shows what they share.
const COPIES: &str = "2";
/// Lines of the output that are kept.
const LINES: usize = 5;

/// What was seen.
#[derive(Debug, Serialize)]
pub struct Seen {
    /// Whether every copy was ready.
    pub ready: bool,
    /// For how long it ran until it was, or until it was given up.
    pub after_s: f64,
    /// The addresses that the copies share.
    pub shared: Vec<String>,
    /// How each copy took part.
    pub adapters: Vec<String>,
    /// The exit code of the maitred that ran it.
    pub exit_code: Option<i32>,
    /// What it and the command said last, if that is of interest.
    pub said: Vec<String>,
}

impl Seen {
    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        let (took, shared) = (self.after_s, self.shared.join(", "));
        let mut text = match (self.ready, self.shared.is_empty()) {
            (true, false) => format!("tried: {COPIES} copies were ready after {took:.1} s and share {shared}\n"),
            (true, true) => {
                format!(
                    "tried: {COPIES} copies were ready after {took:.1} s, and share no address: see --private, --share-port-zero\n"
                )
            }
            (false, _) => format!("tried: the copies were not ready within {took:.1} s\n"),
        };
        if self.exit_code != Some(0) {
            let code = self.exit_code.map_or_else(|| "by a signal".to_owned(), |code| format!("with {code}"));
            text += &format!("it ended {code}\n");
        }
        self.said.iter().for_each(|line| text += &format!("  {line}\n"));
        text
    }
}

/// Runs the command, waits until it is ready, and stops it.
///
/// # Errors
/// When this program cannot be started once more.
pub fn run(command: &[OsString], cwd: Option<&Path>, dir: &Path) -> io::Result<Seen> {
    let control = dir.join("control.sock");
    let output = dir.join("output");
    let file = std::fs::File::create(&output)?;
    let mut maitred = Command::new(std::env::current_exe()?);
    maitred.args(["run", "-w", COPIES, "--grace", "5s", "--boot-timeout", "10s", "--control"]).arg(&control);
    if let Some(cwd) = cwd {
        maitred.arg("--cwd").arg(cwd);
    }
    maitred.arg("--").args(command).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let begun = Instant::now();
    let mut child = maitred.spawn()?;
    let (ready, status) = watch(&mut child, &control, begun)?;
    let after_s = begun.elapsed().as_secs_f64();
    if child.try_wait()?.is_none() {
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    }
    let exit_code = child.wait()?.code();
    let shared = status.iter().flat_map(|status| &status.listeners).map(|listener| listener.address.clone()).collect();
    let adapters = status.iter().flat_map(|status| &status.workers).map(|worker| worker.adapter.clone()).collect();
    let all = String::from_utf8_lossy(&std::fs::read(&output)?).into_owned();
    let telling = |line: &&str| !line.contains(" INFO ") && !line.trim().is_empty();
    let said: Vec<&str> =
        if ready && exit_code == Some(0) { Vec::new() } else { all.lines().filter(telling).collect() };
    let said = said.iter().skip(said.len().saturating_sub(LINES)).map(|line| (*line).to_owned()).collect();
    Ok(Seen { ready, after_s, shared, adapters, exit_code, said })
}

/// Waits until every copy is ready, the maitred has ended, or it takes too long. Returns the last status.
fn watch(child: &mut Child, control: &Path, begun: Instant) -> io::Result<(bool, Option<Status>)> {
    let mut last = None;
    while begun.elapsed() < PATIENCE && child.try_wait()?.is_none() {
        if let Ok(status) = client::status("check", control) {
            let ready = !status.workers.is_empty() && status.ready() == status.workers.len();
            last = Some(status);
            if ready {
                return Ok((true, last));
            }
        }
        // There is nothing to wait for: another program comes up.
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok((false, last))
}
