//! The words that were typed: whether `run` was left out, and what users of other managers mean by theirs.

use super::Cli;
use crate::config::options;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::{OsStr, OsString};

/// Ends the options: what follows is the server's command.
const END: &str = "--";

/// Commands of pm2(1), pumactl(1), einhornsh(1) and systemctl(1), and what to type here. None of them is run as a
/// server by accident: `top` and `ps` are programs, too.
const VERBS: &[(&[&str], &str)] = &[
    (
        &["startOrReload", "startOrRestart", "serve", "cluster", "daemon"],
        "`maitred -w 4 -- COMMAND` runs a server in the foreground, and `maitred start` in the background",
    ),
    (&["kill", "quit", "halt", "shutdown"], "a running one is ended with `maitred stop NAME`"),
    (
        &["dash", "dashboard", "info", "stats", "ping"],
        "`maitred top` shows all that run, and `maitred status NAME` the workers of one",
    ),
    (
        &["ps", "jlist", "prettylist"],
        "`maitred list` shows all, and `maitred list --json` or `maitred status NAME --json` are for scripts",
    ),
    (&["gracefulReload", "phased-restart"], "`maitred reload NAME` replaces all workers without losing a connection"),
    (&["inc", "dec"], "`maitred scale NAME +1` and `maitred scale NAME -1` change the number of workers"),
    (&["log", "flush", "reloadLogs"], "`maitred logs NAME` shows the lines, and the signal USR1 opens the files again"),
    (
        &["resurrect", "unstartup", "enable", "disable"],
        "what was started is remembered; `maitred startup` writes units of systemd, and `maitred up` runs a file",
    ),
];

/// Options of other managers, and the one to use here.
const FOREIGN: &[(&[&str], &str)] = &[
    (&["-i", "--instances", "-n", "--number"], "the number of workers is -w N, or -w auto"),
    (&["-p", "--port", "--host", "--listen"], "an address is given as -b :PORT or -b HOST:PORT"),
    (&["-d", "--daemon", "--daemonize"], "`maitred start` runs it in the background"),
    (&["--no-daemon"], "without `start` maitred stays in the foreground; leave it out"),
    (&["--kill-timeout", "--graceful-timeout"], "this is --grace DURATION here"),
    (&["--listen-timeout"], "this is --boot-timeout DURATION here"),
    (&["--max-memory-restart"], "this is --max-rss SIZE here"),
    (&["--max-requests"], "maitred counts connections: --max-connections N"),
    (&["--reload"], "this is --watch PATH here"),
    (&["--ignore-watch"], "this is --watch-ignore PATTERN here"),
    (&["--cron-restart", "--cron"], "this is --restart-cron \"0 4 * * *\" here"),
    (&["--pid", "--pidfile"], "this is --pid-file PATH here"),
    (&["--uid", "--gid"], "these are --user USER and --group GROUP here"),
    (&["--stop-exit-codes"], "this is --exit-codes N,N here; another worker follows all the same"),
    (&["-f", "--config-file"], "this is -c FILE here"),
];

/// Inserts the word `run` where it was left out.
pub(super) fn with_run(mut words: Vec<OsString>) -> Vec<OsString> {
    if is_run_left_out(&words) {
        words.insert(1, "run".into());
    }
    words
}

fn is_run_left_out(words: &[OsString]) -> bool {
    let known = Cli::command();
    let flags = ["-h", "--help", "-V", "--version"];
    let is_known = |word: &str| flags.contains(&word) || known.find_subcommand(word).is_some();
    words.get(1).is_some_and(|first| !first.to_str().is_some_and(is_known))
}

/// What to type instead, if the server's command is a command of another manager, or is close to one of ours and is
/// no program. `words` is all that was typed, `command` its end, the server's command. Whoever types `run` or `--`
/// means a program.
pub(super) fn is_misunderstood(
    words: &[OsString],
    command: &[OsString],
    is_program: impl Fn(&OsStr) -> bool,
) -> Option<String> {
    let first = command.first()?;
    let before = words.len().checked_sub(command.len() + 1)?;
    let word = first.to_str()?;
    let verb = VERBS.iter().find(|(verbs, _)| verbs.contains(&word));
    // Whether `run` was left out is asked last: that takes the whole definition of the command line.
    if words.get(before).is_some_and(|word| word == END)
        || (verb.is_none() && is_program(first))
        || !is_run_left_out(words)
    {
        return None;
    }
    let to_run = format!("to run a program of that name: maitred -- {word}");
    if let Some((_, advice)) = verb {
        return Some(format!("{word} is no command of maitred: {advice}; {to_run}"));
    }
    let cli = Cli::command();
    let ours = cli.get_subcommands().filter(|command| !command.is_hide_set()).map(clap::Command::get_name);
    let near = options::nearest(word, ours)?;
    if near == word {
        return Some(format!("the command comes first, and then its options: maitred {word} ...; {to_run}"));
    }
    Some(format!("{word} is no command of maitred; did you mean {near}? {to_run}"))
}

