//! Procfiles (<https://devcenter.heroku.com/articles/procfile>): `NAME: COMMAND` in each line.

use super::{Imported, list, name};
use toml::{Table, Value};

/// The port of the first app and how far the next is from it, as in foreman(1).
const FIRST_PORT: u16 = 5000;
const NEXT_PORT: u16 = 100;
/// What only a shell understands.
const OF_A_SHELL: &[char] = &['$', '`', '|', '&', ';', '<', '>', '(', ')', '*', '?', '~', '{', '#', '!'];
/// What makes several commands of a line.
const SEVERAL: &[char] = &['&', '|', ';'];
/// What a line of such begins with.
const COMPOUND: &[char] = &['(', '{', '!'];
/// Commands of the shell itself (POSIX, "Special Built-In Utilities", and `cd`).
const BUILT_IN: [&str; 10] = [".", "cd", "eval", "exec", "export", "set", "source", "trap", "ulimit", "umask"];

/// The apps of a Procfile.
pub fn procfile(text: &str) -> Result<Imported, String> {
    let mut imported = Imported::default();
    let mut port = FIRST_PORT;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let here = || format!("line {}", number + 1);
        let (named, command) = line.split_once(':').ok_or_else(|| format!("{}: it is no NAME: COMMAND", here()))?;
        let command = command.trim();
        let named = name(named.trim());
        let mut table = Table::new();
        let words = shlex::split(command).ok_or_else(|| format!("{}: a quote has no end", here()))?;
        let first = words.first().map(String::as_str).unwrap_or_default();
        let assigns = is_assignment(first);
        let words = if command.contains(SEVERAL) || command.starts_with(COMPOUND) || BUILT_IN.contains(&first) {
            shell(command)
        } else if command.contains(OF_A_SHELL) || assigns {
            // The shell becomes the server, so that signals reach that.
            shell(&if assigns { format!("exec env {command}") } else { format!("exec {command}") })
        } else {
            words
        };
        table.insert("command".to_owned(), list(words));
        table.insert("workers".to_owned(), 1.into());
        if command.contains("$PORT") || command.contains("${PORT") {
            table.insert("bind".to_owned(), format!(":{port}").into());
            let variables = Table::from_iter([("PORT".to_owned(), Value::String(port.to_string()))]);
            table.insert("env".to_owned(), Value::Table(variables));
            port = port.saturating_add(NEXT_PORT);
        } else {
            imported.leave(format!("{named}: it is not told its port; if it never listens, maitred is not for it"));
        }
        if imported.apps.insert(named.clone(), table).is_some() {
            return Err(format!("{}: a second app is named {named}", here()));
        }
    }
    if imported.apps.is_empty() { Err("it has no NAME: COMMAND".to_owned()) } else { Ok(imported) }
}

/// A line for a shell.
fn shell(line: &str) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()]
}

/// Whether a word is `NAME=value`, for the command that follows.
fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name).unwrap_or_default();
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_app_and_ports_are_as_in_foreman() {
        let imported =
            procfile("# a comment\nweb: node server.js -p $PORT\napi: PORT=${PORT} x\n\njob: rake 'a b'\nmail: Q=mail job\nback: cd back && npm start\n").unwrap();
        let words = |words: &[&str]| list(words.iter().map(|&word| word.to_owned()));
        assert_eq!(imported.apps["web"]["command"], words(&["sh", "-c", "exec node server.js -p $PORT"]));
        assert_eq!((&imported.apps["web"]["bind"], &imported.apps["api"]["bind"]), (&":5000".into(), &":5100".into()));
        assert_eq!(imported.apps["web"]["env"]["PORT"], "5000".into());
        assert_eq!(imported.apps["api"]["command"], words(&["sh", "-c", "exec env PORT=${PORT} x"]));
        assert_eq!(imported.apps["job"]["command"], words(&["rake", "a b"]));
        assert_eq!(imported.apps["mail"]["command"], words(&["sh", "-c", "exec env Q=mail job"]));
        assert_eq!(imported.apps["back"]["command"], words(&["sh", "-c", "cd back && npm start"]));
        assert!(procfile("a b: x\na?b: y").unwrap_err().contains("a second app is named a_b"));
        assert!(imported.left[0].starts_with("job: "));
        assert_eq!(procfile("web node").unwrap_err(), "line 1: it is no NAME: COMMAND");
        assert!(procfile("").is_err() && procfile("a: 'b").is_err());
    }
}
