//! Starts and ends the subjects.
//!
//! A mode or a variant is `maitred run` itself, this very program, with the user's command or the built-in worker. The
//! lab observes it through its log, its control socket and its processes, as an operator would.

mod address;
mod output;

use super::error::BenchError;
use super::plan::{Plan, Subject};
use super::stop::Stop;
use crate::config::Mode;
use crate::control::status::Status;
use crate::control::{Request, Usage, client, socket_path};
use crate::sys::process::guard::{Detached, Guard};
use crate::sys::process::spawn::{self, Child, Program, Stream};
use crate::sys::process::{census, limits, reap};
use address::{covers, reachable};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use output::Output;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How long a subject may take until all its workers serve.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long its workers may take to end; what they still do is irrelevant.
const GRACE: Duration = Duration::from_secs(3);
/// How often a peer, which does not report readiness, is checked; also how often a wait for the log checks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The largest depth of a process tree that a subject may leave behind.
const GENERATIONS_MAX: usize = 8;
/// The prefix of an error message of maitred.
const COMPLAINT: &str = "maitred: ";
/// Name of the built-in worker's subcommand.
pub const WORKER_COMMAND: &str = "bench-worker";

/// Starts subjects. There is one stage for the whole measurement.
pub struct Stage<'a> {
    plan: &'a Plan,
    guard: Guard,
    descriptors: u64,
    started: u32,
}

/// A subject that serves.
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// Copies of the worker.
    pub workers: u32,
    process: Option<Process>,
    control: Option<PathBuf>,
}

/// A front of ours to be started.
struct Ours<'a> {
    name: String,
    mode: Mode,
    workers: u32,
    /// Options of this subject only.
    options: &'a [String],
}

struct Process {
    child: Child,
    output: Output,
}

impl<'a> Stage<'a> {
    /// Call it from the main thread: the processes that it starts die with the calling thread.
    ///
    /// # Errors
    /// When the guard cannot be started, which kills what is left if this process is killed.
    pub fn new(plan: &'a Plan, descriptors: u64) -> io::Result<Stage<'a>> {
        let guard = Guard::start(Detached::End)?;
        // Workers whose own parent has ended must remain visible.
        limits::become_subreaper()?;
        Ok(Stage { plan, guard, descriptors, started: 0 })
    }

    /// Starts a subject and waits until it serves; `None` if `stop` came first.
    ///
    /// # Errors
    /// [`BenchError`]; in that case nothing of it is left running.
    pub fn start(&mut self, subject: &Subject, stop: &Stop) -> Result<Option<Running>, BenchError> {
        let workers = self.plan.workers_of(subject);
        match subject {
            Subject::Target { name, address } => {
                Ok(Some(Running { name: name.clone(), address: *address, workers, process: None, control: None }))
            }
            Subject::Mode(mode) => {
                self.start_ours(&Ours { name: mode.name(), mode: *mode, workers, options: &[] }, stop)
            }
            Subject::Variant { name, mode, options, .. } => {
                self.start_ours(&Ours { name: name.clone(), mode: *mode, workers, options }, stop)
            }
            Subject::Peer { name, command } => self.start_peer(name, command, stop),
        }
    }

    fn start_ours(&mut self, ours: &Ours<'_>, stop: &Stop) -> Result<Option<Running>, BenchError> {
        let (name, mode) = (ours.name.clone(), ours.mode.name());
        self.started += 1;
        let unique = format!("bench-{}-{}", std::process::id(), self.started);
        let myself = std::env::current_exe().map_err(own("find this program"))?;
        let workers = ours.workers.to_string();
        let words = ["run", "--mode", &mode, "--workers", &workers, "--name", &unique, "--log-format", "json"];
        // The subject of the measurement is how connections are shared, also on a port that the kernel chose.
        let words = words.into_iter().chain(["--share-port-zero"]);
        let mut args: Vec<OsString> = vec![myself.clone().into()];
        args.extend(words.map(OsString::from));
        args.extend(["--prefix", "never", "--grace"].map(OsString::from));
        args.push(humantime::format_duration(GRACE).to_string().into());
        let choice = self.plan.choices.iter().filter(|(of, _)| *of == ours.mode);
        args.extend(choice.flat_map(|(_, words)| words.iter().cloned()));
        args.extend(self.plan.run_options.iter().cloned());
        // If an option is given twice, the later one counts.
        args.extend(ours.options.iter().map(OsString::from));
        args.push("--".into());
        match &self.plan.command[..] {
            [] => args.extend([myself.clone().into(), WORKER_COMMAND.into()]),
            command => args.extend(command.iter().cloned()),
        }
        let process = self.spawn(&name, &myself, args, &[])?;
        let mut running = Running {
            name,
            address: ([0, 0, 0, 0], 0).into(),
            workers: ours.workers,
            process: Some(process),
            control: Some(socket_path(&unique)),
        };
        match self.wait_for_workers(&running, stop) {
            Ok(true) => {}
            Ok(false) => {
                running.stop(&self.guard);
                return Ok(None);
            }
            Err(error) => {
                running.stop(&self.guard);
                return Err(error);
            }
        }
        let found = running.status().and_then(|status| running.listener(&status, self.plan.address));
        match found {
            Ok(address) => {
                running.address = address;
                Ok(Some(running))
            }
            Err(error) => {
                running.stop(&self.guard);
                Err(error)
            }
        }
    }

    fn start_peer(&mut self, name: &str, command: &str, stop: &Stop) -> Result<Option<Running>, BenchError> {
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let address = probe.map_err(own("find a free port"))?;
        let port = address.port().to_string();
        let command = command.replace("{port}", &port).replace("{workers}", &self.plan.workers.to_string());
        let shell = Path::new("/bin/sh");
        let args = vec!["sh".into(), "-c".into(), command.into()];
        let process = self.spawn(name, shell, args, &[("PORT".into(), port.into())])?;
        let running = Running {
            name: name.to_owned(),
            address,
            workers: self.plan.workers,
            process: Some(process),
            control: None,
        };
        let until = Instant::now() + BOOT_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            let ended = running.ended();
            let late = Instant::now() >= until;
            if !ended && !late && !stop.wait(LOOK_EVERY) {
                continue;
            }
            let last_words = running.last_words();
            running.stop(&self.guard);
            return match (ended, late) {
                (true, _) => Err(BenchError::DidNotStart { name: name.to_owned(), last_words }),
                (_, true) => {
                    let missing = format!("nobody listens on {address}");
                    Err(BenchError::NotReady { name: name.to_owned(), after: BOOT_TIMEOUT, missing })
                }
                _ => Ok(None),
            };
        }
        Ok(Some(running))
    }

