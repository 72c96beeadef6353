//! Server-sent events (`html.spec.whatwg.org`, 9.2): what happens in the apps, from where the client was. It is told
//! what it missed. Nothing is queued for one that reads slowly: it gets what is still kept when it reads on, or loses
//! its connection.

use super::apps::Apps;
use crate::control::journal::{Events, Happened};
use axum::body::Body;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often it is looked for new events.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A comment is sent when nothing else was for so long, so that a client that is gone is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// The longest `Last-Event-ID` that is looked at.
const ID_MAX: usize = 16 << 10;

/// How far a client is in the journal of each app.
type Places = BTreeMap<String, (u64, u64)>;

/// An event with the app in which it happened.
#[derive(Serialize)]
struct OfApp<'a> {
    app: &'a str,
    #[serde(flatten)]
    event: &'a Happened,
}

struct Following {
    apps: Arc<Apps>,
    /// Only this one.
    only: Option<String>,
    places: Places,
    said: Instant,
    chunks: VecDeque<String>,
}

/// A body that tells events as they happen, after the place that the client names with `Last-Event-ID`.
pub fn events(apps: Arc<Apps>, only: Option<String>, last_id: &str) -> Body {
    let following = Following {
        apps,
        only,
        places: places(last_id),
        said: Instant::now(),
        // The time after which a browser asks again, and the first sign of life.
        chunks: VecDeque::from(["retry: 1000\n\n".to_owned()]),
    };
    Body::from_stream(futures_util::stream::unfold(following, async |mut following| {
        let chunk = following.next().await;
        Some((Ok::<_, Infallible>(chunk), following))
    }))
}

impl Following {
    async fn next(&mut self) -> String {
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                self.said = Instant::now();
                return chunk;
            }
            self.look().await;
            if self.chunks.is_empty() {
                if self.said.elapsed() >= SIGN_OF_LIFE {
                    self.chunks.push_back(": nothing happened\n\n".to_owned());
                    continue;
                }
                sleep(LOOK_EVERY).await;
            }
        }
    }

    async fn look(&mut self) {
        let names = self.apps.names().await;
        for name in names.iter().filter(|name| self.only.as_ref().is_none_or(|only| only == *name)) {
            let known = self.places.get(name).copied();
            let (journal, after) = known.unwrap_or_default();
            let Events { journal, events, missed, .. } = self.apps.events(name, journal, after).await;
            if missed > 0 && known.is_some() {
                self.chunks.push_back(format!("event: missed\ndata: {{\"app\":\"{name}\",\"missed\":{missed}}}\n\n"));
            }
            for event in &events {
                self.places.insert(name.clone(), (journal, event.number));
                let data = serde_json::to_string(&OfApp { app: name, event }).unwrap_or_default();
                self.chunks.push_back(format!("id: {}\ndata: {data}\n\n", id(&self.places)));
            }
        }
    }
}

/// The id of an event: how far its reader is then, in each app.
fn id(places: &Places) -> String {
    let mut id = String::new();
    for (name, (journal, number)) in places {
        // Writing to a string cannot fail.
        let _ = write!(id, "{}{name}={journal}-{number}", if id.is_empty() { "" } else { "," });
    }
    id
}

/// The opposite. What is no such id means a reader that knows nothing.
fn places(id: &str) -> Places {
    let place = |part: &str| {
        let (name, place) = part.rsplit_once('=')?;
        let (journal, number) = place.split_once('-')?;
        Some((name.to_owned(), (journal.parse().ok()?, number.parse().ok()?)))
    };
    if id.len() > ID_MAX { Places::default() } else { id.split(',').filter_map(place).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_found_where_it_was() {
        let at: Places = [("api".to_owned(), (7, 9)), ("web-2".to_owned(), (1, 0))].into();
        assert_eq!(id(&at), "api=7-9,web-2=1-0");
        assert_eq!(places(&id(&at)), at);
        for nonsense in ["", "12", "web=x-1", "web=1", "=,=-", &"web=1-1,".repeat(9000)] {
            assert!(places(nonsense).is_empty(), "{nonsense:.20}");
        }
    }
}
