//! The values of `--workers`: a number, `auto`, or `-K` for all cores but K.

use super::WORKERS_MAX;
use std::str::FromStr;

/// How many workers to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// As many as there are usable cores, subject to affinity and cgroup quota.
    Auto,
    /// This many.
    Exactly(u32),
    /// As many as are needed, from the first number to the second.
    Between(u32, u32),
    /// This many fewer than there are usable cores, but at least one.
    CoresLess(u32),
}

/// An invalid value of `--workers`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WorkersError {
    /// Zero.
    #[error("0 workers would serve nobody; use 1 or more, or auto")]
    Zero,
    /// More than [`WORKERS_MAX`].
    #[error("{0} workers are more than the {WORKERS_MAX} that one maitred can have; auto uses one per core")]
    TooMany(u64),
    /// Not a number.
    #[error("expected a number, A..B, auto, or -K for all cores but K")]
    Form,
    /// The first number of a range is above the second.
    #[error("a range goes from the smaller number to the larger, as in 2..8")]
    Range,
}

impl FromStr for Workers {
    type Err = WorkersError;

    fn from_str(text: &str) -> Result<Workers, WorkersError> {
        if text == "auto" {
            return Ok(Workers::Auto);
        }
        if let Some((min, max)) = text.split_once("..") {
            return match (exactly(min)?, exactly(max)?) {
                (min, max) if min <= max => Ok(Workers::Between(min, max)),
                _ => Err(WorkersError::Range),
            };
        }
        if let Some(less) = text.strip_prefix('-') {
            return less.parse().map(Workers::CoresLess).map_err(|_| WorkersError::Form);
        }
        exactly(text).map(Workers::Exactly)
    }
}

fn exactly(text: &str) -> Result<u32, WorkersError> {
    match text.parse::<u64>() {
        Ok(0) => Err(WorkersError::Zero),
        Ok(n) => match u32::try_from(n) {
            Ok(workers) if workers <= WORKERS_MAX => Ok(workers),
            _ => Err(WorkersError::TooMany(n)),
        },
        Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => Err(WorkersError::TooMany(u64::MAX)),
        Err(_) => Err(WorkersError::Form),
    }
}

impl Workers {
    /// The least and the most, if it is a range.
    #[must_use]
    pub fn range(self) -> Option<(u32, u32)> {
        match self {
            Workers::Between(min, max) => Some((min, max)),
            Workers::Auto | Workers::Exactly(_) | Workers::CoresLess(_) => None,
        }
    }

    /// The number on a machine with this many usable cores; the least of a range.
    #[must_use]
    pub fn count(self, cores: u32) -> u32 {
        let count = match self {
            Workers::Auto => cores,
            Workers::Exactly(workers) | Workers::Between(workers, _) => workers,
            Workers::CoresLess(less) => cores.saturating_sub(less),
        };
        count.clamp(1, WORKERS_MAX)
    }
}

/// Usable cores: the affinity mask and the cgroup's quota count.
#[must_use]
pub fn usable_cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(WORKERS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_auto_and_all_but_some() {
        assert_eq!("4".parse(), Ok(Workers::Exactly(4)));
        assert_eq!("auto".parse::<Workers>().unwrap().count(6), 6);
        assert_eq!("-2".parse::<Workers>().unwrap().count(6), 4);
        assert_eq!("2..8".parse(), Ok(Workers::Between(2, 8)));
        assert_eq!((Workers::Between(2, 8).count(6), Workers::Between(2, 8).range()), (2, Some((2, 8))));
        assert_eq!(
            ("8..2".parse::<Workers>(), "0..2".parse::<Workers>()),
            (Err(WorkersError::Range), Err(WorkersError::Zero))
        );
        assert_eq!(
            ("2..".parse::<Workers>(), "2..2000".parse::<Workers>()),
            (Err(WorkersError::Form), Err(WorkersError::TooMany(2000)))
        );
        assert_eq!("-9".parse::<Workers>().unwrap().count(6), 1);
    }

    #[test]
    fn usable_cores_are_those_that_this_process_may_use() {
        let mask = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
        let allowed = (0..nix::sched::CpuSet::count()).filter(|cpu| mask.is_set(*cpu) == Ok(true)).count() as u32;
        let usable = usable_cores();
        // A quota may allow fewer.
        assert!(usable >= 1 && usable <= allowed, "{usable} of {allowed}");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!("0".parse::<Workers>(), Err(WorkersError::Zero));
        assert_eq!("1025".parse::<Workers>(), Err(WorkersError::TooMany(1025)));
        assert_eq!("99999999999999999999999".parse::<Workers>(), Err(WorkersError::TooMany(u64::MAX)));
        assert_eq!("".parse::<Workers>(), Err(WorkersError::Form));
        assert_eq!("four".parse::<Workers>(), Err(WorkersError::Form));
    }
}
