//! Python servers whose parent binds the address and whose children serve, most of them executed anew.

use crate::case::*;
use crate::sockets::{descendants, ends_whole, free_ports, listening, local};
use crate::support::*;
use std::collections::BTreeSet;

pub fn all() -> Vec<Case> {
    [
        in_each_mode("hypercorn", &[PACKAGES], BOTH, |way| serves(way, "hypercorn --bind 127.0.0.1:PORT asgi:app")),
        in_each_mode("hypercorn --workers 2", &[PACKAGES], BOTH, |way| {
            serves(way, "hypercorn --workers 2 --bind 127.0.0.1:PORT asgi:app")
        }),
        in_each_mode("uvicorn --reload", &[PACKAGES], BOTH, |way| {
            serves(way, "uvicorn --reload --log-level warning --port PORT asgi:app")
        }),
        in_each_mode("uvicorn --workers 2", &[PACKAGES], BOTH, |way| {
            serves(way, "uvicorn --workers 2 --log-level warning --port PORT asgi:app")
        }),
        in_each_mode("Sanic --single-process", &[PACKAGES], BOTH, |way| {
            serves(way, "sanic sanic_app:app --single-process --host 127.0.0.1 --port PORT")
        }),
        in_each_mode("Sanic --workers 2", &[PACKAGES], BOTH, |way| {
            serves(way, "sanic sanic_app:app --workers 2 --host 127.0.0.1 --port PORT")
        }),
        in_each_mode("Flask run --debug", &[PACKAGES], BOTH, |way| {
            serves(way, "flask --app flask_app run --debug --host 127.0.0.1 --port PORT")
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const REQUESTS: usize = 40;

/// Every slot is ready, it serves where it was asked to and nowhere else, a reload works, and nothing is left.
fn serves(way: Way, command: &str) -> String {
    let port = free_ports(1);
    let command = command.replace("PORT", &port.to_string());
    let (name, rest) = command.split_once(' ').unwrap();
    let line = format!("cd {} && exec {} {rest}", program(""), packaged(name));
    let maitred = start(way, &["-w", "2", "--grace", "10s"], &["sh", "-c", &line]);
    all_ready(&maitred, 2);
    let mut right = answers(local(port), REQUESTS).iter().filter(|answer| answer.contains("served by")).count();
    only_there(&maitred, port);
    reload(&maitred);
    right += answers(local(port), REQUESTS).iter().filter(|answer| answer.contains("served by")).count();
    only_there(&maitred, port);
    ends_whole(maitred);
    all_of(right, 2 * REQUESTS)
}

/// Nobody listens anywhere but at the address that was asked for.
fn only_there(maitred: &Maitred, port: u16) {
    let found = listening(&descendants(maitred.child.id()));
    assert_eq!(found, BTreeSet::from([local(port)]));
}
