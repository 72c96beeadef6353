//! What will happen to a command besides its mode and adapter, as far as its words tell. Has no side effects.

use crate::adapt::{daemons, draining, wrappers};
use serde::Serialize;
use std::ffi::OsString;
use std::path::Path;

/// One thing to know before the command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What kind of thing it is.
    pub about: About,
    /// What will happen, and what to do about it.
    pub text: String,
}

/// The kinds of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// A program before the server gives up rights.
    Rights,
    /// The server may go into the background.
    Background,
    /// The command starts the server again when files change.
    Reloader,
    /// The server starts workers of its own.
    OwnWorkers,
    /// Node's cluster module leaves the choice to the kernel.
    ClusterScheduling,
    /// The server opens addresses for one client, or for its developer.
    PrivateAddress,
    /// The server finishes its connections itself.
    Drain,
    /// Another program is the first process of the worker.
    Wrapper,
}

/// Programs that run a command under another user.
const DROP_RIGHTS: [&str; 10] =
    ["setpriv", "gosu", "su-exec", "su", "runuser", "sudo", "doas", "chpst", "setuidgid", "s6-setuidgid"];
/// Programs and words that start a command again when files change.
const RELOADERS: [&str; 8] = ["nodemon", "watchexec", "entr", "air", "cargo-watch", "watchmedo", "reflex", "hupper"];
const RELOAD_WORDS: [&str; 4] = ["--reload", "--watch", "--watch-path", "--autoreload"];
/// Servers with workers of their own, and the options that say how many.
const OWN_WORKERS: [(&str, &[&str]); 7] = [
    ("gunicorn", &["-w", "--workers"]),
    ("uvicorn", &["--workers"]),
    ("hypercorn", &["-w", "--workers"]),
    ("granian", &["--workers"]),
    ("puma", &["-w", "--workers"]),
    ("pm2", &["-i", "--instances"]),
    ("uwsgi", &["-p", "--processes", "--workers"]),
];
/// Servers that open a listener for each transfer.
const TRANSFERS: [&str; 5] = ["vsftpd", "proftpd", "pure-ftpd", "pyftpdlib", "ftpd"];
/// Programs that stay beside the server that they start.
const STAY: [&str; 8] = ["npm", "npx", "yarn", "pnpm", "cross-env", "concurrently", "bundle", "make"];

/// All notes on a command; `variable` looks a variable of the environment up.
#[must_use]
pub fn notes(command: &[OsString], variable: impl Fn(&str) -> Option<String>) -> Vec<Note> {
    let words: Vec<&str> = command.iter().filter_map(|word| word.to_str()).collect();
    let names = || words.iter().map(|word| name(word));
    let first = words.first().map(|word| name(word)).unwrap_or_default();
    let mut found = Vec::new();
    let mut note = |about, text: String| found.push(Note { about, text });
    if let Some(wrapper) = names().take_while(|name| !name.starts_with('-')).find(|name| DROP_RIGHTS.contains(name)) {
        note(
            About::Rights,
            format!(
                "{wrapper} changes the user: maitred gives the server no more than that user may have; ports below 1024 need --bind"
            ),
        );
    }
    if let Some(program) = names().find(|name| daemons::is_known(name)) {
        note(
            About::Background,
            format!(
                "a server that goes into the background counts as failed: {program}: {}",
                daemons::advice(command).trim_start_matches(&format!("{program}: "))
            ),
        );
    }
    let watches = names().any(|name| RELOADERS.contains(&name)) || words.iter().any(|word| RELOAD_WORDS.contains(word));
    if watches || words.iter().zip(words.iter().skip(1)).any(|(tsx, watch)| name(tsx) == "tsx" && *watch == "watch") {
        note(About::Reloader, "it starts its server again when files change; each of maitred's workers watches for itself: leave that out, and use maitred reload".to_owned());
    }
    let counts = |options: &[&str]| {
        words.iter().any(|word| options.iter().any(|option| word == option || word.starts_with(&format!("{option}="))))
    };
    if let Some((server, _)) =
        OWN_WORKERS.iter().find(|(server, options)| names().any(|n| n == *server) && counts(options))
    {
        note(
            About::OwnWorkers,
            format!(
                "{server} starts workers of its own, in each of maitred's workers; -w of maitred alone is usually enough"
            ),
        );
    }
    if variable("NODE_CLUSTER_SCHED_POLICY").as_deref() == Some("none") {
        note(About::ClusterScheduling, "NODE_CLUSTER_SCHED_POLICY=none: inner workers of Node's cluster share one hand-off socket, and whoever wakes first serves".to_owned());
    }
    if words.iter().any(|word| word.starts_with("--inspect")) {
        note(About::PrivateAddress, "a debugger's address would be shared by all workers, and would count as readiness: leave it to each with --private :9229, and name the server's with --ready listen:ADDR".to_owned());
    }
    if let Some(server) = names().find(|name| TRANSFERS.contains(name)) {
        note(
            About::PrivateAddress,
            format!(
                "{server} listens anew for each transfer: give it a range of ports, and name that with --private :FIRST-LAST; --policy source-hash keeps a client at its worker"
            ),
        );
    }
    if draining::drains_itself(command) {
        note(
            About::Drain,
            "it finishes its connections itself, so it gets its stop signal at the beginning of a drain (--stop-first)"
                .to_owned(),
        );
    }
    let shell_stays = ["sh", "bash", "dash"].contains(&first)
        && wrappers::wrapped(command).is_some()
        && !words.iter().any(|word| word.contains("exec "));
    if STAY.contains(&first) || shell_stays {
        note(
            About::Wrapper,
            format!(
                "{first} stays beside the server: both get the stop signal, and the worker has ended when both have (--kill-mode)"
            ),
        );
    }
    found
}

/// The file name of a word.
fn name(word: &str) -> &str {
    Path::new(word).file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[About]) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let found: Vec<About> = notes(&words, |_| None).into_iter().map(|note| note.about).collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn what_the_words_tell_is_noted() {
        check("node server.js", &[]);
        check("gosu www node server.js", &[About::Rights]);
        check("nginx -c x.conf", &[About::Background]);
        check("nodemon server.js", &[About::Reloader]);
        check("tsx watch server.ts", &[About::Reloader]);
        check("python3 -m uvicorn app:app --reload", &[About::Reloader, About::Drain]);
        check("gunicorn -w 4 app:app", &[About::OwnWorkers, About::Drain]);
        check("gunicorn --workers=4 app:app", &[About::OwnWorkers, About::Drain]);
        check("gunicorn app:app", &[About::Drain]);
        check("node --inspect=127.0.0.1:9229 server.js", &[About::PrivateAddress]);
        check("vsftpd /etc/vsftpd.conf", &[About::PrivateAddress]);
        check("npm start", &[About::Wrapper]);
    }

    #[test]
    fn a_shell_stays_unless_it_executes() {
        let about = |line: &str| {
            let words = ["sh", "-c", line].map(OsString::from);
            notes(&words, |_| None).into_iter().map(|note| note.about).collect::<Vec<_>>()
        };
        assert_eq!(about("node server.js; true"), [About::Wrapper]);
        assert_eq!(about("exec node server.js"), []);
    }

    #[test]
    fn the_environment_counts_too() {
        let none = |name: &str| (name == "NODE_CLUSTER_SCHED_POLICY").then(|| "none".to_owned());
        let found = notes(&["node".into()], none);
        assert_eq!(found[0].about, About::ClusterScheduling);
        assert!(notes(&["node".into()], |_| Some("rr".to_owned())).is_empty());
    }
}
