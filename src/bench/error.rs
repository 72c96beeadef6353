//! Why a measurement cannot be made or cannot continue.

use super::load::tally::Ending;
use crate::control::client::ClientError;
use crate::sys::process::spawn::SpawnError;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The lab itself could not get a descriptor, thread or process.
    #[error("cannot {what}: {source}")]
    Own {
        /// What it was trying to do.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A subject could not even be executed.
    #[error("{name} cannot be started: {source}")]
    Spawn {
        /// The subject.
        name: String,
        /// The cause.
        source: SpawnError,
    },
    /// A subject ended before it served.
    #[error("{name} did not start: {last_words}")]
    DidNotStart {
        /// The subject.
        name: String,
        /// The last thing that it wrote to standard error.
        last_words: String,
    },
    /// A subject did not serve in time.
    #[error("{name} was not ready within {}: {missing}", humantime::format_duration(*after))]
    NotReady {
        /// The subject.
        name: String,
        /// How long the lab waited.
        after: Duration,
        /// What did not happen.
        missing: String,
    },
    /// The front does not report its state.
    #[error("{name} does not answer for its state: {source}")]
    Status {
        /// The subject.
        name: String,
        /// The cause.
        source: ClientError,
    },
    /// The workers listen on no TCP address, or not on the one asked for.
    #[error("{name} does not listen on {wanted}; it listens on {}", or_nothing(there))]
    NoListener {
        /// The subject.
        name: String,
        /// The wanted address.
        wanted: String,
        /// The existing listeners.
        there: Vec<String>,
    },
    /// The workers listen on several addresses.
    #[error("{name} listens on {}; choose one with --address", there.join(" and "))]
    SeveralListeners {
        /// The subject.
        name: String,
        /// The existing listeners.
        there: Vec<String>,
    },
    /// Clients cannot come from many addresses.
    #[error(
        "{name} serves at {address}: only to the IPv4 loopback can clients come from many addresses; leave --sources out"
    )]
    Sources {
        /// The subject.
        name: String,
        /// Its address.
        address: SocketAddr,
    },
    /// The first request was not answered.
    #[error("the server at {address}{} cannot be measured: {}", called(name, address), ending.reason())]
    Unanswered {
        /// The subject.
        name: String,
        /// The address of the request.
        address: SocketAddr,
        /// What happened.
        ending: Ending,
    },
}

fn or_nothing(there: &[String]) -> String {
    if there.is_empty() { "nothing".to_owned() } else { there.join(" and ") }
}

/// The name, unless it is the same as the address.
fn called(name: &str, address: &SocketAddr) -> String {
    if name == address.to_string() { String::new() } else { format!(" ({name})") }
}
