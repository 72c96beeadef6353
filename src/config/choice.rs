//! Which worker is next, and the slots' shares, as the operator sets them.

use super::Mode;
use crate::core::chance::Chance;
use crate::core::ids::Slot;
use crate::core::policy::{self, LeastConnections, RoundRobin};
use crate::core::source::Prefix;
use std::fmt;
use std::str::FromStr;

/// The largest weight (the same as HAProxy's).
pub const WEIGHT_MAX: u32 = 256;

/// `--policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The slots in turn.
    #[default]
    RoundRobin,
    /// The slot with the fewest open connections.
    LeastConnections,
    /// The less loaded of two randomly drawn slots.
    RandomTwo,
    /// By the client's address.
    SourceHash(Prefix),
}

impl Policy {
    /// Its name, without a prefix.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Policy::RoundRobin => "round-robin",
            Policy::LeastConnections => "least-connections",
            Policy::RandomTwo => "random-two",
            Policy::SourceHash(_) => "source-hash",
        }
    }

    /// Whether it needs to know how many connections a worker has open.
    #[must_use]
    pub fn counts_open(self) -> bool {
        match self {
            Policy::LeastConnections | Policy::RandomTwo => true,
            Policy::RoundRobin | Policy::SourceHash(_) => false,
        }
    }

    /// The policy itself; `seed` is for a policy that draws.
    #[must_use]
    pub fn begin(self, seed: u64) -> policy::Policy {
        match self {
            Policy::RoundRobin => policy::Policy::RoundRobin(RoundRobin::default()),
            Policy::LeastConnections => policy::Policy::LeastConnections(LeastConnections::default()),
            Policy::RandomTwo => policy::Policy::RandomTwo(Chance::new(seed)),
            Policy::SourceHash(_) => policy::Policy::SourceHash(RoundRobin::default()),
        }
    }

    /// Whether this policy and these weights work in a mode.
    ///
    /// # Errors
    /// Why not, and what to do instead.
    pub fn fits(self, mode: Mode, weights: &Weights) -> Result<(), String> {
        match (mode, self) {
            (Mode::Shared, _) if self != Policy::RoundRobin || *weights != Weights::default() => Err(
                "--policy and --weights need --mode handoff or kernel: in shared mode the kernel wakes whom it likes"
                    .to_owned(),
            ),
            (Mode::Kernel, Policy::RandomTwo) => Err("--policy random-two needs --mode handoff; in kernel mode there \
                are round-robin, source-hash and least-connections"
                .to_owned()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Policy::SourceHash(prefix) => write!(f, "/{prefix}"),
            _ => Ok(()),
        }
    }
}

/// Not a known policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The name is unknown.
    #[error("expected round-robin, least-connections, random-two or source-hash")]
    Name,
    /// The prefix is invalid.
    #[error("{0}, as in source-hash/24,56")]
    Prefix(#[from] crate::core::source::PrefixError),
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Policy, PolicyError> {
        match text.split_once('/') {
            None if text == "round-robin" => Ok(Policy::RoundRobin),
            None if text == "least-connections" => Ok(Policy::LeastConnections),
            None if text == "random-two" => Ok(Policy::RandomTwo),
            None if text == "source-hash" => Ok(Policy::SourceHash(Prefix::default())),
            Some(("source-hash", prefix)) => Ok(Policy::SourceHash(prefix.parse()?)),
            _ => Err(PolicyError::Name),
        }
    }
}

/// `--weights`: the share of each slot.
#[derive(Clone, Debug, Default)]
pub struct Weights(Vec<u32>);

impl Weights {
    /// A slot's weight; 1 beyond the list.
    #[must_use]
    pub fn of(&self, slot: Slot) -> u32 {
        self.0.get(slot.index()).copied().unwrap_or(1)
    }

    /// Slots that the list names.
    #[must_use]
    pub fn named(&self) -> usize {
        self.0.len()
    }
}

impl PartialEq for Weights {
    fn eq(&self, other: &Weights) -> bool {
        let longest = self.0.len().max(other.0.len()) as u32;
        (0..longest).map(Slot).all(|slot| self.of(slot) == other.of(slot))
    }
}

