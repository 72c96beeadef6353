//! The token that a changing request needs: a line of a file that only its owner can read. Without a file of the
//! operator's, one is made at the first start and stays.

use crate::sys::process::trusted::{Absent, Directory};
use crate::sys::secret::secret;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use subtle::ConstantTimeEq;
use tracing::warn;

/// The shortest and longest token: shorter ones can be guessed, longer ones are no token.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=1024;

/// A token, which is never shown.
pub struct Token(String);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or made.
    #[error("cannot use the token file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in it is none.
    #[error(
        "the token file {} has no token: one line of {} to {} visible ASCII characters is expected, as from \
         `openssl rand -hex 32`", .0.display(), LENGTH.start(), LENGTH.end()
    )]
    NoToken(PathBuf),
}

impl Token {
    /// The token in this file of the operator's.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(path: &Path) -> Result<Token, TokenError> {
        let io = |source| TokenError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.mode();
        if mode & 0o007 != 0 {
            warn!(path = %path.display(), mode = format_args!("{:o}", mode & 0o777), "every user of this machine can read the token; chmod 600 keeps them out");
        }
        let mut text = String::new();
        file.take(*LENGTH.end() as u64 + 2).read_to_string(&mut text).map_err(io)?;
        let token = text.trim();
        let fits = LENGTH.contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Token(token.to_owned())) } else { Err(TokenError::NoToken(path.to_owned())) }
    }

    /// The token that is kept in this file, which is made if it is not there.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn kept(path: &Path) -> Result<Token, TokenError> {
        let io = |source| TokenError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            Directory::open(parent, Absent::Make(0o700)).map_err(|error| io(io::Error::other(error.to_string())))?;
        }
        match File::options().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let token = secret().and_then(|first| Ok(first + &secret()?)).map_err(io)?;
                writeln!(file, "{token}").map_err(io)?;
                Ok(Token(token))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Token::read(path),
            Err(error) => Err(io(error)),
        }
    }

    /// Whether this is the token. How long that takes says nothing of it but its length.
    #[must_use]
    pub fn is(&self, said: &str) -> bool {
        self.0.as_bytes().ct_eq(said.as_bytes()).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own/web.token");
        let token = Token::kept(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(token.is(text.trim()) && Token::kept(&path).unwrap().is(text.trim()) && text.len() == 65);
        assert!(!token.is("") && !token.is(&text.trim()[1..]) && !format!("{token:?}").contains(&text[..8]));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for text in ["", "short", "0123456789abcdef 0123456789", "0123456789abcdef\nmore", &"x".repeat(2000)] {
            std::fs::write(&path, text).unwrap();
            assert!(Token::read(&path).is_err(), "{text}");
        }
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert!(Token::read(&path).unwrap().is("0123456789abcdef"));
        assert!(Token::read(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
