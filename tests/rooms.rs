//! Which part of the program may use which: read from the `use` lines, so that a wall is not broken unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each part of the program, and the others that it may use, as the table in `architecture.rs` has them.
fn rooms() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/architecture.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let row = |row: &str| {
        let (room, rest) = row.split_once('`').unwrap();
        let allowed = rest.rsplit('|').nth(1).unwrap();
        (room.to_owned(), allowed.split('`').skip(1).step_by(2).map(str::to_owned).collect())
    };
    rows.map(row).collect()
}

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| sources(&entry.unwrap().path(), found));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// The parts that a source names outside of comments.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    // One name, or several in braces.
    let named = code.split("crate::").skip(1).flat_map(|rest| match rest.strip_prefix('{') {
        Some(several) => several.split('}').next().unwrap_or_default().split(',').collect(),
        None => vec![rest],
    });
    let word = |rest: &str| rest.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    named.map(word).filter(|word| !word.is_empty()).collect()
}

#[test]
fn no_room_uses_what_its_row_does_not_allow() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms = rooms();
    assert_eq!(rooms.len(), 17, "{rooms:?}");
    for (room, allowed) in rooms {
        let mut files = Vec::new();
        for place in [src.join(&room), src.join(format!("{room}.rs"))] {
            if place.exists() {
                sources(&place, &mut files);
            }
        }
        // The shim is a crate of its own.
        files.retain(|file| !file.components().any(|part| part.as_os_str() == "shim"));
        assert!(!files.is_empty(), "there is no room {room}");
        for file in files {
            let used = used(&std::fs::read_to_string(&file).unwrap());
            let others: Vec<_> = used.iter().filter(|name| **name != room && !allowed.contains(*name)).collect();
            assert!(others.is_empty(), "{} uses {others:?}, and {room} may only use {allowed:?}", file.display());
        }
    }
}

#[test]
fn a_use_is_seen_wherever_it_stands() {
    let text = "use crate::wire::address;\n// crate::master::run\nfn a() { crate::core::ids::Slot(crate::sys::X) }\n\
                use crate::{adapt, kernel::program};";
    assert_eq!(used(text).into_iter().collect::<Vec<_>>(), ["adapt", "core", "kernel", "sys", "wire"]);
}
