//! Signals to the master, as events.

use super::event::{Event, Events};
use crate::core::fleet::Stop;
use nix::sys::signal::SigSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc;
use tokio::signal::unix::{SignalKind, signal};

/// Signals that are of no use here and would end the master and with it all workers: a stray alarm or profiler's tick
/// does not.
const OF_NO_USE: [(i32, &str); 6] = [
    (libc::SIGALRM, "ALRM"),
    (libc::SIGVTALRM, "VTALRM"),
    (libc::SIGPROF, "PROF"),
    (libc::SIGIO, "IO"),
    (libc::SIGSTKFLT, "STKFLT"),
    (libc::SIGPWR, "PWR"),
];

/// Turns signals into events from now on.
///
/// # Errors
/// When a handler cannot be installed.
pub fn forward_signals(events: &Events) -> io::Result<SignalThread> {
    let table: [(SignalKind, fn() -> Event); 10] = [
        (SignalKind::terminate(), || Event::Stop(Stop::Graceful)),
        (SignalKind::interrupt(), || Event::Stop(Stop::Graceful)),
        (SignalKind::quit(), || Event::Stop(Stop::Patient)),
        (SignalKind::child(), || Event::ChildEnded),
        (SignalKind::from_raw(libc::SIGTTIN), || Event::More),
        (SignalKind::from_raw(libc::SIGTTOU), || Event::Fewer),
        (SignalKind::hangup(), hangup),
        (SignalKind::user_defined1(), || Event::ReopenLogs),
        (SignalKind::user_defined2(), || Event::Upgrade),
        (SignalKind::window_change(), window_change),
    ];
    for (kind, event) in table {
        forward(kind, events, event)?;
    }
    for (number, signal) in OF_NO_USE {
        let because = "nothing is done on it; see the manual for the signals that are";
        forward(SignalKind::from_raw(number), events, move || Event::Unheeded { signal, because })?;
    }
    // Writing to a file that has reached its limit (a log) fails, and the error says so. The signal is handled and not
    // ignored, because workers would inherit that. The handler stays when its receiver is dropped.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
    SignalThread::start()
}

/// Makes an event of each signal of a kind.
fn forward(kind: SignalKind, events: &Events, event: impl Fn() -> Event + 'static) -> io::Result<()> {
    let mut stream = signal(kind)?;
    let events = events.clone();
    tokio::task::spawn_local(async move {
        while stream.recv().await.is_some() {
            if events.send(event()).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Keeps signals pending, in this thread and in those that it starts, until a thread takes them.
///
/// # Errors
/// That of `pthread_sigmask(3)`.
pub fn hold_signals() -> io::Result<()> {
    Ok(SigSet::all().thread_block()?)
}

/// The only thread that signals interrupt. It does nothing else. A signal to the master's own thread while a supervised
/// worker is given a connection (`SECCOMP_IOCTL_NOTIF_ADDFD`) would break that off after the worker's call was
/// answered: with 0, as if that were the connection.
#[derive(Debug)]
pub struct SignalThread {
    commands: mpsc::Sender<(Heed, mpsc::Sender<()>)>,
}

/// Whether signals are taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heed {
    /// Signals are taken.
    Now,
    /// Signals stay pending, also for the next program of this process.
    Later,
    /// As before.
    Same,
}

impl SignalThread {
    fn start() -> io::Result<SignalThread> {
        let (commands, incoming) = mpsc::channel::<(Heed, mpsc::Sender<()>)>();
        let idle = move || {
            let _ = SigSet::all().thread_unblock();
            while let Ok((heed, done)) = incoming.recv() {
                let _ = match heed {
                    Heed::Now => SigSet::all().thread_unblock(),
                    Heed::Later => SigSet::all().thread_block(),
                    Heed::Same => Ok(()),
                };
                let _ = done.send(());
            }
        };
        hold_signals()?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(idle)?;
        Ok(SignalThread { commands })
    }

    /// When this returns, the signals that came before are taken, unless they are kept pending: the thread had to run.
    pub fn settle(&self) {
        self.heed(Heed::Same);
    }

    /// Takes signals, or keeps them pending. When this returns, the change is in force.
    pub fn heed(&self, heed: Heed) {
        let (done, is_done) = mpsc::channel();
        if self.commands.send((heed, done)).is_ok() {
            let _ = is_done.recv();
        }
    }
}

/// `HUP` from a user who wants a reload, or from a terminal that was closed. In that case no user sees this master any
/// more, and it ends as every program in that terminal does.
fn hangup() -> Event {
    use nix::errno::Errno;
    let gone = |fd: std::os::fd::BorrowedFd<'_>| matches!(nix::sys::termios::tcgetattr(fd), Err(Errno::EIO));
    match gone(std::io::stdin().as_fd()) || gone(std::io::stderr().as_fd()) {
        true => Event::Stop(Stop::Graceful),
        false => Event::Reload,
    }
}

/// `WINCH` drains the workers and keeps the master, as nginx has it. To all that a terminal controls it only says that
/// the window has another size, wherever their input and output go.
fn window_change() -> Event {
    match has_terminal() {
        true => Event::Unheeded { signal: "WINCH", because: "the terminal's window changed its size" },
        false => Event::Pause,
    }
}

/// Whether a terminal controls this process: only then `/dev/tty` can be opened (`tty(4)`).
fn has_terminal() -> bool {
    let terminal = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/dev/tty");
    terminal.is_ok()
}
