//! Parses what is to be measured.

use crate::bench::plan::Subject;
use crate::cli::run::RunArgs;
use crate::config::Mode;
use crate::config::workers::{Workers, usable_cores};
use clap::parser::ValueSource;
use clap::{Args, ValueEnum};
use std::net::{SocketAddr, ToSocketAddrs};

/// The modes to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Modes(pub Vec<Mode>);

/// `--modes`.
pub fn modes(text: &str) -> Result<Modes, String> {
    if text == "all" {
        return Ok(Modes(Mode::value_variants().to_vec()));
    }
    if text == "none" {
        return Ok(Modes(Vec::new()));
    }
    let known = || Mode::value_variants().iter().map(|mode| mode.name()).collect::<Vec<_>>().join(", ");
    let mode = |word: &str| {
        Mode::from_str(word, false).map_err(|_| format!("{word:?} is no mode; there are {}, all and none", known()))
    };
    text.split(',').map(mode).collect::<Result<Vec<_>, _>>().map(Modes)
}

/// `--address`: the first address of a name.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| format!("{error}; give HOST:PORT"))?.next();
    found.ok_or_else(|| "it has no address; give HOST:PORT".to_owned())
}

/// `--target`.
pub fn target(text: &str) -> Result<Subject, String> {
    let (name, place) = text.split_once('=').unwrap_or((text, text));
    Ok(Subject::Target { name: name.to_owned(), address: address(place)? })
}

/// `--peer`.
pub fn peer(text: &str) -> Result<Subject, String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => {
            Ok(Subject::Peer { name: name.to_owned(), command: command.to_owned() })
        }
        _ => Err("expected NAME=COMMAND".to_owned()),
    }
}

/// Options of `maitred run` that are reserved for the lab: how it finds the subject, and what it reads in the
/// subject's log.
const OF_THE_LAB: [&str; 4] = ["name", "control", "log_format", "quiet"];

/// `--variant`.
pub fn variant(text: &str) -> Result<Subject, String> {
    let named = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let Some((name, options)) = named else { return Err("expected NAME=OPTIONS".to_owned()) };
    let options = shlex::split(options).ok_or_else(|| format!("{options:?} has a quote that is not closed"))?;
    // Parsed as `maitred run` will parse it, with the command that it requires.
    let stand_in = ["--", "command"].map(str::to_owned);
    let run = RunArgs::augment_args(clap::Command::new("maitred run").no_binary_name(true));
    let typed = run.try_get_matches_from(options.iter().chain(&stand_in)).map_err(|error| {
        let what = error.to_string();
        what.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })?;
    let is_typed = |id: &str| typed.value_source(id) == Some(ValueSource::CommandLine);
    if let Some(id) = OF_THE_LAB.into_iter().find(|id| is_typed(id)) {
        return Err(format!("--{} is the lab's own affair", id.replace('_', "-")));
    }
    // The first word that is not an option begins the command.
    let stray = typed.get_raw("command").filter(|words| words.len() > 1).and_then(|mut words| words.next());
    if let Some(word) = stray {
        return Err(format!("{word:?} is no option of `maitred run`; the COMMAND is the same for all"));
    }
    let workers = typed.get_one::<Workers>("workers").filter(|_| is_typed("workers"));
    Ok(Subject::Variant {
        name: name.to_owned(),
        mode: typed.get_one::<Mode>("mode").copied().unwrap_or(Mode::Handoff),
        workers: workers.map(|workers| workers.count(usable_cores())),
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_a_list_or_all() {
        assert_eq!(modes("shared,handoff"), Ok(Modes(vec![Mode::Shared, Mode::Handoff])));
        assert_eq!(modes("all").unwrap().0.len(), Mode::value_variants().len());
        assert!(modes("shared,").unwrap_err().contains("there are handoff, shared, kernel, all and none"));
    }

    #[test]
    fn a_target_may_have_a_name() {
        let named = |name: &str| Subject::Target { name: name.into(), address: ([127, 0, 0, 1], 80).into() };
        assert_eq!(target("127.0.0.1:80"), Ok(named("127.0.0.1:80")));
        assert_eq!(target("mine=127.0.0.1:80"), Ok(named("mine")));
        assert!(target("127.0.0.1").is_err());
        assert!(peer("x").is_err() && peer("=x").is_err());
    }

    #[test]
    fn a_variant_is_what_run_would_understand() {
        let read = |text: &str| match variant(text) {
            Ok(Subject::Variant { name, mode, workers, options }) => Ok((name, mode, workers, options.join("|"))),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        let plain = |name: &str, options: &str| Ok((name.to_owned(), Mode::Handoff, None, options.to_owned()));
        assert_eq!(read("plain="), plain("plain", ""));
        assert_eq!(
            read("a b=--policy 'least-connections' --env X=1"),
            plain("a b", "--policy|least-connections|--env|X=1")
        );
        let (_, mode, workers, _) = read("x=--mode shared --mode=kernel -w 9").unwrap();
        assert_eq!((mode, workers), (Mode::Kernel, Some(9)));
        for (text, said) in [
            ("x", "NAME=OPTIONS"),
            ("=--depth 1", "NAME=OPTIONS"),
            ("x=--depth 0", "--depth"),
            ("x='", "not closed"),
            ("x=--nonsense", "unexpected argument '--nonsense'"),
            ("x=--depth 1 node", "\"node\" is no option"),
            ("x=--name y", "--name is the lab's own affair"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
