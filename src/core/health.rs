//! Whether a worker that should serve really does: it takes the connections that wait for it, answers its probes, and
//! has not reached a limit. The facts and `now` come in, verdicts go out; [`crate::master`] collects the facts and
//! carries out the verdicts.

use super::fleet::{Sign, Signs};
use super::moment::Moment;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The number of `PING`s that a worker may miss.
pub const PINGS_MISSED: u32 = 3;

/// The age from which a worker is replaced because it asks for that. One that asks at once, as its successors will, is
/// forked again at this pace and no faster.
pub const ASKS_FROM: Duration = Duration::from_secs(5);

/// The number of looks at the workers that may be missed before it is clear that this process stood still.
pub const LOOKS_MISSED: u32 = 4;

/// Whether this process stood still since the last look, `gap` ago: looks come every `rhythm`, after a rest of at most
/// `rest`. The workers are not to blame for messages that this process did not receive meanwhile.
#[must_use]
pub fn stood_still(gap: Duration, rhythm: Duration, rest: Duration) -> bool {
    gap > rest + rhythm.saturating_mul(LOOKS_MISSED)
}

/// What is remembered about the health of one worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Health {
    /// Connections that it had taken at the last look.
    taken: u64,
    /// When it last took a connection, or had none to take.
    pub moved: Moment,
    /// What the kernel had counted for its slot when the worker started, if the kernel counts.
    pub base: u64,
    /// Since when it gets connections; its share grows from then on.
    #[serde(default)]
    pub serves_since: Moment,
    pinged: Option<Moment>,
    ping: u64,
    /// When it last answered a `PING`; a worker that never answered one is not expected to.
    pub ponged: Option<Moment>,
    /// When it last sent `WATCHDOG=1`; a worker that never sent it is not expected to.
    pub watchdog: Option<Moment>,
    /// Whether its replacement was asked for.
    worn: bool,
    /// Whether it asked for that itself.
    #[serde(default)]
    pub asks: bool,
}

/// The limits for a worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// How long it may take none of the connections that wait.
    pub stall: Option<Duration>,
    /// How often it is sent a `PING`.
    pub heartbeat: Option<Duration>,
    /// How often it has to send `WATCHDOG=1`.
    pub watchdog: Option<Duration>,
    /// The number of connections after which it is replaced.
    pub max_connections: Option<u64>,
    /// The age at which it is replaced.
    pub max_age: Option<Duration>,
    /// The size in bytes at which it is replaced.
    pub max_rss: Option<u64>,
    /// The factor for the last three, so that not all workers are replaced at once.
    pub share: f64,
}

/// The facts about a worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Connections that wait for it.
    pub waiting: u64,
    /// Connections that it has taken.
    pub taken: u64,
    /// Connections that were given to it.
    pub connections: u64,
    /// Its age.
    pub age: Duration,
    /// The signs so far that it does not work.
    pub signs: Signs,
    /// Whether it is excluded from connections because of that.
    pub excluded: bool,
}

/// What follows from the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A sign that it does not work, and for how long that has been so.
    Stalled(Sign, Duration),
    /// That sign is gone.
    Recovered(Sign),
    /// Send it a `PING` with this number.
    Ping(u64),
    /// It missed its watchdog: it was silent for longer than allowed.
    MissedWatchdog {
        /// How long it may be silent.
        limit: Duration,
        /// How long it was silent.
        silent: Duration,
    },
    /// It has reached a limit.
    Worn,
    /// It is excluded and no connection waits for it, so only a connection from the master can show whether it works.
    Bait,
}

impl Health {
    /// Discounts a time in which this process could not have heard from the worker.
    pub fn excuse(&mut self, time: Duration) {
        self.moved = self.moved + time;
        for at in [&mut self.pinged, &mut self.ponged, &mut self.watchdog] {
            *at = at.map(|at| at + time);
        }
    }

    /// No connection waited for it at the last look, after which this process rested: what waits now came later than
    /// this.
    pub fn had_none_until(&mut self, lately: Moment) {
        self.moved = self.moved.max(lately);
    }

