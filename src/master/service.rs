//! Tells the service manager that started this (`sd_notify(3)`), if one did.

use super::run::Master;
use crate::clock;
use crate::core::moment::Moment;
use crate::core::service::{Message, Phase, Service};
use crate::sys::socket::manager;
use std::io;

/// The service manager, and what it has heard.
#[derive(Debug)]
pub struct Manager {
    service: Service,
    manager: manager::Manager,
}

impl Manager {
    /// The one that wants to hear of this process, if there is one.
    ///
    /// # Errors
    /// When no thread can be created.
    pub fn find() -> io::Result<Option<Manager>> {
        let service = || Service::new(manager::watchdog(), clock::now());
        Ok(manager::Manager::find()?.map(|manager| Manager { service: service(), manager }))
    }

    /// A reload is asked for.
    pub fn reload_asked(&mut self) {
        self.service.reload_asked();
    }

    /// When something is to be said though nothing happens.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        self.service.wakes_at()
    }

    fn hear(&mut self, phase: Phase, status: &str) {
        for message in self.service.hear(clock::now(), phase, status) {
            self.manager.tell(in_words(&message));
        }
    }
}

/// The message as it is sent.
fn in_words(message: &Message) -> String {
    match message {
        Message::Ready => format!("MAINPID={}\nREADY=1", std::process::id()),
        Message::Reloading => manager::reloading(),
        Message::Stopping => "STOPPING=1".to_owned(),
        Message::Status(status) => format!("STATUS={status}"),
        Message::Watchdog => "WATCHDOG=1".to_owned(),
        Message::Extend(time) => format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()),
    }
}

impl Master {
    /// Tells the service manager what it does not know yet.
    pub(super) fn tell_manager(&mut self) {
        let Some(manager) = &mut self.program.manager else { return };
        let slots = self.fleet.slots().len();
        let serving = self.fleet.slots().iter().filter(|slot| slot.serving().is_some()).count();
        let generation = self.fleet.generation();
        if self.fleet.all_ready() {
            self.program.has_served = true;
        }
        let (phase, status) = match self.fleet.reloading() {
            _ if self.fleet.is_about_to_stop() => (Phase::Stops, format!("stopping, {serving} workers serve")),
            _ if !self.program.has_served => (Phase::Starts, format!("{serving}/{slots} ready, starting")),
            Some(next) => (Phase::Reloads, format!("{serving}/{slots} ready, generation {next} starts")),
            None => (Phase::Serves, format!("{serving}/{slots} ready, generation {generation}")),
        };
        manager.hear(phase, &status);
    }
}
