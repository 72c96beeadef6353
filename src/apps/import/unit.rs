//! Units of systemd (`systemd.service(5)`, `systemd.exec(5)`): the command of a service, its environment and its end.

use super::{Imported, list, name};
use crate::config::layers::plain;
use toml::{Table, Value};

/// What may stand before the executable.
const PREFIXES: &[char] = &['@', '-', ':', '+', '!', '|'];
/// What a unit says about itself and others.
const OF_SYSTEMD: [&str; 7] =
    ["RestartSec", "ExecReload", "PIDFile", "NotifyAccess", "RemainAfterExit", "SyslogIdentifier", "StandardInput"];
/// What a server does that stays in the foreground and is started again, as maitred wants it.
const USUAL: [(&str, &[&str]); 3] = [
    ("Type", &["simple", "exec", "notify", "notify-reload"]),
    ("Restart", &["always", "on-failure", "on-abnormal", "on-abort"]),
    ("StandardOutput", &["journal", "inherit"]),
];

/// The app that a unit runs.
pub fn service(unit: &str, text: &str) -> Result<Imported, String> {
    let mut imported = Imported::default();
    let (mut table, mut variables, mut files) = (Table::new(), Table::new(), Vec::new());
    let named = name(unit);
    for (section, key, value) in settings(text) {
        if section != "Service" {
            continue;
        }
        let words = || shlex::split(&value).ok_or_else(|| format!("{key}: a quote has no end"));
        match &*key {
            "ExecStart" if value.is_empty() => drop(table.remove("command")),
            "ExecStart" if table.contains_key("command") => {
                imported.leave(format!("{named}: a second ExecStart={value}"))
            }
            "ExecStart" => {
                let mut command = words()?;
                if let Some(program) = command.first_mut() {
                    let prefixes = program.len() - program.trim_start_matches(PREFIXES).len();
                    let names_itself = program.get(..prefixes).is_some_and(|prefixes| prefixes.contains('@'));
                    *program = program.trim_start_matches(PREFIXES).to_owned();
                    // What follows is the name under which it runs.
                    if names_itself && command.len() > 1 {
                        command.remove(1);
                    }
                }
                specifiers(&mut imported, &named, &key, &value);
                table.insert("command".to_owned(), list(command));
            }
            "Environment" if value.is_empty() => variables.clear(),
            "Environment" => {
                for pair in words()? {
                    let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
                    if value.contains('%') {
                        // The value may be a secret.
                        imported.leave(format!("{named}: % in {key}={name} is left as it is"));
                    }
                    variables.insert(name.to_owned(), Value::String(plain(value)));
                }
            }
            "EnvironmentFile" if value.is_empty() => files.clear(),
            "EnvironmentFile" => {
                if value.starts_with('-') {
                    imported.leave(format!("{named}: {key}={value} may be missing there, and must be there here"));
                }
                specifiers(&mut imported, &named, &key, &value);
                files.push(value.trim_start_matches('-').to_owned());
            }
            "WorkingDirectory" if value.contains('~') => {
                imported.leave(format!("{named}: {key}={value}: write the directory"));
            }
            "WorkingDirectory" => {
                specifiers(&mut imported, &named, &key, &value);
                table.insert("cwd".to_owned(), plain(value.trim_start_matches('-')).into());
            }
            "KillSignal" => drop(table.insert("stop-signal".to_owned(), value.into())),
            "KillMode" => match &*value {
                "control-group" => {}
                "mixed" | "process" => drop(table.insert("kill-mode".to_owned(), value.into())),
                _ => imported.leave(format!("{named}: {key}={value}")),
            },
            "TimeoutStopSec" => match value.parse::<u64>() {
                Ok(seconds) => drop(table.insert("grace".to_owned(), format!("{seconds}s").into())),
                Err(_) if humantime::parse_duration(&value).is_ok() => {
                    drop(table.insert("grace".to_owned(), value.into()))
                }
                Err(_) => imported.leave(format!("{named}: {key}={value}")),
            },
            known if OF_SYSTEMD.contains(&known) => {}
            known if USUAL.iter().any(|(key, values)| *key == known && values.contains(&&*value)) => {}
            _ => imported.leave(format!("{named}: {key}={value} stays in the unit that starts maitred")),
        }
    }
    if !table.contains_key("command") {
        return Err("it has no ExecStart= in [Service]".to_owned());
    }
    table.insert("workers".to_owned(), 1.into());
    if !variables.is_empty() {
        table.insert("env".to_owned(), Value::Table(variables));
    }
    if !files.is_empty() {
        table.insert("env_file".to_owned(), list(files));
    }
    imported.apps.insert(named, table);
    Ok(imported)
}

/// Names what only systemd replaces.
fn specifiers(imported: &mut Imported, named: &str, key: &str, value: &str) {
    if value.contains(['%', '$']) {
        imported.leave(format!("{named}: % and $ in {key}={value} are left as they are"));
    }
}

/// Section, key and value of each line; a line that ends with `\` goes on in the next (`systemd.syntax(7)`).
fn settings(text: &str) -> Vec<(String, String, String)> {
    let (mut section, mut all, mut begun) = (String::new(), Vec::new(), String::new());
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) || line.is_empty() {
            continue;
        }
        if let Some(first) = line.strip_suffix('\\') {
            begun += &format!("{} ", first.trim_end());
            continue;
        }
        let whole = std::mem::take(&mut begun) + line;
        if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = whole.split_once('=') {
            all.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_carried_over_and_the_rest_is_named() {
        let text = "[Unit]\nDescription=x\n[Service]\nType=simple\nUser=www\nExecStart=-/usr/bin/node \\\n  server.js 'a b'\n\
             Environment=A=1 \"B=x y\"\nEnvironmentFile=-/etc/default/web\nWorkingDirectory=/srv\nKillSignal=SIGINT\n\
             TimeoutStopSec=90\nKillMode=mixed\n[Install]\nWantedBy=multi-user.target\n";
        let imported = service("web", text).unwrap();
        let expected: Table = "
            command = ['/usr/bin/node', 'server.js', 'a b']
            cwd = '/srv'
            stop-signal = 'SIGINT'
            grace = '90s'
            kill-mode = 'mixed'
            workers = 1
            env_file = ['/etc/default/web']
            env = { A = '1', B = 'x y' }
        "
        .parse()
        .unwrap();
        assert_eq!(imported.apps["web"], expected);
        let left = imported.left.join("\n");
        assert!(
            left.contains("User=www stays in the unit") && left.contains("/etc/default/web may be missing"),
            "{left}"
        );
        assert_eq!(imported.left.len(), 2, "{left}");
        let named =
            service("a", "[Service]\nType=forking\nExecStart=@/bin/a b c\nEnvironment=A=1\nEnvironment=\n").unwrap();
        assert_eq!(named.apps["a"]["command"], list(["/bin/a", "c"].map(str::to_owned)));
        assert!(!named.apps["a"].contains_key("env") && named.left[0].contains("Type=forking"));
        let left = service("a", "[Service]\nExecStart=b\nEnvironment=ID=%i-hunter2\n").unwrap().left;
        assert_eq!(left, ["a: % in Environment=ID is left as it is"]);
        assert!(service("web", "[Service]\nUser=x\n").unwrap_err().contains("ExecStart"));
        let emptied = service("web", "[Service]\nExecStart=a\nExecStart=\nExecStart=b\n").unwrap();
        assert_eq!(emptied.apps["web"]["command"], list(["b".to_owned()]));
    }
}
