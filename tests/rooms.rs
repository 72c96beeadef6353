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

/// Parts of parts that have no row. The shim is a crate of its own.
const PARTS: [&str; 8] = [
    "adapt::preload::shim",
    "cli::apps",
    "cli::bench",
    "cli::help",
    "cli::top",
    "core::fleet",
    "master::requests",
    "master::upgrade",
];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| sources(&entry.unwrap().path(), found));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// The text of a source without comments.
fn code(text: &str) -> String {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// The names at the beginning of a path, or of each path in braces.
fn names(rest: &str) -> Vec<&str> {
    let Some(several) = rest.strip_prefix('{') else { return vec![rest] };
    let (mut depth, mut begun, mut found) = (0, 0, Vec::new());
    for (at, c) in several.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                found.push(several[begun..at].trim());
                begun = at + 1;
                // What stands after the closing brace belongs to another path.
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

fn word(path: &str) -> &str {
    path.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next().unwrap_or_default()
}

/// The parts that a source names outside of comments: of a path that leads into a part of a part, that one.
fn used(text: &str, is_room: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for path in code(text).split("crate::").skip(1).flat_map(names) {
        let outer = word(path);
        for inner in path[outer.len()..].strip_prefix("::").map(names).unwrap_or_default() {
            let both = format!("{outer}::{}", word(inner));
            used.insert(if is_room(&both) { both } else { outer.to_owned() });
        }
        if !path[outer.len()..].starts_with("::") {
            used.insert(outer.to_owned());
        }
    }
    used.remove("");
    used
}

/// The files of a part, without those of parts within it.
fn files_of(room: &str, all: &[&str]) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let place = |room: &str| src.join(room.replace("::", "/"));
    let mut files = Vec::new();
    for place in [place(room), place(room).with_extension("rs")] {
        if place.exists() {
            sources(&place, &mut files);
        }
    }
    let inner = |file: &PathBuf| {
        all.iter().any(|other| other.starts_with(&format!("{room}::")) && file.starts_with(place(other)))
    };
    files.retain(|file| !inner(file));
    assert!(!files.is_empty(), "there is no room {room}");
    files
}

#[test]
fn no_room_uses_what_its_row_does_not_allow() {
    let rooms = rooms();
    assert_eq!(rooms.len(), 25, "{rooms:?}");
    let all: Vec<_> = rooms.keys().map(String::as_str).chain(PARTS).collect();
    for (room, allowed) in &rooms {
        for file in files_of(room, &all) {
            let used = used(&std::fs::read_to_string(&file).unwrap(), |name| rooms.contains_key(name));
            let others: Vec<_> = used.iter().filter(|name| *name != room && !allowed.contains(*name)).collect();
            assert!(others.is_empty(), "{} uses {others:?}, and {room} may only use {allowed:?}", file.display());
        }
    }
}

#[test]
fn the_parts_of_the_master_do_not_know_each_other() {
    for (part, other) in [("master::requests", "master::upgrade"), ("master::upgrade", "master::requests")] {
        for file in files_of(part, &[]) {
            let used = used(&std::fs::read_to_string(&file).unwrap(), |name| name == other);
            assert!(!used.contains(other), "{} uses {other}", file.display());
        }
    }
}

/// Lines of a source without its tests.
fn lines(file: &Path) -> usize {
    let is_test =
        |part: &std::ffi::OsStr| ["tests", "tests.rs", "simulation", "simulation.rs"].iter().any(|t| part == *t);
    if file.iter().any(is_test) {
        return 0;
    }
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let tests = lines.windows(2).position(|two| two[0] == "#[cfg(test)]" && two[1].ends_with('{'));
    tests.unwrap_or(lines.len())
}

#[test]
fn rooms_and_files_can_be_read() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folders = std::fs::read_dir(&src).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut all: Vec<_> = folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    all.extend(rooms().into_keys().filter(|room| room.contains("::")));
    all.extend(PARTS.map(str::to_owned));
    let names: Vec<_> = all.iter().map(String::as_str).collect();
    for room in &all {
        let files = files_of(room, &names);
        for file in &files {
            assert!(lines(file) <= 400, "{} has {} lines", file.display(), lines(file));
        }
        let size: usize = files.iter().map(|file| lines(file)).sum();
        assert!(size > 40, "{room} has {size} lines");
        assert!(size <= 4000 || room == "bench", "{room} has {size} lines");
    }
}

#[test]
fn a_use_is_seen_wherever_it_stands() {
    let text = "use crate::wire::address;\n// crate::master::run\nfn a() { crate::core::ids::Slot(crate::sys::X) }\n\
                use crate::{adapt, kernel::program};\nuse crate::sys::{fd, process};\n\
                use crate::control::{a::{b, process}, c}; use std::socket;";
    let used = used(text, |name| ["sys::process", "sys::socket", "control::process", "control::c"].contains(&name));
    let expected = ["adapt", "control", "control::c", "core", "kernel", "sys", "sys::process", "wire"];
    assert_eq!(used.into_iter().collect::<Vec<_>>(), expected);
}
