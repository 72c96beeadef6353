//! Several apps in one file: the options at its top level are defaults, `[app.NAME]` is laid over them, then
//! `[profile.P]`, then `[profile.P.app.NAME]`. Variables in its strings are replaced.

use super::{name, options};
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// The tables of a file that are no option.
const APP: &str = "app";
const PROFILE: &str = "profile";
/// The option whose tables are joined and not replaced.
pub const ENV: &str = "env";
/// Another way to write the option `env-file`, known from PM2 and Compose.
const ENV_FILE: &str = "env_file";
/// What only says how an app is started from a file.
const ENABLED: &str = "enabled";
const DEPENDS_ON: &str = "depends_on";

/// Which part of a file is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Which<'a> {
    /// The app; in a file with one app it may be left out.
    pub app: Option<&'a str>,
    /// The profile.
    pub profile: Option<&'a str>,
}

/// An app of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppInFile {
    /// Its name.
    pub name: String,
    /// Whether it is started when no app is named.
    pub enabled: bool,
    /// The apps that serve before it is started.
    pub depends_on: Vec<String>,
}

/// The options of one app, in one table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Laid {
    /// The options.
    pub table: Table,
    /// The same as they are written, with the names of variables.
    pub written: Table,
    /// The tables in which each of them stands: none at the top level. A variable is `env.NAME`.
    pub places: BTreeMap<String, Vec<String>>,
}

/// Lays the layers of one app over each other.
///
/// # Errors
/// Says what is wrong, as `[app.web]: why`.
pub fn lay(mut file: Table, which: Which<'_>) -> Result<Laid, String> {
    let mut apps = tables(&mut file, APP)?;
    let mut profiles = tables(&mut file, PROFILE)?;
    let app = match (which.app, apps.len()) {
        (Some(name), _) => Some(name.to_owned()),
        (None, 0) => None,
        (None, 1) => apps.keys().next().cloned(),
        (None, _) => return Err(format!("it has several apps; choose with --app: {}", names(&apps))),
    };
    let mut laid = Laid::default();
    laid.overlay(file, &[]);
    if let Some(name) = &app {
        let layer = apps.remove(name).ok_or_else(|| no_such("app", name, &apps))?;
        laid.overlay(layer, &[APP, name]);
    }
    if let Some(profile) = which.profile {
        let mut layer = profiles.remove(profile).ok_or_else(|| no_such("profile", profile, &profiles))?;
        let mut of_apps = tables(&mut layer, APP).map_err(|why| format!("[profile.{profile}]: {why}"))?;
        laid.overlay(layer, &[PROFILE, profile]);
        if let Some((name, layer)) = app.as_ref().and_then(|app| of_apps.remove_entry(app)) {
            laid.overlay(layer, &[PROFILE, profile, APP, &name]);
        }
    }
    if app.is_some() {
        laid.table.remove(ENABLED);
        laid.table.remove(DEPENDS_ON);
    }
    laid.written = laid.table.clone();
    for (key, value) in &mut laid.table {
        replace(value, &|name| std::env::var(name).ok()).map_err(|why| format!("{key}: {why}"))?;
    }
    Ok(laid)
}

/// The apps of a file, each after those that it depends on; none in a file with a command at its top level.
///
/// # Errors
/// Says what is wrong: a value of another type, an app that is not there, a circle.
pub fn apps(mut file: Table, profile: Option<&str>) -> Result<Vec<AppInFile>, String> {
    let mut apps = BTreeMap::new();
    let declared = tables(&mut file, APP)?;
    of_apps_only(&file, "the top level", &declared)?;
    for (profile, mut layer) in tables(&mut file.clone(), PROFILE)? {
        let here = format!("[profile.{profile}]");
        for name in tables(&mut layer, APP).map_err(|why| format!("{here}: {why}"))?.keys() {
            if !declared.contains_key(name) {
                return Err(format!("{here}: {}", no_such("app", name, &declared)));
            }
        }
        of_apps_only(&layer, &here, &declared)?;
    }
    for (name, mut laid) in declared {
        name::parse(&name).map_err(|why| format!("[app.{name:?}]: {why}"))?;
        if let Some(profile) = profile {
            let layer = file.get(PROFILE).and_then(|profiles| profiles.get(profile)?.get(APP)?.get(&name)?.as_table());
            laid.extend(layer.cloned().unwrap_or_default());
        }
        let wrong = |key: &str, what: &str| format!("[app.{name}]: {key} is {what}");
        let enabled = match laid.get(ENABLED) {
            None => true,
            Some(value) => value.as_bool().ok_or_else(|| wrong(ENABLED, "true or false"))?,
        };
        let depends_on = match laid.get(DEPENDS_ON) {
            None => Vec::new(),
            Some(Value::Array(names)) => {
                let names = names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
                names.ok_or_else(|| wrong(DEPENDS_ON, "a list of apps"))?
            }
            Some(_) => return Err(wrong(DEPENDS_ON, "a list of apps")),
        };
        apps.insert(name.clone(), AppInFile { name, enabled, depends_on });
    }
    in_order(apps)
}

