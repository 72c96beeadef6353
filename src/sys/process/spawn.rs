//! Forking a worker and executing its command.
//!
//! `std::process::Command` cannot write the child's own pid into its environment, which `LISTEN_PID` needs, so this
//! module calls fork and exec itself. Between the two it makes only async-signal-safe calls, on memory that was
//! prepared before: the master has other threads.

mod attributes;
mod child;

use crate::sys::process::attributes::{Attributes, User};
use crate::sys::process::needs::advice;
use crate::sys::seccomp::{self, Notifier, Watched};
use attributes::Prepared;
use child::{ChildPlan, Step};
use nix::unistd::Pid;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Decimal digits of the largest pid, the room that `LISTEN_PID` is given.
const PID_DIGITS: usize = 10;

/// The number at which listening descriptors begin (`SD_LISTEN_FDS_START`, `sd_listen_fds(3)`).
pub const FIRST_LISTEN_FD: RawFd = 3;

/// Descriptors of [`Program::placed`] have smaller numbers than this.
pub const PLACED_MAX: RawFd = 100;

/// Where a stream of the worker goes.
#[derive(Debug)]
pub enum Stream {
    /// Where the master's own goes.
    Inherit,
    /// Into this pipe.
    Pipe(OwnedFd),
}

/// What is to be executed, and with what.
#[derive(Debug)]
pub struct Program {
    /// The executable, already found.
    pub path: PathBuf,
    /// Arguments, the zeroth included.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory, if not the master's.
    pub cwd: Option<PathBuf>,
    /// Standard input, if it is not to be empty.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// Descriptors that stay open under their own numbers.
    pub keep: Vec<RawFd>,
    /// Descriptors that the child finds at 3 and above (`sd_listen_fds(3)`); when there are any,
    /// the environment gets `LISTEN_PID`.
    pub listen_fds: Vec<OwnedFd>,
    /// Descriptors that the child finds under these numbers, which are below [`PLACED_MAX`].
    pub placed: Vec<(OwnedFd, RawFd)>,
    /// Soft limit of descriptors to start with.
    pub descriptors: u64,
    /// System calls that are supervised from its first instruction on.
    pub watched: Option<Watched>,
    /// Its user, limits and priority.
    pub attributes: Attributes,
}

/// A child that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No process could be made.
    #[error("cannot fork a worker: {}{}", .0, advice(.0))]
    Fork(io::Error),
    /// Something besides the process was not available.
    #[error("cannot start a worker: {call}: {source}{}", advice(source))]
    Call {
        /// What was tried.
        call: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("cannot enter {}: {source}; check --cwd", dir.display())]
    Directory {
        /// The directory that was asked for.
        dir: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused to execute the file.
    #[error("cannot execute {}{}: {source}", path.display(), user.as_ref().map(|user| format!(" as user {user}")).unwrap_or_default())]
    Exec {
        /// The file.
        path: PathBuf,
        /// Who was to execute it, if that is not this process's user.
        user: Option<String>,
        /// Why it failed.
        source: io::Error,
    },
    /// No filter could be put before its system calls.
    #[error(
        "cannot supervise the system calls of {}: {source}{}; what works without: a dynamically linked build, or \
         --mode shared or kernel with --bind and --adapter inherit or a --preset",
        path.display(), .source.raw_os_error().map_or("", why_no_filter)
    )]
    Filter {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something that it was to get is refused.
    #[error("cannot start a worker with {option}: {source}{}", why_refused(option, source))]
    Attribute {
        /// The option that asks for it.
        option: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A text has a zero byte in it.
    #[error("{0:?} contains a zero byte")]
    ZeroByte(OsString),
}

fn why_no_filter(errno: i32) -> &'static str {
    match errno {
        libc::EBUSY => {
            " (an outer supervisor, of a container or of WSL, has its own already, and the kernel allows one)"
        }
        libc::ENOSYS | libc::EINVAL => " (it needs Linux 5.14 with seccomp filters)",
        libc::EPERM | libc::EACCES => " (a container forbids seccomp(2))",
        _ => "",
    }
}

/// What to do about an option that is refused.
fn why_refused(option: &str, error: &io::Error) -> &'static str {
    match (option, error.raw_os_error()) {
        ("--user", Some(libc::EPERM)) => "; it needs root, or CAP_SETUID and CAP_KILL",
        ("--group", Some(libc::EPERM)) => "; it needs root, or CAP_SETGID",
        ("--chroot", Some(libc::EPERM)) => "; it needs root, or CAP_SYS_CHROOT",
        ("--rlimit", Some(libc::EPERM)) => "; only root (CAP_SYS_RESOURCE) may raise a hard limit",
        ("--nice", Some(libc::EPERM | libc::EACCES)) => "; only root (CAP_SYS_NICE) may lower it",
        ("--oom-score-adjust", Some(libc::EACCES)) => "; only root (CAP_SYS_RESOURCE) may lower it",
        ("--cpu-affinity", Some(libc::EINVAL)) => "; this process may not use that core",
        _ => "",
    }
}

