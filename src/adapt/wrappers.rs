//! Programs that start another program: `env`, `nice`, `sh -c` and similar. Reads words only, with no side effects.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// A program that executes the words after its own options.
struct Wrapper {
    name: &'static str,
    /// Options that take the next word as their value.
    valued: &'static [&'static str],
    /// The number of its own words before the command.
    positional: usize,
}

const WRAPPERS: [Wrapper; 20] = [
    wrapper("env", &["-u", "-C", "--unset", "--chdir"], 0),
    wrapper("nice", &["-n", "--adjustment"], 0),
    wrapper("nohup", &[], 0),
    wrapper("setsid", &[], 0),
    wrapper("stdbuf", &["-i", "-o", "-e"], 0),
    wrapper("timeout", &["-s", "-k", "--signal", "--kill-after"], 1),
    wrapper("ionice", &["-c", "-n", "--class", "--classdata"], 0),
    wrapper("taskset", &[], 1),
    wrapper("chrt", &[], 1),
    wrapper("numactl", &["-N", "-m", "-C", "-i", "-p"], 0),
    wrapper("setpriv", &["--reuid", "--regid", "--groups", "--bounding-set", "--inh-caps", "--ambient-caps"], 0),
    wrapper("tini", &["-p", "-e"], 0),
    wrapper("dumb-init", &[], 0),
    wrapper("gosu", &[], 1),
    wrapper("su-exec", &[], 1),
    wrapper("setuidgid", &[], 1),
    wrapper("s6-setuidgid", &[], 1),
    wrapper("chpst", &["-u", "-U", "-b", "-/", "-n", "-m", "-d", "-o", "-p", "-f", "-c", "-r", "-t"], 0),
    wrapper("doas", &["-u", "-C"], 0),
    wrapper("sudo", &["-u", "-g", "-U", "-p", "-C", "-h", "-r", "-t", "-T", "-D", "--user", "--group"], 0),
];

const fn wrapper(name: &'static str, valued: &'static [&'static str], positional: usize) -> Wrapper {
    Wrapper { name, valued, positional }
}

/// Commands that the shell runs itself; the server is something else.
const BUILTINS: [&str; 14] =
    ["cd", "export", "test", "[", "set", "ulimit", "umask", "trap", "echo", "true", "false", ":", "unset", "sleep"];

/// The command that these words really start, if the first word is a program that starts another one.
#[must_use]
pub fn wrapped(words: &[OsString]) -> Option<Vec<OsString>> {
    let (first, rest) = words.split_first()?;
    let name = Path::new(first).file_name()?.to_str()?;
    if let ("sh" | "bash" | "dash" | "ash" | "ksh" | "zsh", [flags, line, ..]) = (name, rest) {
        let flags = flags.to_str()?;
        let is_line = flags.starts_with('-') && !flags.starts_with("--") && flags.ends_with('c');
        return if is_line { shell_command(line.to_str()?) } else { None };
    }
    if let "su" | "runuser" = name {
        return command_of_user(rest);
    }
    let wrapper = WRAPPERS.iter().find(|wrapper| wrapper.name == name)?;
    let mut rest = rest.iter();
    let mut positional = wrapper.positional;
    while let Some(word) = rest.next() {
        let text = word.to_str().unwrap_or_default();
        let assignment = matches!(name, "env" | "sudo") && text.contains('=') && !text.starts_with('-');
        match text {
            "--" => {}
            option if option.starts_with('-') && option.len() > 1 => {
                if wrapper.valued.contains(&option) {
                    rest.next();
                }
            }
            _ if assignment => {}
            _ if positional > 0 => positional -= 1,
            _ => return Some([word].into_iter().chain(rest).cloned().collect()),
        }
    }
    None
}

/// What `su` and `runuser` (`su(1)`, util-linux) start: the words after `-u USER`, or a shell's command line.
fn command_of_user(words: &[OsString]) -> Option<Vec<OsString>> {
    const VALUED: [&str; 9] =
        ["-s", "--shell", "-g", "--group", "-G", "--supp-group", "-w", "--whitelist-environment", "-T"];
    let mut rest = words.iter();
    let mut is_direct = false;
    while let Some(word) = rest.next() {
        match word.to_str().unwrap_or_default() {
            "-c" | "--command" | "--session-command" => return shell_command(rest.next()?.to_str()?),
            line if line.starts_with("--command=") => return shell_command(line.strip_prefix("--command=")?),
            "-u" | "--user" => {
                is_direct = true;
                rest.next();
            }
            option if VALUED.contains(&option) => drop(rest.next()),
            option if option.starts_with('-') => {}
            _ if is_direct => return Some([word].into_iter().chain(rest).cloned().collect()),
            // The user's name.
            _ => {}
        }
    }
    None
}

/// Whether the command that these words start gets a different environment than they have themselves; the shim would
/// have to be in it.
#[must_use]
pub fn drops_environment(words: &[OsString]) -> bool {
    let options = || words.iter().skip(1).map_while(|word| word.to_str()).take_while(|word| *word != "--");
    let is_one = |long: &'static [&'static str], letter: char| {
        move |word: &str| {
            long.contains(&word) || word.starts_with('-') && !word.starts_with("--") && word.contains(letter)
        }
    };
    match name(words).as_str() {
        // By default, and always for the loader's variables (`sudoers(5)`, "Command environment"; `doas.conf(5)`).
        "sudo" | "doas" => true,
        "su" | "runuser" => options().any(is_one(&["-", "--login"], 'l')),
        "env" => options().take_while(|word| word.starts_with('-')).any(is_one(&["-", "--ignore-environment"], 'i')),
        _ => false,
    }
}

