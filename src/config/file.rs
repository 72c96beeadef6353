//! The configuration file: TOML with the long options' names as keys. It is turned into command-line words, which come
//! before the typed ones. So one parser handles all options, and the typed words win.

use super::layers::{self, AppInFile, Which};
use super::options::{self, InFile};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use toml::de::DeTable;
use toml::{Table, Value};

/// How often an option that is counted can be given.
const COUNT_MAX: i64 = 9;
/// Longest file that is read.
pub const FILE_MAX: u64 = 1 << 20;

/// An error in a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: {why}")]
    Read {
        /// The file.
        path: String,
        /// The reason.
        why: String,
    },
    /// It is not TOML.
    #[error("{path}: {why}")]
    Toml {
        /// The file.
        path: String,
        /// The place and the error.
        why: String,
    },
    /// A key that is no option.
    #[error("{path}:{line}: unknown key {key:?}{}", .meant.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default())]
    Key {
        /// The file.
        path: String,
        /// The line of the key, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The option that was probably meant.
        meant: Option<&'static str>,
    },
    /// The app or the profile that was asked for is not in it, or its layers are no tables.
    #[error("{path}: {why}")]
    Layers {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A key has a value of a type that no option takes.
    #[error("{path}: {key} has a value that no option takes; {expected}")]
    Value {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// What it could be instead.
        expected: &'static str,
    },
}

/// The content of a file as command-line words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Options.
    pub options: Vec<OsString>,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Reads a file as text.
///
/// # Errors
/// [`FileError::Read`].
pub fn read(path: &Path) -> Result<String, FileError> {
    use std::os::unix::fs::OpenOptionsExt;
    let fail = |why: String| FileError::Read { path: path.display().to_string(), why };
    // Non-blocking, since opening a pipe would wait for its writer.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| fail(error.to_string()))?;
    text_of(path, file)
}

/// The text of an open file.
///
/// # Errors
/// [`FileError::Read`].
pub fn text_of(path: &Path, file: File) -> Result<String, FileError> {
    use std::io::Read;
    let fail = |why: String| FileError::Read { path: path.display().to_string(), why };
    if !file.metadata().is_ok_and(|what| what.is_file()) {
        return Err(fail("it is no regular file".to_owned()));
    }
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(|error| fail(error.to_string()))?;
    if text.len() as u64 > FILE_MAX {
        return Err(fail(format!("longer than {FILE_MAX} bytes")));
    }
    Ok(text)
}

/// The apps of a file's text, each after those that it depends on. `path` appears only in errors.
///
/// # Errors
/// [`FileError`].
pub fn apps(text: &str, path: &Path, profile: Option<&str>) -> Result<Vec<AppInFile>, FileError> {
    layers::apps(parsed(text, path)?, profile)
        .map_err(|why| FileError::Layers { path: path.display().to_string(), why })
}

/// The names of a file's profiles.
///
/// # Errors
/// [`FileError`].
pub fn profiles(text: &str, path: &Path) -> Result<Vec<String>, FileError> {
    layers::profiles(parsed(text, path)?).map_err(|why| FileError::Layers { path: path.display().to_string(), why })
}

fn parsed(text: &str, path: &Path) -> Result<Table, FileError> {
    // The place and not the text there, which may be a secret.
    let why = |error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
        FileError::Toml {
            path: format!("{}:{line}", path.display()),
            why: error.message().trim_end().replace('\n', " "),
        }
    };
    text.parse().map_err(why)
}

/// What a file says of one option.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its key; a variable is `env.NAME`.
    pub key: String,
    /// Its value, with variables replaced.
    pub value: Value,
    /// The same as it is written.
    pub written: Value,
    /// The table in which it stands, as `[app.web]`; none at the top level.
    pub place: Option<String>,
    /// The line, from 1.
    pub line: usize,
}

