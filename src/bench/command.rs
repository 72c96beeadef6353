//! A command of the user, run again and again while the clients are at work: a reload, an upgrade, a kill.
//! [`super::disturb`] has the disturbances of the workloads.

use super::stop::Stop;
use crate::core::fleet::Exit;
use crate::sys::process::limits;
use crate::sys::process::reap::{reap, signal_group};
use crate::sys::process::spawn::{self, Child, Program, Stream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Path of the subject's control socket; only a front of ours has one.
const CONTROL: &str = "MAITRED_CONTROL";
/// The port that is measured.
const PORT: &str = "MAITRED_PORT";
/// Pid of the subject's first process; unknown for a subject that already runs.
const PID: &str = "MAITRED_PID";
/// The number of earlier runs of the command.
const TIME: &str = "MAITRED_TIME";
/// The subject's name in the report, for a command that distinguishes subjects.
const SUBJECT: &str = "MAITRED_SUBJECT";
/// How long a command that still runs at the end may clean up before it is killed.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// How many bytes from the end of a command's standard error are kept for a message.
const TAIL: usize = 4096;

/// The command and its rhythm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// For `sh -c`.
    pub command: String,
    /// From the end of one run to the start of the next; also before the first.
    pub every: Duration,
    /// How many times; until the end if not set.
    pub times: Option<u64>,
}

/// What a command is told about the subject.
#[derive(Clone, Debug)]
pub struct Around {
    /// Its name.
    pub subject: String,
    /// The port that is measured.
    pub port: u16,
    /// Its first process, if it was started here.
    pub pid: Option<Pid>,
    /// Its control socket, if it is a front of ours.
    pub control: Option<PathBuf>,
}

/// The results of the commands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// How many completed.
    pub times: u64,
    /// How many of these failed.
    pub failed: u64,
    /// How many still ran when the clients had finished, and were ended: one or none in each run.
    pub cut_short: u64,
    /// Total seconds of those that completed.
    pub took_s: f64,
    /// The last line that the most recent failed one wrote to standard error.
    pub last_words: Option<String>,
}

impl Ran {
    /// Adds the results of another run.
    pub fn add(&mut self, more: &Ran) {
        self.times += more.times;
        self.failed += more.failed;
        self.cut_short += more.cut_short;
        self.took_s += more.took_s;
        if more.last_words.is_some() {
            self.last_words.clone_from(&more.last_words);
        }
    }

    /// Average seconds of one.
    #[must_use]
    pub fn mean_s(&self) -> Option<f64> {
        (self.times > 0).then(|| self.took_s / self.times as f64)
    }
}

/// How one command ended.
enum End {
    Well,
    Badly(String),
    CutShort,
}

/// Runs the command until `stop`, or as often as requested. Call it from a thread that lives as long: the processes
/// that it starts die with that thread.
#[must_use]
pub fn run(command: &Command, around: &Around, stop: &Stop) -> Ran {
    let mut ran = Ran::default();
    while command.times.is_none_or(|times| ran.times < times) && !stop.wait(command.every) {
        let began = Instant::now();
        match once(command, around, ran.times, stop).unwrap_or_else(|error| End::Badly(error.to_string())) {
            End::CutShort => {
                ran.cut_short += 1;
                break;
            }
            End::Well => {}
            End::Badly(why) => {
                ran.failed += 1;
                ran.last_words = Some(why);
            }
        }
        ran.times += 1;
        ran.took_s += began.elapsed().as_secs_f64();
    }
    ran
}

/// Runs it once. Anything it leaves behind in its process group is killed.
fn once(command: &Command, around: &Around, time: u64, stop: &Stop) -> io::Result<End> {
    let (read, write) = spawn::output_pipe()?;
    let program = Program {
        path: "/bin/sh".into(),
        args: ["sh", "-c", &command.command].map(OsString::from).into(),
        env: environment(std::env::vars_os(), around, time),
        cwd: None,
        stdin: None,
        stdout: Stream::Pipe(File::options().write(true).open("/dev/null")?.into()),
        stderr: Stream::Pipe(write),
        keep: Vec::new(),
        placed: Vec::new(),
        listen_fds: Vec::new(),
        descriptors: limits::descriptor_limit()?.soft,
        watched: None,
        attributes: Default::default(),
    };
    let child = spawn::spawn_and_wait(&program).map_err(io::Error::other)?;
    // This process's copy of the writing end would keep the pipe open.
    drop(program);
    let mut said = Said { pipe: read.into(), tail: Vec::new() };
    let in_time = said.until_end(&child, stop);
    if !in_time {
        let _ = signal_group(child.pid, Signal::SIGTERM);
        ended(&child, TERM_GRACE);
    }
    // Until the leader is reaped, its number cannot belong to another process.
    let _ = signal_group(child.pid, Signal::SIGKILL);
    ended(&child, TERM_GRACE);
    let exit = reap(child.pidfd.as_fd())?;
    said.read();
    Ok(match exit {
        _ if !in_time => End::CutShort,
        Some(status) if status.success() => End::Well,
        Some(status) => {
            End::Badly(last_line(&said.tail).unwrap_or_else(|| format!("{}, without a word", Exit::from(status))))
        }
        None => End::Badly("it does not end even when killed".to_owned()),
    })
}

