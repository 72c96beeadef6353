//! The options of `run` for admission.

use crate::config::admission::{Admission, WhenFull};
use crate::config::life::duration;
use crate::core::source::Prefix;
use clap::Args;
use std::time::Duration;

/// Longest time that the kernel takes for `TCP_DEFER_ACCEPT`: anything longer becomes the 255 retries that it counts
/// in a byte.
const DEFER_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
#[command(next_help_heading = "Admission")]
pub struct AdmissionArgs {
    /// Connections that may be open at all workers together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_open: Option<u32>,

    /// Connections that one worker may have open
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_open_per_worker: Option<u32>,

    /// What happens to a connection beyond those limits
    #[arg(long, value_enum, default_value = "wait")]
    when_full: WhenFull,

    /// How long a connection may wait to be admitted before it is refused; 30s when a limit makes it wait
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_wait: Option<Duration>,

    /// Connections that one client address may have open; beyond that it is refused
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_open_per_source: Option<u32>,

    /// New connections of one client address per second, as many at once; beyond that it is refused
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_rate_per_source: Option<u32>,

    /// How many bits of an address make a source for those limits: of IPv4, or of IPv4 and IPv6
    ///
    /// 32,64 by default.
    #[arg(long, value_name = "BITS")]
    source_prefix: Option<Prefix>,

    /// A new worker's share grows from nearly nothing to its full share in this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    slow_start: Option<Duration>,

    /// Hand a connection over only when its first bytes have arrived, or this time has passed (30s)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "30s",
          value_parser = duration)]
    defer: Option<Duration>,
}

impl AdmissionArgs {
    /// The settings that these options mean.
    ///
    /// # Errors
    /// What makes no sense, in words.
    pub fn meant(self) -> Result<Admission, String> {
        let positive = |name, time: Option<Duration>| match time {
            Some(Duration::ZERO) => Err(format!("--{name} 0 makes no sense; leave it out instead")),
            time => Ok(time),
        };
        let defer = positive("defer", self.defer)?;
        if let Some(defer) = defer.filter(|defer| *defer < Duration::from_secs(1) || *defer > DEFER_MAX) {
            return Err(format!("--defer {defer:?}: the kernel counts whole seconds, from 1s to 1h"));
        }
        let per_source = self.max_open_per_source.or(self.max_rate_per_source).is_some();
        if self.source_prefix.is_some() && !per_source {
            return Err("--source-prefix is for limits per source, as in --max-open-per-source 100; a policy has its own, as in \
                --policy source-hash/24"
                .to_owned());
        }
        Ok(Admission {
            max_open: self.max_open,
            max_open_per_worker: self.max_open_per_worker,
            when_full: self.when_full,
            max_wait: self.max_wait,
            max_open_per_source: self.max_open_per_source,
            max_rate_per_source: self.max_rate_per_source,
            source_prefix: self.source_prefix.unwrap_or_default(),
            slow_start: positive("slow-start", self.slow_start)?,
            defer,
        })
    }
}
