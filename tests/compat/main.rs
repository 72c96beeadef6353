//! Real programs whose sockets are not simply one listener of one process: they open inner services, hand
//! what they bound to programs that they execute, close their own copy, or crash while they hold it. Each
//! runs in each mode, with each adapter that suits it, as its users start it. The table in
//! `src/manual/compat.md` is made of these runs.
//!
//! - `ftp`: a listener for each transfer
//! - `inner`: services that a worker opens for itself, and second addresses
//! - `asgi`: Python servers whose parent binds and whose executed children serve
//! - `parents`: parents that bind and leave the accepting to their children
//! - `lives`: what ends with its process, and what follows
//! - `node_cluster`: what Node's own tests of its cluster module ask for
//! - `rules`: the kernel's results with maitred and without
//! - `http3`: connections over UDP
//! - `starts`: servers by the way in which they are started
//!
//! A test whose program is missing fails under `CI` with the install hint. Elsewhere it is shown as
//! ignored, with the hint, and can be asked for by name with `--ignored`.

mod asgi;
mod case;
mod ftp;
mod http3;
mod inner;
mod lives;
mod node_cluster;
mod parents;
mod rules;
mod sockets;
mod starts;
mod table;

#[path = "../support/mod.rs"]
mod support;

use case::Case;
use libtest_mimic::{Arguments, Trial};
use std::sync::{Arc, Mutex};
use table::Results;

fn main() {
    let results = Arc::new(Mutex::new(Results::default()));
    let cases = [
        ftp::all(),
        inner::all(),
        asgi::all(),
        parents::all(),
        lives::all(),
        rules::all(),
        http3::all(),
        node_cluster::all(),
        starts::all(),
    ];
    let trials = cases.into_iter().flatten().map(|case| trial(case, &results)).collect();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    if !conclusion.has_failed()
        && let Err(why) = results.lock().unwrap().compare_with_manual()
    {
        eprintln!("{why}");
        std::process::exit(101);
    }
    conclusion.exit();
}

fn trial(case: Case, results: &Arc<Mutex<Results>>) -> Trial {
    let results = Arc::clone(results);
    results.lock().unwrap().expect(&case);
    let missing = case.missing();
    let in_ci = std::env::var_os("CI").is_some();
    let kind = missing.map_or(String::new(), |needs| format!("no {}: {}", needs.what, needs.how));
    Trial::test(case.name(), move || {
        if let Some(needs) = missing {
            return Err(format!("{} is missing; install it with: {}", needs.what, needs.how).into());
        }
        let outcome = (case.run)(case.way);
        results.lock().unwrap().record(&case, outcome);
        Ok(())
    })
    .with_kind(kind)
    .with_ignored_flag(missing.is_some() && !in_ci)
}
