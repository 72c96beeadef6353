//! When the next connection is due. No side effects: `now` is an argument.

use super::{Arrival, Volume};
use std::time::{Duration, Instant};

/// The decision of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Open a connection now; latency counts from this instant, which in an open loop is the
    /// intended one and may have passed.
    Start(Instant),
    /// Nothing before this instant.
    At(Instant),
    /// Nothing before a connection has ended.
    AfterAnEnd,
    /// No more connections.
    Over,
}

/// The arrivals of one engine's clients.
#[derive(Debug)]
pub struct Schedule {
    arrival: Arrival,
    volume: Volume,
    /// The most connections that may be open at a time.
    open_max: usize,
    start: Instant,
    begun: u64,
    burst: Burst,
    /// Time in which nothing was scheduled.
    idle: Duration,
    /// Arrivals that had to wait because [`Self::open_max`] connections were open.
    held_back: u64,
    holding: bool,
}

#[derive(Debug)]
struct Burst {
    left: usize,
    began: Instant,
    next: Option<Instant>,
}

impl Schedule {
    /// A schedule that begins at `now`.
    #[must_use]
    pub fn new(arrival: Arrival, volume: Volume, open_max: usize, now: Instant) -> Schedule {
        let left = match arrival {
            Arrival::Bursts { size, .. } => size,
            Arrival::Closed { .. } | Arrival::Open { .. } => 0,
        };
        Schedule {
            arrival,
            volume,
            open_max,
            start: now,
            begun: 0,
            burst: Burst { left, began: now, next: None },
            idle: Duration::ZERO,
            held_back: 0,
            holding: false,
        }
    }

    /// What to do at `now`, with this many connections open. Each `Start` counts as carried out.
    pub fn next(&mut self, now: Instant, open: usize) -> Next {
        let over = match self.volume {
            Volume::Connections(wanted) => self.begun >= wanted,
            Volume::Duration(duration) => now >= self.start + duration,
        };
        if over {
            return Next::Over;
        }
        let next = match self.arrival {
            Arrival::Closed { clients } if open >= clients => Next::AfterAnEnd,
            Arrival::Closed { .. } => Next::Start(now),
            Arrival::Open { per_second } => {
                let due = self.start + Duration::from_secs_f64(self.begun as f64 / per_second);
                self.when_due(due, now, open)
            }
            Arrival::Bursts { size, pause } => self.next_of_bursts(size, pause, now, open),
        };
        if let Next::Start(_) = next {
            self.begun += 1;
        }
        next
    }

    fn when_due(&mut self, due: Instant, now: Instant, open: usize) -> Next {
        match (due <= now, open < self.open_max) {
            (false, _) => Next::At(due),
            (true, true) => {
                self.holding = false;
                Next::Start(due)
            }
            (true, false) => {
                if !self.holding {
                    self.held_back += 1;
                    self.holding = true;
                }
                Next::AfterAnEnd
            }
        }
    }

    fn next_of_bursts(&mut self, size: usize, pause: Duration, now: Instant, open: usize) -> Next {
        if self.burst.left > 0 {
            let next = self.when_due(self.burst.began, now, open);
            if let Next::Start(_) = next {
                self.burst.left -= 1;
            }
            return next;
        }
        match self.burst.next {
            _ if open > 0 => Next::AfterAnEnd,
            None => {
                let at = now + pause;
                self.burst.next = Some(at);
                self.idle += pause;
                Next::At(at)
            }
            Some(at) if now < at => Next::At(at),
            Some(at) => {
                self.burst = Burst { left: size - 1, began: at, next: None };
                Next::Start(at)
            }
        }
    }

    /// Time so far in which nothing was scheduled.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// Arrivals so far that had to wait for a free place among the open ones.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        self.held_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn schedule(arrival: Arrival, volume: Volume, open_max: usize) -> (Schedule, Instant) {
        let now = Instant::now();
        (Schedule::new(arrival, volume, open_max, now), now)
    }

    #[test]
    fn a_closed_loop_replaces_what_ended_until_it_had_enough() {
        let (mut s, t) = schedule(Arrival::Closed { clients: 2 }, Volume::Connections(3), 100);
        assert_eq!(s.next(t, 0), Next::Start(t));
        assert_eq!(s.next(t, 1), Next::Start(t));
        assert_eq!(s.next(t, 2), Next::AfterAnEnd);
        assert_eq!(s.next(t + MS, 1), Next::Start(t + MS));
        assert_eq!(s.next(t + MS, 1), Next::Over);
    }

    #[test]
    fn an_open_loop_counts_from_the_intended_instant_however_late_it_is() {
        let (mut s, t) = schedule(Arrival::Open { per_second: 1000.0 }, Volume::Duration(10 * MS), 2);
        assert_eq!(s.next(t, 0), Next::Start(t));
        assert_eq!(s.next(t, 1), Next::At(t + MS));
        assert_eq!(s.next(t + 5 * MS, 1), Next::Start(t + MS));
        // No free place: it waits, and still counts from the time when it was due.
        assert_eq!(s.next(t + 5 * MS, 2), Next::AfterAnEnd);
        assert_eq!(s.next(t + 6 * MS, 2), Next::AfterAnEnd);
        assert_eq!(s.held_back(), 1);
        assert_eq!(s.next(t + 9 * MS, 1), Next::Start(t + 2 * MS));
        assert_eq!(s.next(t + 10 * MS, 0), Next::Over);
    }

    #[test]
    fn a_burst_waits_for_the_last_one_and_for_its_pause() {
        let (mut s, t) =
            schedule(Arrival::Bursts { size: 2, pause: 100 * MS }, Volume::Duration(Duration::from_secs(9)), 100);
        assert_eq!(s.next(t, 0), Next::Start(t));
        assert_eq!(s.next(t + MS, 1), Next::Start(t));
        assert_eq!(s.next(t + MS, 2), Next::AfterAnEnd);
        assert_eq!(s.next(t + 2 * MS, 0), Next::At(t + 102 * MS));
        assert_eq!(s.next(t + 50 * MS, 0), Next::At(t + 102 * MS));
        assert_eq!(s.next(t + 103 * MS, 0), Next::Start(t + 102 * MS));
        assert_eq!(s.next(t + 103 * MS, 1), Next::Start(t + 102 * MS));
        assert_eq!(s.next(t + 103 * MS, 2), Next::AfterAnEnd);
        assert_eq!(s.idle(), 100 * MS);
    }
}
