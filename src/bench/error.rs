//! Why a measurement cannot be made or goes no further.

use super::load::tally::Ending;
use crate::control::client::ClientError;
use crate::sys::spawn::SpawnError;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The lab itself got no descriptor, thread or process.
    #[error("cannot {what}: {source}")]
    Own {
        /// What it was about to do.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A subject could not even be executed.
    #[error("{name} cannot be started: {source}")]
    Spawn {
        /// The subject.
        name: String,
        /// Why not.
        source: SpawnError,
    },
    /// A subject ended before it served.
    #[error("{name} did not start: {last_words}")]
    DidNotStart {
        /// The subject.
        name: String,
        /// The last thing that it wrote on standard error.
        last_words: String,
    },
    /// A subject did not serve in time.
    #[error("{name} was not ready within {}: {missing}", humantime::format_duration(*after))]
    NotReady {
        /// The subject.
        name: String,
        /// How long was waited.
        after: Duration,
        /// What did not happen.
        missing: String,
    },
    /// The front does not say how it is.
    #[error("{name} does not answer for its state: {source}")]
    Status {
        /// The subject.
        name: String,
        /// Why not.
        source: ClientError,
    },
    /// The workers listen on no TCP address, or not on the one asked for.
    #[error("{name} does not listen on {wanted}; it listens on {}", or_nothing(there))]
    NoListener {
        /// The subject.
        name: String,
        /// What was looked for.
        wanted: String,
        /// What is there.
        there: Vec<String>,
    },
    /// The workers listen on several addresses.
    #[error("{name} listens on {}; choose one with --address", there.join(" and "))]
    SeveralListeners {
        /// The subject.
        name: String,
        /// What is there.
        there: Vec<String>,
    },
    /// Clients cannot come from many addresses.
    #[error(
        "{name} serves at {address}: only to the IPv4 loopback can clients come from many addresses; leave --sources out"
    )]
    Sources {
        /// The subject.
        name: String,
        /// Where it serves.
        address: SocketAddr,
    },
    /// The first request was not answered.
    #[error("the server at {address}{} cannot be measured: {}", called(name, address), ending.reason())]
    Unanswered {
        /// The subject.
        name: String,
        /// Where it was asked.
        address: SocketAddr,
        /// What happened.
        ending: Ending,
    },
}

fn or_nothing(there: &[String]) -> String {
    if there.is_empty() { "nothing".to_owned() } else { there.join(" and ") }
}

/// The name, unless it is the address again.
fn called(name: &str, address: &SocketAddr) -> String {
    if name == address.to_string() { String::new() } else { format!(" ({name})") }
}
