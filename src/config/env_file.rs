//! Files of variables: `NAME=value` in each line, as Docker, Compose and systemd users have them.

use super::file::{self, FileError};
use std::ffi::OsString;
use std::path::Path;

/// Why there are no variables.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// A line is none of a variable.
    #[error("{path}: {why}")]
    Line {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// The variables of a file. Empty lines, comments, quotes, `export` and `${OTHER}` are understood as in a shell.
///
/// # Errors
/// [`EnvFileError`].
pub fn read(path: &Path) -> Result<Vec<(OsString, OsString)>, EnvFileError> {
    let text = file::read(path)?;
    let pairs = dotenvy::Iter::new(text.as_bytes());
    pairs
        .map(|pair| match pair {
            Ok((name, value)) => Ok((name.into(), value.into())),
            Err(error) => Err(EnvFileError::Line { path: path.display().to_string(), why: why(&text, &error) }),
        })
        .collect()
}

/// What is wrong, without the text there, which may be a secret.
fn why(text: &str, error: &dotenvy::Error) -> String {
    const FORM: &str = "it is no NAME=value; a value with spaces is quoted";
    match error {
        dotenvy::Error::LineParse(line, _) => {
            let first = line.lines().next().unwrap_or_default();
            let found = text.lines().position(|there| there.contains(first));
            found.map_or_else(|| FORM.to_owned(), |at| format!("line {}: {FORM}", at + 1))
        }
        _ => "it cannot be read as lines of NAME=value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_in_a_shell_and_what_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        std::fs::write(&path, "# secrets\nA=1\n\nexport B='x y'\nC=\"${A}2\"\nD=\n").unwrap();
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| (n.into(), v.into())).collect::<Vec<_>>();
        assert_eq!(read(&path).unwrap(), owned(&[("A", "1"), ("B", "x y"), ("C", "12"), ("D", "")]));
        std::fs::write(&path, "A=1\nno variable\n").unwrap();
        let said = read(&path).unwrap_err().to_string();
        assert!(
            said.starts_with(&path.display().to_string()) && said.contains("line 2: it is no NAME=value"),
            "{said}"
        );
        std::fs::write(&path, "PASSWORD=hunter2 with space\n").unwrap();
        assert!(!read(&path).unwrap_err().to_string().contains("hunter2"));
        assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("No such file"));
    }
}
