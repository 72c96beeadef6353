//! Ecosystem files of PM2 (<https://pm2.keymetrics.io/docs/usage/application-declaration/>).

use super::{Imported, list, name};
use crate::config::layers::plain;
use crate::config::life::size;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Which program runs a script, by its ending (PM2's `interpreter.json`).
const INTERPRETERS: [(&str, &str); 10] = [
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("ts", "bun"),
    ("py", "python3"),
    ("rb", "ruby"),
    ("php", "php"),
    ("pl", "perl"),
    ("sh", "bash"),
    ("coffee", "coffee"),
];
/// What comes before the name of an environment that PM2 lays over with `--env`.
const ENV_OF: &str = "env_";
/// Keys that say how the command is made.
const OF_THE_COMMAND: [&str; 8] =
    ["name", "script", "args", "interpreter", "exec_interpreter", "interpreter_args", "node_args", "exec_mode"];

/// The apps of an ecosystem file.
pub fn ecosystem(file: &Json) -> Result<Imported, String> {
    let mut imported = Imported::default();
    let apps = match file {
        Json::Array(apps) => apps.clone(),
        Json::Object(whole) => match whole.get("apps") {
            Some(Json::Array(apps)) => {
                let others = whole.keys().filter(|key| *key != "apps");
                others.for_each(|key| imported.leave(format!("{key}: only the apps are read")));
                apps.clone()
            }
            Some(one @ Json::Object(_)) => vec![one.clone()],
            Some(_) => return Err("apps is no list".to_owned()),
            None => vec![file.clone()],
        },
        _ => return Err("it has no apps".to_owned()),
    };
    for (place, declared) in apps.iter().enumerate() {
        let Json::Object(declared) = declared else { return Err(format!("app {} is no object", place + 1)) };
        let declared: BTreeMap<String, Json> =
            declared.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        app(&declared, &mut imported).map_err(|why| format!("app {}: {why}", place + 1))?;
    }
    Ok(imported)
}

fn app(declared: &BTreeMap<String, Json>, imported: &mut Imported) -> Result<(), String> {
    let text = |key: &str| declared.get(key).and_then(Json::as_str);
    let script = text("script").ok_or("there is no script")?;
    let file = std::path::Path::new(script).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut named = name(text("name").unwrap_or(&file));
    while imported.apps.contains_key(&named) {
        named.push('_');
    }
    let mut table = Table::new();
    table.insert("command".to_owned(), list(command(declared, script)?));
    let mut left = Vec::new();
    for (key, value) in declared.iter().filter(|(key, _)| !OF_THE_COMMAND.contains(&key.as_str())) {
        if let Some(profile) = key.strip_prefix(ENV_OF).filter(|profile| *profile != "file")
            && let Some((variables, others)) = variables(value)
        {
            left.extend(others.into_iter().map(|other| format!("{named}: {key}.{other} is no text")));
            let of_app = Table::from_iter([("env".to_owned(), Value::Table(variables))]);
            imported.profiles.entry(profile.to_owned()).or_default().insert(named.clone(), of_app);
            continue;
        }
        match option(key, value) {
            Carried::As(key, value) => drop(table.insert(key.to_owned(), value)),
            Carried::Partly(as_key, value, why) => {
                table.insert(as_key.to_owned(), value);
                left.push(format!("{named}: {key}{why}"));
            }
            Carried::Nothing => {}
            // Values of variables may be secrets.
            Carried::Left(why) if key.starts_with("env") => left.push(format!("{named}: {key}{why}")),
            Carried::Left(why) => left.push(format!("{named}: {key} = {value}{why}")),
        }
    }
    // PM2 runs one unless it is told otherwise.
    table.entry("workers").or_insert(1.into());
    imported.left.extend(left);
    imported.apps.insert(named, table);
    Ok(())
}

/// The program and its arguments.
fn command(declared: &BTreeMap<String, Json>, script: &str) -> Result<Vec<String>, String> {
    let words = |keys: &[&str]| -> Result<Vec<String>, String> {
        match keys.iter().find_map(|key| declared.get(*key)) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::String(text)) => {
                shlex::split(text).ok_or_else(|| format!("{text:?} has a quote without its end"))
            }
            Some(Json::Array(words)) => {
                Ok(words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect())
            }
            Some(other) => Ok(vec![other.to_string()]),
        }
    };
    let given = ["interpreter", "exec_interpreter"].iter().find_map(|key| declared.get(*key)?.as_str());
    let ending = std::path::Path::new(script).extension().unwrap_or_default().to_string_lossy();
    let usual = INTERPRETERS.iter().find(|(known, _)| *known == ending).map(|(_, program)| *program);
    let mut command: Vec<String> = match (given, usual) {
        (Some("none"), _) | (None, None) => Vec::new(),
        (Some(program), _) | (None, Some(program)) => vec![program.to_owned()],
    };
    if !command.is_empty() {
        command.extend(words(&["interpreter_args", "node_args"])?);
    }
    // A script that is a line of a shell, as in "npm start".
    match command.is_empty() && script.contains(' ') {
        true => command.extend(shlex::split(script).ok_or("the script has a quote without its end")?),
        false => command.push(script.to_owned()),
    }
    command.extend(words(&["args"])?);
    Ok(command)
}

