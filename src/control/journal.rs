//! The journal: what happened, numbered, as `maitred events`, the admin address and `--on-event` tell it. It goes on
//! over an upgrade. Any thread may read it.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;

/// Events that are kept; older ones are let go.
pub const KEPT_MAX: usize = 1000;

/// Who asked no longer ago than this asks again.
const FOLLOWS: Duration = Duration::from_secs(1);

/// What kind of thing happened. Scripts rely on these names: they only ever grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A worker was forked.
    Forked,
    /// Its command was executed.
    Online,
    /// It listens on an address.
    Listening,
    /// It serves.
    Ready,
    /// It gets no more connections, and ends when it has none.
    Draining,
    /// It ended.
    Exited,
    /// It does not work; `why` has the signs.
    Stalled,
    /// It works again.
    Recovered,
    /// Its slot failed, and waits before it is filled again.
    Backoff,
    /// Its slot failed too often and is left alone.
    Rests,
    /// A reload began.
    ReloadBegun,
    /// The first worker of the new generation serves.
    Canary,
    /// The new generation serves in every slot.
    ReloadDone,
    /// The new generation was given up.
    ReloadGivenUp,
    /// The number of workers changes.
    Scaled,
    /// Another binary goes on in the place of the last.
    Upgraded,
    /// Connections are held back or turned away, because of a limit.
    AdmissionOn,
    /// They are admitted again.
    AdmissionOff,
    /// All workers drain until a reload, or another number, is asked for.
    Paused,
    /// The master stops.
    Stopping,
    /// No worker is left, or none came up: the master gives up.
    GaveUp,
}

/// One event. Fields that do not apply are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// Its number: the first one of a journal has 1, and none is left out.
    pub number: u64,
    /// When (RFC 3339, UTC).
    pub time: String,
    /// What.
    pub event: What,
    /// More about it.
    #[serde(flatten)]
    pub about: About,
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// The slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The worker's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<u64>,
    /// Its process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The number of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// Why, or how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What a worker that failed wrote last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
}

/// Events, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Which journal they are from: another master counts anew.
    pub journal: u64,
    /// The events.
    pub events: Vec<Happened>,
    /// Events after the asked number that are not kept any more.
    pub missed: u64,
    /// The number of the last event there is.
    pub last: u64,
}

/// The last events. Clones are the same.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    grows: Notify,
}

#[derive(Debug)]
struct Kept {
    id: u64,
    last: u64,
    events: VecDeque<Happened>,
    /// When somebody asked last, and what the last event was then.
    asked: Option<(Instant, u64)>,
}

impl Journal {
    /// A journal in which nothing has happened.
    #[must_use]
    pub fn begin() -> Journal {
        // Small enough for the numbers of JavaScript.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let id = (u64::from(std::process::id()) << 20 ^ u64::try_from(now.as_micros()).unwrap_or_default()) >> 8;
        Journal::of(Kept { id, last: 0, events: VecDeque::new(), asked: None })
    }

    /// Goes on with a journal that the program before this one wrote.
    #[must_use]
    pub fn go_on(written: Events) -> Journal {
        let Events { journal, events, last, .. } = written;
        Journal::of(Kept { id: journal, last, events: events.into(), asked: None })
    }

    fn of(kept: Kept) -> Journal {
        Journal(Arc::new(Shared { kept: Mutex::new(kept), grows: Notify::new() }))
    }

    /// Writes down what happened now.
    pub fn note(&self, event: What, about: About) {
        let kept = &mut *self.kept();
        kept.last += 1;
        if kept.events.len() >= KEPT_MAX {
            kept.events.pop_front();
        }
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        kept.events.push_back(Happened { number: kept.last, time, event, about });
        self.0.grows.notify_one();
    }

    /// Waits until something happens. Only one may wait.
    pub async fn grows(&self) {
        self.0.grows.notified().await;
    }

    /// What happened after the event with this number of this journal; of another journal, all that is kept.
    #[must_use]
    pub fn after(&self, journal: u64, number: u64) -> Events {
        let mut kept = self.kept();
        kept.asked = Some((Instant::now(), kept.last));
        drop(kept);
        self.peek(journal, number)
    }

    /// The same for somebody who does not ask again and again.
    #[must_use]
    pub fn peek(&self, journal: u64, number: u64) -> Events {
        let kept = self.kept();
        let number = if journal == kept.id { number } else { 0 };
        let events: Vec<Happened> = kept.events.iter().filter(|event| event.number > number).cloned().collect();
        let missed = kept.last.saturating_sub(number).saturating_sub(events.len() as u64);
        Events { journal: kept.id, events, missed, last: kept.last }
    }

    /// Whether somebody who asks again and again has not heard of the last events.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        let kept = self.kept();
        kept.asked.is_some_and(|(at, last)| last < kept.last && at.elapsed() < FOLLOWS)
    }

    /// Its number among journals.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.kept().id
    }

    /// The number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.kept().last
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_learns_what_was_missed() {
        let journal = Journal::begin();
        for slot in 0..3 {
            journal.note(What::Ready, About { slot: Some(slot), ..About::default() });
        }
        let all = journal.after(0, 0);
        assert_eq!((all.events.len(), all.missed, all.last), (3, 0, 3));
        let new = journal.after(all.journal, 2);
        assert_eq!((new.events.len(), new.events[0].about.slot), (1, Some(2)));
        assert!(journal.after(all.journal, 3).events.is_empty());
        // Numbers of another journal say nothing here.
        assert_eq!(journal.after(all.journal + 1, 2).events.len(), 3);
        (0..KEPT_MAX).for_each(|_| journal.note(What::Exited, About::default()));
        let late = journal.after(all.journal, 1);
        assert_eq!((late.events.len(), late.missed), (KEPT_MAX, 2));
        assert_eq!(late.events.len() as u64 + late.missed + 1, late.last);
    }

    #[test]
    fn it_goes_on_in_the_next_program_and_is_read_as_it_was_written() {
        let journal = Journal::begin();
        journal.note(What::ReloadBegun, About { generation: Some(2), why: Some("rolling".into()), ..About::default() });
        let text = serde_json::to_string(&journal.after(0, 0)).unwrap();
        assert!(text.contains(r#""event":"reload-begun","generation":2,"why":"rolling"}"#), "{text}");
        let written: Events = serde_json::from_str(&text).unwrap();
        let next = Journal::go_on(written.clone());
        next.note(What::Upgraded, About::default());
        assert_eq!(next.after(written.journal, 1).events[0].number, 2);
    }
}
