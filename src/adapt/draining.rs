//! Servers that drain themselves when they get their stop signal.

use super::wrappers;
use std::ffi::OsString;
use std::path::Path;

/// Servers that take `TERM` as "finish what you have, close idle connections, and end", so they drain themselves
/// better than anybody could from outside: gunicorn ("Signal Handling"), uvicorn ("Graceful process shutdown"),
/// hypercorn (`--graceful-timeout`), puma ("signals.md").
const DRAIN_THEMSELVES: [&str; 4] = ["gunicorn", "uvicorn", "hypercorn", "puma"];

/// Whether a command is one of these servers: as such, as a script or module of an interpreter, behind `bundle exec`, or
/// behind a wrapper.
#[must_use]
pub fn drains_itself(command: &[OsString]) -> bool {
    let inner = wrappers::wrapped(command);
    let mut words = inner.as_deref().unwrap_or(command).iter().filter_map(|word| word.to_str());
    let first = words.next().unwrap_or_default();
    // Some interpreters have a version in their name (python3.11).
    match name(first).trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
        "bundle" => words.next() == Some("exec") && words.next().is_some_and(is_known),
        "python" | "ruby" => words.find(|word| !word.starts_with('-')).is_some_and(is_known),
        _ => is_known(first),
    }
}

fn name(word: &str) -> &str {
    Path::new(word).file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn is_known(word: &str) -> bool {
    DRAIN_THEMSELVES.contains(&name(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_drain_themselves_are_known() {
        let drains = |line: &str| drains_itself(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in [
            "gunicorn app:app",
            "/venv/bin/uvicorn app:app",
            "python3.11 -m gunicorn app:app",
            "python3 -u /venv/bin/hypercorn app:app",
            "env A=1 puma -b tcp://127.0.0.1:80",
            "bundle exec puma",
        ] {
            assert!(drains(line), "{line}");
        }
        for line in ["node gunicorn.js", "python3 server.py gunicorn", "nginx", "bundle install puma", "./puma-like"] {
            assert!(!drains(line), "{line}");
        }
    }
}