/// A started child.
#[derive(Debug)]
pub struct Child {
    /// Its process id, which also names its process group.
    pub pid: Pid,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
    /// Where it reports how far it has come.
    pub report: Report,
}

/// Where a child reports that it executes its program, or what keeps it from that. Executing can take long, for
/// example on a file system that another process serves.
#[derive(Debug)]
pub struct Report {
    socket: OwnedFd,
    path: PathBuf,
    cwd: Option<PathBuf>,
    user: Option<String>,
    notifier: Option<Notifier>,
}

/// How far a child has come.
#[derive(Debug)]
pub enum Stage {
    /// It has not executed its program yet.
    Starting,
    /// It has executed it; with the notifier that reports its supervised calls, if they are supervised.
    Executed(Option<Notifier>),
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Report {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Report {
    /// Reads what has come, without waiting: end of file means that the child executed its program. Before that it
    /// may send the descriptor on which its supervised calls are reported.
    ///
    /// # Errors
    /// What kept it from executing its program; it ends then, or must be killed.
    pub fn read(&mut self) -> Result<Stage, SpawnError> {
        loop {
            let mut bytes = [0; 5];
            let received = match crate::sys::fd::receive(self.socket.as_fd(), &mut bytes) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Stage::Starting),
                Err(error) => return Err(self.failed(Step::Prepare, error)),
            };
            let (len, fds_lost) = (received.len, received.fds_lost);
            match (len, received.into_first()) {
                (0, _) => return Ok(Stage::Executed(self.notifier.take())),
                (_, Some(fd)) => self.notifier = Some(Notifier::new(fd)),
                (_, None) if fds_lost => {
                    return Err(self.failed(Step::Prepare, io::Error::from_raw_os_error(libc::EMFILE)));
                }
                (_, None) => {
                    let step = Step::reported(bytes[0]);
                    let errno = i32::from_ne_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
                    return Err(self.failed(step, io::Error::from_raw_os_error(errno)));
                }
            }
        }
    }

    fn failed(&self, step: Step, source: io::Error) -> SpawnError {
        let errno = source.raw_os_error().unwrap_or(0);
        let option = |option| SpawnError::Attribute { option, source: io::Error::from_raw_os_error(errno) };
        match step {
            Step::Prepare => call("putting its descriptors in place")(source),
            Step::Directory => SpawnError::Directory { dir: self.cwd.clone().unwrap_or_default(), source },
            Step::Filter => SpawnError::Filter { path: self.path.clone(), source },
            Step::Exec => SpawnError::Exec { path: self.path.clone(), user: self.user.clone(), source },
            Step::Limit => option("--rlimit"),
            Step::Nice => option("--nice"),
            Step::Affinity => option("--cpu-affinity"),
            Step::OomScoreAdjust => option("--oom-score-adjust"),
            Step::Root => option("--chroot"),
            Step::Group => option("--group"),
            Step::User => option("--user"),
            Step::Gains => option("--no-new-privileges"),
        }
    }
}