/// What a part of a file's text says, option by option. `path` appears only in errors.
///
/// # Errors
/// [`FileError`], but of a key or value only that it stands there.
pub fn settings(text: &str, path: &Path, which: Which<'_>) -> Result<Vec<Setting>, FileError> {
    let layers = |why| FileError::Layers { path: path.display().to_string(), why };
    let laid = layers::lay(parsed(text, path)?, which).map_err(layers)?;
    let keys = DeTable::parse(text).map(toml::Spanned::into_inner).unwrap_or_default();
    let setting = |key: String, value: Value, written: Value| {
        let place = laid.places.get(&key).map(Vec::as_slice).unwrap_or_default();
        let line = line_of(text, &keys, place, &key);
        let place = (!place.is_empty()).then(|| format!("[{}]", place.join(".")));
        Setting { key, value, written, place, line }
    };
    let mut all = Vec::new();
    for ((key, value), (_, written)) in laid.table.into_iter().zip(laid.written) {
        match (value, written) {
            (Value::Table(values), Value::Table(written)) if key == layers::ENV => {
                let variables = values.into_iter().zip(written);
                all.extend(
                    variables.map(|((name, value), (_, written))| setting(format!("{key}.{name}"), value, written)),
                );
            }
            (value, written) => all.push(setting(key, value, written)),
        }
    }
    Ok(all)
}

/// Turns a part of a file's text into words.
///
/// # Errors
/// [`FileError`].
pub fn words(text: &str, path: &Path, which: Which<'_>) -> Result<Words, FileError> {
    let shown = || path.display().to_string();
    let mut words = Words::default();
    for Setting { key, value, line, .. } in settings(text, path, which)? {
        let fail = |expected| FileError::Value { path: shown(), key: key.clone(), expected };
        if let Some(name) = layers::variable(&key) {
            if name.is_empty() || name.contains('=') {
                return Err(fail("a variable has a name, without ="));
            }
            let value = scalar(&value).ok_or_else(|| fail("a variable is a text or a number"))?;
            words.options.push(format!("--{}={name}={value}", layers::ENV).into());
            continue;
        }
        let mut option = |value: String| words.options.push(format!("--{key}={value}").into());
        if key == "command" {
            let Value::Array(parts) = value else { return Err(fail("it is a list: the program, then each argument")) };
            let parts = parts.iter().map(|part| part.as_str().map(OsString::from));
            words.command = parts.collect::<Option<_>>().ok_or_else(|| fail("it is a list of texts"))?;
            continue;
        }
        let Some(known) = options::find(&key) else {
            let meant = options::nearest(&key, options::OPTIONS.iter().map(|option| option.name).chain(["command"]));
            return Err(FileError::Key { path: shown(), line, key, meant });
        };
        match (known.in_file, value) {
            (InFile::Not, _) => return Err(fail("it is for the command line")),
            (InFile::Paths, value) => {
                let values = match value {
                    Value::Array(values) => values,
                    one => vec![one],
                };
                for value in values {
                    let Value::String(value) = value else { return Err(fail("it is a path, or a list of paths")) };
                    let beside = path.parent().unwrap_or(Path::new("")).join(value);
                    words.options.push(OsString::from_iter([
                        OsStr::new("--"),
                        key.as_ref(),
                        "=".as_ref(),
                        beside.as_ref(),
                    ]));
                }
            }
            (InFile::List, Value::Array(parts)) => {
                let parts: Option<Vec<String>> = parts.iter().map(scalar).collect();
                option(parts.ok_or_else(|| fail("it is a list of numbers"))?.join(","));
            }
            (InFile::Count, Value::Integer(times @ 0..=COUNT_MAX)) => {
                words.options.extend((0..times).map(|_| OsString::from(format!("--{key}"))));
            }
            (InFile::Count, _) => return Err(fail("it is a number from 0 to 9")),
            (InFile::Switch | InFile::SwitchOrValue, Value::Boolean(true)) => {
                words.options.push(format!("--{key}").into());
            }
            (InFile::Switch | InFile::SwitchOrValue, Value::Boolean(false)) => {}
            (InFile::Switch, _) => return Err(fail("it is true or false")),
            (_, Value::Array(parts)) => {
                for part in parts {
                    option(scalar(&part).ok_or_else(|| fail("a list has texts or numbers in it"))?);
                }
            }
            (_, value) => option(scalar(&value).ok_or_else(|| fail("it is a text or a number"))?),
        }
    }
    Ok(words)
}

