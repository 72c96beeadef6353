//! What a service manager hears (`sd_notify(3)`): a state of the master becomes messages, each when it is due.

use super::moment::Moment;
use std::time::Duration;

/// How long before its time is over a manager hears that more is needed, and how much.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// What it is given each time: twice that, and something for a busy machine.
pub const EXTEND_BY: Duration = Duration::from_secs(15);
/// Of the watchdog's time, how much may pass between two messages: `sd_watchdog_enabled(3)` says half.
const WATCHDOG_PART: u32 = 3;

/// What the master does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its first generation does not serve yet.
    Starts,
    /// It serves.
    Serves,
    /// It serves, and another generation starts.
    Reloads,
    /// It drains and ends.
    Stops,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `READY=1`
    Ready,
    /// `RELOADING=1`, with the time.
    Reloading,
    /// `STOPPING=1`
    Stopping,
    /// `STATUS=...`
    Status(String),
    /// `WATCHDOG=1`
    Watchdog,
    /// `EXTEND_TIMEOUT_USEC=...`
    Extend(Duration),
}

/// What was said so far.
#[derive(Debug)]
pub struct Service {
    phase: Phase,
    status: String,
    watchdog: Option<Duration>,
    next_watchdog: Moment,
    next_extension: Moment,
    /// Whether a reload was asked for that has not been answered: each request is.
    reload_asked: bool,
}

impl Service {
    /// A master that starts. It must be heard of as often as `watchdog` says.
    #[must_use]
    pub fn new(watchdog: Option<Duration>, now: Moment) -> Service {
        Service {
            phase: Phase::Starts,
            status: String::new(),
            watchdog: watchdog.filter(|time| !time.is_zero()),
            next_watchdog: now,
            next_extension: now + EXTEND_EVERY,
            reload_asked: false,
        }
    }

    /// A reload is asked for, also one that will be refused: the manager waits for the answer.
    pub fn reload_asked(&mut self) {
        self.reload_asked = true;
    }

    /// What is to be said now.
    pub fn hear(&mut self, now: Moment, phase: Phase, status: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        let was = std::mem::replace(&mut self.phase, phase);
        if std::mem::take(&mut self.reload_asked) && !matches!(phase, Phase::Starts | Phase::Stops) {
            messages.push(Message::Reloading);
            if phase == Phase::Serves {
                // It was refused, or there was nothing to do.
                messages.push(Message::Ready);
            }
        } else {
            messages.extend(match (was, phase) {
                (Phase::Starts | Phase::Reloads, Phase::Serves) => Some(Message::Ready),
                (Phase::Starts, Phase::Reloads) => Some(Message::Ready),
                (Phase::Serves, Phase::Reloads) => Some(Message::Reloading),
                (Phase::Starts | Phase::Serves | Phase::Reloads, Phase::Stops) => Some(Message::Stopping),
                _ => None,
            });
        }
        if was != phase {
            self.next_extension = now;
        }
        if matches!(phase, Phase::Starts | Phase::Reloads | Phase::Stops) && self.next_extension <= now {
            self.next_extension = now + EXTEND_EVERY;
            messages.push(Message::Extend(EXTEND_BY));
        }
        if let Some(watchdog) = self.watchdog
            && self.next_watchdog <= now
        {
            self.next_watchdog = now + watchdog / WATCHDOG_PART;
            messages.push(Message::Watchdog);
        }
        if self.status != status {
            status.clone_into(&mut self.status);
            messages.push(Message::Status(self.status.clone()));
        }
        messages
    }

    /// When something is to be said though nothing happens.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        let extends = matches!(self.phase, Phase::Starts | Phase::Reloads | Phase::Stops);
        let watchdog = self.watchdog.map(|_| self.next_watchdog);
        watchdog.into_iter().chain(extends.then_some(self.next_extension)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    /// What is said, without the extensions.
    fn said(service: &mut Service, now: Moment, phase: Phase, status: &str) -> Vec<Message> {
        let mut messages = service.hear(now, phase, status);
        messages.retain(|message| !matches!(message, Message::Extend(_)));
        messages
    }

    #[test]
    fn each_change_is_said_once() {
        let mut service = Service::new(None, at(0));
        assert_eq!(said(&mut service, at(0), Phase::Starts, "0/2"), [Message::Status("0/2".to_owned())]);
        assert_eq!(said(&mut service, at(1), Phase::Serves, "0/2"), [Message::Ready]);
        assert_eq!(said(&mut service, at(2), Phase::Serves, "0/2"), []);
        assert_eq!(said(&mut service, at(3), Phase::Reloads, "0/2"), [Message::Reloading]);
        assert_eq!(said(&mut service, at(4), Phase::Serves, "0/2"), [Message::Ready]);
        assert_eq!(said(&mut service, at(5), Phase::Stops, "0/2"), [Message::Stopping]);
        assert_eq!(said(&mut service, at(6), Phase::Stops, "0/2"), []);
    }

    #[test]
    fn each_request_to_reload_is_answered_also_one_that_is_refused() {
        let mut service = Service::new(None, at(0));
        service.hear(at(0), Phase::Serves, "");
        service.reload_asked();
        assert_eq!(said(&mut service, at(1), Phase::Serves, ""), [Message::Reloading, Message::Ready]);
        service.reload_asked();
        assert_eq!(said(&mut service, at(2), Phase::Reloads, ""), [Message::Reloading]);
        // A second one, which waits for its turn.
        service.reload_asked();
        assert_eq!(said(&mut service, at(3), Phase::Reloads, ""), [Message::Reloading]);
        assert_eq!(said(&mut service, at(4), Phase::Serves, ""), [Message::Ready]);
        service.reload_asked();
        assert_eq!(said(&mut service, at(5), Phase::Stops, ""), [Message::Stopping]);
    }

    #[test]
    fn the_watchdog_is_fed_in_time_and_more_time_is_asked_for_while_it_takes_some() {
        let mut service = Service::new(Some(Duration::from_millis(90)), at(0));
        assert!(service.hear(at(0), Phase::Serves, "").contains(&Message::Watchdog));
        assert_eq!(service.wakes_at(), Some(at(30)));
        assert_eq!(service.hear(at(29), Phase::Serves, ""), []);
        assert_eq!(service.hear(at(30), Phase::Serves, ""), [Message::Watchdog]);
        let mut service = Service::new(None, at(0));
        assert_eq!(service.hear(at(0), Phase::Serves, ""), [Message::Ready]);
        assert_eq!(service.wakes_at(), None);
        assert_eq!(service.hear(at(1), Phase::Stops, ""), [Message::Stopping, Message::Extend(EXTEND_BY)]);
        assert_eq!(service.wakes_at(), Some(at(5001)));
        assert_eq!(service.hear(at(5000), Phase::Stops, ""), []);
        assert_eq!(service.hear(at(5001), Phase::Stops, ""), [Message::Extend(EXTEND_BY)]);
        assert!(Service::new(Some(Duration::ZERO), at(0)).watchdog.is_none());
    }
}