    /// Takes one look at the worker.
    pub fn look(&mut self, now: Moment, facts: &Facts, limits: &Limits) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let moves = facts.taken > self.taken;
        if moves || (facts.waiting == 0 && !facts.excluded) {
            self.moved = now;
        }
        self.taken = facts.taken;
        let (stalled, still) = (facts.signs.has(Sign::Untaken), now.since(self.moved));
        if stalled && moves {
            verdicts.push(Verdict::Recovered(Sign::Untaken));
        } else if !stalled && limits.stall.is_some_and(|stall| still >= stall) && facts.waiting > 0 {
            verdicts.push(Verdict::Stalled(Sign::Untaken, still));
        }
        if let Some(every) = limits.heartbeat {
            self.ask(now, every, facts.signs.has(Sign::Heartbeat), &mut verdicts);
        }
        if let Some((limit, at)) = limits.watchdog.zip(self.watchdog).filter(|(limit, at)| now.since(*at) > *limit) {
            self.watchdog = None;
            verdicts.push(Verdict::MissedWatchdog { limit, silent: now.since(at) });
        }
        let enough = limits.max_connections.is_some_and(|most| facts.connections as f64 >= most as f64 * limits.share);
        let old = limits.max_age.is_some_and(|most| facts.age >= most.mul_f64(limits.share));
        let asks = self.asks && facts.age >= ASKS_FROM;
        if (enough || old || asks) && !std::mem::replace(&mut self.worn, true) {
            verdicts.push(Verdict::Worn);
        }
        if facts.excluded && stalled && facts.waiting == 0 && !moves {
            verdicts.push(Verdict::Bait);
        }
        verdicts
    }

    fn ask(&mut self, now: Moment, every: Duration, silent: bool, verdicts: &mut Vec<Verdict>) {
        if self.pinged.is_none_or(|at| now.since(at) >= every) {
            self.pinged = Some(now);
            self.ping += 1;
            verdicts.push(Verdict::Ping(self.ping));
        }
        let since = self.ponged.map(|at| now.since(at));
        let late = since.filter(|since| *since > every.saturating_mul(PINGS_MISSED));
        match (late, silent) {
            (Some(since), false) => verdicts.push(Verdict::Stalled(Sign::Heartbeat, since)),
            (None, true) => verdicts.push(Verdict::Recovered(Sign::Heartbeat)),
            (Some(_), true) | (None, false) => {}
        }
    }

    /// Whether it has grown too big; reported once.
    pub fn has_grown(&mut self, rss_bytes: u64, limits: &Limits) -> bool {
        let too_big = limits.max_rss.is_some_and(|most| rss_bytes as f64 >= most as f64 * limits.share);
        too_big && !std::mem::replace(&mut self.worn, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Moment {
        Moment::default() + SECOND * seconds
    }

    fn limits() -> Limits {
        Limits { share: 1.0, ..Limits::default() }
    }

    fn signs(sign: Sign) -> Signs {
        let mut signs = Signs::default();
        signs.set(sign);
        signs
    }

    #[test]
    fn a_worker_that_asks_is_replaced_once_and_not_too_soon() {
        let mut health = Health { asks: true, ..Health::default() };
        let young = Facts { age: ASKS_FROM - SECOND, ..Facts::default() };
        assert_eq!(health.look(at(1), &young, &limits()), []);
        let older = Facts { age: ASKS_FROM, ..young };
        assert_eq!(health.look(at(2), &older, &limits()), [Verdict::Worn]);
        assert_eq!(health.look(at(3), &older, &limits()), []);
    }

    #[test]
    fn a_worker_is_stalled_while_something_waits_and_it_takes_nothing() {
        let limits = Limits { stall: Some(SECOND * 2), ..limits() };
        let mut health = Health::default();
        let waits = Facts { waiting: 1, ..Facts::default() };
        // No connection waited until now.
        assert_eq!(health.look(at(5), &Facts::default(), &limits), []);
        assert_eq!(health.look(at(6), &waits, &limits), []);
        let stalled = [Verdict::Stalled(Sign::Untaken, SECOND * 2)];
        assert_eq!(health.look(at(7), &waits, &limits), stalled);
        // It takes one: it works again.
        let takes = Facts { taken: 1, signs: signs(Sign::Untaken), ..waits };
        assert_eq!(health.look(at(8), &takes, &limits), [Verdict::Recovered(Sign::Untaken)]);
    }

    #[test]
    fn what_came_during_a_rest_did_not_wait_all_of_it() {
        let limits = Limits { stall: Some(SECOND * 2), ..limits() };
        let mut health = Health::default();
        health.had_none_until(at(9));
        let waits = Facts { waiting: 1, ..Facts::default() };
        assert_eq!(health.look(at(10), &waits, &limits), []);
        health.had_none_until(at(3));
        assert_eq!(health.look(at(11), &waits, &limits), [Verdict::Stalled(Sign::Untaken, SECOND * 2)]);
    }

    #[test]
    fn this_process_stood_still_when_more_than_four_looks_are_missing() {
        assert!(!stood_still(SECOND * 4, SECOND, Duration::ZERO));
        assert!(stood_still(SECOND * 5, SECOND, Duration::ZERO));
        assert!(!stood_still(SECOND * 5, SECOND, SECOND));
        assert!(stood_still(Duration::MAX, SECOND, SECOND));
    }

    #[test]
    fn one_that_is_passed_over_gets_a_bait_when_nothing_waits_for_it() {
        let facts = Facts { signs: signs(Sign::Untaken), excluded: true, ..Facts::default() };
        let limits = Limits { stall: Some(SECOND), ..limits() };
        assert_eq!(Health::default().look(at(9), &facts, &limits), [Verdict::Bait]);
        assert_eq!(Health::default().look(at(9), &Facts { waiting: 1, ..facts }, &limits), []);
    }

    #[test]
    fn one_that_is_passed_over_for_another_reason_is_not_blamed_for_taking_nothing() {
        let facts = Facts { signs: signs(Sign::Heartbeat), excluded: true, ..Facts::default() };
        let limits = Limits { stall: Some(SECOND), ..limits() };
        assert_eq!(Health::default().look(at(9), &facts, &limits), []);
    }

    #[test]
    fn who_never_answered_is_not_held_to_it_and_who_did_may_miss_three() {
        let limits = Limits { heartbeat: Some(SECOND), ..limits() };
        let mut health = Health::default();
        assert_eq!(health.look(at(0), &Facts::default(), &limits), [Verdict::Ping(1)]);
        assert_eq!(health.look(at(9), &Facts::default(), &limits), [Verdict::Ping(2)]);
        health.ponged = Some(at(9));
        assert_eq!(health.look(at(12), &Facts::default(), &limits), [Verdict::Ping(3)]);
        let late = Verdict::Stalled(Sign::Heartbeat, SECOND * 4);
        assert_eq!(health.look(at(13), &Facts::default(), &limits), [Verdict::Ping(4), late]);
        health.ponged = Some(at(13));
        let silent = Facts { signs: signs(Sign::Heartbeat), ..Facts::default() };
        assert_eq!(health.look(at(13), &silent, &limits), [Verdict::Recovered(Sign::Heartbeat)]);
    }

    #[test]
    fn a_watchdog_is_missed_once_and_not_while_maitred_itself_stood_still() {
        let limits = Limits { watchdog: Some(SECOND * 2), ..limits() };
        let mut health = Health { watchdog: Some(at(1)), ..Health::default() };
        assert_eq!(health.look(at(3), &Facts::default(), &limits), []);
        health.excuse(SECOND * 10);
        assert_eq!(health.look(at(13), &Facts::default(), &limits), []);
        let missed = Verdict::MissedWatchdog { limit: SECOND * 2, silent: SECOND * 3 };
        assert_eq!(health.look(at(14), &Facts::default(), &limits), [missed]);
        assert_eq!(health.look(at(20), &Facts::default(), &limits), []);
    }

    #[test]
    fn a_worker_has_had_its_time_once_by_its_own_share() {
        let limits = Limits { max_connections: Some(100), max_age: Some(SECOND * 100), share: 0.9, ..limits() };
        let mut health = Health::default();
        let facts = Facts { connections: 89, age: SECOND * 89, ..Facts::default() };
        assert_eq!(health.look(at(0), &facts, &limits), []);
        for facts in [Facts { connections: 90, ..facts }, Facts { age: SECOND * 90, ..facts }] {
            let mut health = health.clone();
            assert_eq!(health.look(at(0), &facts, &limits), [Verdict::Worn]);
            assert_eq!(health.look(at(0), &facts, &limits), []);
        }
        let limits = Limits { max_rss: Some(1_000), ..limits };
        assert!(!health.has_grown(899, &limits) && health.has_grown(900, &limits) && !health.has_grown(900, &limits));
    }
}
