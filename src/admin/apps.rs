//! The apps that are shown: this master alone, or all masters of the machine, which are asked at their control sockets.
//! Nobody waits for a master that does not answer, and each is asked only so often, however many ask here.

use crate::control::client::{self, ClientError, Patience};
use crate::control::journal::{Events, Happened, Journal, KEPT_MAX};
use crate::control::status::Status;
use crate::control::{self, Done, Refusal, Request, Usage};
use crate::reports::Reports;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A status is asked for again when it is older.
const FRESH: Duration = Duration::from_millis(250);
/// How long a master may take before it counts as one that does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// What workers use of the machine is read from `/proc`, which takes milliseconds: that is done this often, and by
/// itself, as long as somebody has asked for the app within [`WATCHED`].
const USAGE_EVERY: Duration = Duration::from_secs(2);
const WATCHED: Duration = Duration::from_secs(60);
/// How long a reload, and other changes that are waited for, may take to be accepted.
const ACTS_WITHIN: Duration = Duration::from_secs(10);

/// Where the apps are.
#[derive(Debug)]
pub enum Source {
    /// This process is their master.
    Own {
        /// Its name.
        name: String,
        /// Where it takes requests.
        requests: Reports<control::Event>,
        /// What happens in it.
        journal: Journal,
    },
    /// All masters that this user may ask.
    Machine,
}

/// The apps.
#[derive(Debug)]
pub struct Apps {
    source: Source,
    names: tokio::sync::Mutex<Option<(Instant, Vec<String>)>>,
    known: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Known>>>>,
}

/// What is known of one app.
#[derive(Debug, Default)]
struct Known {
    /// The last status, and when it came.
    status: Option<(Instant, Arc<Status>)>,
    /// When it was asked last, and why that failed.
    asked: Option<(Instant, Option<String>)>,
    /// A question that it has not answered. No other is asked meanwhile.
    asking: Option<JoinHandle<Result<String, String>>>,
    tail: Tail,
    /// When it was shown last.
    shown: Option<Instant>,
    /// What its processes used at the last look, and whether it is looked again.
    usage: Option<Arc<Status>>,
    looking: bool,
}

/// Its last events.
#[derive(Debug, Default)]
struct Tail {
    asked: Option<Instant>,
    journal: u64,
    last: u64,
    events: VecDeque<Happened>,
}

/// One app as it is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// The last status that it told, and how old that is.
    pub status: Option<(Arc<Status>, Duration)>,
    /// Why it tells none now.
    pub error: Option<String>,
}

/// Why an app cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none with this name.
    #[error("no app {0:?} runs here")]
    Unknown(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It does not answer.
    #[error("{0}")]
    Silent(String),
}

impl Apps {
    /// The apps of a source.
    #[must_use]
    pub fn of(source: Source) -> Arc<Apps> {
        Arc::new(Apps { source, names: tokio::sync::Mutex::default(), known: Mutex::default() })
    }

