//! What is answered at each path.

use super::access::{self, Reach};
use super::apps::{Apps, AskError, Shown};
use super::metrics::{Format, OwnCounts, metrics};
use super::token::Token;
use super::{page, stream};
use crate::control::status::Status;
use crate::control::{Request, Size, Until};
use crate::core::fleet::Manner;
use crate::core::visible;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, extract};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tracing::warn;

/// The body of a request.
const BODY_MAX: usize = 1024;
/// How long a body may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// What all requests have in common.
#[derive(Debug)]
pub struct Admin {
    apps: Arc<Apps>,
    token: Token,
    dismissed: AtomicU64,
    refused: AtomicU64,
}

impl Admin {
    /// For these apps; who knows this token may change something.
    #[must_use]
    pub fn new(apps: Arc<Apps>, token: Token) -> Admin {
        Admin { apps, token, dismissed: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// A client was sent away.
    pub fn dismissed(&self) {
        let dismissed = self.dismissed.fetch_add(1, Ordering::Relaxed) + 1;
        if dismissed.is_power_of_two() {
            warn!(dismissed, "too many clients at the admin address; the oldest that asks nothing is sent away");
        }
    }
}

/// What one connection has.
#[derive(Clone)]
struct Client {
    admin: Arc<Admin>,
    reach: Reach,
    busy: Arc<AtomicBool>,
}

/// The paths, for one connection.
pub fn router(admin: Arc<Admin>, reach: Reach, busy: Arc<AtomicBool>) -> Router {
    let client = Client { admin, reach, busy };
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(scrape))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/apps", get(apps))
        .route("/apps/{name}", get(app))
        .route("/apps/{name}/{action}", post(act))
        .route("/events", get(events))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(client.clone(), guard))
        .with_state(client)
}

