//! What a worker is given to read: its arguments and its environment.

use crate::config::{Config, Mode, PortZero};
use crate::front::listener::Origin;
use crate::front::listeners::Listeners;
use crate::sys::process::attributes::Attributes;
use crate::wire::address::Address;
use crate::wire::environment as env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Variables that are meant for the master and would mislead a worker.
const SCRUBBED: [&str; 11] = [
    env::UPGRADE,
    env::UPGRADE_BACK,
    env::UPGRADE_FAILED,
    env::LISTEN_FDS,
    env::LISTEN_PID,
    env::LISTEN_FDNAMES,
    env::LISTEN_PIDFDID,
    env::NOTIFY_SOCKET,
    env::WATCHDOG_USEC,
    env::WATCHDOG_PID,
    // The master was asked for this many copies: gunicorn and puma would each make that many again.
    "WEB_CONCURRENCY",
];

/// The same for other managers, by how the names begin.
const SCRUBBED_FAMILIES: [&str; 2] = ["EINHORN_", "SERVER_STARTER_"];

pub fn is_scrubbed(name: &OsStr) -> bool {
    let family = |prefix: &&str| name.as_bytes().starts_with(prefix.as_bytes());
    SCRUBBED.iter().any(|scrubbed| name == *scrubbed) || SCRUBBED_FAMILIES.iter().any(family)
}

/// The variables that a login of the worker's user would set, if it is another one: systemd sets the same for `User=`
/// (systemd.exec(5)).
pub fn of_user(attributes: &Attributes) -> Vec<(&'static str, OsString)> {
    match attributes.user.as_ref().and_then(|user| user.entry.as_ref()) {
        None => Vec::new(),
        Some(entry) => vec![
            ("USER", entry.name.clone().into()),
            ("LOGNAME", entry.name.clone().into()),
            ("HOME", entry.home.clone().into()),
            ("SHELL", entry.shell.clone().into()),
        ],
    }
}

/// A variable as the worker will see it.
pub fn lookup(config: &Config, name: &OsStr) -> Option<OsString> {
    let given = config.env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    given.or_else(|| std::env::var_os(name))
}

/// What replaces `{slot}` and the like.
pub type Places<'a> = [(&'a str, String)];

/// A text with its placeholders replaced.
pub fn replaced(text: &OsStr, places: &Places<'_>) -> OsString {
    match text.to_str() {
        Some(text) => places.iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, value)).into(),
        None => text.to_owned(),
    }
}

/// What the shim needs to know about how connections come.
pub fn how(config: &Config, listeners: &Listeners) -> String {
    let by_handoff = (config.mode == Mode::Handoff).then_some(env::HANDOFF);
    let named = listeners.iter().any(|l| l.origin == Origin::Operator && l.key.asked.is_ephemeral());
    let port_zero = (named || config.port_zero == PortZero::Shared).then_some(env::PORT_ZERO);
    by_handoff.into_iter().chain(port_zero).collect::<Vec<_>>().join(" ")
}

/// The command's words, with `{slot}`, `{worker}`, `{generation}`, `{port}` and `{fd}` replaced.
pub fn arguments(config: &Config, identity: &Places<'_>, listeners: &Listeners) -> Vec<OsString> {
    let port = listeners.iter().find_map(|l| match l.address {
        Address::Tcp(address) => Some(address.port().to_string()),
        Address::Unix(_) | Address::Abstract(_) => None,
    });
    let fd = (config.mode != Mode::Handoff && !config.bind.is_empty()).then(|| "3".to_owned());
    let known = [("{port}", port), ("{fd}", fd)].into_iter().filter_map(|(place, value)| Some((place, value?)));
    let places: Vec<_> = identity.iter().cloned().chain(known).collect();
    config.command.iter().map(|word| replaced(word, &places)).collect()
}

pub fn unix_paths(listeners: &Listeners) -> String {
    let paths = listeners.iter().filter_map(|l| match &l.address {
        Address::Unix(path) if !path.as_os_str().as_bytes().contains(&b':') => Some(path.display().to_string()),
        _ => None,
    });
    paths.collect::<Vec<_>>().join(":")
}
