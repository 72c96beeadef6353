//! How connections ended, and how long answers took.

use super::answer::Garbled;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is distinguished from longer ones: an hour, in microseconds.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// The highest slot that a server may report, plus one: the most workers that a master can have.
const SLOTS_MAX: usize = crate::config::WORKERS_MAX as usize;

/// How a connection ended; each connection that began has exactly one ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every request on it was answered.
    Answered,
    /// There is no listener (`ECONNREFUSED`).
    Refused,
    /// The server, or the kernel for it, reset it (`ECONNRESET`, `EPIPE`).
    Reset,
    /// No answer within the timeout.
    Hung,
    /// The server closed it before its answer was whole.
    Closed,
    /// The server ended it after an answer, though more requests were planned on it.
    NotKept,
    /// The bytes received are not a valid answer.
    Garbled(Garbled),
    /// The answer says that the service is unavailable (status 503).
    Unavailable,
    /// The answer has another status of 400 or above.
    Status(u16),
    /// This machine could not open it; the error number.
    Local(i32),
    /// The measurement was interrupted.
    Abandoned,
}

impl Ending {
    /// In words, for a message about the server's behaviour.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Ending::Answered => "it answered".to_owned(),
            Ending::Refused => "the connection was refused: nobody listens there".to_owned(),
            Ending::Reset => "the connection was reset before an answer came".to_owned(),
            Ending::Hung => "no answer came in time; see --timeout".to_owned(),
            Ending::Closed => "the connection was closed before a whole answer came".to_owned(),
            Ending::NotKept => "the server does not keep the connection for another request; see --requests".to_owned(),
            Ending::Garbled(why) => format!("{}; see --protocol", why.reason()),
            Ending::Unavailable => "it answered with status 503, service unavailable".to_owned(),
            Ending::Status(status) => format!("it answered with status {status}; see --path"),
            Ending::Local(errno) => {
                format!("this machine could not connect: {}", std::io::Error::from_raw_os_error(errno))
            }
            Ending::Abandoned => "the measurement was cut short".to_owned(),
        }
    }
}

/// Connections by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endings {
    /// Connections on which every request was answered.
    pub answered: u64,
    /// Closed early, garbled, answered with an error other than 503, or not possible on this machine.
    pub failed: u64,
    /// Refused, since there was no listener (`ECONNREFUSED`). A connection beyond an admission limit is reset or
    /// answered with 503.
    pub refused: u64,
    /// Reset.
    pub reset: u64,
    /// Answered with 503.
    #[serde(default)]
    pub unavailable: u64,
    /// Not answered in time.
    pub hung: u64,
    /// Given up when the measurement was interrupted.
    pub abandoned: u64,
}

impl Endings {
    /// Connections that should have been answered and were not.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.failed + self.refused + self.turned_away() + self.hung
    }

    /// Connections that were explicitly turned away: reset, or answered with 503.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.reset + self.unavailable
    }

    /// Adds other counts.
    pub fn add(&mut self, more: &Endings) {
        self.answered += more.answered;
        self.failed += more.failed;
        self.refused += more.refused;
        self.reset += more.reset;
        self.unavailable += more.unavailable;
        self.hung += more.hung;
        self.abandoned += more.abandoned;
    }

    /// All connections that ended.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.answered + self.unanswered() + self.abandoned
    }
}

/// The counts of one engine, or of all together.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Connections by how they ended.
    pub endings: Endings,
    /// The first ending other than an answer, as an example.
    pub example: Option<Ending>,
    /// Requests answered.
    pub requests: u64,
    /// Time to the complete answer of each request, in microseconds.
    pub latency: Histogram<u64>,
    /// Connections by the slot that answered first on them, as far as the server reports it.
    pub by_slot: Vec<u64>,
    /// The same for each of the clients' addresses, if their number is set.
    pub by_source: Vec<Vec<u32>>,
    /// Connections on which different workers answered, which should be impossible.
    pub mixed: u64,
    /// Arrivals that waited because too many connections were open.
    pub held_back: u64,
    /// How late connections began that no limit held back, in microseconds: the generator's own delay.
    pub late: Histogram<u64>,
    /// So many connections failed that the rest was not tried.
    pub gave_up: bool,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            endings: Endings::default(),
            example: None,
            requests: 0,
            latency: histogram(),
            by_slot: Vec::new(),
            by_source: Vec::new(),
            mixed: 0,
            held_back: 0,
            late: histogram(),
            gave_up: false,
        }
    }
}

#[expect(clippy::expect_used, reason = "its arguments are constants, and the tests make one")]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("the bounds and digits are constants that fit")
}