enum Carried {
    As(&'static str, Value),
    /// The same, but for what is named.
    Partly(&'static str, Value, &'static str),
    /// There is nothing to carry over.
    Nothing,
    Left(&'static str),
}

/// What one key means here.
fn option(key: &str, value: &Json) -> Carried {
    let millis = |as_key| match duration(value) {
        Some(time) => Carried::As(as_key, time.into()),
        None => Carried::Left(""),
    };
    let path = |as_key| value.as_str().map_or(Carried::Left(""), |path| Carried::As(as_key, plain(path).into()));
    match (key, value) {
        (_, Json::Null) => Carried::Nothing,
        ("instances", _) => workers(value).map_or(Carried::Left(""), |workers| Carried::As("workers", workers)),
        ("cwd", _) => path("cwd"),
        ("env", _) => match variables(value) {
            Some((table, others)) if others.is_empty() => Carried::As("env", Value::Table(table)),
            Some((table, _)) => Carried::Partly("env", Value::Table(table), ": what is no text is left out"),
            None => Carried::Left(""),
        },
        ("env_file", _) => path("env_file"),
        ("max_memory_restart", Json::String(text)) if size(&text.to_uppercase()).is_ok() => {
            Carried::As("max-rss", text.to_uppercase().into())
        }
        ("max_memory_restart", Json::Number(bytes)) => Carried::As("max-rss", bytes.to_string().into()),
        ("kill_timeout", _) => millis("grace"),
        ("listen_timeout", _) => millis("boot-timeout"),
        ("min_uptime", _) => Carried::Left(": failures are counted within --restart-window"),
        ("max_restarts", Json::Number(number)) => {
            number.as_i64().map_or(Carried::Left(""), |number| Carried::As("max-restarts", number.into()))
        }
        ("out_file" | "output" | "out", _) => path("out-file"),
        ("error_file" | "error" | "err_file" | "err", _) => path("err-file"),
        ("treekill", Json::Bool(false)) => Carried::As("kill-mode", "process".into()),
        ("log_type", Json::String(form)) if form == "json" => Carried::As("worker-log", "json".into()),
        // What is so anyway.
        (
            "autorestart" | "treekill" | "vizion" | "automation" | "pmx" | "force" | "merge_logs" | "combine_logs",
            Json::Bool(_),
        ) if !(key == "autorestart" && value == &Json::Bool(false)) => Carried::Nothing,
        ("watch" | "wait_ready" | "shutdown_with_message" | "time" | "source_map_support", Json::Bool(false)) => {
            Carried::Nothing
        }
        ("autorestart", _) => Carried::Left(": a worker that ends is always started again"),
        ("wait_ready", _) => Carried::Left(": a worker is ready when it listens; --ready has other ways"),
        ("restart_delay" | "exp_backoff_restart_delay", _) => {
            Carried::Left(": the wait grows by itself, from 100 ms to 30 s")
        }
        ("user" | "uid" | "gid", _) => Carried::Left(": the user is whoever starts maitred, or User= of the unit"),
        ("log_file" | "log", _) => Carried::Left(": --merge-logs writes all to one file"),
        _ => Carried::Left(""),
    }
}

fn workers(value: &Json) -> Option<Value> {
    match value {
        Json::String(text) if text == "max" => Some("auto".into()),
        Json::String(text) => workers(&Json::from(text.parse::<i64>().ok()?)),
        Json::Number(number) => match number.as_i64()? {
            0 => Some("auto".into()),
            less @ ..=-1 => Some(less.to_string().into()),
            more => Some(more.into()),
        },
        _ => None,
    }
}

/// PM2's times are milliseconds, or have a unit: s, m, h.
fn duration(value: &Json) -> Option<String> {
    match value {
        Json::Number(number) => Some(format!("{}ms", number.as_u64()?)),
        Json::String(text) => match text.parse::<u64>() {
            Ok(millis) => Some(format!("{millis}ms")),
            Err(_) => humantime::parse_duration(text).ok().map(|_| text.clone()),
        },
        _ => None,
    }
}

/// The variables of an object, and the names of those that are neither a text nor a number.
fn variables(value: &Json) -> Option<(Table, Vec<String>)> {
    let scalar = |value: &Json| match value {
        Json::String(text) => Some(text.clone()),
        // As JavaScript writes numbers: 1 and not 1.0.
        Json::Number(number) => {
            Some(number.as_f64().filter(|_| number.is_f64()).map_or_else(|| number.to_string(), |n| n.to_string()))
        }
        Json::Bool(is) => Some(is.to_string()),
        Json::Null => Some(String::new()),
        Json::Array(_) | Json::Object(_) => None,
    };
    let (mut table, mut others) = (Table::new(), Vec::new());
    for (name, value) in value.as_object()? {
        match scalar(value) {
            Some(text) => drop(table.insert(name.clone(), Value::String(plain(&text)))),
            None => others.push(name.clone()),
        }
    }
    Some((table, others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_ecosystem_is_carried_over_and_the_rest_is_named() {
        let imported = ecosystem(&json!({
            "apps": [{
                "name": "web site", "script": "./server.js", "args": "-p 'a b'", "node_args": ["--inspect"],
                "instances": "max", "exec_mode": "cluster", "max_memory_restart": "300m", "kill_timeout": 1600,
                "listen_timeout": "3s", "watch": true, "autorestart": true, "cron_restart": "0 0 * * *",
                "env": { "PORT": 3000, "A": "${X}" }, "env_production": { "NODE_ENV": "production" },
            }, { "script": "npm start", "instances": -1 }, { "script": "job.py" }],
            "deploy": {}
        }))
        .unwrap();
        let expected: Table = "
            [app.web_site]
            command = ['node', '--inspect', './server.js', '-p', 'a b']
            workers = 'auto'
            max-rss = '300M'
            grace = '1600ms'
            boot-timeout = '3s'
            [app.web_site.env]
            PORT = '3000'
            A = '$${X}'
        "
        .parse()
        .unwrap();
        assert_eq!(Value::Table(imported.apps["web_site"].clone()), expected["app"]["web_site"]);
        assert_eq!(imported.apps["npm_start"]["command"], list(["npm", "start"].map(str::to_owned)));
        assert_eq!(imported.apps["npm_start"]["workers"], "-1".into());
        assert_eq!(imported.apps["job"]["command"], list(["python3", "job.py"].map(str::to_owned)));
        assert_eq!(imported.apps["job"]["workers"], 1.into());
        assert_eq!(imported.profiles["production"]["web_site"]["env"]["NODE_ENV"], "production".into());
        let left = imported.left.join("\n");
        for what in ["deploy", "web_site: watch = true", "web_site: cron_restart"] {
            assert!(left.contains(what), "{left}");
        }
        assert_eq!(imported.left.len(), 3, "{left}");
        let one = |app: Json| ecosystem(&json!([app])).unwrap();
        let odd = one(json!({ "script": "a", "exec_mode": "cluster", "instances": "abc", "args": "--x=${Y}",
            "max_memory_restart": "1.5G", "min_uptime": "1h", "env": { "A": 1.0, "B": { "PASSWORD": "hunter2" } } }));
        assert_eq!((&odd.apps["a"]["workers"], &odd.apps["a"]["env"]["A"]), (&1.into(), &"1".into()));
        assert_eq!(odd.apps["a"]["command"], Value::Array(vec!["a".into(), "--x=$${Y}".into()]));
        let left = odd.left.join("\n");
        assert!(
            !left.contains("hunter2")
                && ["instances", "max_memory", "min_uptime", "env"].iter().all(|k| left.contains(k)),
            "{left}"
        );
        // It can be read again.
        imported.text().parse::<Table>().unwrap();
    }

    #[test]
    fn what_is_no_ecosystem_is_refused() {
        for (file, why) in [
            (json!(3), "it has no apps"),
            (json!({ "apps": 3 }), "no list"),
            (json!([{ "name": "a" }]), "no script"),
            (json!([3]), "no object"),
            (json!({ "script": "a", "args": "'" }), "quote"),
        ] {
            assert!(ecosystem(&file).unwrap_err().contains(why), "{file}");
        }
    }
}