/// Refuses who may not ask, and adds what every answer has.
async fn guard(State(client): State<Client>, request: extract::Request, next: Next) -> Response {
    let said = access::check(client.reach, request.method(), request.headers(), &client.admin.token);
    let mut response = match said {
        Ok(()) => {
            client.busy.store(true, Ordering::Relaxed);
            let response = next.run(request).await;
            // A stream of events goes on.
            client.busy.store(is_stream(&response), Ordering::Relaxed);
            response
        }
        Err(refused) => {
            let count = client.admin.refused.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_power_of_two() {
                warn!(refused = count, because = ?refused, "requests at the admin address are refused");
            }
            let (status, why) = refused.said();
            let mut response = said_in_words(status, why);
            if status == StatusCode::UNAUTHORIZED {
                // Browsers ask for the token of a page; a script of the page asks for itself.
                let reads = *request.method() == Method::GET;
                let asked = if reads { "Basic realm=\"maitred\", Bearer" } else { "Bearer" };
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(asked));
            }
            response
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
    ] {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn is_stream(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

fn said_in_words(status: StatusCode, text: &str) -> Response {
    typed(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, kind)], body.into()).into_response()
}

/// JSON for programs that ask for it, words for everybody else.
fn either(headers: &HeaderMap, status: StatusCode, json: &impl Serialize, words: impl FnOnce() -> String) -> Response {
    if accepts(headers).contains("application/json") {
        let text = serde_json::to_string(json).unwrap_or_default();
        return typed(status, "application/json", format!("{}\n", visible::json(&text)));
    }
    said_in_words(status, visible::lines(words().trim_end()).as_ref())
}

fn accepts(headers: &HeaderMap) -> &str {
    headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default()
}

async fn page() -> Response {
    page::page().unwrap_or_else(|error| said_in_words(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
}

async fn scrape(State(client): State<Client>, headers: HeaderMap) -> Response {
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let own = OwnCounts { dismissed: count(&client.admin.dismissed), refused: count(&client.admin.refused) };
    let format = Format::accepted(accepts(&headers));
    match metrics(client.admin.apps.all().await, own, format) {
        Ok(text) => typed(StatusCode::OK, format.content_type(), text),
        Err(error) => said_in_words(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The process answers.
async fn livez(headers: HeaderMap) -> Response {
    #[derive(Serialize)]
    struct Lives {
        lives: bool,
    }
    either(&headers, StatusCode::OK, &Lives { lives: true }, || "ok".to_owned())
}

#[derive(Deserialize)]
struct WhichReady {
    workers: Option<String>,
    app: Option<String>,
}

#[derive(Serialize)]
struct Readiness {
    name: String,
    ready: bool,
    why: String,
}

/// Each app serves: at least one worker, and it is not stopping. With `?workers=all` every slot must serve.
async fn readyz(State(client): State<Client>, Query(which): Query<WhichReady>, headers: HeaderMap) -> Response {
    let all = match which.workers.as_deref() {
        None | Some("any") => false,
        Some("all") => true,
        Some(_) => return said_in_words(StatusCode::BAD_REQUEST, "workers is any or all"),
    };
    let shown = client.admin.apps.all().await;
    let asked = shown.iter().filter(|app| which.app.as_ref().is_none_or(|name| *name == app.name));
    let found: Vec<Readiness> = asked.map(|app| readiness(app, all)).collect();
    let ready = !found.is_empty() && found.iter().all(|app| app.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    either(&headers, status, &found, || match &found[..] {
        [] => "no app runs".to_owned(),
        found => found.iter().map(|app| format!("{}: {}\n", app.name, app.why)).collect(),
    })
}

fn readiness(app: &Shown, all: bool) -> Readiness {
    let (ready, why) = match (&app.error, &app.status) {
        (Some(error), _) => (false, error.clone()),
        (None, None) => (false, "it tells nothing".to_owned()),
        (None, Some((status, _))) if status.stopping => (false, "it is stopping".to_owned()),
        (None, Some((status, _))) => {
            let (ready, slots) = (status.ready(), status.workers.len());
            let enough = if all { ready == slots && slots > 0 } else { ready > 0 };
            (enough, format!("{ready}/{slots} ready"))
        }
    };
    Readiness { name: app.name.clone(), ready, why }
}

/// An app as `/apps` tells it.
#[derive(Serialize)]
struct App<'a> {
    name: &'a str,
    /// Why it tells nothing now; `status` is the last one that it told.
    error: Option<&'a str>,
    /// How old the status is.
    age_s: Option<f64>,
    status: Option<&'a Status>,
}

impl<'a> From<&'a Shown> for App<'a> {
    fn from(shown: &'a Shown) -> App<'a> {
        let (status, age_s) = shown.status.as_ref().map(|(status, age)| (&**status, age.as_secs_f64())).unzip();
        App { name: &shown.name, error: shown.error.as_deref(), age_s, status }
    }
}

async fn apps(State(client): State<Client>, headers: HeaderMap) -> Response {
    let shown = client.admin.apps.all().await;
    let all: Vec<App<'_>> = shown.iter().map(App::from).collect();
    either(&headers, StatusCode::OK, &all, || all.iter().map(in_words).collect())
}

/// The status of the only app, or of the one that `?app=` names: as `maitred status --json` prints it.
async fn status(State(client): State<Client>, Query(which): Query<WhichReady>, headers: HeaderMap) -> Response {
    let names = client.admin.apps.names().await;
    match (which.app, &names[..]) {
        (Some(name), _) => one(&client, &name, &headers).await,
        (None, [only]) => one(&client, only, &headers).await,
        (None, names) => {
            let text = format!("name one with ?app=NAME: {}", names.join(", "));
            said_in_words(StatusCode::NOT_FOUND, visible::line(&text).as_ref())
        }
    }
}

async fn app(State(client): State<Client>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    one(&client, &name, &headers).await
}

async fn one(client: &Client, name: &str, headers: &HeaderMap) -> Response {
    if !client.admin.apps.names().await.iter().any(|known| known == name) {
        let error = AskError::Unknown(name.to_owned());
        return said_in_words(StatusCode::NOT_FOUND, visible::line(&error.to_string()).as_ref());
    }
    let shown = client.admin.apps.shown(name).await;
    match (&shown.error, &shown.status) {
        (None, Some((status, _))) => either(headers, StatusCode::OK, &**status, || in_words(&App::from(&shown))),
        (error, _) => {
            let why = format!("{name}: {}", error.as_deref().unwrap_or("it tells nothing"));
            said_in_words(StatusCode::SERVICE_UNAVAILABLE, visible::line(&why).as_ref())
        }
    }
}

/// An app for people.
fn in_words(app: &App<'_>) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "{}: ", app.name);
    if let Some(error) = &app.error {
        let _ = writeln!(text, "{error}");
    }
    let Some(status) = app.status.filter(|_| app.error.is_none()) else { return text };
    let (ready, slots, totals) = (status.ready(), status.workers.len(), &status.totals);
    let ending = if status.stopping { ", stopping" } else { "" };
    let _ = writeln!(
        text,
        "{ready}/{slots} ready, generation {}{ending}, {} accepted, {} refused, {} lost, evenness {:.4}",
        status.generation, totals.accepted, totals.refused, totals.lost, status.fairness.jain
    );
    for listener in &status.listeners {
        let _ = writeln!(text, "  {}: {} accepted, {} queued", listener.address, listener.accepted, listener.queued);
    }
    for worker in &status.workers {
        let pid = worker.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let why = worker.reason.as_deref().map_or(String::new(), |why| format!(": {}", why.replace('\n', " ")));
        let _ = writeln!(
            text,
            "  slot {}: {} pid {pid}, {} handed, {} taken, {} open{why}",
            worker.slot, worker.state, worker.handed, worker.taken, worker.open
        );
    }
    text
}

#[derive(Deserialize)]
struct WhichEvents {
    app: Option<String>,
    after: Option<String>,
}

async fn events(State(client): State<Client>, Query(which): Query<WhichEvents>, headers: HeaderMap) -> Response {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let last = last.or(which.after).unwrap_or_default();
    let body = stream::events(Arc::clone(&client.admin.apps), which.app, &last);
    typed(StatusCode::OK, "text/event-stream", body)
}

/// What `scale` takes: `{"workers": 4}`, or `4`, `+1`, `-1` alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Asked {
    Number { workers: u32 },
    Words { workers: String },
}

fn size(body: &[u8]) -> Result<Size, String> {
    let expected = || "expected a number of workers, +N or -N, or {\"workers\": N}".to_owned();
    let text = std::str::from_utf8(body).map_err(|_| expected())?.trim();
    match serde_json::from_str::<Asked>(text) {
        Ok(Asked::Number { workers }) => Ok(Size::To(workers)),
        Ok(Asked::Words { workers }) => workers.parse().map_err(|_| expected()),
        Err(_) => text.parse().map_err(|_| expected()),
    }
}

async fn act(
    State(client): State<Client>,
    Path((name, action)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    #[derive(Serialize)]
    struct Done<'a> {
        done: &'a str,
    }
    #[derive(Serialize)]
    struct Failed<'a> {
        error: &'a str,
    }
    let body: Bytes = match timeout(BODY_WITHIN, axum::body::to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return said_in_words(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1024 bytes"),
        Err(_) => return said_in_words(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
    };
    let reload = |manner| Request::Reload { manner, until: Until::Accepted };
    let request = match action.as_str() {
        "reload" => reload(Manner::Rolling),
        "restart" => reload(Manner::Restart),
        "stop" => Request::Stop,
        "scale" => match size(&body) {
            Ok(to) => Request::Scale { to },
            Err(why) => return said_in_words(StatusCode::BAD_REQUEST, &why),
        },
        _ => return said_in_words(StatusCode::NOT_FOUND, "actions are reload, restart, stop and scale"),
    };
    tracing::info!(app = %visible::line(&name), action, "asked for at the admin address");
    match client.admin.apps.act(&name, request).await {
        Ok(done) => either(&headers, StatusCode::OK, &Done { done: &done }, || done.clone()),
        Err(error) => {
            let status = match error {
                AskError::Unknown(_) => StatusCode::NOT_FOUND,
                AskError::Refused(_) => StatusCode::CONFLICT,
                AskError::Silent(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            let error = error.to_string();
            either(&headers, status, &Failed { error: &error }, || error.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_in_words_or_json() {
        assert_eq!(size(b"4\n"), Ok(Size::To(4)));
        assert_eq!(size(b"+1"), Ok(Size::By(1)));
        assert_eq!(size(br#"{"workers":4}"#), Ok(Size::To(4)));
        assert_eq!(size(br#"{"workers":"-2"}"#), Ok(Size::By(-2)));
        for text in [&b""[..], b"{}", b"x", b"-", b"4.5", b"\xff", br#"{"workers":-1}"#, br#"{"workers":99999999999}"#]
        {
            assert!(size(text).is_err(), "{text:?}");
        }
    }
}