impl Tally {
    /// Counts the end of a connection.
    pub fn end(&mut self, ending: Ending) {
        let counter = match ending {
            Ending::Answered => &mut self.endings.answered,
            Ending::Refused => &mut self.endings.refused,
            Ending::Reset => &mut self.endings.reset,
            Ending::Unavailable => &mut self.endings.unavailable,
            Ending::Hung => &mut self.endings.hung,
            Ending::Closed | Ending::NotKept | Ending::Garbled(_) | Ending::Status(_) | Ending::Local(_) => {
                &mut self.endings.failed
            }
            Ending::Abandoned => &mut self.endings.abandoned,
        };
        *counter += 1;
        if !matches!(ending, Ending::Answered | Ending::Abandoned) {
            self.example.get_or_insert(ending);
        }
    }

    /// Counts an answered request.
    pub fn answer(&mut self, latency_us: u64) {
        self.requests += 1;
        self.latency.saturating_record(latency_us);
    }

    /// Counts a connection for the worker that answered first on it.
    pub fn served_by(&mut self, slot: u16) {
        let slot = usize::from(slot);
        if slot < SLOTS_MAX {
            if self.by_slot.len() <= slot {
                self.by_slot.resize(slot + 1, 0);
            }
            self.by_slot[slot] += 1;
        }
    }

    /// Counts a connection from one of the addresses for the worker that answered first on it.
    pub fn came_from(&mut self, source: usize, slot: u16) {
        if usize::from(slot) < SLOTS_MAX {
            *self.of_source(source, usize::from(slot)) += 1;
        }
    }

    fn of_source(&mut self, source: usize, slot: usize) -> &mut u32 {
        if self.by_source.len() <= source {
            self.by_source.resize(source + 1, Vec::new());
        }
        let slots = &mut self.by_source[source];
        if slots.len() <= slot {
            slots.resize(slot + 1, 0);
        }
        &mut slots[slot]
    }

    /// Adds the counts of another tally.
    pub fn add(&mut self, other: &Tally) {
        self.endings.add(&other.endings);
        self.example = self.example.or(other.example);
        self.requests += other.requests;
        merge(&mut self.latency, &other.latency);
        if self.by_slot.len() < other.by_slot.len() {
            self.by_slot.resize(other.by_slot.len(), 0);
        }
        self.by_slot.iter_mut().zip(&other.by_slot).for_each(|(a, b)| *a += b);
        for (source, slots) in other.by_source.iter().enumerate() {
            slots.iter().enumerate().for_each(|(slot, count)| *self.of_source(source, slot) += count);
        }
        self.mixed += other.mixed;
        self.held_back += other.held_back;
        merge(&mut self.late, &other.late);
        self.gave_up |= other.gave_up;
    }
}

/// Adds `more` to `to`; all histograms here have the same bounds, so every value fits.
#[expect(clippy::expect_used, reason = "all have the bounds of `histogram`")]
pub fn merge(to: &mut Histogram<u64>, more: &Histogram<u64>) {
    to.add(more).expect("histograms of equal bounds can be added");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_is_counted_once() {
        let endings = [
            Ending::Answered,
            Ending::Refused,
            Ending::Reset,
            Ending::Hung,
            Ending::Closed,
            Ending::NotKept,
            Ending::Garbled(Garbled::Head),
            Ending::Unavailable,
            Ending::Status(500),
            Ending::Local(libc::EADDRNOTAVAIL),
            Ending::Abandoned,
        ];
        let mut tally = Tally::default();
        endings.into_iter().for_each(|ending| tally.end(ending));
        let mut twice = tally.clone();
        twice.add(&tally);
        assert_eq!(tally.endings.all(), endings.len() as u64);
        assert_eq!(twice.endings.all(), 2 * endings.len() as u64);
        assert_eq!((twice.endings.unanswered(), twice.endings.turned_away()), (18, 4));
        assert_eq!(tally.example, Some(Ending::Refused));
    }

    #[test]
    fn a_slot_beyond_all_reason_takes_no_room() {
        let mut tally = Tally::default();
        tally.served_by(2);
        tally.served_by(u16::MAX);
        assert_eq!(tally.by_slot, [0, 0, 1]);
    }

    #[test]
    fn connections_are_counted_for_their_source_and_slot() {
        let mut tally = Tally::default();
        [(2, 1), (2, 1), (2, 0), (0, u16::MAX)].into_iter().for_each(|(source, slot)| tally.came_from(source, slot));
        let mut twice = tally.clone();
        twice.add(&tally);
        assert_eq!(
            (tally.by_source, twice.by_source),
            (vec![vec![], vec![], vec![1, 2]], vec![vec![], vec![], vec![2, 4]])
        );
    }
}