    fn spawn(
        &self,
        name: &str,
        path: &Path,
        args: Vec<OsString>,
        env: &[(OsString, OsString)],
    ) -> Result<Process, BenchError> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
            .map_err(|errno| BenchError::Own { what: "make a pipe", source: errno.into() })?;
        // What servers log about each request is not needed, and costs time.
        let null = File::options().write(true).open("/dev/null").map_err(own("open /dev/null"))?;
        let program = Program {
            path: path.to_owned(),
            args,
            env: std::env::vars_os().chain(env.iter().cloned()).collect(),
            cwd: None,
            stdin: None,
            stdout: Stream::Pipe(null.into()),
            stderr: Stream::Pipe(write),
            keep: Vec::new(),
            placed: Vec::new(),
            listen_fds: Vec::new(),
            descriptors: self.descriptors,
            watched: None,
            attributes: Default::default(),
        };
        let child =
            spawn::spawn_and_wait(&program).map_err(|source| BenchError::Spawn { name: name.to_owned(), source })?;
        self.guard.add(child.pid, None);
        let output = Output::read(read).map_err(own("start a thread"))?;
        Ok(Process { child, output })
    }

    /// Waits until every slot has a worker that is ready; false if `stop` came first.
    fn wait_for_workers(&self, running: &Running, stop: &Stop) -> Result<bool, BenchError> {
        let Some(process) = &running.process else { return Ok(true) };
        let until = Instant::now() + BOOT_TIMEOUT;
        let mut ready = 0;
        while ready < running.workers {
            match process.output.ready.recv_timeout(LOOK_EVERY) {
                Ok(()) => ready += 1,
                Err(RecvTimeoutError::Timeout) if stop.is_set() => return Ok(false),
                Err(RecvTimeoutError::Timeout) if Instant::now() < until && !running.ended() => {}
                Err(RecvTimeoutError::Timeout) if !running.ended() => {
                    let missing = format!("{ready} of {} workers listen", running.workers);
                    return Err(BenchError::NotReady { name: running.name.clone(), after: BOOT_TIMEOUT, missing });
                }
                Err(_) => {
                    let (name, last_words) = (running.name.clone(), running.last_words());
                    return Err(BenchError::DidNotStart { name, last_words });
                }
            }
        }
        Ok(true)
    }

    /// Ends a subject; the result says whether it ended well.
    pub fn end(&self, running: Running) -> Ended {
        running.stop(&self.guard)
    }
}

/// How a subject ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As expected.
    Well,
    /// Otherwise; what it said or what happened to it.
    Badly(String),
}

impl Running {
    /// The first of its processes, if it was started here.
    #[must_use]
    pub fn root(&self) -> Option<Pid> {
        self.process.as_ref().map(|process| process.child.pid)
    }

