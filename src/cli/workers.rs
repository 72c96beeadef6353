//! The options about workers that `run` and `bench` share.

use crate::config::choice::{Policy, Weights};
use crate::config::preset::Preset;
use crate::config::workers::{Workers, usable_cores};
use crate::config::{Adapter, DEPTH_DEFAULT, DEPTH_MAX, Mode};
use clap::{Args, ValueEnum};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Copies of the server: a number, auto (usable cores), -K (usable cores less K), or A..B (as many as are needed)
    #[arg(short, long, value_name = "N", env = "WEB_CONCURRENCY", default_value = "auto", allow_hyphen_values = true)]
    pub workers: Workers,

    /// Which worker is next: round-robin, least-connections, random-two, or source-hash with the number of bits of the
    /// client's address that count, as in source-hash/24 (IPv4) or source-hash/24,56 (and IPv6)
    #[arg(long, value_name = "POLICY", default_value = "round-robin")]
    pub policy: Policy,

    /// The slots' shares, as in 3,1,1,1 (1 to 256); slots beyond the list have 1
    #[arg(long, value_name = "N,…", default_value = "1")]
    pub weights: Weights,

    /// How the command is made to take part; auto looks at the executable
    #[arg(long, value_enum, default_value = "auto")]
    pub adapter: Adapter,

    /// Hand a program its listening sockets in its own way (shared and kernel mode, with --bind)
    #[arg(long, value_enum, value_name = "PROGRAM")]
    pub preset: Option<Preset>,

    /// Untaken connections that a worker may have before it gets no more
    #[arg(long, value_name = "N", default_value_t = DEPTH_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEPTH_MAX)))]
    pub depth: u32,

    /// Add a variable to the workers' environment, in which {slot}, {worker} and {generation} are replaced; may be
    /// given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = variable)]
    pub env: Vec<(OsString, OsString)>,

    /// Working directory of the workers
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,

    /// Signal that asks a worker to end
    #[arg(long, value_name = "SIG", default_value = "TERM", value_parser = signal)]
    pub stop_signal: Signal,
}

impl WorkerArgs {
    /// The resulting number of workers on this machine.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.workers.count(usable_cores())
    }

    /// The command-line words for the policy and the weights, in the modes that accept them.
    #[must_use]
    pub fn choice(&self, mode: Mode) -> Vec<OsString> {
        match mode {
            Mode::Shared => Vec::new(),
            Mode::Handoff | Mode::Kernel => {
                let words = ["--policy", &self.policy.to_string(), "--weights", &self.weights.to_string()];
                words.map(OsString::from).to_vec()
            }
        }
    }

    /// The command-line words for the other options, except the number.
    #[must_use]
    pub fn words(&self) -> Vec<OsString> {
        let name = |value: Option<clap::builder::PossibleValue>| {
            OsString::from(value.map(|value| value.get_name().to_owned()).unwrap_or_default())
        };
        let mut words: Vec<OsString> = vec![
            "--adapter".into(),
            name(self.adapter.to_possible_value()),
            "--depth".into(),
            self.depth.to_string().into(),
            "--stop-signal".into(),
            self.stop_signal.as_str().into(),
        ];
        if let Some(preset) = self.preset {
            words.extend(["--preset".into(), name(preset.to_possible_value())]);
        }
        for (key, value) in &self.env {
            let mut variable = key.clone();
            variable.push("=");
            variable.push(value);
            words.extend(["--env".into(), variable]);
        }
        if let Some(dir) = &self.cwd {
            words.extend(["--cwd".into(), dir.into()]);
        }
        words
    }
}

fn variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// A signal as typed: `TERM`, `SIGTERM` or its number.
///
/// # Errors
/// Says what a signal looks like.
pub fn signal(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let by_name = Signal::from_str(&upper).or_else(|_| Signal::from_str(&format!("SIG{upper}")));
    let by_number = || text.parse::<i32>().ok().and_then(|n| Signal::try_from(n).ok());
    by_name
        .ok()
        .or_else(by_number)
        .ok_or_else(|| "expected a signal's name or number, as in TERM, INT or QUIT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_names() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(signal(text), Ok(Signal::SIGTERM), "{text}");
        }
        assert!(signal("TERMINATE").is_err());
        assert!(signal("0").is_err());
    }
}