/// The line in which a key of a table stands, from 1.
fn line_of(text: &str, keys: &DeTable<'_>, place: &[String], key: &str) -> usize {
    let around = place.iter().map(String::as_str).chain(key.split_once('.').map(|(table, _)| table));
    let name = key.split_once('.').map_or(key, |(_, name)| name);
    let mut table = Some(keys);
    for part in around {
        table = table.and_then(|table| table.get(part)?.get_ref().as_table());
    }
    let spelled = |known: &str| known == name || known.replace('_', "-") == name;
    let found = table.and_then(|table| table.keys().find(|known| spelled(known.get_ref())));
    let start = found.map_or(0, |found| found.span().start);
    text.bytes().take(start).filter(|&byte| byte == b'\n').count() + 1
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(_) | Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_words() {
        let text =
            "workers = 4\nbind = [\":80\", \":443\"]\ncommand = [\"node\", \"a b.js\"]\n[env]\nA = \"x=y\"\nB = 1\n";
        let words = words(text, Path::new("m.toml"), Which::default()).unwrap();
        let admission =
            super::words("weights = [3, 1]\ndefer = true\nmax-open = 9\n", Path::new("m.toml"), Which::default())
                .unwrap();
        assert_eq!(admission.options, ["--defer", "--max-open=9", "--weights=3,1"]);
        let switches =
            super::words("share-port-zero = true\nleave-children = false\n", Path::new("m.toml"), Which::default())
                .unwrap();
        assert_eq!(switches.options, ["--share-port-zero"]);
        // In the order of the keys; nothing depends on the order.
        assert_eq!(words.options, ["--bind=:80", "--bind=:443", "--env=A=x=y", "--env=B=1", "--workers=4"]);
        assert_eq!(words.command, ["node", "a b.js"]);
    }

    #[test]
    fn only_a_regular_file_that_is_no_longer_than_allowed_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.toml");
        let of_length = |length: u64| {
            std::fs::write(&path, "#".repeat(usize::try_from(length).unwrap())).unwrap();
            read(&path)
        };
        assert_eq!(of_length(0).unwrap(), "");
        assert_eq!(of_length(FILE_MAX).unwrap().len() as u64, FILE_MAX);
        let why = |result: Result<String, FileError>| result.unwrap_err().to_string();
        assert!(why(of_length(FILE_MAX + 1)).contains("longer than 1048576 bytes"));
        assert!(why(read(dir.path())).contains("no regular file"));
        assert!(why(read(Path::new("/no/such/file"))).contains("No such file"));
        std::fs::write(&path, b"a = \xff").unwrap();
        assert!(why(read(&path)).contains("UTF-8"));
    }

    #[test]
    fn an_option_that_stands_alone_is_left_out_when_it_is_false() {
        let options = |text| words(text, Path::new("m.toml"), Which::default()).unwrap().options;
        assert_eq!(options("defer = true\nleave-children = true"), ["--defer", "--leave-children"]);
        assert_eq!(options("verbose = 2\nquiet = 0"), ["--verbose", "--verbose"]);
        assert!(words("verbose = true", Path::new("m.toml"), Which::default()).is_err());
        assert!(options("defer = false\nleave-children = false").is_empty());
        assert!(words("config = \"other.toml\"", Path::new("m.toml"), Which::default()).is_err());
        assert!(words("share = true", Path::new("m.toml"), Which::default()).is_err());
    }

    #[test]
    fn mistakes_name_the_file_and_the_key() {
        let error = |text| words(text, Path::new("m.toml"), Which::default()).unwrap_err().to_string();
        assert!(error("workers = ").starts_with("m.toml:1: "), "{}", error("workers = "));
        assert!(!error("A = \"hunter2").contains("hunter2"));
        assert_eq!(
            error("command = \"node a.js\""),
            "m.toml: command has a value that no option takes; it is a list: the program, then each argument"
        );
        assert!(error("grace = 1.5").contains("grace"));
        let unknown = "# the site\ncommand = [\"a\"]\n\nworkrs = 2\n";
        assert_eq!(error(unknown), "m.toml:4: unknown key \"workrs\"; did you mean \"workers\"?");
        let layered = "[app.web]\ncommand = [\"a\"]\nworkrs = 2\n[app.db]\n";
        let of_web = words(layered, Path::new("m.toml"), Which { app: Some("web"), profile: None });
        assert!(of_web.unwrap_err().to_string().starts_with("m.toml:3: unknown key \"workrs\""));
        assert_eq!(error("[servers]\na = 1\n"), "m.toml:1: unknown key \"servers\"");
    }
}
