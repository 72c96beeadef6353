//! How many connections each client address has open, and how fast they come: those beyond a limit are refused.

use super::moment::Moment;
use super::source::Source;
use std::collections::HashMap;
use std::time::Duration;

/// Sources that are remembered at a time; further ones are not tracked, and their connections are let in.
pub const SOURCES_MAX: usize = 65_536;
/// How often a full table is searched for sources that can be dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The connections allowed in this time may all come at once.
const BURST: Duration = Duration::from_secs(1);

/// Limits for one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections that it may have open.
    pub open: Option<u32>,
    /// New connections per second.
    pub rate: Option<u32>,
}

/// The limit that a source has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// The limit of open connections.
    Open,
    /// The limit of new connections per second.
    Rate,
}

/// The sources that currently matter.
#[derive(Debug, Default)]
pub struct Sources {
    limits: Limits,
    known: HashMap<Source, Known>,
    swept: Moment,
    /// Connections that were let in but could not be tracked.
    unknown: u64,
}

/// What is remembered about one source.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    open: u32,
    /// When none of its rate will be used up any more: the "theoretical arrival time" of the generic cell rate
    /// algorithm (ITU-T I.371), a leaky bucket in one number.
    idle_at: Moment,
}

impl Sources {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Sources {
        Sources { limits, ..Sources::default() }
    }

    /// Whether any limit is set.
    #[must_use]
    pub fn are_limited(&self) -> bool {
        self.limits != Limits::default()
    }

    /// Sources that are currently remembered.
    #[must_use]
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Connections that were let in but could not be tracked.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Lets a connection in, or says which limit its source has reached.
    ///
    /// # Errors
    /// [`Beyond`]; a refused connection does not count as having come.
    pub fn admit(&mut self, now: Moment, source: Source) -> Result<(), Beyond> {
        let Some(mut after) = self.remembered(now, source) else {
            self.unknown += 1;
            return Ok(());
        };
        if let Some(rate) = self.limits.rate {
            let from = after.idle_at.max(now);
            after.idle_at = from + Duration::from_secs(1) / rate.max(1);
            if after.idle_at.since(now) > BURST {
                return Err(Beyond::Rate);
            }
        }
        if self.limits.open.is_some_and(|most| after.open >= most) {
            return Err(Beyond::Open);
        }
        self.known.insert(source, after);
        Ok(())
    }

    /// What is known about a source, remembered from now on; none when there is no room.
    fn remembered(&mut self, now: Moment, source: Source) -> Option<Known> {
        if !self.known.contains_key(&source) {
            if self.known.len() >= SOURCES_MAX && now.since(self.swept) >= SWEEP_EVERY {
                self.swept = now;
                self.known.retain(|_, known| known.open > 0 || known.idle_at > now);
            }
            if self.known.len() >= SOURCES_MAX {
                return None;
            }
            self.known.insert(source, Known::default());
        }
        self.known.get(&source).copied()
    }

    /// Counts an open connection of a source; false when there is no room to remember the source.
    pub fn opened(&mut self, source: Source) -> bool {
        let room = self.known.len() < SOURCES_MAX || self.known.contains_key(&source);
        if room {
            self.known.entry(source).or_default().open += 1;
        }
        room
    }

    /// Uncounts a closed connection of a source that was counted as open.
    pub fn closed(&mut self, now: Moment, source: Source) {
        let Some(known) = self.known.get_mut(&source) else { return };
        known.open = known.open.saturating_sub(1);
        if known.open == 0 && known.idle_at <= now {
            self.known.remove(&source);
        }
    }

    /// Counts a connection that is already open, as an earlier program in this process knew it.
    pub fn remember(&mut self, source: Source) {
        self.known.entry(source).or_default().open += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Prefix;
    use super::*;
    use std::net::Ipv4Addr;

    fn at(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(1_000_000 + ms))
    }

    fn source(number: u32) -> Source {
        Source::of(Ipv4Addr::from(number).into(), Prefix::default())
    }

