//! Tells the service manager that started this (`sd_notify(3)`), if one did.

use super::run::Master;
use crate::clock;
use crate::core::moment::Moment;
use crate::core::service::{Message, Phase, Service};
use crate::front::listeners::Listeners;
use crate::sys::socket::manager::{self, Told};
use crate::sys::socket::stored;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use tracing::info;

/// The service manager, and what it has heard.
#[derive(Debug)]
pub struct Manager {
    service: Service,
    manager: manager::Manager,
    kept: Kept,
}

/// The sockets that it keeps for the next master, should this one crash.
#[derive(Debug, Default)]
struct Kept {
    names: BTreeSet<String>,
    /// How often listeners had come or gone at the last look.
    changes: u64,
}

impl Manager {
    /// The one that wants to hear of this process, if there is one.
    ///
    /// # Errors
    /// When no thread can be created.
    pub fn find() -> io::Result<Option<Manager>> {
        let service = || Service::new(manager::watchdog(), clock::now());
        Ok(manager::Manager::find()?.map(|manager| Manager { service: service(), manager, kept: Kept::default() }))
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

    /// Lets it keep the sockets that should outlive this process, and no others. One that ends on purpose leaves none.
    fn keep(&mut self, phase: Phase, listeners: &Listeners) {
        if phase == Phase::Stops {
            return self.kept.names.retain(|name| forget(&self.manager, name) == Told::Lost);
        }
        if self.kept.changes == listeners.changes() {
            return;
        }
        let fit = listeners.iter().filter(|listener| {
            listener.group.is_none() && !listener.key.asked.is_ephemeral() && stored::can_be_kept(&listener.address)
        });
        let wanted: BTreeMap<String, _> =
            fit.map(|listener| (stored::name_of(&listener.address), listener.socket())).collect();
        self.kept.names.retain(|name| wanted.contains_key(name) || forget(&self.manager, name) == Told::Lost);
        let mut lost = self.kept.names.len() > wanted.len();
        for (name, socket) in wanted {
            let copy = socket.and_then(|socket| socket.as_fd().try_clone_to_owned().ok());
            if let Some(copy) = copy.filter(|_| !self.kept.names.contains(&name)) {
                match self.manager.keep(&name, copy) {
                    Told::Soon => drop(self.kept.names.insert(name)),
                    Told::Lost => lost = true,
                }
            }
        }
        if !lost {
            // Otherwise it is tried again.
            self.kept.changes = listeners.changes();
        }
    }

    fn hear(&mut self, phase: Phase, status: &str) {
        for message in self.service.hear(clock::now(), phase, status) {
            self.manager.tell(in_words(&message));
        }
    }
}

/// It keeps this socket no longer.
fn forget(manager: &manager::Manager, name: &str) -> Told {
    manager.tell(format!("FDSTOREREMOVE=1\nFDNAME={name}"))
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
        manager.keep(phase, &self.front.listeners);
        if self.program.has_served {
            for (name, _) in self.front.listeners.stored.unclaimed() {
                info!(name, "a socket that the service manager kept is of no use any more, closing it");
                forget(&manager.manager, &name);
            }
        }
        self.front.listeners.stored.useless().iter().for_each(|name| {
            forget(&manager.manager, name);
        });
        manager.hear(phase, &status);
    }
}
