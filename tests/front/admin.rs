//! What is seen from outside: metrics, probes, events and changes at an admin address, also under attack.

use crate::home::Home;
use crate::support::*;
use nix::sys::signal::Signal::*;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A maitred with an admin address.
struct Seen {
    maitred: Maitred,
    address: SocketAddr,
}

fn token_file() -> PathBuf {
    let path = scratch("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn start(options: &[&str], workers: usize, command: &[&str]) -> Seen {
    let token = token_file();
    let own = ["--name", "shop", "--admin", "127.0.0.1:0", "--admin-token-file", token.to_str().unwrap()];
    let maitred = Maitred::start(&[&own, options, command].concat());
    let said = maitred.wait_for("serving metrics, probes, events and the page", 1);
    let address = said[0]["address"].as_str().unwrap().parse().unwrap();
    Seen { maitred: maitred.ready(workers), address }
}

/// A request, word for word, and its answer: the status, and the whole text.
fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    answer(stream, request)
}

fn answer(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    // It may answer before all is written, and close.
    let _ = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text)
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    ask(address, &format!("{head}{headers}\r\n{body}"))
}

fn with_token() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {metrics}")).trim().parse().unwrap()
}

/// Reads server-sent events until one of them fits.
fn follow(address: SocketAddr, last_id: &str, fits: impl Fn(&Value) -> bool) -> Vec<(String, Value)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let resume = if last_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_id}\r\n") };
    stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {address}\r\n{resume}\r\n").as_bytes()).unwrap();
    let (mut id, mut found) = (String::new(), Vec::new());
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if let Some(said) = line.strip_prefix("id: ") {
            id = said.to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            let last = fits(&data);
            found.push((id.clone(), data));
            if last {
                return found;
            }
        }
    }
    panic!("the stream ended: {found:?}");
}

#[test]
fn metrics_probes_and_status_tell_what_happened_in_each_mode() {
    for mode in ["handoff", "shared"] {
        let seen = start(&["-w", "2", "--mode", mode], 2, &["--", &server(), "epoll", "0"]);
        load(seen.maitred.address(), 400, 4);
        let total = || {
            let (status, text) = get(seen.address, "/metrics");
            assert_eq!(status, 200);
            let of =
                |slot: u32| value(&text, &format!("maitred_connections_taken_total{{app=\"shop\",slot=\"{slot}\"}}"));
            (of(0) + of(1), text)
        };
        let deadline = Instant::now() + PATIENCE;
        // What is shown may be a quarter of a second old.
        let text = loop {
            let (taken, text) = total();
            if taken >= 400.0 {
                break text;
            }
            assert!(Instant::now() < deadline, "{text}");
        };
        assert_eq!(value(&text, "maitred_workers_ready{app=\"shop\"}"), 2.0);
        assert_eq!(value(&text, "maitred_connections_lost_total{app=\"shop\"}"), 0.0);
        assert!(value(&text, "maitred_master_resident_memory_bytes{app=\"shop\"}") > 1e6);
        if mode == "handoff" {
            assert_eq!(value(&text, "maitred_fairness_jain_ratio{app=\"shop\"}"), 1.0);
            assert!(value(&text, "maitred_front_wait_seconds_count{app=\"shop\"}") >= 6.0, "one of 64 is timed");
        }
        assert_eq!(get(seen.address, "/livez").0, 200);
        assert_eq!(get(seen.address, "/readyz?workers=all").0, 200);
        let (status, text) = get(seen.address, "/status");
        assert!(status == 200 && text.contains("shop: 2/2 ready, generation 1"), "{text}");
        let json = format!(
            "GET /status HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
            seen.address
        );
        let (_, text) = ask(seen.address, &json);
        let status: Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!((&status["name"], &status["mode"]), (&"shop".into(), &mode.into()));
        seen.maitred.stop();
    }
}

#[test]
fn it_is_ready_only_while_a_worker_serves_and_nothing_stops() {
    let options = ["-w", "2", "--stop-delay", "3s", "--restart-window", "60s"];
    let seen = start(&options, 2, &["--", &server(), "epoll", "0"]);
    assert_eq!(get(seen.address, "/readyz").0, 200);
    kill(seen.maitred.pid(1), SIGSTOP);
    seen.maitred.signal(SIGTERM);
    seen.maitred.wait_for("asked to stop; serving on for --stop-delay", 1);
    let deadline = Instant::now() + PATIENCE;
    while get(seen.address, "/readyz").0 != 503 {
        assert!(Instant::now() < deadline);
    }
    assert!(get(seen.address, "/readyz").1.contains("it is stopping"));
    assert_eq!(get(seen.address, "/livez").0, 200);
    kill(seen.maitred.pid(1), SIGCONT);
    assert_eq!(seen.maitred.wait().0.code(), Some(0));
}

