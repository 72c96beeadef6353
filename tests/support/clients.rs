//! Clients: one request, or many at once, and what became of them.

use super::{Maitred, PATIENCE};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What came with a status of success.
    Body(String),
    Failed(String),
    /// No answer within [`PATIENCE`].
    Hung,
}

/// One HTTP request on a connection of its own.
pub fn request(address: SocketAddr) -> Reply {
    request_within(address, PATIENCE)
}

pub fn request_within(address: SocketAddr, patience: Duration) -> Reply {
    match TcpStream::connect_timeout(&address, patience) {
        Ok(stream) => exchange(stream, patience),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Reply::Hung,
        Err(error) => Reply::Failed(format!("connect: {error}")),
    }
}

/// Sends some words, and reads as many as are expected.
pub fn talk(address: SocketAddr, send: &str, expect: &str) -> Reply {
    let mut answer = vec![0; expect.len()];
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(send.as_bytes())?;
        stream.read_exact(&mut answer)
    });
    match asked {
        Ok(()) if answer == expect.as_bytes() => Reply::Body(expect.to_owned()),
        Ok(()) => Reply::Failed(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Reply::Failed(error.to_string()),
    }
}

/// One HTTP request for a path on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Reply {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(stream) => exchange_for(path, stream, PATIENCE),
        Err(error) => Reply::Failed(format!("connect: {error}")),
    }
}

/// One HTTP request on this connection.
pub fn exchange(stream: TcpStream, patience: Duration) -> Reply {
    exchange_for("/", stream, patience)
}

fn exchange_for(path: &str, mut stream: TcpStream, patience: Duration) -> Reply {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut text = Vec::new();
    let sent = stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes());
    match sent.and_then(|()| stream.read_to_end(&mut text)) {
        Ok(0) => Reply::Failed("closed without an answer".into()),
        Ok(_) => match String::from_utf8_lossy(&text).split_once("\r\n\r\n") {
            Some((head, body)) if succeeded(head) => Reply::Body(body.to_owned()),
            Some(_) => Reply::Failed(format!("no success: {:?}", String::from_utf8_lossy(&text))),
            None => Reply::Failed(format!("half an answer: {:?}", String::from_utf8_lossy(&text))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Reply::Hung,
        Err(error) => Reply::Failed(error.to_string()),
    }
}

/// Whether the head of an HTTP answer says so (RFC 9110, section 15.3).
fn succeeded(head: &str) -> bool {
    head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(1..)).is_some_and(|rest| rest.starts_with(" 2"))
}

/// One HTTP request through a Unix socket.
pub fn ask_unix(path: &Path) -> Reply {
    let mut text = String::new();
    let asked = UnixStream::connect(path).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        stream.read_to_string(&mut text)
    });
    match asked {
        Ok(n) if n > 0 => Reply::Body(text),
        Ok(_) => Reply::Failed("closed without an answer".into()),
        Err(error) => Reply::Failed(error.to_string()),
    }
}

/// What became of many requests.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: u64,
    pub failed: Vec<String>,
    pub hung: u64,
}

/// `clients` closed-loop clients with `connections` requests in all, one per connection.
pub fn load(address: SocketAddr, connections: u64, clients: usize) -> Tally {
    load_with(connections, clients, &|| request(address))
}

pub fn load_with(connections: u64, clients: usize, request: &(dyn Fn() -> Reply + Sync)) -> Tally {
    let begun = AtomicU64::new(0);
    closed_loop(clients, request, &|| begun.fetch_add(1, Ordering::Relaxed) < connections)
}

/// Clients that ask until `stop` is set.
pub fn load_until(address: SocketAddr, clients: usize, stop: &AtomicBool) -> Tally {
    closed_loop(clients, &|| request(address), &|| !stop.load(Ordering::Relaxed))
}

fn closed_loop(clients: usize, request: &(dyn Fn() -> Reply + Sync), more: &(dyn Fn() -> bool + Sync)) -> Tally {
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                // One hung request says enough; waiting for more of them would take for ever.
                while tally.lock().unwrap().hung == 0 && more() {
                    let reply = request();
                    let mut tally = tally.lock().unwrap();
                    match reply {
                        Reply::Body(_) => tally.answered += 1,
                        Reply::Failed(why) => tally.failed.push(why),
                        Reply::Hung => tally.hung += 1,
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// The workers' values of one field.
pub fn per_worker(status: &Value, field: &str) -> Vec<u64> {
    status["workers"].as_array().unwrap().iter().map(|w| w[field].as_u64().unwrap()).collect()
}

/// Every connection is answered, every slot got its exact share, and all were taken.
pub fn check_exact_spread(maitred: &Maitred, connections: u64, clients: usize) {
    let address = maitred.address();
    check_exact_spread_with(maitred, connections, clients, &|| request(address));
}

pub fn check_exact_spread_with(
    maitred: &Maitred,
    connections: u64,
    clients: usize,
    request: &(dyn Fn() -> Reply + Sync),
) {
    let before = maitred.status();
    let tally = load_with(connections, clients, request);
    assert_eq!((tally.answered, tally.hung), (connections, 0), "{:?}", tally.failed);
    let status = maitred.status_until(|s| per_worker(s, "queued").iter().all(|&q| q == 0));
    let shares: Vec<u64> =
        per_worker(&status, "handed").iter().zip(per_worker(&before, "handed")).map(|(a, b)| a - b).collect();
    let (max, min) = (shares.iter().max().unwrap(), shares.iter().min().unwrap());
    assert_eq!(shares.iter().sum::<u64>(), connections, "{status:#}");
    assert!(max - min <= 1, "{shares:?}");
    assert_eq!(per_worker(&status, "taken"), per_worker(&status, "handed"), "{status:#}");
    assert_eq!(status["totals"]["lost"], 0);
}
