//! Which functions of the C libraries take or create a descriptor, and whether the shim intercepts each: decided name
//! by name in `entry_points/`, and compared with the exports of the libraries on this machine.

use super::OBJECT;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, Sym};
use object::{LittleEndian, ReadRef};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const DESCRIPTORS: &str = include_str!("entry_points/descriptors.txt");
const OTHERS: &str = include_str!("entry_points/others.txt");
/// The newest glibc that the lists cover.
const NEWEST_GLIBC: (u32, u32) = (2, 36);

/// Decision by name.
fn decided() -> BTreeMap<&'static str, &'static str> {
    let (mut decision, mut decided) = ("", BTreeMap::new());
    for line in DESCRIPTORS.lines().filter(|line| !line.starts_with('#')) {
        if let Some((word, reason)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
            assert!(["hooked", "harmless", "cannot"].contains(&word) && !reason.trim().is_empty(), "{line}");
            decision = word;
            continue;
        }
        for name in line.split_whitespace() {
            assert!(decided.insert(name, decision).is_none(), "{name} is decided twice");
        }
    }
    decided
}

/// Names of the functions that a shared object defines for others.
fn exported<'data>(data: impl ReadRef<'data>) -> BTreeSet<String> {
    use object::elf::{SHT_DYNSYM, STT_FUNC, STT_GNU_IFUNC};
    let header = FileHeader64::<LittleEndian>::parse(data).unwrap();
    let sections = header.sections(LittleEndian, data).unwrap();
    let symbols = sections.symbols(LittleEndian, data, SHT_DYNSYM).unwrap();
    let defined = symbols.iter().filter(|symbol| {
        [STT_FUNC, STT_GNU_IFUNC].contains(&symbol.st_type())
            && !symbol.is_undefined(LittleEndian)
            && !symbol.is_local()
    });
    defined.map(|s| String::from_utf8(symbols.symbol_name(LittleEndian, s).unwrap().to_vec()).unwrap()).collect()
}

/// The glibc that this process uses, and its version.
fn glibc() -> Option<(PathBuf, (u32, u32))> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.split_whitespace().find(|word| word.ends_with("/libc.so.6"))?;
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let version = text.split("GNU C Library").nth(1)?.split("version ").nth(1)?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    Some((path.into(), (numbers.next()?, numbers.next()?)))
}

fn undecided(library: &Path) -> Vec<String> {
    let decided = decided();
    let others: BTreeSet<&str> =
        OTHERS.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
    let both: Vec<_> = others.iter().filter(|name| decided.contains_key(*name)).collect();
    assert!(both.is_empty(), "in both lists: {both:?}");
    let names = exported(std::fs::read(library).unwrap().as_slice());
    assert!(names.len() > 1000, "{} exports only {} functions", library.display(), names.len());
    names.into_iter().filter(|name| !decided.contains_key(&**name) && !others.contains(&**name)).collect()
}

#[test]
fn the_shim_stands_before_what_was_decided_and_nothing_else() {
    let decided = decided();
    let hooked: BTreeSet<String> =
        decided.iter().filter(|(_, decision)| **decision == "hooked").map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(exported(OBJECT), hooked);
}

#[test]
fn every_function_of_glibc_is_decided() {
    let (path, version) = glibc().expect("tests run with glibc");
    let undecided = undecided(&path);
    if version > NEWEST_GLIBC && std::env::var_os("CI").is_none() {
        // A newer library is not the fault of the person who builds this; CI fails on it.
        return println!("glibc {version:?} has functions that nobody has decided about: {undecided:?}");
    }
    assert!(undecided.is_empty(), "decide about these of glibc {version:?} in entry_points: {undecided:?}");
}

#[test]
fn every_function_of_musl_is_decided() {
    let library = format!("/usr/lib/{}-linux-musl/libc.so", std::env::consts::ARCH);
    let library = Path::new(&library);
    if !library.exists() && std::env::var_os("CI").is_none() {
        return println!("{} is missing; install it with apt-get install musl", library.display());
    }
    let undecided = undecided(library);
    assert!(undecided.is_empty(), "decide about these of musl in entry_points: {undecided:?}");
}
