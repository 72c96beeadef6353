//! The tasks that watch one worker: whether its process executes its program, when that ends, and when to look at it.

use super::{Event, Events};
use crate::activity::next_beat;
use crate::core::ids::WorkerId;
use crate::front::common::Common;
use crate::sys::process::reap;
use crate::sys::process::spawn::{Report, SpawnError, Stage};
use crate::sys::seccomp::Notifier;
use crate::sys::watch;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// When to look at a worker first, and how often after that: a server that listens does so by then, and one that takes
/// connections takes one in less time.
pub const LOOKS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];

/// Asks again and again for a look at the worker.
pub async fn look_at(worker: WorkerId, events: Events) {
    let [first, then] = LOOKS;
    let mut pause = first;
    loop {
        next_beat(pause).await;
        if events.send(Event::LookAt { worker }).await.is_err() {
            return;
        }
        pause = then;
    }
}

/// How often to check whether connections are pending at a socket that a supervised worker has closed: nothing reports
/// a close.
const LOOK_FOR_CLOSED: Duration = Duration::from_millis(250);

/// While nothing is handed over, nothing is pending. If the master does not hand over, it only looks less often.
pub async fn look_for_closed(worker: WorkerId, common: Rc<Common>, events: Events) {
    loop {
        common.activity.changed().await;
        if !common.activity.is_quiet() {
            tokio::time::sleep(LOOK_FOR_CLOSED).await;
        }
        if events.send(Event::LookForClosed { worker }).await.is_err() {
            return;
        }
    }
}

/// Waits until a child has executed its program.
///
/// # Errors
/// What kept it from that.
pub async fn executed(report: Report) -> Result<Option<Notifier>, SpawnError> {
    let failed = |source| SpawnError::Call { call: "epoll_ctl(2)", source };
    let mut report = watch::readable(report).map_err(failed)?;
    loop {
        report.readable().await.map_err(failed)?.clear_ready();
        if let Stage::Executed(notifier) = report.get_mut().read()? {
            return Ok(notifier);
        }
    }
}

/// Waits for the end of the worker's process, and reports it. Does not reap it, so that its number, which names its
/// group, stays its own until everything is done that needs the number.
pub async fn watch(report: Option<Report>, pidfd: Rc<AsyncFd<OwnedFd>>, worker: WorkerId, events: Events) {
    if let Some(report) = report {
        let result = executed(report).await;
        let _ = events.send(Event::Executed { worker, result }).await;
    }
    loop {
        let Ok(mut ready) = pidfd.readable().await else { return };
        match reap::how_it_ended(pidfd.get_ref().as_fd()) {
            Ok(None) => ready.clear_ready(),
            // Or it was reaped elsewhere.
            ended @ (Ok(Some(_)) | Err(_)) => {
                let signalled = ended.is_ok_and(|ended| ended.is_some_and(|status| status.signal().is_some()));
                let event = if signalled { Event::Signalled { worker } } else { Event::Ended { worker } };
                let _ = events.send(event).await;
                return;
            }
        }
    }
}
