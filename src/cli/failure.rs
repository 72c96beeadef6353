//! Why a command ends early.

use super::say::complain;
use super::{CANNOT_START, FAILED, USAGE};
use crate::apps::earlier::NotFree;
use crate::apps::state::StateError;
use crate::control::client::ClientError;
use std::fmt::Display;
use std::process::ExitCode;

/// A premature end: the last message, and the exit code.
pub struct Failure {
    /// The message.
    pub said: String,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// What was said, with this exit code.
    pub fn new(said: impl Display, code: u8) -> Failure {
        Failure { said: said.to_string(), code }
    }

    /// Wrong usage.
    pub fn usage(said: impl Display) -> Failure {
        Failure::new(said, USAGE)
    }

    /// Something that the master needs is missing.
    pub fn cannot_start(said: impl Display) -> Failure {
        Failure::new(said, CANNOT_START)
    }
}

/// The end of a command: its exit code, or the message and the code of what failed.
pub fn ended(result: Result<ExitCode, Failure>) -> ExitCode {
    result.unwrap_or_else(|failure| {
        complain(&failure.said);
        ExitCode::from(failure.code)
    })
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Failure {
        Failure::new(error, FAILED)
    }
}

impl From<NotFree> for Failure {
    fn from(error: NotFree) -> Failure {
        Failure::new(error, FAILED)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::new(error, FAILED)
    }
}