    /// Their names.
    pub async fn names(&self) -> Vec<String> {
        if let Source::Own { name, .. } = &self.source {
            return vec![name.clone()];
        }
        let mut names = self.names.lock().await;
        if let Some((_, names)) = names.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return names.clone();
        }
        // Where it cannot be known, those that were known stay.
        let found = tokio::task::spawn_blocking(client::running).await.ok().and_then(Result::ok);
        let found = found.or_else(|| names.take().map(|(_, names)| names)).unwrap_or_default();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| found.contains(name));
        *names = Some((Instant::now(), found.clone()));
        found
    }

    /// All of them as they are shown. Those that do not answer hold up nobody else.
    pub async fn all(self: &Arc<Self>) -> Vec<Shown> {
        let names = self.names().await;
        futures_util::future::join_all(names.iter().map(|name| self.shown(name))).await
    }

    /// One of them as it is shown; the name is one of [`Apps::names`].
    pub async fn shown(self: &Arc<Self>, name: &str) -> Shown {
        let shared = self.known(name);
        let mut known = shared.lock().await;
        known.shown = Some(Instant::now());
        if !std::mem::replace(&mut known.looking, true) {
            tokio::spawn(Arc::clone(self).look(name.to_owned(), Arc::clone(&shared)));
        }
        if known.asked.as_ref().is_none_or(|(at, _)| at.elapsed() >= FRESH) {
            let answer = self.ask_once(name, &mut known).await;
            let status = answer.and_then(|answer| read::<Status>(&answer));
            let error = match status {
                Ok(mut status) => {
                    // The first status has it.
                    known.usage.iter().for_each(|usage| add_usage(&mut status, usage));
                    let status = Arc::new(status);
                    known.usage.get_or_insert_with(|| Arc::clone(&status));
                    known.status = Some((Instant::now(), status));
                    None
                }
                Err(error) => Some(error),
            };
            known.asked = Some((Instant::now(), error));
        }
        let status = known.status.as_ref().map(|(at, status)| (Arc::clone(status), at.elapsed()));
        Shown { name: name.to_owned(), status, error: known.asked.as_ref().and_then(|(_, error)| error.clone()) }
    }

    /// Looks again and again at what an app uses, until nobody has asked for it for long.
    async fn look(self: Arc<Self>, name: String, known: Arc<tokio::sync::Mutex<Known>>) {
        loop {
            sleep(USAGE_EVERY).await;
            let answer = self.ask(&name, Request::Status { usage: Usage::Told }).await;
            let usage = answer.and_then(|answer| read::<Status>(&answer)).ok();
            let mut known = known.lock().await;
            if known.shown.is_none_or(|at| at.elapsed() >= WATCHED) {
                (known.looking, known.usage) = (false, None);
                return;
            }
            known.usage = usage.map(Arc::new).or(known.usage.take());
        }
    }

    /// Asks for the status, unless an earlier question is still not answered.
    async fn ask_once(&self, name: &str, known: &mut Known) -> Result<String, String> {
        let usage = if known.usage.is_some() { Usage::LeftOut } else { Usage::Told };
        let asking = match &mut known.asking {
            Some(asking) => asking,
            asking @ None => asking.insert(tokio::spawn(self.ask(name, Request::Status { usage }))),
        };
        let answered = timeout(ANSWERS_WITHIN, asking).await;
        let within = humantime::format_duration(ANSWERS_WITHIN);
        let answered = answered.map_err(|_| format!("it has not answered within {within}; it is stopped or hangs"))?;
        known.asking = None;
        answered.map_err(|broken| broken.to_string())?
    }

    /// Does something to an app, and tells what it said.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn act(&self, name: &str, request: Request) -> Result<String, AskError> {
        if !self.names().await.iter().any(|known| known == name) {
            return Err(AskError::Unknown(name.to_owned()));
        }
        let answer = timeout(ACTS_WITHIN, self.ask(name, request)).await;
        let answer =
            answer.map_err(|_| AskError::Silent("it has not answered; what was asked may be under way".into()))?;
        let answer = answer.map_err(AskError::Silent)?;
        match serde_json::from_str::<Refusal>(&answer) {
            Ok(refusal) => Err(AskError::Refused(refusal.error)),
            Err(_) => read::<Done>(&answer).map(|done| done.done).map_err(AskError::Silent),
        }
    }

    /// What happened in an app after an event.
    pub async fn events(&self, name: &str, journal: u64, after: u64) -> Events {
        if let Source::Own { journal: own, .. } = &self.source {
            return own.after(journal, after);
        }
        let known = self.known(name);
        let tail = &mut known.lock().await.tail;
        if tail.asked.is_none_or(|at| at.elapsed() >= FRESH) {
            tail.asked = Some(Instant::now());
            let request = Request::Events { journal: tail.journal, after: tail.last };
            let answer = timeout(ANSWERS_WITHIN, self.ask(name, request)).await;
            if let Ok(Ok(answer)) = answer
                && let Ok(new) = read::<Events>(&answer)
            {
                tail.take(new);
            }
        }
        tail.after(journal, after)
    }

    fn known(&self, name: &str) -> Arc<tokio::sync::Mutex<Known>> {
        Arc::clone(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default())
    }

    /// The answer to a request, as it came.
    fn ask(&self, name: &str, request: Request) -> impl Future<Output = Result<String, String>> + Send + 'static {
        let own = match &self.source {
            Source::Own { requests, .. } => Some(requests.clone()),
            Source::Machine => None,
        };
        let name = name.to_owned();
        async move {
            let Some(requests) = own else {
                let path = control::find_socket(&name);
                let ask = move || client::ask(&name, &path, &request, Patience::Short);
                return match tokio::task::spawn_blocking(ask).await {
                    // As the master would have said it.
                    Ok(Err(ClientError::Refused(why))) => Ok(control::refusal(&why)),
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(broken) => Err(broken.to_string()),
                };
            };
            let ends = || "it is ending".to_owned();
            let (answer, answered) = oneshot::channel();
            requests.send(control::Event::Requested { request, answer }).await.map_err(|_| ends())?;
            answered.await.map_err(|_| ends())
        }
    }
}

/// Fills in what the same processes used at the last look.
fn add_usage(status: &mut Status, usage: &Status) {
    let counted = status.admission.open.is_some();
    status.master = usage.master;
    for worker in &mut status.workers {
        let found = usage.workers.get(worker.slot as usize);
        if let Some(found) = found.filter(|found| found.pid == worker.pid && found.pid.is_some()) {
            (worker.rss_bytes, worker.cpu_s) = (found.rss_bytes, found.cpu_s);
            if !counted {
                worker.open = found.open;
            }
        }
    }
}

impl Tail {
    fn take(&mut self, new: Events) {
        if new.journal != self.journal || new.missed > 0 {
            self.events.clear();
        }
        (self.journal, self.last) = (new.journal, new.last);
        self.events.extend(new.events);
        let over = self.events.len().saturating_sub(KEPT_MAX);
        self.events.drain(..over);
    }

    fn after(&self, journal: u64, number: u64) -> Events {
        let number = if journal == self.journal { number } else { 0 };
        let events: Vec<Happened> = self.events.iter().filter(|event| event.number > number).cloned().collect();
        let missed = self.last.saturating_sub(number).saturating_sub(events.len() as u64);
        Events { journal: self.journal, events, missed, last: self.last }
    }
}

fn read<T: DeserializeOwned>(answer: &str) -> Result<T, String> {
    match serde_json::from_str::<T>(answer) {
        Ok(read) => Ok(read),
        Err(error) => Err(match serde_json::from_str::<Refusal>(answer) {
            Ok(refusal) => refusal.error,
            Err(_) => format!("its answer is not understood ({error}); it may be of another version"),
        }),
    }
}