#[test]
fn events_are_told_in_their_order_and_from_where_a_client_was() {
    let seen = start(&["-w", "1"], 1, &["--", &server(), "epoll", "0"]);
    let names = |events: &[(String, Value)]| -> Vec<String> {
        events.iter().map(|(_, event)| event["event"].as_str().unwrap().to_owned()).collect()
    };
    let first = follow(seen.address, "", |event| event["event"] == "ready");
    assert_eq!(names(&first), ["forked", "online", "listening", "ready"]);
    let numbers: Vec<u64> = first.iter().map(|(_, event)| event["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    let pid = seen.maitred.pid(0);
    kill(pid, SIGKILL);
    let next = follow(seen.address, &first[3].0, |event| event["event"] == "ready");
    assert_eq!(names(&next), ["exited", "forked", "online", "listening", "ready"]);
    assert_eq!((&next[0].1["why"], &next[0].1["pid"]), (&"signal 9".into(), &pid.into()));
    seen.maitred.told(&["reload", "--wait"]);
    seen.maitred.told(&["scale", "2"]);
    seen.maitred.told(&["upgrade"]);
    // The journal goes on over an upgrade, and so does the address.
    let rest = follow(seen.address, &next[4].0, |event| event["event"] == "upgraded");
    for event in ["reload-begun", "canary", "draining", "reload-done", "scaled", "upgraded"] {
        assert!(names(&rest).iter().any(|name| name == event), "{event}: {rest:?}");
    }
    let numbers: Vec<u64> = rest.iter().map(|(_, event)| event["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (10..10 + numbers.len() as u64).collect::<Vec<u64>>());
    // As the command tells them, to its end.
    let mut command = maitred();
    command.args(["events", "--json", "--control"]).arg(&seen.maitred.control);
    let mut told = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(told.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.next().unwrap().contains(r#""number":1,"#));
    seen.maitred.signal(SIGTERM);
    let last = lines.last().unwrap();
    assert!(last.contains(r#""event":"exited""#), "{last}");
    assert!(wait_child(&mut told).success());
    assert_eq!(seen.maitred.wait().0.code(), Some(0));
}

#[test]
fn who_was_away_for_too_long_is_told_how_much_was_missed() {
    let seen = start(&["-w", "1"], 1, &["--", &server(), "epoll", "0"]);
    let first = follow(seen.address, "", |event| event["event"] == "ready");
    for _ in 0..400 {
        seen.maitred.told(&["scale", "2"]);
        seen.maitred.told(&["scale", "1"]);
    }
    seen.maitred.status_until(|status| status["counts"]["events"].as_u64() > Some(1100));
    let late = follow(seen.address, &first[0].0, |event| event["missed"].is_number());
    assert_eq!(late.len(), 1);
    assert!(late[0].1["missed"].as_u64().unwrap() > 50, "{late:?}");
    seen.maitred.stop();
}

#[test]
fn a_change_needs_the_token_and_does_what_the_command_does() {
    let seen = start(&["-w", "2"], 2, &["--", &server(), "epoll", "0"]);
    let path = |action: &str| format!("/apps/shop/{action}");
    for headers in
        ["", "Authorization: Bearer nonsense\r\n", "Authorization: Basic bm86bm8=\r\n", "Authorization: x\r\n"]
    {
        assert_eq!(post(seen.address, &path("reload"), headers, "").0, 401, "{headers}");
    }
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let headers = format!("{}Origin: {origin}\r\n", with_token());
        assert_eq!(post(seen.address, &path("reload"), &headers, "").0, 403, "{origin}");
    }
    assert_eq!(seen.maitred.logged("reload begins").len(), 0);
    let (status, text) = post(seen.address, &path("reload"), &with_token(), "");
    assert!(status == 200 && text.contains("generation 2 starts"), "{text}");
    seen.maitred.wait_for("reload done: the new generation serves", 1);
    let (status, text) = post(seen.address, &path("scale"), &with_token(), "{\"workers\": 3}");
    assert!(status == 200 && text.contains("2 workers become 3"), "{text}");
    let (status, text) = post(seen.address, &path("scale"), &with_token(), "0");
    assert!(status == 409 && text.contains("0 workers would serve nobody"), "{text}");
    assert_eq!(post(seen.address, &path("scale"), &with_token(), "many").0, 400);
    assert_eq!(post(seen.address, &path("scale"), &with_token(), &"9".repeat(2000)).0, 413);
    assert_eq!(post(seen.address, &path("explode"), &with_token(), "").0, 404);
    assert_eq!(post(seen.address, "/apps/other/reload", &with_token(), "").0, 404);
    assert_eq!(post(seen.address, &path("stop"), &with_token(), "").0, 200);
    assert_eq!(seen.maitred.wait().0.code(), Some(0));
}

#[test]
fn a_thousand_wrong_tokens_open_nothing_and_are_counted() {
    let seen = start(&["-w", "1"], 1, &["--", &server(), "epoll", "0"]);
    for number in 0..1000 {
        let headers = format!("Authorization: Bearer {:0width$}\r\n", number, width = TOKEN.len());
        assert_eq!(post(seen.address, "/apps/shop/stop", &headers, "").0, 401);
    }
    assert_eq!(value(&get(seen.address, "/metrics").1, "maitred_admin_requests_refused_total"), 1000.0);
    let said = seen.maitred.logged("requests at the admin address are refused");
    assert!(said.len() <= 10, "{} lines for a thousand refusals", said.len());
    seen.maitred.stop();
}

#[test]
fn nonsense_is_answered_or_dropped_and_changes_nothing() {
    let seen = start(&["-w", "1"], 1, &["--", &server(), "epoll", "0"]);
    let host = format!("Host: {}\r\nConnection: close\r\n", seen.address);
    let wanted: &[(&str, &[u16])] = &[
        ("GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n", &[421]),
        ("GET /status HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", &[421]),
        ("GET /status HTTP/1.0\r\n\r\n", &[421]),
        ("GET /../../etc/passwd HTTP/1.1\r\n", &[404]),
        ("GET /apps/..%2f..%2fetc%2fpasswd HTTP/1.1\r\n", &[404]),
        ("GET //status HTTP/1.1\r\n", &[404]),
        ("GET http://evil.example/status HTTP/1.1\r\n", &[200, 404, 421]),
        ("OPTIONS / HTTP/1.1\r\n", &[401, 405]),
        ("DELETE /apps/shop HTTP/1.1\r\n", &[401]),
        ("GET /apps/shop/reload HTTP/1.1\r\n", &[405]),
        ("GET /status?app=%ff HTTP/1.1\r\n", &[400, 404]),
        ("GET /readyz?workers=some HTTP/1.1\r\n", &[400]),
        ("\u{1}\u{2}\u{3}\r\n\r\n", &[0, 400]),
        ("GET / HTTP/9.9\r\n", &[0, 400, 505]),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", &[0, 200, 400]),
    ];
    for (request, statuses) in wanted {
        let whole = if request.ends_with("\r\n\r\n") { (*request).to_owned() } else { format!("{request}{host}\r\n") };
        let (status, text) = ask(seen.address, &whole);
        assert!(statuses.contains(&status), "{request:?}: {status}: {text}");
    }
    let long = format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(ask(seen.address, &long).0, 431);
    let many = format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: b\r\n".repeat(200));
    assert_eq!(ask(seen.address, &many).0, 431);
    let path = format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a/".repeat(30_000));
    assert!([0, 400, 414, 431].contains(&ask(seen.address, &path).0));
    // Every answer forbids to be framed, guessed at or kept.
    let (_, text) = get(seen.address, "/");
    for header in
        ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "x-frame-options: DENY"]
    {
        assert!(text.contains(header), "{text:.800}");
    }
    assert!(matches!(request(seen.maitred.address()), Reply::Body(_)));
    seen.maitred.stop();
}

#[test]
fn no_environment_is_shown_anywhere() {
    let seen = start(&["-w", "1", "--env", "SECRET=swordfish"], 1, &["--", &server(), "epoll", "0"]);
    for path in ["/", "/metrics", "/status", "/apps", "/apps/shop", "/readyz"] {
        let json = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
            seen.address
        );
        let (_, text) = ask(seen.address, &json);
        assert!(!text.contains("swordfish") && !text.contains(TOKEN), "{path}");
    }
    seen.maitred.stop();
}

#[test]
fn thousands_of_idle_clients_and_slow_ones_keep_nobody_from_an_answer() {
    let seen = start(&["-w", "1"], 1, &["--", &server(), "epoll", "0"]);
    let before = descriptors(seen.maitred.child.id());
    let mut clients = Vec::new();
    for number in 0..3000 {
        let mut client = TcpStream::connect(seen.address).unwrap();
        if number % 2 == 0 {
            // Never comes to its end.
            let _ = client.write_all(b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nX");
        }
        clients.push(client);
        if number % 500 == 499 {
            assert_eq!(get(seen.address, "/livez").0, 200, "{number}");
            assert!(matches!(request(seen.maitred.address()), Reply::Body(_)));
        }
    }
    let during = descriptors(seen.maitred.child.id());
    assert!(during < before + 300, "{before} descriptors before, {during} with the clients");
    let (_, text) = get(seen.address, "/metrics");
    assert!(value(&text, "maitred_admin_clients_dismissed_total") >= 2700.0);
    seen.maitred.stop();
}

#[test]
fn a_scrape_every_ten_milliseconds_costs_a_reload_under_load_nothing() {
    let seen = start(&["-w", "2"], 2, &["--", &server(), "epoll", "0"]);
    let (stop, scrapes) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
    let (tally, ()) = std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(get(seen.address, "/metrics").0, 200);
                scrapes.fetch_add(1, Ordering::Relaxed);
                // The rhythm of the scraper.
                std::thread::sleep(Duration::from_millis(10).saturating_sub(begun.elapsed()));
            }
        });
        let done = seen.maitred.with_load(4, || {
            for _ in 0..3 {
                seen.maitred.told(&["reload", "--wait"]);
            }
        });
        drop(stopping);
        done
    });
    assert!(tally.failed.is_empty() && tally.hung == 0, "{tally:?}");
    assert!(scrapes.load(Ordering::Relaxed) > 20);
    seen.maitred.stop();
}

#[test]
fn a_unix_socket_has_its_mode_and_an_address_that_is_taken_is_named() {
    let (socket, token) = (scratch("admin.sock"), token_file());
    let at = format!("unix:{}?mode=660", socket.display());
    let maitred = Maitred::start(&[
        "-w",
        "1",
        "--admin",
        &at,
        "--admin-token-file",
        token.to_str().unwrap(),
        "--",
        &server(),
        "epoll",
        "0",
    ]);
    let maitred = maitred.ready(1);
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    let stream = UnixStream::connect(&socket).unwrap();
    let (status, _) = answer(stream, "GET /readyz HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 200);
    maitred.told(&["upgrade"]);
    let stream = UnixStream::connect(&socket).unwrap();
    assert_eq!(answer(stream, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").0, 200);
    maitred.stop();
    assert!(!socket.exists(), "its file is left");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&[
        "-w",
        "1",
        "--admin",
        &address,
        "--admin-token-file",
        token.to_str().unwrap(),
        "--",
        &server(),
        "epoll",
        "0",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("cannot serve --admin {address}: Address already in use")), "{said}");
    for (wrong, why) in
        [("9901", "a port needs a colon"), ("unix:@x", "expected HOST:PORT"), ("fd://3", "expected HOST:PORT")]
    {
        let output = run(&["--admin", wrong, "--", &server(), "epoll", "0"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(why), "{said}");
    }
    let none = scratch("none");
    let output =
        run(&["--admin", "127.0.0.1:0", "--admin-token-file", none.to_str().unwrap(), "--", &server(), "epoll", "0"]);
    assert!(
        output.status.code() == Some(3)
            && String::from_utf8_lossy(&output.stderr).contains("cannot use the token file")
    );
}

#[test]
fn another_address_than_loopback_wants_the_token_for_everything() {
    let token = token_file();
    let options = [
        "-w",
        "1",
        "--admin",
        "0.0.0.0:0",
        "--admin-token-file",
        token.to_str().unwrap(),
        "--",
        &server(),
        "epoll",
        "0",
    ];
    let maitred = Maitred::start(&options).ready(1);
    let said = maitred.wait_for("serving metrics, probes, events and the page", 1);
    let port = said[0]["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    for path in ["/", "/metrics", "/livez", "/events"] {
        assert_eq!(get(address, path).0, 401, "{path}");
        let asked = format!("GET {path} HTTP/1.1\r\nHost: web1\r\nConnection: close\r\n{}\r\n", with_token());
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(asked.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{path}: {line}");
    }
    maitred.stop();
}

/// `maitred admin` of this home; ends with the test.
struct All {
    child: Child,
    address: SocketAddr,
}

impl Drop for All {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all(home: &Home) -> All {
    let mut child = home.command(&["admin", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    let mut child = child.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    // Nobody reads on, and it must not wait for that.
    std::thread::spawn(move || lines.for_each(drop));
    All { child, address: said["address"].as_str().unwrap().parse().unwrap() }
}

fn token_of(home: &Home, name: &str) -> String {
    let path: &Path = &home.0.join(format!("state/maitred/tokens/{name}.token"));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn all_apps_are_shown_and_one_that_hangs_holds_up_no_other() {
    let home = Home::new();
    let (_, pid) = home.start("web", &[]);
    home.start("api", &[]);
    let all = all(&home);
    let (status, text) = get(all.address, "/apps");
    assert!(status == 200 && text.contains("api: 2/2 ready") && text.contains("web: 2/2 ready"), "{text}");
    assert!(get(all.address, "/status").1.contains("name one with ?app=NAME: api, web"));
    let reload = |name: &str| {
        let headers = format!("Authorization: Bearer {}\r\n", token_of(&home, "all"));
        post(all.address, &format!("/apps/{name}/reload"), &headers, "")
    };
    assert_eq!(reload("api").0, 200);
    follow(all.address, "", |event| event["app"] == "api" && event["event"] == "reload-done");

    kill(pid, SIGSTOP);
    let deadline = Instant::now() + PATIENCE;
    let text = loop {
        let (_, text) = get(all.address, "/metrics");
        if value(&text, "maitred_up{app=\"web\"}") == 0.0 {
            break text;
        }
        assert!(Instant::now() < deadline, "{text}");
    };
    assert_eq!(value(&text, "maitred_up{app=\"api\"}"), 1.0);
    assert!(!text.contains("maitred_workers{app=\"web\"}"), "what is old is no metric");
    let begun = Instant::now();
    let (status, text) = get(all.address, "/readyz");
    assert!(status == 503 && text.contains("web: it has not answered within 2s; it is stopped or hangs"), "{text}");
    assert_eq!(get(all.address, "/apps/api").0, 200);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    kill(pid, SIGCONT);
    while get(all.address, "/readyz").0 != 200 {
        assert!(Instant::now() < deadline + PATIENCE);
    }
    home.said(&["stop", "web", "api"]);
    while !get(all.address, "/readyz").1.contains("no app runs") {
        assert!(Instant::now() < deadline + 2 * PATIENCE);
    }
}

#[test]
fn a_command_is_told_of_each_event_one_after_the_other_and_of_the_end() {
    let told = scratch("told");
    let command = format!(
        "read -r line; echo \"$MAITRED_NAME $MAITRED_EVENT $MAITRED_EVENT_SLOT $line\" >> {0}; case $MAITRED_EVENT in online) exit 3;; esac",
        told.display()
    );
    let maitred =
        Maitred::start(&["--name", "shop", "-w", "1", "--on-event", &command, "--", &server(), "epoll", "0"]).ready(1);
    kill(maitred.pid(0), SIGKILL);
    maitred.wait_for("worker ready", 2);
    maitred.told(&["upgrade"]);
    let failed = maitred.wait_for("the command of --on-event failed", 1);
    assert_eq!(failed[0]["why"], "it ended with exit status 3");
    maitred.signal(SIGTERM);
    assert_eq!(maitred.wait().0.code(), Some(0));
    let text = std::fs::read_to_string(&told).unwrap();
    let mut numbers = Vec::new();
    for line in text.lines() {
        let (words, json) = line.split_once(" {").unwrap();
        let event: Value = serde_json::from_str(&format!("{{{json}")).unwrap();
        assert!(words.starts_with(&format!("shop {}", event["event"].as_str().unwrap())), "{line}");
        numbers.push(event["number"].as_u64().unwrap());
    }
    // One that is told while the program is replaced is told again.
    numbers.dedup();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<u64>>());
    let last = text.lines().last().unwrap();
    assert!(last.contains("\"event\":\"exited\""), "{last}");
}

#[test]
fn a_command_that_hangs_is_ended_and_holds_up_nothing() {
    let maitred = Maitred::start(&["-w", "1", "--on-event", "exec sleep 1000", "--", &server(), "epoll", "0"]).ready(1);
    assert!(matches!(request(maitred.address()), Reply::Body(_)));
    let failed = maitred.wait_for("the command of --on-event failed", 1);
    assert_eq!(failed[0]["why"], "it had not ended after 10s and was killed");
    maitred.told(&["reload", "--wait"]);
    let begun = Instant::now();
    maitred.signal(SIGTERM);
    assert_eq!(maitred.wait().0.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}
