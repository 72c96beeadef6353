//! Signals to the master, as events.

use super::event::Event;
use crate::core::fleet::Stop;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Turns signals into events from now on.
///
/// # Errors
/// When a handler cannot be installed.
pub fn forward_signals(events: &mpsc::Sender<Event>) -> io::Result<()> {
    const LATER: &str = "this version does not know it";
    let table: [(SignalKind, fn() -> Event); 9] = [
        (SignalKind::terminate(), || Event::Stop(Stop::Graceful)),
        (SignalKind::interrupt(), || Event::Stop(Stop::Graceful)),
        (SignalKind::quit(), || Event::Stop(Stop::Patient)),
        (SignalKind::child(), || Event::ChildEnded),
        (SignalKind::from_raw(libc::SIGTTIN), || Event::More),
        (SignalKind::from_raw(libc::SIGTTOU), || Event::Fewer),
        (SignalKind::hangup(), || Event::Unheeded { signal: "HUP", because: LATER }),
        (SignalKind::user_defined1(), || Event::Unheeded {
            signal: "USR1",
            because: "there are no log files to reopen",
        }),
        (SignalKind::user_defined2(), || Event::Unheeded { signal: "USR2", because: LATER }),
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
    Ok(())
}