/// Forks a child as [`spawn`] does and waits until it has executed its program.
///
/// # Errors
/// As for [`spawn`] and [`Report::read`]; nothing is left of the child then.
pub fn spawn_and_wait(program: &Program) -> Result<Child, SpawnError> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut child = spawn(program)?;
    loop {
        match child.report.read() {
            Ok(Stage::Executed(_)) => return Ok(child),
            // A signal may come first.
            Ok(Stage::Starting) => {
                let _ = poll(&mut [PollFd::new(child.report.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
            }
            Err(error) => {
                abandon(child.pid);
                return Err(error);
            }
        }
    }
}

/// Kills and reaps a child that is of no use.
fn abandon(pid: Pid) {
    let _ = crate::sys::process::reap::signal_group(pid, nix::sys::signal::Signal::SIGKILL);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    let _ = nix::sys::wait::waitpid(pid, None);
}

/// Forks a child into a process group of its own and executes the program in it.
///
/// The child dies with the calling thread (`PR_SET_PDEATHSIG`), so call this from the thread that
/// lives as long as the process. Its signals are at their defaults and unblocked; its standard
/// input is empty.
///
/// [`Child::report`] tells what happens in the child up to and including `execve(2)`.
///
/// # Errors
/// [`SpawnError`].
pub fn spawn(program: &Program) -> Result<Child, SpawnError> {
    let path = c_string(program.path.as_os_str())?;
    let args = program.args.iter().map(|a| c_string(a)).collect::<Result<Vec<_>, _>>()?;
    let mut env = Vec::with_capacity(program.env.len() + 1);
    for (name, value) in &program.env {
        env.push(c_string(&OsString::from_vec([name.as_bytes(), value.as_bytes()].join(&b'=')))?);
    }
    // The child writes its pid over the zeros.
    let mut listen_pid = format!("LISTEN_PID={:0PID_DIGITS$}", 0).into_bytes();
    listen_pid.push(0);
    let digits = listen_pid.len() - 1 - PID_DIGITS;

    let argv: Vec<_> = args.iter().map(|a| a.as_ptr()).chain([std::ptr::null()]).collect();
    let listen_pid_entry = (!program.listen_fds.is_empty()).then_some(listen_pid.as_ptr().cast());
    let envp: Vec<_> = env.iter().map(|e| e.as_ptr()).chain(listen_pid_entry).chain([std::ptr::null()]).collect();
    let cwd = program.cwd.as_ref().map(|dir| c_string(dir.as_os_str())).transpose()?;
    let null = std::fs::File::open("/dev/null").map_err(call("opening /dev/null"))?;
    let filter = program.watched.map(seccomp::filter::filter);
    let filter = filter.as_ref().map(|instructions| libc::sock_fprog {
        len: instructions.len() as libc::c_ushort,
        filter: instructions.as_ptr().cast_mut(),
    });
    let (report, low) = crate::sys::fd::pair().map_err(call("socketpair(2)"))?;
    // Above the descriptors that the child finds under certain numbers.
    let lowest = PLACED_MAX.max(FIRST_LISTEN_FD + program.listen_fds.len() as RawFd);
    let child_report = crate::sys::fd::duplicate_above(low.as_fd(), lowest).map_err(call("fcntl(2)"))?;
    drop(low);

    let above = |fd: &OwnedFd| crate::sys::fd::duplicate_above(fd.as_fd(), lowest);
    let listen = program.listen_fds.iter().map(above).collect::<io::Result<Vec<_>>>().map_err(call("fcntl(2)"))?;
    let place = |(fd, number): &(OwnedFd, RawFd)| above(fd).map(|copy| (copy, *number));
    let placed = program.placed.iter().map(place).collect::<io::Result<Vec<_>>>().map_err(call("fcntl(2)"))?;

    let listen_pid_digits = match listen_pid.get_mut(digits..) {
        Some(digits) => digits.as_mut_ptr(),
        None => return Err(SpawnError::Fork(io::ErrorKind::InvalidInput.into())),
    };
    let plan = ChildPlan {
        parent: Pid::this().as_raw(),
        path: path.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        cwd: cwd.as_ref().map_or(std::ptr::null(), |c| c.as_ptr()),
        stdin: program.stdin.as_ref().map_or(null.as_raw_fd(), AsRawFd::as_raw_fd),
        stdout: stream_fd(&program.stdout),
        stderr: stream_fd(&program.stderr),
        keep: &program.keep,
        listen: listen.iter().map(AsRawFd::as_raw_fd).collect(),
        placed: placed.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect(),
        listen_pid_digits,
        descriptors: program.descriptors,
        report: child_report.as_raw_fd(),
        filter: filter.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
        attributes: Prepared::new(&program.attributes).map_err(SpawnError::ZeroByte)?,
    };
    // SAFETY: the child only runs `ChildPlan::run`, which keeps to async-signal-safe calls on
    // memory prepared above, and never returns.
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(SpawnError::Fork(io::Error::last_os_error())),
        // SAFETY: this is the child, and the plan's pointers are valid in its copy of the memory.
        0 => unsafe { plan.run() },
        pid => Pid::from_raw(pid),
    };
    drop(child_report);
    let pidfd = crate::sys::foreign::pidfd(pid).map_err(|source| {
        abandon(pid);
        call("pidfd_open(2)")(source)
    })?;
    let user = program.attributes.user.as_ref().and_then(User::name);
    let report = Report { socket: report, path: program.path.clone(), cwd: program.cwd.clone(), user, notifier: None };
    Ok(Child { pid, pidfd, report })
}

fn call(call: &'static str) -> impl Fn(io::Error) -> SpawnError {
    move |source| SpawnError::Call { call, source }
}

fn c_string(text: &OsStr) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|_| SpawnError::ZeroByte(text.to_owned()))
}

fn stream_fd(stream: &Stream) -> RawFd {
    match stream {
        Stream::Inherit => -1,
        Stream::Pipe(fd) => fd.as_raw_fd(),
    }
}

/// A pipe for a worker's output; the reading end does not block.
///
/// # Errors
/// When no descriptor is free.
pub fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    crate::sys::fd::set_nonblocking(read.as_fd())?;
    Ok((read, write))
}
