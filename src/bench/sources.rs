//! Which slot serves which of the clients' addresses, for policies based on the address (`--sources`).

use super::load::connect::source;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The addresses in one run, as far as the server reports its slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Addresses with at least one answered connection.
    pub answered: u64,
    /// Addresses that more than one slot answered.
    pub mixed: u64,
    /// Connections answered by a slot other than their address's main slot.
    pub astray: u64,
    /// The main slot of each address: the one that answered most of its connections.
    pub slot_of_source: BTreeMap<Ipv4Addr, u16>,
}

impl Sources {
    /// Computed from the connections of each address, by slot.
    #[must_use]
    pub fn of(by_source: &[Vec<u32>]) -> Sources {
        let mut all = Sources { answered: 0, mixed: 0, astray: 0, slot_of_source: BTreeMap::new() };
        for (index, slots) in (0u32..).zip(by_source) {
            let most = slots.iter().copied().max().unwrap_or(0);
            // If several are equal, the first.
            let Some((slot, count)) = (0u16..).zip(slots).find(|(_, count)| **count == most && most > 0) else {
                continue;
            };
            all.answered += 1;
            all.mixed += u64::from(slots.iter().filter(|count| **count > 0).count() > 1);
            all.astray += slots.iter().map(|count| u64::from(*count)).sum::<u64>() - u64::from(*count);
            all.slot_of_source.insert(source(index), slot);
        }
        all
    }

    /// Addresses whose main slot differs in the other run.
    fn differs_from(&self, other: &Sources) -> u64 {
        let differs =
            |(source, slot): &(&Ipv4Addr, &u16)| other.slot_of_source.get(*source).is_some_and(|s| s != *slot);
        self.slot_of_source.iter().filter(differs).count() as u64
    }
}

/// How consistently addresses stayed with their slots over all runs of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steadiness {
    /// Addresses with at least one answered connection, in the run with the most.
    pub answered: u64,
    /// Addresses that more than one slot answered, in the run with the most.
    pub mixed: u64,
    /// Connections that another slot answered, in all runs together.
    pub astray: u64,
    /// Addresses whose main slot differs from that of the first run, in the run with the most: each run has a front of
    /// its own.
    pub moved: u64,
}

impl Steadiness {
    /// The figures over these runs; none if they were not requested.
    #[must_use]
    pub fn over<'a>(runs: impl Iterator<Item = &'a Sources>) -> Option<Steadiness> {
        let runs: Vec<&Sources> = runs.collect();
        let first = runs.first()?;
        let most = |of: &dyn Fn(&Sources) -> u64| runs.iter().map(|run| of(run)).max().unwrap_or(0);
        Some(Steadiness {
            answered: most(&|run| run.answered),
            mixed: most(&|run| run.mixed),
            astray: runs.iter().map(|run| run.astray).sum(),
            moved: most(&|run| first.differs_from(run)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_with_the_slot_that_answered_it_most() {
        let all = Sources::of(&[vec![0, 3], vec![], vec![2, 2, 1], vec![0, 0]]);
        assert_eq!((all.answered, all.mixed, all.astray), (2, 1, 3));
        let at = |last| Ipv4Addr::new(127, 0, 0, last);
        assert_eq!(all.slot_of_source, BTreeMap::from([(at(2), 1), (at(4), 0)]));
    }

    #[test]
    fn addresses_that_moved_between_runs_are_counted() {
        let runs = [vec![vec![1], vec![0, 1]], vec![vec![0, 1], vec![0, 1]], vec![vec![1], vec![0, 1, 1]]];
        let runs = runs.map(|by_source| Sources::of(&by_source));
        let over = Steadiness::over(runs.iter()).unwrap();
        assert_eq!(over, Steadiness { answered: 2, mixed: 1, astray: 1, moved: 1 });
        assert_eq!(Steadiness::over([].into_iter()), None);
    }
}