/// The environment of the command: that of this process, plus what it is told about the subject, and without the
/// variables of a front that this process may itself run behind.
fn environment(
    ours: impl Iterator<Item = (OsString, OsString)>,
    around: &Around,
    time: u64,
) -> Vec<(OsString, OsString)> {
    let told = [CONTROL, PORT, PID, TIME, SUBJECT];
    let mut env: Vec<_> = ours.filter(|(key, _)| told.iter().all(|name| key != name)).collect();
    let mut tell = |name: &str, value: OsString| env.push((name.into(), value));
    tell(SUBJECT, around.subject.clone().into());
    tell(PORT, around.port.to_string().into());
    tell(TIME, time.to_string().into());
    if let Some(pid) = around.pid {
        tell(PID, pid.to_string().into());
    }
    if let Some(control) = &around.control {
        tell(CONTROL, control.clone().into());
    }
    env
}

/// What a command wrote to standard error.
struct Said {
    pipe: File,
    tail: Vec<u8>,
}

impl Said {
    /// Reads until the child has ended; false if `stop` came first.
    fn until_end(&mut self, child: &Child, stop: &Stop) -> bool {
        let mut open = true;
        loop {
            let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut all = vec![watched(child.pidfd.as_fd()), watched(stop.as_fd())];
            if open {
                all.push(watched(self.pipe.as_fd()));
            }
            // Interrupted or not, the descriptors that are ready decide what to do.
            let _ = poll(&mut all, PollTimeout::NONE);
            let ready: Vec<bool> = all.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            drop(all);
            if ready[0] || ready[1] {
                return ready[0];
            }
            if ready.get(2) == Some(&true) {
                open = self.read();
            }
        }
    }

    /// Reads what is available; false at the end of file.
    fn read(&mut self) -> bool {
        let mut buffer = [0; TAIL];
        loop {
            match self.pipe.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    self.tail.extend_from_slice(&buffer[..n]);
                    self.tail.drain(..self.tail.len().saturating_sub(TAIL));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

/// Waits for the child's end.
fn ended(child: &Child, most: Duration) {
    let timeout = PollTimeout::try_from(most.as_millis()).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)], timeout);
}

/// The last line that is not blank.
fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Around {
        let control = Some("/run/maitred/x.sock".into());
        Around { subject: "handoff".to_owned(), port: 8080, pid: Some(Pid::from_raw(7)), control }
    }

    fn check(command: &str, times: u64) -> Ran {
        let command = Command { command: command.to_owned(), every: Duration::ZERO, times: Some(times) };
        run(&command, &around(), &Stop::new().unwrap())
    }

    #[test]
    fn a_command_runs_as_often_as_wanted_and_is_told_the_subject() {
        let ran =
            check("[ $MAITRED_SUBJECT.$MAITRED_PORT.$MAITRED_PID = handoff.8080.7 ] && [ $MAITRED_TIME -lt 3 ]", 3);
        assert_eq!((ran.times, ran.failed, ran.last_words), (3, 0, None));
    }

    #[test]
    fn failures_are_counted_and_the_last_one_is_quoted() {
        let ran = check("echo first >&2; echo \"time $MAITRED_TIME\" >&2; echo >&2; exit $((MAITRED_TIME % 2))", 4);
        assert_eq!((ran.times, ran.failed, ran.last_words.as_deref()), (4, 2, Some("time 3")));
        assert!(check("kill -9 $$", 1).last_words.unwrap().contains("without a word"));
    }

    #[test]
    fn a_command_that_runs_at_the_end_is_ended_and_has_not_failed() {
        let stop = Stop::new().unwrap();
        let command = Command { command: "sleep 60".to_owned(), every: Duration::ZERO, times: None };
        std::thread::scope(|scope| {
            let running = scope.spawn(|| run(&command, &around(), &stop));
            std::thread::sleep(Duration::from_millis(50));
            stop.set();
            let ran = running.join().unwrap();
            assert_eq!((ran.times, ran.failed), (0, 0));
        });
    }

    #[test]
    fn the_environment_tells_nothing_of_another_front() {
        let ours = [("MAITRED_CONTROL", "theirs"), ("PATH", "/bin")].map(|(k, v)| (k.into(), v.into()));
        let env = environment(ours.into_iter(), &Around { control: None, pid: None, ..around() }, 0);
        let names: Vec<_> = env.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["PATH", SUBJECT, PORT, TIME]);
    }

    #[test]
    fn the_last_line_is_the_last_one_with_words() {
        assert_eq!(last_line(b"a\n b \n\n").as_deref(), Some("b"));
        assert_eq!(last_line(b"\n"), None);
    }
}
