//! Signals to `up`, as events.

use super::Event;
use nix::sys::signal::Signal;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_local;

/// What a signal to `up` means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// Stop all; the masters get this signal.
    Stop(Signal),
    /// Apply the changed file.
    Apply,
    /// The masters open their log files again.
    Reopen,
    /// Nothing here.
    Nothing(&'static str),
    /// A process has ended.
    Reap,
}

/// Makes events of signals from now on.
///
/// # Errors
/// When a handler cannot be installed.
pub(super) fn forward(events: &mpsc::Sender<Event>) -> io::Result<()> {
    for (kind, asked) in [
        (SignalKind::terminate(), Asked::Stop(Signal::SIGTERM)),
        (SignalKind::interrupt(), Asked::Stop(Signal::SIGINT)),
        (SignalKind::quit(), Asked::Stop(Signal::SIGQUIT)),
        (SignalKind::hangup(), Asked::Apply),
        (SignalKind::user_defined1(), Asked::Reopen),
        (SignalKind::user_defined2(), Asked::Nothing("maitred upgrade NAME replaces the binary of an app")),
        (SignalKind::child(), Asked::Reap),
    ] {
        let (mut came, events) = (signal(kind)?, events.clone());
        spawn_local(
            async move { while came.recv().await.is_some() && events.send(Event::Asked(asked)).await.is_ok() {} },
        );
    }
    Ok(())
}