/// The error of the parser as it is shown, with the option that users of another manager look for.
pub(super) fn explained(error: &clap::Error) -> String {
    let mut text = error.to_string();
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
        && let Some((_, advice)) = FOREIGN.iter().find(|(options, _)| options.contains(&option.as_str()))
    {
        let end = text.find('\n').unwrap_or(text.len());
        text.insert_str(end, &format!("; {advice}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn check(typed: &str, meant: &str) {
        assert_eq!(with_run(words(typed)), words(meant));
    }

    #[test]
    fn run_may_be_left_out() {
        check("maitred node server.js", "maitred run node server.js");
        check("maitred -w 4 -- node server.js", "maitred run -w 4 -- node server.js");
        check("maitred run node", "maitred run node");
        check("maitred status x", "maitred status x");
        check("maitred --help", "maitred --help");
        check("maitred", "maitred");
    }

    #[test]
    fn what_other_managers_have_as_a_command_is_explained() {
        let said = |typed: &str, command: &str| {
            is_misunderstood(&words(typed), &words(command), |word| ["top", "state"].contains(&word.to_str().unwrap()))
        };
        assert!(said("maitred dash", "dash").unwrap().contains("maitred top"));
        assert!(said("maitred -w 2 serve app.js", "serve app.js").unwrap().contains("maitred -w 4 -- COMMAND"));
        assert!(said("maitred -w 2 start app.js", "start app.js").unwrap().contains("comes first"));
        assert!(said("maitred relaod web", "relaod web").unwrap().contains("did you mean reload?"));
        for (typed, command) in [
            ("maitred -- top", "top"),
            ("maitred -w 2 -- serve app.js", "serve app.js"),
            ("maitred run top", "top"),
            // A program, although the word is close to `status`.
            ("maitred state", "state"),
            ("maitred node server.js", "node server.js"),
        ] {
            assert_eq!(said(typed, command), None, "{typed}");
        }
    }

    #[test]
    fn no_command_of_ours_is_explained_as_one_of_others() {
        let cli = Cli::command();
        for (verb, _) in VERBS.iter().flat_map(|(verbs, advice)| verbs.iter().map(move |verb| (verb, advice))) {
            assert!(cli.find_subcommand(verb).is_none(), "{verb}");
        }
        let run = cli.find_subcommand("run").unwrap();
        let names = |option: &clap::Arg| {
            let long = option.get_long().map(|name| format!("--{name}"));
            [long, option.get_short().map(|name| format!("-{name}"))]
        };
        let ours: Vec<String> = run.get_arguments().flat_map(names).flatten().collect();
        for option in FOREIGN.iter().flat_map(|(options, _)| options.iter()) {
            assert!(!ours.iter().any(|known| known == option), "{option}");
        }
    }

    #[test]
    fn an_option_of_another_manager_or_with_a_wrong_letter_is_explained() {
        let said = |typed: &str| explained(&Cli::try_parse_from(with_run(words(typed))).unwrap_err());
        assert!(said("maitred -i max -- node").contains("-w auto"), "{}", said("maitred -i max -- node"));
        assert!(said("maitred --daemon -- node").contains("maitred start"));
        assert!(said("maitred --polcy x -- node").contains("--policy"));
        assert!(said("maitred --max-memory-restart 1G node").contains("--max-rss"));
    }

    #[test]
    fn values_may_follow_a_short_option_at_once_and_options_of_the_server_are_its_own() {
        use super::super::Command;
        for typed in ["maitred -w4 -b:8080 -- node --inspect -w", "maitred -w4 -b:8080 node --inspect -w"] {
            let Command::Run(args) = Cli::try_parse_from(with_run(words(typed))).unwrap().command else { panic!() };
            assert_eq!(args.command(), words("node --inspect -w"), "{typed}");
        }
        assert!(Cli::try_parse_from(with_run(words("maitred -capp.toml"))).is_ok());
    }
}
