//! The apps of a file as they are to run, and what a changed file asks of those that do.

use crate::config::layers;
use crate::config::options::{self, Reload};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

/// The key of the command in a file, and of the number of workers.
const COMMAND: &str = "command";
const WORKERS: &str = "workers";

/// One app of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// The apps that serve before it is started.
    pub depends_on: Vec<String>,
    /// What `maitred run` is given.
    pub words: Vec<String>,
    /// What the file says of it, with variables replaced and files of variables read.
    pub settings: BTreeMap<String, String>,
    /// How many workers that means on this machine.
    pub workers: u32,
    /// Where its control socket is.
    pub control: PathBuf,
    /// Descriptors that it is given.
    pub passed: Vec<i32>,
}

impl Planned {
    /// The same with digests for values, which may be secrets: what is written down only has to be compared. The key is
    /// another one each time.
    #[must_use]
    pub fn digested(&self, key: u64) -> Planned {
        let digest = |value: &String| {
            let mut hasher = DefaultHasher::new();
            (key, value).hash(&mut hasher);
            format!("{:016x}", hasher.finish())
        };
        let settings = self.settings.iter().map(|(name, value)| (name.clone(), digest(value))).collect();
        Planned { settings, ..self.clone() }
    }
}

/// What is done to one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is started.
    Start,
    /// It is stopped.
    Stop,
    /// It is stopped and started again: these options cannot change while it runs.
    Restart(Vec<String>),
    /// Its workers are replaced: these options are others.
    Reload(Vec<String>),
    /// It gets so many workers.
    Scale(u32),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Start => f.write_str("start"),
            Change::Stop => f.write_str("stop"),
            Change::Restart(keys) => write!(f, "restart ({})", keys.join(", ")),
            Change::Reload(keys) => write!(f, "reload ({})", keys.join(", ")),
            Change::Scale(workers) => write!(f, "scale to {workers}"),
        }
    }
}

/// What is done so that `new` runs where `old` does, app by app: those that go first, and then each after those that it
/// depends on.
#[must_use]
pub fn changes(old: &[Planned], new: &[Planned]) -> Vec<(String, Change)> {
    let gone = old.iter().filter(|old| new.iter().all(|new| new.name != old.name));
    let mut changes: Vec<(String, Change)> = gone.map(|app| (app.name.clone(), Change::Stop)).collect();
    for app in new {
        let change = match old.iter().find(|old| old.name == app.name) {
            None => Some(Change::Start),
            Some(old) => change(old, app),
        };
        changes.extend(change.map(|change| (app.name.clone(), change)));
    }
    changes
}

fn change(old: &Planned, new: &Planned) -> Option<Change> {
    let keys: BTreeSet<&String> = old.settings.keys().chain(new.settings.keys()).collect();
    let changed: Vec<String> =
        keys.into_iter().filter(|key| old.settings.get(*key) != new.settings.get(*key)).cloned().collect();
    if old.words != new.words {
        // Another profile, say.
        return Some(Change::Restart(vec!["options".to_owned()]));
    }
    match &changed[..] {
        [] => None,
        [only] if only == WORKERS => (old.workers != new.workers).then_some(Change::Scale(new.workers)),
        keys if keys.iter().all(|key| can_change(key)) => Some(Change::Reload(changed)),
        _ => Some(Change::Restart(changed)),
    }
}

/// Whether a reload brings another value.
fn can_change(key: &str) -> bool {
    let option = options::find(key).is_some_and(|option| matches!(option.reload, Reload::Changes));
    option || key == COMMAND || layers::variable(key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str, settings: &[(&str, &str)]) -> Planned {
        Planned {
            name: name.to_owned(),
            depends_on: Vec::new(),
            words: Vec::new(),
            settings: settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
            workers: settings.iter().find(|(key, _)| *key == WORKERS).map_or(1, |(_, value)| value.parse().unwrap()),
            control: PathBuf::new(),
            passed: Vec::new(),
        }
    }

    fn between(old: &[(&str, &str)], new: &[(&str, &str)]) -> Option<String> {
        let changes = changes(&[app("web", old)], &[app("web", new)]);
        changes.first().map(|(_, change)| change.to_string())
    }

    #[test]
    fn only_what_changed_is_touched_and_as_little_as_possible() {
        let old = [("command", "a"), ("workers", "2"), ("mode", "handoff")];
        assert_eq!(between(&old, &old), None);
        assert_eq!(between(&old, &[("command", "a"), ("workers", "3"), ("mode", "handoff")]).unwrap(), "scale to 3");
        assert_eq!(
            between(&old, &[("command", "b"), ("workers", "3"), ("mode", "handoff"), ("env.A", "1")]).unwrap(),
            "reload (command, env.A, workers)"
        );
        assert_eq!(
            between(&old, &[("command", "b"), ("workers", "2"), ("mode", "shared")]).unwrap(),
            "restart (command, mode)"
        );
        assert_eq!(between(&old, &[("command", "a"), ("workers", "2")]).unwrap(), "restart (mode)");
        assert_eq!(between(&[("env.A", "1")], &[]).unwrap(), "reload (env.A)");
        assert_eq!(between(&[("workers", "1")], &[]), None, "it is the same number");
        let secret = app("web", &[("env.A", "hunter2")]);
        assert_eq!(secret.digested(1), secret.digested(1));
        assert_ne!(secret.digested(1), secret.digested(2));
        assert!(!format!("{:?}", secret.digested(1)).contains("hunter2"));
    }

    #[test]
    fn apps_come_and_go() {
        let [a, b, c] = ["a", "b", "c"].map(|name| app(name, &[]));
        let said = |old: &[Planned], new: &[Planned]| {
            changes(old, new).into_iter().map(|(name, change)| format!("{change} {name}")).collect::<Vec<_>>()
        };
        assert_eq!(said(&[a.clone(), b.clone()], &[c, a.clone()]), ["stop b", "start c"]);
        assert_eq!(said(&[a], &[b]), ["stop a", "start b"]);
    }
}
