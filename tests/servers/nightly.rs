//! More servers than a change has time for: they are run when `MAITRED_NIGHTLY` is set (`.ci/nightly` does that, and
//! installs them). Each stands in one of the lists beside this file: `debian.toml`, `node.toml`, `python.toml`.
//!
//! ```toml
//! [[server]]
//! name = "Express"
//! needs = ["npm:express"]                     # apt:, npm: and pip: packages
//! command = ["node", "{here}/express.js", "{port}"]
//! ask = "http"                                # or { send = "PING\r\n", expect = "+PONG" }
//! # adapter = "preload"                       # the default
//! # modes = ["handoff", "shared", "kernel"]   # the default
//! ```
//!
//! `{here}` is the folder of the lists, `{scratch}` a folder of the worker's own, `{npm}` and `{pip}` are the folders in
//! which the packages are. maitred itself replaces `{port}` and `{slot}`.

use crate::commands::{Ask, Case, Effort};
use crate::support::*;
use serde::Deserialize;
use std::path::Path;

const LISTS: [&str; 3] = ["debian", "node", "python"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    server: Vec<Server>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    name: String,
    needs: Vec<String>,
    command: Vec<String>,
    ask: Asked,
    #[serde(default = "preload")]
    adapter: String,
    #[serde(default = "all_modes")]
    modes: Vec<String>,
}

fn preload() -> String {
    "preload".to_owned()
}

fn all_modes() -> Vec<String> {
    ["handoff", "shared", "kernel"].map(str::to_owned).to_vec()
}

/// What is sent, and what the answer begins with.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Asked {
    /// `"http"`
    Named(String),
    Words {
        /// Empty for a server that speaks first.
        #[serde(default)]
        send: String,
        expect: String,
    },
}

/// The servers of all lists, whether they are installed or not.
pub fn all() -> Vec<Case> {
    let here = root().join("tests/servers/nightly");
    let read = |list| {
        let path = here.join(format!("{list}.toml"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        toml::from_str::<List>(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())).server
    };
    LISTS.into_iter().flat_map(read).map(|server| case(server, &here)).collect()
}

fn case(server: Server, here: &Path) -> Case {
    let Server { name, needs, command, ask, adapter, modes } = server;
    // `.ci/nightly` installs them.
    let is_known = |package: &String| ["apt:", "npm:", "pip:"].iter().any(|kind| package.starts_with(kind));
    assert!(needs.iter().all(is_known), "{name} needs {needs:?}");
    let here = here.to_str().unwrap().to_owned();
    let packages = root().join("target/nightly");
    let make = move || {
        let scratch = scratch("nightly");
        std::fs::create_dir_all(&scratch).unwrap();
        let place = |word: &String| {
            let word = word.replace("{here}", &here).replace("{scratch}", scratch.to_str().unwrap());
            let npm = packages.join("node_modules");
            word.replace("{npm}", npm.to_str().unwrap()).replace("{pip}", packages.join("venv").to_str().unwrap())
        };
        command.iter().map(place).collect()
    };
    let ask: Ask = match ask {
        Asked::Named(protocol) => {
            assert_eq!(protocol, "http", "{name} is asked in an unknown way");
            Box::new(request)
        }
        Asked::Words { send, expect } => Box::new(move |address| talk(address, &send, &expect)),
    };
    Case { server: name, adapter, needs: Vec::new(), modes, command: Box::new(make), ask, effort: Effort::Light }
}