/// What is said of one app must stand in its table.
fn of_apps_only(table: &Table, here: &str, apps: &BTreeMap<String, Table>) -> Result<(), String> {
    let misplaced = [ENABLED, DEPENDS_ON].into_iter().find(|key| !apps.is_empty() && table.contains_key(*key));
    misplaced.map_or(Ok(()), |key| Err(format!("{here}: {key} is said of one app; put it into [app.NAME]")))
}

/// The names of a file's profiles.
///
/// # Errors
/// When they are no tables.
pub fn profiles(mut file: Table) -> Result<Vec<String>, String> {
    Ok(tables(&mut file, PROFILE)?.into_keys().collect())
}

/// Sorts apps so that each comes after those that it depends on.
fn in_order(mut apps: BTreeMap<String, AppInFile>) -> Result<Vec<AppInFile>, String> {
    for app in apps.values() {
        if let Some(missing) = app.depends_on.iter().find(|name| !apps.contains_key(*name)) {
            return Err(format!("[app.{}]: depends_on names {missing:?}, which is no app of this file", app.name));
        }
    }
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut order = Vec::new();
    while !apps.is_empty() {
        let next = apps.values().find(|app| app.depends_on.iter().all(|name| done.contains(name)));
        let Some(name) = next.map(|app| app.name.clone()) else {
            let circle: Vec<&str> = apps.keys().map(String::as_str).collect();
            return Err(format!("these apps depend on each other in a circle: {}", circle.join(", ")));
        };
        order.extend(apps.remove(&name));
        done.insert(name);
    }
    Ok(order)
}

/// Takes the tables in a table out.
fn tables(from: &mut Table, key: &str) -> Result<BTreeMap<String, Table>, String> {
    let Some(value) = from.remove(key) else { return Ok(BTreeMap::new()) };
    let wrong = || format!("[{key}] is a table of tables: [{key}.NAME]");
    let Value::Table(all) = value else { return Err(wrong()) };
    let table = |(name, value)| match value {
        Value::Table(table) => Ok((name, table)),
        _ => Err(wrong()),
    };
    all.into_iter().map(table).collect()
}

impl Laid {
    /// Lays the table over it that stands there.
    fn overlay(&mut self, over: Table, place: &[&str]) {
        let place: Vec<String> = place.iter().map(|&name| name.to_owned()).collect();
        for (key, value) in over {
            let key = if key == ENV_FILE { options::ENV_FILE.to_owned() } else { key };
            match (self.table.get_mut(&key), value) {
                (under, Value::Table(over)) if key == ENV => {
                    let names = over.keys().map(|name| (format!("{ENV}.{name}"), place.clone()));
                    self.places.extend(names);
                    match under {
                        Some(Value::Table(under)) => under.extend(over),
                        _ => drop(self.table.insert(key, Value::Table(over))),
                    }
                }
                (_, value) => {
                    self.places.insert(key.clone(), place.clone());
                    self.table.insert(key, value);
                }
            }
        }
    }
}

