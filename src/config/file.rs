//! The configuration file: TOML with the long options' names as keys. It is turned into command-line words, which come
//! before the typed ones. So one parser handles all options, and the typed words win.

use super::options::{self, InFile};
use std::ffi::OsString;
use std::path::Path;
use toml::de::DeTable;
use toml::{Table, Value};

/// Longest file that is read.
pub const FILE_MAX: u64 = 1 << 20;

/// An error in a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: {why}; check --config")]
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
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let fail = |why: String| FileError::Read { path: path.display().to_string(), why };
    // Non-blocking, since opening a pipe would wait for its writer.
    let file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| fail(error.to_string()))?;
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

/// Turns a file's text into words. `path` appears only in errors.
///
/// # Errors
/// [`FileError`].
pub fn words(text: &str, path: &Path) -> Result<Words, FileError> {
    let shown = || path.display().to_string();
    let why = |error: toml::de::Error| error.to_string().trim_end().replace('\n', " ");
    let table: Table = text.parse().map_err(|error| FileError::Toml { path: shown(), why: why(error) })?;
    let mut words = Words::default();
    for (key, value) in table {
        let fail = |expected| FileError::Value { path: shown(), key: key.clone(), expected };
        let mut option = |value: String| words.options.push(format!("--{key}={value}").into());
        if key == "command" {
            let Value::Array(parts) = value else { return Err(fail("it is a list: the program, then each argument")) };
            let parts = parts.iter().map(|part| part.as_str().map(OsString::from));
            words.command = parts.collect::<Option<_>>().ok_or_else(|| fail("it is a list of texts"))?;
            continue;
        }
        let Some(known) = options::find(&key) else {
            let meant = options::nearest(&key, options::OPTIONS.iter().map(|option| option.name).chain(["command"]));
            return Err(FileError::Key { path: shown(), line: line_of(text, &key), key, meant });
        };
        match (known.in_file, value) {
            (InFile::Not, _) => return Err(fail("one file cannot name another")),
            (InFile::Table, Value::Table(variables)) => {
                for (name, value) in variables {
                    let value = scalar(&value).ok_or_else(|| fail("a variable is a text or a number"))?;
                    option(format!("{name}={value}"));
                }
            }
            (InFile::List, Value::Array(parts)) => {
                let parts: Option<Vec<String>> = parts.iter().map(scalar).collect();
                option(parts.ok_or_else(|| fail("it is a list of numbers"))?.join(","));
            }
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

/// The line in which a key of the top level stands, from 1.
fn line_of(text: &str, key: &str) -> usize {
    let keys = DeTable::parse(text).map(toml::Spanned::into_inner).unwrap_or_default();
    let start = keys.keys().find(|known| known.get_ref() == key).map_or(0, |known| known.span().start);
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
        let words = words(text, Path::new("m.toml")).unwrap();
        let admission = super::words("weights = [3, 1]\ndefer = true\nmax-open = 9\n", Path::new("m.toml")).unwrap();
        assert_eq!(admission.options, ["--defer", "--max-open=9", "--weights=3,1"]);
        let switches = super::words("share-port-zero = true\nleave-children = false\n", Path::new("m.toml")).unwrap();
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
        let options = |text| words(text, Path::new("m.toml")).unwrap().options;
        assert_eq!(options("defer = true\nleave-children = true"), ["--defer", "--leave-children"]);
        assert!(options("defer = false\nleave-children = false").is_empty());
        assert!(words("config = \"other.toml\"", Path::new("m.toml")).is_err());
        assert!(words("share = true", Path::new("m.toml")).is_err());
    }

    #[test]
    fn mistakes_name_the_file_and_the_key() {
        let error = |text| words(text, Path::new("m.toml")).unwrap_err().to_string();
        assert!(error("workers = ").starts_with("m.toml: "), "{}", error("workers = "));
        assert_eq!(
            error("command = \"node a.js\""),
            "m.toml: command has a value that no option takes; it is a list: the program, then each argument"
        );
        assert!(error("grace = 1.5").contains("grace"));
        let unknown = "# the site\ncommand = [\"a\"]\n\nworkrs = 2\n";
        assert_eq!(error(unknown), "m.toml:4: unknown key \"workrs\"; did you mean \"workers\"?");
        assert_eq!(error("[servers]\na = 1\n"), "m.toml:1: unknown key \"servers\"");
    }
}