    #[test]
    fn a_source_may_have_so_many_open_and_one_more_for_each_that_is_closed() {
        let mut sources = Sources::new(Limits { open: Some(2), rate: None });
        for _ in 0..2 {
            assert_eq!(sources.admit(at(0), source(1)), Ok(()));
            assert!(sources.opened(source(1)));
        }
        assert_eq!(sources.admit(at(0), source(1)), Err(Beyond::Open));
        assert_eq!(sources.admit(at(0), source(2)), Ok(()));
        sources.closed(at(0), source(1));
        assert_eq!(sources.admit(at(0), source(1)), Ok(()));
    }

    #[test]
    fn a_rate_lets_a_second_s_worth_in_at_once_and_then_one_after_the_other() {
        let mut sources = Sources::new(Limits { open: None, rate: Some(10) });
        let admitted = |sources: &mut Sources, ms| (0..50).filter(|_| sources.admit(at(ms), source(1)).is_ok()).count();
        assert_eq!(admitted(&mut sources, 0), 10);
        assert_eq!(admitted(&mut sources, 99), 0);
        assert_eq!(admitted(&mut sources, 300), 3);
        assert_eq!(admitted(&mut sources, 60_000), 10);
    }

    #[test]
    fn sources_without_anything_open_are_forgotten() {
        let mut sources = Sources::new(Limits { open: Some(2), rate: None });
        for number in 0..100 {
            sources.admit(at(0), source(number)).unwrap();
            sources.opened(source(number));
            sources.closed(at(0), source(number));
        }
        assert_eq!(sources.known(), 0);
    }

    #[test]
    fn without_a_limit_nobody_is_limited() {
        assert!(!Sources::new(Limits::default()).are_limited());
        assert!(Sources::new(Limits { open: Some(1), rate: None }).are_limited());
        assert!(Sources::new(Limits { open: None, rate: Some(1) }).are_limited());
    }

    #[test]
    fn only_a_full_table_is_searched_and_those_that_matter_stay() {
        let mut sources = Sources::new(Limits { open: Some(9), rate: Some(1) });
        sources.admit(at(0), source(0)).unwrap();
        sources.admit(at(60_000), source(1)).unwrap();
        assert_eq!(sources.known(), 2, "there is room, so nobody is forgotten");
        assert!(sources.opened(source(0)));
        let last = SOURCES_MAX as u32 - 1;
        (2..=last).for_each(|number| sources.admit(at(60_000), source(number)).unwrap());
        assert_eq!(sources.known(), SOURCES_MAX);
        // A known source has room in a full table, another does not.
        assert!(sources.opened(source(0)) && !sources.opened(source(last + 1)));
        // After one second every rate is unused again, even at that very moment.
        sources.admit(at(61_000), source(last + 1)).unwrap();
        assert_eq!((sources.known(), sources.unknown()), (2, 0), "the open one and the new one");
    }

    #[test]
    fn a_source_that_came_a_moment_ago_is_remembered_when_it_has_nothing_open() {
        let mut sources = Sources::new(Limits { open: None, rate: Some(1) });
        sources.admit(at(0), source(1)).unwrap();
        assert!(sources.opened(source(1)));
        sources.closed(at(500), source(1));
        assert_eq!(sources.known(), 1);
        assert_eq!(sources.admit(at(500), source(1)), Err(Beyond::Rate));
    }

    #[test]
    fn what_another_program_knew_counts() {
        let mut sources = Sources::new(Limits { open: Some(2), rate: None });
        sources.remember(source(1));
        assert_eq!(sources.admit(at(0), source(1)), Ok(()));
        sources.remember(source(1));
        assert_eq!(sources.admit(at(0), source(1)), Err(Beyond::Open));
    }

    #[test]
    fn a_flood_of_sources_is_let_in_and_costs_bounded_memory() {
        let mut sources = Sources::new(Limits { open: Some(1), rate: Some(1) });
        let flood = SOURCES_MAX as u32 + 1_000;
        assert!((0..flood).all(|number| sources.admit(at(0), source(number)).is_ok()));
        assert_eq!((sources.known(), sources.unknown()), (SOURCES_MAX, 1_000));
        assert!(!sources.opened(source(flood - 1)));
        // When that is over, there is room again.
        assert_eq!(sources.admit(at(5_000), source(flood)), Ok(()));
        assert_eq!((sources.known(), sources.unknown()), (1, 1_000));
    }
}
