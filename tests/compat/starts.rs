//! Servers by the way in which they are started: alone, behind a wrapper, under something that starts them again when a
//! file changes, with workers of their own, with an upgrade of their own, and into the background.

use crate::case::*;
use crate::sockets::{descendants, ends_whole, free_ports, local};
use crate::support::*;
use nix::sys::signal::Signal::{self, SIGQUIT, SIGTERM, SIGUSR2};
use std::collections::BTreeSet;
use std::time::Instant;

/// The columns of the table.
pub const WAYS: [&str; 6] = ["plain", "wrapper", "reloader", "own workers", "own upgrade", "background"];

/// One server, and its command in each way; `PORT`, `DIR` (a directory of the slot's own) and `HERE` (that of the
/// tests' workers) are replaced. Nothing where a server has no such way.
struct Server {
    name: &'static str,
    needs: &'static [Needs],
    commands: [Option<&'static str>; 6],
    /// What begins its own upgrade, and what then ends the old process.
    upgrade: (Signal, Option<Signal>),
}

const GUNICORN: Needs = Needs { what: "gunicorn", how: "apt-get install gunicorn" };
const UVICORN: Needs = Needs { what: "uvicorn", how: "apt-get install uvicorn" };
const NGINX: Needs = Needs { what: "nginx", how: "apt-get install nginx-light" };
const PUMA: Needs = Needs { what: "puma", how: "apt-get install puma" };
const UNICORN: Needs = Needs { what: "unicorn", how: "apt-get install unicorn" };

static SERVERS: [Server; 7] = [
    Server {
        name: "Node",
        needs: &[NODE],
        commands: [
            Some("exec node HERE/pages.js PORT"),
            Some("node HERE/pages.js PORT; true"),
            Some("exec node --watch HERE/pages.js PORT"),
            Some("exec node HERE/../compat/programs/own_workers.js PORT"),
            None,
            None,
        ],
        upgrade: (SIGUSR2, None),
    },
    Server {
        name: "gunicorn",
        needs: &[GUNICORN],
        commands: [
            Some("exec gunicorn --chdir HERE -b 127.0.0.1:PORT wsgi:wsgi"),
            Some("gunicorn --chdir HERE -b 127.0.0.1:PORT wsgi:wsgi; true"),
            Some("exec gunicorn --reload --chdir HERE -b 127.0.0.1:PORT wsgi:wsgi"),
            Some("exec gunicorn -w 2 --chdir HERE -b 127.0.0.1:PORT wsgi:wsgi"),
            Some("exec gunicorn -w 2 --chdir HERE -b 127.0.0.1:PORT wsgi:wsgi"),
            Some("exec gunicorn -D --chdir HERE -b 127.0.0.1:PORT wsgi:wsgi"),
        ],
        upgrade: (SIGUSR2, Some(SIGTERM)),
    },
    Server {
        name: "uvicorn",
        needs: &[UVICORN],
        commands: [
            Some("exec uvicorn --app-dir HERE --log-level warning --port PORT wsgi:asgi"),
            Some("uvicorn --app-dir HERE --log-level warning --port PORT wsgi:asgi; true"),
            Some("exec uvicorn --reload --app-dir HERE --log-level warning --port PORT wsgi:asgi"),
            Some("exec uvicorn --workers 2 --app-dir HERE --log-level warning --port PORT wsgi:asgi"),
            None,
            None,
        ],
        upgrade: (SIGUSR2, None),
    },
    Server {
        name: "nginx",
        needs: &[NGINX],
        commands: [
            Some("CONF=nginx.conf; exec nginx -c DIR/conf -e stderr -g 'daemon off; master_process off;'"),
            Some("CONF=nginx.conf; nginx -c DIR/conf -e stderr -g 'daemon off; master_process off;'; true"),
            None,
            Some("CONF=nginx.conf; exec nginx -c DIR/conf -e stderr -g 'daemon off;'"),
            // It ignores USR2 while its parent lives, whoever that is (`ngx_signal_handler`).
            None,
            Some("CONF=nginx.conf; exec nginx -c DIR/conf -e stderr"),
        ],
        upgrade: (SIGUSR2, None),
    },
    Server {
        name: "HAProxy",
        needs: &[HAPROXY],
        commands: [
            Some("CONF=haproxy.cfg; exec haproxy -db -f DIR/conf"),
            Some("CONF=haproxy.cfg; haproxy -db -f DIR/conf; true"),
            None,
            Some("CONF=haproxy.cfg; exec haproxy -W -db -f DIR/conf"),
            // It executes itself once more when its worker serves, and forgets a signal that comes before: it says when
            // it has done that.
            Some("CONF=haproxy.cfg; exec haproxy -Ws -db -f DIR/conf"),
            Some("CONF=haproxy.cfg; exec haproxy -D -f DIR/conf"),
        ],
        upgrade: (SIGUSR2, None),
    },
    Server {
        name: "puma",
        needs: &[PUMA],
        commands: [
            Some("exec puma -q -b tcp://127.0.0.1:PORT HERE/config.ru"),
            Some("puma -q -b tcp://127.0.0.1:PORT HERE/config.ru; true"),
            None,
            Some("exec puma -q -w 2 -b tcp://127.0.0.1:PORT HERE/config.ru"),
            Some("exec puma -q -w 2 -b tcp://127.0.0.1:PORT HERE/config.ru"),
            None,
        ],
        upgrade: (SIGUSR2, None),
    },
    Server {
        name: "unicorn",
        needs: &[UNICORN],
        commands: [
            None,
            Some("unicorn -l 127.0.0.1:PORT HERE/config.ru; true"),
            None,
            Some("exec unicorn -l 127.0.0.1:PORT HERE/config.ru"),
            Some("exec unicorn -l 127.0.0.1:PORT HERE/config.ru"),
            Some("exec unicorn -D -l 127.0.0.1:PORT HERE/config.ru"),
        ],
        upgrade: (SIGUSR2, Some(SIGQUIT)),
    },
];

pub fn all() -> Vec<Case> {
    let ways = ["handoff", "shared", "kernel"].map(|mode| Way { adapter: "preload", mode });
    let static_too = [&ways[..], &[Way { adapter: "seccomp", mode: "handoff" }]].concat();
    let mut cases = Vec::new();
    for server in &SERVERS {
        // It sets options of TCP between `bind` and `listen`, and gives up where that fails.
        let ways = if server.name == "unicorn" { &ways[..] } else { &static_too };
        for (start, command) in WAYS.iter().zip(server.commands) {
            let Some(command) = command else { continue };
            // With seccomp the program that gunicorn executes gets no connection while the old one lives.
            let executes = server.name == "gunicorn" && *start == "own upgrade";
            let ways = ways.iter().filter(|way| !executes || way.adapter == "preload");
            cases.extend(ways.map(|way| Case {
                program: server.name,
                start: Some(start),
                needs: server.needs,
                way: *way,
                run: Box::new(move |way| run(server, start, command, way)),
            }));
        }
    }
    cases
}

const WORKERS: usize = 2;
const REQUESTS: usize = 40;

fn run(server: &Server, start_as: &str, command: &str, way: Way) -> String {
    let port = free_ports(1);
    let (here, dir) = (root().join("tests/workers"), scratch("starts"));
    let dir = format!("{}-$MAITRED_SLOT", dir.display());
    let place = |text: &str| {
        let text = text.replace("HERE", here.to_str().unwrap());
        text.replace("DIR", &dir).replace("PORT", &port.to_string())
    };
    let line = match command.strip_prefix("CONF=").and_then(|rest| rest.split_once("; ")) {
        Some((configuration, rest)) => {
            let edit = format!("s,PORT,{port},;s,BIND,127.0.0.1:{port},;s,REUSEPORT,,;s,DIR,{dir},g");
            format!("sed \"{edit}\" {}/{configuration} > {dir}/conf; {}", here.display(), place(rest))
        }
        None => place(command),
    };
    let line = format!("PATH=$PATH:/usr/sbin; mkdir -p {dir}; {line}");
    // A server that listens long before it accepts keeps its share.
    let workers = WORKERS.to_string();
    let mut options = vec!["-w", &workers, "--grace", "10s", "--stall", "30s"];
    if command.contains("-Ws") {
        options.extend(["--ready", "notify"]);
    }
    let maitred = start(way, &options, &["sh", "-c", &line]);
    if start_as == "background" {
        let (status, output) = maitred.wait();
        assert_eq!(status.code(), Some(3), "{output}");
        assert!(output.contains("went into the background"), "{output}");
        return "told".to_owned();
    }
    serves(&maitred, way, port);
    if start_as == "own upgrade" {
        upgrades_itself(&maitred, server.upgrade, port);
        serves(&maitred, way, port);
    }
    reload(&maitred);
    serves(&maitred, way, port);
    ends_whole(maitred);
    "yes".to_owned()
}

/// Every slot is ready; everybody is answered, and where the mode promises it each slot gets its exact share.
fn serves(maitred: &Maitred, way: Way, port: u16) {
    let before = per_worker(&all_ready(maitred, WORKERS), "handed");
    answers(local(port), REQUESTS);
    let handed = per_worker(&maitred.status(), "handed");
    if way.mode == "handoff" {
        let shares: Vec<u64> = handed.iter().zip(&before).map(|(now, before)| now - before).collect();
        assert_eq!(shares, [(REQUESTS / WORKERS) as u64; WORKERS]);
    }
}

/// The processes of all slots.
fn family(maitred: &Maitred) -> BTreeSet<i32> {
    descendants(maitred.child.id()).into_iter().collect()
}

/// The process that answered, by its own word.
fn process(answer: &str) -> i32 {
    let (_, pid) = answer.split_once("process ").unwrap_or_else(|| panic!("{answer}"));
    pid.trim().parse().unwrap_or_else(|_| panic!("{answer}"))
}

/// Each worker's server is told to replace itself, by the signals that its users know. Everybody is answered until the
/// worker ends.
fn upgrades_itself(maitred: &Maitred, (begins, ends): (Signal, Option<Signal>), port: u16) {
    let old = family(maitred);
    let first = maitred.pids();
    first.iter().for_each(|pid| kill(*pid, begins));
    let deadline = Instant::now() + PATIENCE;
    let mut new = BTreeSet::new();
    while new.len() < WORKERS {
        assert!(
            Instant::now() < deadline,
            "only {new:?} serve in place of {old:?}; there are {:?} now",
            family(maitred)
        );
        // Several at once: of those that wait for the same connection the old one may be woken first.
        let asked = std::thread::scope(|scope| {
            let asking = [0; 2 * WORKERS].map(|_| scope.spawn(|| process(&answers(local(port), 1)[0])));
            asking.map(|answer| answer.join().unwrap())
        });
        new.extend(asked.into_iter().filter(|pid| !old.contains(pid)));
    }
    let Some(ends) = ends else { return };
    first.iter().for_each(|pid| kill(*pid, ends));
    // The worker has ended with its first process, and another one follows.
    maitred.status_until(|status| {
        let workers = status["workers"].as_array().unwrap();
        workers
            .iter()
            .all(|worker| worker["state"] == "ready" && !first.contains(&(worker["pid"].as_i64().unwrap() as i32)))
    });
}