fn names<T>(tables: &BTreeMap<String, T>) -> String {
    tables.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn no_such<T>(what: &str, name: &str, there: &BTreeMap<String, T>) -> String {
    match options::nearest(name, there.keys().map(String::as_str)) {
        Some(near) => format!("there is no {what} {name:?}; did you mean {near:?}?"),
        None if there.is_empty() => format!("there is no {what} in it, {name:?} was asked for"),
        None => format!("there is no {what} {name:?}; there are {}", names(there)),
    }
}

/// Replaces `${NAME}` and `${NAME:-default}` in all strings of a value; `$$` stands for `$` before a brace.
fn replace(value: &mut Value, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    match value {
        Value::String(text) => *text = replaced(text, variable)?,
        Value::Array(values) => values.iter_mut().try_for_each(|value| replace(value, variable))?,
        Value::Table(table) => table.iter_mut().try_for_each(|(_, value)| replace(value, variable))?,
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
    Ok(())
}

/// A text that means itself: nothing in it is taken for a variable.
#[must_use]
pub fn plain(text: &str) -> String {
    text.replace("${", "$${")
}

/// The name of the variable that a key of a setting means (`env.NAME`), if it means one.
#[must_use]
pub fn variable(key: &str) -> Option<&str> {
    key.strip_prefix(ENV)?.strip_prefix('.')
}

fn replaced(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            done += before;
            done += "${";
            rest = after;
            continue;
        }
        done += before;
        let (inside, after) = after.split_once('}').ok_or("it has ${ without }")?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !fits {
            return Err("what is in ${} is no variable; write $${ for a plain ${".to_owned());
        }
        // As in a shell, an empty one has the default, too.
        match (variable(name).filter(|value| default.is_none() || !value.is_empty()), default) {
            (Some(value), _) => done += &value,
            (None, Some(default)) => done += default,
            (None, None) => {
                return Err(format!("the variable {name} is not set; ${{{name}:-DEFAULT}} gives a default"));
            }
        }
        rest = after;
    }
    Ok(done + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
        workers = 2
        [env]
        A = \"a\"
        [app.web]
        command = [\"web\"]
        depends_on = [\"db\"]
        [app.web.env]
        B = \"b\"
        [app.db]
        command = [\"db\"]
        workers = 1
        enabled = false
        [profile.production]
        workers = 8
        [profile.production.app.db]
        workers = 3
        enabled = true
    ";

    fn laid(app: Option<&str>, profile: Option<&str>) -> Result<Table, String> {
        lay(FILE.parse().unwrap(), Which { app, profile }).map(|laid| laid.table)
    }

    #[test]
    fn an_app_and_a_profile_are_laid_over_the_defaults() {
        let web = laid(Some("web"), None).unwrap();
        assert_eq!(web, "workers = 2\ncommand = [\"web\"]\nenv = { A = \"a\", B = \"b\" }".parse().unwrap());
        assert_eq!(laid(Some("db"), None).unwrap()["workers"], 1.into());
        assert_eq!(laid(Some("web"), Some("production")).unwrap()["workers"], 8.into());
        assert_eq!(laid(Some("db"), Some("production")).unwrap()["workers"], 3.into());
        let one: Table = "workers = 2\n[app.web]\ncommand = [\"a\"]".parse().unwrap();
        assert_eq!(lay(one, Which::default()).unwrap().table["command"], vec!["a"].into());
    }

    #[test]
    fn each_option_knows_where_it_stands() {
        let which = Which { app: Some("db"), profile: Some("production") };
        let places = lay(FILE.parse().unwrap(), which).unwrap().places;
        assert_eq!(places["workers"], ["profile", "production", "app", "db"]);
        assert_eq!((&places["command"][..], &places["env.A"][..]), (&["app".to_owned(), "db".to_owned()][..], &[][..]));
        let web = lay(FILE.parse().unwrap(), Which { app: Some("web"), profile: None }).unwrap().places;
        assert_eq!((&web["env.A"][..], &web["env.B"][..]), (&[][..], &["app".to_owned(), "web".to_owned()][..]));
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert_eq!(laid(None, None).unwrap_err(), "it has several apps; choose with --app: db, web");
        assert_eq!(laid(Some("webb"), None).unwrap_err(), "there is no app \"webb\"; did you mean \"web\"?");
        assert!(laid(Some("web"), Some("test")).unwrap_err().contains("there is no profile"));
        assert!(lay("app = 3".parse().unwrap(), Which::default()).is_err());
        assert!(lay("[app]\nweb = 3".parse().unwrap(), Which::default()).is_err());
    }

    #[test]
    fn apps_come_after_those_that_they_depend_on() {
        let order = |text: &str| apps(text.parse().unwrap(), None);
        let found = order(FILE).unwrap();
        assert_eq!(found.iter().map(|app| app.name.as_str()).collect::<Vec<_>>(), ["db", "web"]);
        assert!(!found[0].enabled && found[1].enabled);
        assert!(apps(FILE.parse().unwrap(), Some("production")).unwrap()[0].enabled);
        assert!(order("command = [\"a\"]").unwrap().is_empty());
        let circle = "[app.a]\ndepends_on = [\"b\"]\n[app.b]\ndepends_on = [\"a\"]\n[app.c]";
        assert_eq!(order(circle).unwrap_err(), "these apps depend on each other in a circle: a, b");
        assert!(order("[app.a]\ndepends_on = [\"x\"]").unwrap_err().contains("no app of this file"));
        assert!(order("[app.a]\nenabled = 1").unwrap_err().contains("true or false"));
        for bad in ["[app.all]", "[app.\"../x\"]", "[app.\"a b\"]"] {
            assert!(order(bad).is_err(), "{bad}");
        }
        assert!(order("[app.web]\n[profile.p.app.webb]").unwrap_err().contains("did you mean \"web\"?"));
        assert!(order("enabled = true\n[app.web]").unwrap_err().contains("put it into [app.NAME]"));
    }

    #[test]
    fn variables_are_replaced_and_missing_ones_are_named() {
        let variable = |name: &str| match name {
            "PORT" => Some("80".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let check = |text: &str, expected: &str| assert_eq!(replaced(text, &variable).unwrap(), expected, "{text}");
        check(":${PORT}", ":80");
        check("${NONE:-a:-b}${PORT}${EMPTY:-c}${EMPTY}", "a:-b80c");
        check("$PORT $$ $${PORT} $", "$PORT $$ ${PORT} $");
        for (text, why) in [("${NONE}", "NONE is not set"), ("${PORT", "without }"), ("${a b}", "no variable")] {
            assert!(replaced(text, &variable).unwrap_err().contains(why), "{text}");
        }
    }
}
