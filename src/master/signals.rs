//! Signals to the master, as events.

use super::event::Event;
use crate::core::fleet::Stop;
use nix::sys::signal::SigSet;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Turns signals into events from now on.
///
/// # Errors
/// When a handler cannot be installed.
pub fn forward_signals(events: &mpsc::Sender<Event>) -> io::Result<()> {
    let table: [(SignalKind, fn() -> Event); 10] = [
        (SignalKind::terminate(), || Event::Stop(Stop::Graceful)),
        (SignalKind::interrupt(), || Event::Stop(Stop::Graceful)),
        (SignalKind::quit(), || Event::Stop(Stop::Patient)),
        (SignalKind::child(), || Event::ChildEnded),
        (SignalKind::from_raw(libc::SIGTTIN), || Event::More),
        (SignalKind::from_raw(libc::SIGTTOU), || Event::Fewer),
        (SignalKind::hangup(), hangup),
        (SignalKind::user_defined1(), || Event::Unheeded {
            signal: "USR1",
            because: "there are no log files to reopen",
        }),
        (SignalKind::user_defined2(), || Event::Upgrade { client: None }),
        (SignalKind::window_change(), window_change),
    ];
    for (kind, event) in table {
        let mut stream = signal(kind)?;
        let events = events.clone();
        tokio::task::spawn_local(async move {
            while stream.recv().await.is_some() {
                if events.send(event()).await.is_err() {
                    return;
                }
            }
        });
    }
    interrupt_another_thread()
}

/// Lets signals interrupt a thread that does nothing else. One that came while a supervised worker is
/// given a connection (`SECCOMP_IOCTL_NOTIF_ADDFD`) would break that off after the worker's call was
/// answered: with 0, as if that were the connection.
fn interrupt_another_thread() -> io::Result<()> {
    // A program that was replaced by this one has blocked them until somebody listens.
    SigSet::all().thread_unblock()?;
    let idle = || {
        loop {
            std::thread::park();
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(idle)?;
    Ok(SigSet::all().thread_block()?)
}

/// `HUP` from somebody who wants a reload, or from a terminal that was closed: then nobody sees this
/// master any more, and it ends as every program in that terminal does.
fn hangup() -> Event {
    use nix::errno::Errno;
    let gone = |fd: std::os::fd::BorrowedFd<'_>| matches!(nix::sys::termios::tcgetattr(fd), Err(Errno::EIO));
    match gone(std::io::stdin().as_fd()) || gone(std::io::stderr().as_fd()) {
        true => Event::Stop(Stop::Graceful),
        false => Event::Reload,
    }
}

/// `WINCH` ends the workers and keeps the master, as nginx has it; on a terminal it only says that the
/// window has another size.
fn window_change() -> Event {
    let terminal = std::io::stdin().is_terminal() || std::io::stderr().is_terminal();
    match terminal {
        true => Event::Unheeded { signal: "WINCH", because: "the terminal's window changed its size" },
        false => Event::Pause,
    }
}
