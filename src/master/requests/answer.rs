//! Answers to what workers ask for.

use super::event::Event;
use crate::core::ids::WorkerId;
use crate::master::run::Master;
use crate::provoked::Kind;
use crate::sys::dispose::{Foreign, dispose};
use crate::sys::fd;
use crate::wire::packet::{RequestId, ToWorker};
use crate::workers::channel;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::warn;

/// Attempts at an answer whose descriptors the kernel does not let through, and the pause between two. Together they
/// are shorter than a program waits in `bind` (`ANSWER_SECONDS` in the shim).
const ATTEMPTS_MAX: u32 = 250;
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Answers that are tried again at the same time. Each holds descriptors.
const WAITING_MAX: u32 = 64;

/// An answer to a worker, and the descriptors that come with it.
#[derive(Debug)]
pub(in crate::master) struct Answer {
    pub(in crate::master) message: ToWorker,
    pub(in crate::master) fds: Vec<OwnedFd>,
}

impl From<ToWorker> for Answer {
    fn from(message: ToWorker) -> Answer {
        Answer { message, fds: Vec::new() }
    }
}

impl Answer {
    /// Sends it; never blocks.
    fn send(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        channel::tell(to, &self.message, &fds)
    }
}

/// The errno that a program is to see.
pub(in crate::master) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

impl Master {
    /// Answers a request of a worker on the socket that it brought, or on its channel.
    pub(in crate::master) fn answer_worker(
        &mut self,
        id: WorkerId,
        request: RequestId,
        answer: Result<Answer, i32>,
        to: Option<&Foreign>,
    ) {
        let Some(worker) = self.workers.get(id) else { return };
        let answer = answer.unwrap_or_else(|errno| ToWorker::Error { errno, id: request }.into());
        let to = to.map_or(worker.channel.get_ref().as_fd(), AsFd::as_fd);
        match answer.send(to) {
            Ok(()) => {}
            Err(error) if fd::may_pass_later(&error) && self.front.common.unsent.get() < WAITING_MAX => {
                match to.try_clone_to_owned() {
                    Ok(to) => self.answer_later(id, request, answer, to),
                    Err(_) => self.unanswered(id, request, &error),
                }
            }
            Err(error) => self.unanswered(id, request, &error),
        }
    }

    /// Tries again for a while. If nothing helps, the worker gets at least that error.
    fn answer_later(&self, worker: WorkerId, request: RequestId, answer: Answer, to: OwnedFd) {
        let (common, events) = (Rc::clone(&self.front.common), self.request_events());
        common.unsent.set(common.unsent.get() + 1);
        tokio::task::spawn_local(async move {
            let mut attempts = 0;
            let failed = loop {
                sleep(AGAIN_AFTER).await;
                attempts += 1;
                match answer.send(to.as_fd()) {
                    Ok(()) => break None,
                    Err(error) if fd::may_pass_later(&error) && attempts < ATTEMPTS_MAX => {}
                    Err(error) => break Some(error),
                }
            };
            if let Some(error) = &failed {
                let refusal = ToWorker::Error { errno: errno_of(error), id: request };
                let _ = Answer::from(refusal).send(to.as_fd());
            }
            dispose(to);
            common.unsent.set(common.unsent.get() - 1);
            if let Some(error) = failed {
                let _ = events.send(Event::Unanswered { worker, request, error }).await;
            }
        });
    }

    /// A worker could not be answered, so what it asked for does not count.
    pub(in crate::master) fn unanswered(&mut self, id: WorkerId, request: RequestId, error: &io::Error) {
        let Some(worker) = self.workers.get(id) else { return };
        if let Some(told) = self.front.common.provoked.tell(id, Kind::Unanswered) {
            warn!(slot = worker.slot.0, worker = id.0, %error, left_out = told.left_out, "cannot answer a worker");
        }
        self.close(id, request);
    }
}