/// Redirections with an ampersand, which in other places separates commands.
const REDIRECTIONS: [(&str, &str); 7] =
    [("2>&1", " "), ("1>&2", " "), (">&2", " "), (">&1", " "), (">&-", " "), ("<&-", " "), ("&>", " >")];

/// The server in a shell's command line: the command that `exec` puts in the shell's place, otherwise the last command
/// that is not a builtin; of a pipeline, the first command. None if only a shell can tell.
fn shell_command(line: &str) -> Option<Vec<OsString>> {
    let line = REDIRECTIONS.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
    let line = line.replace("||", ";");
    let mut commands = line.split(['\n', ';', '&']).filter_map(|part| {
        let mut words = shlex::split(part.split('|').next()?)?;
        let is_prefix = |word: &String| word == "exec" || word.split_once('=').is_some_and(|(name, _)| is_name(name));
        let prefixes = words.iter().take_while(|word| is_prefix(word)).count();
        let replaces = words.drain(..prefixes).any(|word| word == "exec");
        let first = words.first()?;
        (!BUILTINS.contains(&first.as_str())).then_some((replaces, words))
    });
    let first = commands.next()?;
    let (_, words) = commands.fold(first, |best, next| if best.0 && !next.0 { best } else { next });
    let command = words.first()?;
    let plain = !command.contains(['$', '`', '(', ')', '{', '}', '*', '?', '<', '>', '!']);
    let keyword = ["if", "for", "while", "case", "until", "esac", "fi", "done", "then", "else", "do"];
    let plain = plain && !keyword.contains(&command.as_str());
    plain.then(|| words.iter().map(OsString::from).collect())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The name of a wrapper for messages.
#[must_use]
pub fn name(words: &[OsString]) -> String {
    let file = words.first().and_then(|word| Path::new(word).file_name()).unwrap_or(OsStr::new(""));
    file.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &[&str], expected: Option<&str>) {
        let words: Vec<OsString> = command.iter().map(OsString::from).collect();
        let found = wrapped(&words).map(|words| words.join(OsStr::new(" ")).into_string().unwrap());
        assert_eq!(found.as_deref(), expected, "{command:?}");
    }

    #[test]
    fn wrappers_are_seen_through() {
        check(&["env", "-i", "A=1", "-u", "B", "server", "-x"], Some("server -x"));
        check(&["/usr/bin/nice", "-n", "5", "server"], Some("server"));
        check(&["timeout", "-k", "1", "5s", "server", "a=b"], Some("server a=b"));
        check(&["tini", "-g", "--", "server", "--", "x"], Some("server -- x"));
        check(&["taskset", "-c", "0-3", "server"], Some("server"));
        check(&["gosu", "www", "server"], Some("server"));
        check(&["env"], None);
        check(&["server", "env"], None);
    }

    #[test]
    fn wrappers_that_change_the_user_are_seen_through() {
        check(&["setpriv", "--reuid=1", "--clear-groups", "server", "x"], Some("server x"));
        check(&["runuser", "-u", "www", "--", "server", "-c"], Some("server -c"));
        check(&["su", "-s", "/bin/sh", "www", "-c", "exec server -x"], Some("server -x"));
        check(&["su", "-", "www", "--command=server"], Some("server"));
        check(&["sudo", "-E", "-u", "www", "A=1", "server"], Some("server"));
        check(&["chpst", "-u", "www", "server"], Some("server"));
        check(&["su", "www"], None);
        check(&["su", "-c"], None);
    }

    #[test]
    fn an_environment_that_is_dropped_is_known() {
        let drops = |line: &str| drops_environment(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in
            ["sudo x", "doas x", "su - www -c x", "su -l www -c x", "runuser --login www -c x", "env -i x", "env - x"]
        {
            assert!(drops(line), "{line}");
        }
        for line in ["su www -c x", "runuser -u www x -l", "env -u A x -i", "env A=i x", "setpriv x", "x"] {
            assert_eq!(drops(line), line.starts_with("runuser"), "{line}");
        }
        assert!(!drops("runuser -u www -- x -l"));
    }

    #[test]
    fn simple_lines_of_a_shell_are_read() {
        check(&["sh", "-c", "exec server --port 80"], Some("server --port 80"));
        check(&["bash", "-lc", "cd /srv && A=1 B='x y' ./server"], Some("./server"));
        check(&["sh", "-c", "test -e x && exec 'my server' epoll"], Some("my server epoll"));
        check(&["sh", "-c", "server; true"], Some("server"));
        check(&["sh", "-c", "exec ./server >>log 2>&1"], Some("./server >>log"));
        check(&["sh", "-c", "server 2>&1 | tee log"], Some("server"));
        check(&["sh", "-c", "prepare || exit; exec server; rm x"], Some("server"));
        check(&["sh", "-c", "$SERVER"], None);
        check(&["sh", "-c", "case $X in 0) a;; *) b;; esac"], None);
        check(&["sh", "-c", "'unclosed"], None);
        check(&["sh", "-c", ""], None);
        check(&["sh", "script.sh"], None);
        check(&["sh"], None);
    }
}