    /// The front's control socket, if a front of ours counts what it hands over.
    #[must_use]
    pub fn control(&self) -> Option<&Path> {
        self.control.as_deref()
    }

    /// Bytes that it wrote to standard error.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.process.as_ref().map_or(0, |process| process.output.kept.lock().map_or(0, |kept| kept.bytes))
    }

    /// What the front reports about itself.
    ///
    /// # Errors
    /// [`BenchError::Status`].
    pub fn status(&self) -> Result<Status, BenchError> {
        status(self.control.as_deref().unwrap_or(Path::new("")), &self.name)
    }

    /// The address to measure.
    fn listener(&self, status: &Status, asked: Option<SocketAddr>) -> Result<SocketAddr, BenchError> {
        let there: Vec<String> = status.listeners.iter().map(|l| l.address.clone()).collect();
        let tcp = |address: &String| address.strip_prefix("tcp:").and_then(|text| text.parse::<SocketAddr>().ok());
        let addresses: Vec<SocketAddr> = there.iter().filter_map(tcp).collect();
        let name = self.name.clone();
        match (asked, &addresses[..]) {
            (Some(asked), all) => match all.iter().find(|address| covers(**address, asked)) {
                Some(_) => Ok(asked),
                None => Err(BenchError::NoListener { name, wanted: asked.to_string(), there }),
            },
            (None, [one]) => Ok(reachable(*one)),
            (None, []) => Err(BenchError::NoListener { name, wanted: "a TCP address".to_owned(), there }),
            (None, _) => Err(BenchError::SeveralListeners { name, there }),
        }
    }

    fn ended(&self) -> bool {
        self.process.as_ref().is_some_and(|process| wait(&process.child.pidfd, Duration::ZERO))
    }

    fn last_words(&self) -> String {
        let Some(process) = &self.process else { return String::new() };
        // After it has ended, the end of its output is near.
        if self.ended() {
            while process.output.ready.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Disconnected) {}
        }
        let kept = process.output.kept.lock().map(|kept| kept.lines.clone()).unwrap_or_default();
        // An error message of maitred ends with the worker's own last output.
        let complaint =
            kept.iter().rposition(|line| line.starts_with(COMPLAINT)).unwrap_or(kept.len().saturating_sub(1));
        let words: Vec<&str> = kept.range(complaint..).map(|line| line.trim_start_matches(COMPLAINT)).collect();
        if words.is_empty() { "it ended without a word".to_owned() } else { words.join(" ") }
    }

    fn stop(self, guard: &Guard) -> Ended {
        let Some(process) = &self.process else { return Ended::Well };
        let pid = process.child.pid;
        // A stopped process cannot end.
        let _ = reap::signal_group(pid, Signal::SIGCONT);
        let _ = kill(pid, Signal::SIGTERM);
        let in_time = wait(&process.child.pidfd, GRACE + GRACE);
        let _ = reap::signal_group(pid, Signal::SIGKILL);
        wait(&process.child.pidfd, GRACE);
        let exit = reap::reap(process.child.pidfd.as_fd());
        guard.remove(pid);
        kill_what_is_left(guard);
        match (in_time, self.control.is_some(), exit) {
            (true, true, Ok(Some(status))) if status.success() => Ended::Well,
            (true, false, _) => Ended::Well,
            (false, ..) => Ended::Badly("it did not stop when asked".to_owned()),
            _ => Ended::Badly(self.last_words()),
        }
    }
}

/// Kills processes that became children of this one because their own parents ended, until none are left: a subject
/// may have started daemons.
fn kill_what_is_left(guard: &Guard) {
    for _ in 0..GENERATIONS_MAX {
        let left: Vec<Pid> = census::children().into_iter().filter(|pid| *pid != guard.process()).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
        }
    }
}

/// Asks a front for its status.
///
/// # Errors
/// [`BenchError::Status`].
pub fn status(control: &Path, name: &str) -> Result<Status, BenchError> {
    let answer = client::ask(name, control, &Request::Status { usage: Usage::Told }, client::Patience::Short);
    answer
        .and_then(|text| serde_json::from_str(&text).map_err(client::ClientError::Answer))
        .map_err(|source| BenchError::Status { name: name.to_owned(), source })
}

/// Whether the process of the pidfd has ended, or ends within that time.
fn wait(pidfd: &OwnedFd, most: Duration) -> bool {
    let timeout = PollTimeout::try_from(most.as_millis()).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
}

fn own(what: &'static str) -> impl FnOnce(io::Error) -> BenchError {
    move |source| BenchError::Own { what, source }
}

#[cfg(test)]
mod tests;
