//! How the worker of a connection is chosen, as the configuration says.

use crate::config::Config;
use crate::config::choice::{self, Weights};
use crate::core::source::{Prefix, Source};
use crate::opens::{Countable, Opens};
use crate::wire::peer;
use std::rc::Rc;
use std::time::Duration;

/// How a worker is chosen.
#[derive(Debug)]
pub struct Choice {
    /// The share of each slot.
    pub weights: Weights,
    /// How much of a client's address the policy uses, if any.
    pub prefix: Option<Prefix>,
    /// How much of the address counts as one source for limits, if there are any.
    pub source_prefix: Option<Prefix>,
    /// Connections that one worker may have open.
    pub most_open: u32,
    /// How long a fresh worker's share grows.
    pub growth: Option<Duration>,
    pub opens: Rc<Opens>,
    /// Whether open connections can be counted.
    pub countable: Countable,
}

impl Choice {
    /// As the configuration says, for connections that can be counted to this extent.
    #[must_use]
    pub fn new(config: &Config, opens: Rc<Opens>, countable: Countable) -> Choice {
        let admission = &config.admission;
        let limited = opens.sources.borrow().are_limited();
        Choice {
            weights: config.weights.clone(),
            prefix: match config.policy {
                choice::Policy::SourceHash(prefix) => Some(prefix),
                _ => None,
            },
            source_prefix: limited.then_some(admission.source_prefix),
            most_open: admission.max_open_per_worker.unwrap_or(u32::MAX),
            // A client must reach the same slot again after a re-fork.
            growth: admission.slow_start.filter(|_| !matches!(config.policy, choice::Policy::SourceHash(_))),
            opens,
            countable,
        }
    }

    /// Where a client comes from, as far as a prefix says that it matters.
    #[must_use]
    pub fn source(peer: &[u8], prefix: Option<Prefix>) -> Option<Source> {
        prefix.and_then(|prefix| Some(Source::of(peer::decode(peer)?.ip(), prefix)))
    }

    /// The source that the limits use.
    #[must_use]
    pub fn limited_source(&self, peer: &[u8]) -> Option<Source> {
        Choice::source(peer, self.source_prefix)
    }
}
