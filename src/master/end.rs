//! The end of the master, and of single addresses.

use super::event::Event;
use super::run::Master;
use crate::clock;
use crate::control;
use crate::core::fleet::{self, Stop};
use crate::lifecycle::failures::Failure;
use std::collections::HashSet;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{error, info};

/// How long the master stays at its end for those who follow its events; nobody waits if there are none.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// How long the command of --on-event may take for what happened last.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// The end of the master.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Listeners that were told to close and have not reported yet.
    pub(super) closing: usize,
    /// Our sockets at the time when the listeners were told to close.
    pub(super) sockets: HashSet<u64>,
    pub(super) finished: bool,
}

impl Master {
    pub(super) async fn listener_closed(&mut self) {
        self.end.closing = self.end.closing.saturating_sub(1);
        if self.end.closing == 0 {
            self.handle_fleet(fleet::Event::ListenersClosed).await;
        }
    }

    /// An address can accept nothing any more. The others go on; if none is left, the master has nothing to do.
    pub(super) async fn listener_failed(&mut self, address: String, error: io::Error) {
        if self.fleet.is_stopping() {
            return;
        }
        if self.front.listeners.iter().any(|listener| listener.socket().is_some()) {
            error!(address, %error, "cannot go on accepting here; this address is given up, the others go on");
            return;
        }
        error!(address, %error, "cannot go on accepting, and no other address is left; stopping");
        self.failures.failure.get_or_insert(Failure::Listener { address, source: error });
        self.handle_fleet(fleet::Event::StopAsked(Stop::Graceful)).await;
    }

    pub(super) fn finish(&mut self) {
        self.front.close();
        if self.fleet.resting().next().is_some() {
            self.failures.failure.get_or_insert(Failure::SlotsRest(self.failures.why_slots_rest(&self.fleet)));
        }
        let totals = self.view().status().totals;
        let (accepted, handed, rescued) = (totals.accepted, totals.handed, totals.rescued);
        let (refused, lost) = (totals.refused, totals.lost);
        self.front.check_sum();
        let uptime_s = clock::now().since(self.program.since).as_secs();
        info!(accepted, handed, rescued, refused, lost, uptime_s, "stopped");
        self.end.finished = true;
    }

    /// Tells those who follow the events, and the command of `--on-event`, of the last ones. Who is late hears of the end
    /// by its own means.
    pub(super) async fn tell_of_the_end(&mut self, events: &mut mpsc::Receiver<Event>) {
        let _ = timeout(LAST_EVENTS, self.tell_followers(events)).await;
        if let Some(hook) = &self.program.hook {
            let _ = timeout(LAST_CALLS, hook.tells_all(&self.program.recorder.journal)).await;
        }
    }

    /// Who follows the events asks again in a moment, and hears of the last ones, too.
    async fn tell_followers(&mut self, events: &mut mpsc::Receiver<Event>) {
        if !self.program.recorder.journal.is_followed() {
            return;
        }
        while self.program.recorder.journal.is_followed() {
            match events.recv().await {
                Some(Event::Control(control::Event::Requested { request, answer })) => {
                    self.answer(request, answer).await;
                }
                Some(_) => {}
                None => return,
            }
        }
        if let Some(control) = &self.program.control {
            control.rests().await;
        }
    }
}