impl Eq for Weights {}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(if words.is_empty() { "1".to_owned() } else { words.join(",") }.as_str())
    }
}

/// Not a list of weights.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("weights are numbers from 1 to {WEIGHT_MAX}, one for each slot, as in 3,1,1,1")]
pub struct WeightsError;

impl FromStr for Weights {
    type Err = WeightsError;

    fn from_str(text: &str) -> Result<Weights, WeightsError> {
        let weight = |text: &str| text.trim().parse().ok().filter(|w| (1..=WEIGHT_MAX).contains(w));
        let weights: Option<Vec<u32>> = text.split(',').map(weight).collect();
        let fits = |weights: &Vec<u32>| weights.len() <= super::WORKERS_MAX as usize;
        weights.filter(fits).map(Weights).ok_or(WeightsError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for text in ["round-robin", "least-connections", "random-two", "source-hash/24,56"] {
            assert_eq!(text.parse::<Policy>().map(|policy| policy.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("source-hash".parse(), Ok(Policy::SourceHash(Prefix { v4: 32, v6: 64 })));
        assert_eq!("source-hash/24".parse(), Ok(Policy::SourceHash(Prefix { v4: 24, v6: 64 })));
        assert_eq!("random".parse::<Policy>(), Err(PolicyError::Name));
        assert_eq!("round-robin/24".parse::<Policy>(), Err(PolicyError::Name));
        assert!("source-hash/99".parse::<Policy>().is_err_and(|error| error.to_string().contains("24,56")));
    }

    const ALL: [Policy; 4] = [
        Policy::RoundRobin,
        Policy::LeastConnections,
        Policy::RandomTwo,
        Policy::SourceHash(Prefix { v4: 32, v6: 64 }),
    ];

    #[test]
    fn two_policies_go_by_load() {
        assert_eq!(ALL.map(Policy::counts_open), [false, true, true, false]);
    }

    #[test]
    fn each_begins_as_itself() {
        use policy::Policy::{LeastConnections, RandomTwo, RoundRobin, SourceHash};
        let begun = ALL.map(|policy| policy.begin(1));
        assert!(matches!(begun, [RoundRobin(_), LeastConnections(_), RandomTwo(_), SourceHash(_)]), "{begun:?}");
    }

    #[test]
    fn a_policy_needs_a_mode_that_can_do_it() {
        let (even, uneven): (Weights, Weights) = (Weights::default(), "2,1".parse().unwrap());
        let can = |mode, weights: &Weights| ALL.map(|policy| policy.fits(mode, weights).is_ok());
        assert_eq!(can(Mode::Handoff, &uneven), [true; 4]);
        assert_eq!(can(Mode::Kernel, &uneven), [true, true, false, true]);
        assert_eq!(can(Mode::Shared, &even), [true, false, false, false]);
        assert_eq!(can(Mode::Shared, &uneven), [false; 4]);
    }

    #[test]
    fn weights_are_written_as_they_are_read() {
        for text in ["3,1,2", "1,1", "256"] {
            assert_eq!(text.parse::<Weights>().unwrap().to_string(), text);
        }
        assert_eq!(Weights::default().to_string(), "1");
        assert_eq!("3,1,2".parse::<Weights>().unwrap().named(), 3);
        assert_ne!("3,1".parse::<Weights>(), "1,3".parse());
        let longest = vec!["1"; super::super::WORKERS_MAX as usize].join(",");
        assert_eq!(longest.parse(), Ok(Weights::default()));
        assert_eq!(format!("{longest},1").parse::<Weights>(), Err(WeightsError));
    }

    #[test]
    fn slots_beyond_the_list_weigh_one() {
        let weights: Weights = "3, 1,2".parse().unwrap();
        assert_eq!([0, 1, 2, 3].map(|slot| weights.of(Slot(slot))), [3, 1, 2, 1]);
        assert_eq!("1,1".parse(), Ok(Weights::default()));
        assert!(["0", "", "3,,1", "257", "a", "-1"].iter().all(|text| text.parse::<Weights>().is_err()));
    }
}
