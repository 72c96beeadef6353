//! The last lines of each stream, kept in memory, so that they can be asked for where no file has them: in a container,
//! or with their slot and time.

use super::Log;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What a line costs beside its text, about.
const LINE_COSTS: usize = size_of::<Entry>();

/// The last lines of all streams. Clones are the same.
#[derive(Clone, Debug)]
pub struct Kept(Arc<Mutex<Rings>>);

#[derive(Debug)]
struct Rings {
    /// Which memory this is: another master counts anew.
    id: u64,
    /// What the lines of one stream may take, in bytes.
    max: usize,
    /// The number of the next line.
    next: u64,
    rings: [Ring; 3],
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    at: SystemTime,
    slot: Option<u32>,
    line: Box<str>,
}

/// One line, as it is shown. Scripts rely on these names: they only ever grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number: lines of all streams are counted together, as they come.
    pub number: u64,
    /// When it came (RFC 3339, UTC).
    pub time: String,
    /// The stream.
    pub stream: Log,
    /// The slot whose worker wrote it; none for the master's.
    pub slot: Option<u32>,
    /// The line without its end.
    pub line: String,
}

/// Which lines are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Only of these streams; of all if there are none.
    #[serde(default)]
    pub streams: Vec<Log>,
    /// Only what this slot's workers wrote.
    #[serde(default)]
    pub slot: Option<u32>,
    /// Only what came no longer ago than this.
    #[serde(default)]
    pub since: Option<Duration>,
    /// Only lines with this number or a later one.
    #[serde(default)]
    pub from: u64,
    /// Only so many of each stream, the last ones.
    #[serde(default)]
    pub last: Option<usize>,
}

/// Lines, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// The lines.
    pub lines: Vec<Line>,
    /// Which memory they are from: after an upgrade, and in another master, lines are counted anew.
    #[serde(default)]
    pub memory: u64,
    /// The number that the next line will have.
    pub next: u64,
    /// Bytes that are kept of each stream at most; with 0 nothing is.
    pub kept_bytes: usize,
}

impl Kept {
    /// Keeps up to so many bytes of each stream.
    #[must_use]
    pub fn new(max: usize) -> Kept {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let id = u64::from(std::process::id()) ^ u64::try_from(now.as_micros()).unwrap_or_default();
        Kept(Arc::new(Mutex::new(Rings { id, max, next: 0, rings: Default::default() })))
    }

    /// Whether anything is kept.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.rings().max > 0
    }

    /// Keeps a line, and lets go of the oldest of its stream.
    pub fn add(&self, stream: Log, slot: Option<u32>, line: &[u8]) {
        let rings = &mut *self.rings();
        if rings.max == 0 {
            return;
        }
        let line: Box<str> = String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).into();
        let ring = rings.rings.get_mut(index(stream));
        let Some(ring) = ring else { return };
        ring.bytes += line.len() + LINE_COSTS;
        ring.lines.push_back(Entry { number: rings.next, at: SystemTime::now(), slot, line });
        rings.next += 1;
        while ring.bytes > rings.max
            && let Some(oldest) = ring.lines.pop_front()
        {
            ring.bytes -= oldest.line.len() + LINE_COSTS;
        }
    }

    /// The lines that are asked for.
    #[must_use]
    pub fn lines(&self, wanted: &Wanted) -> Lines {
        let rings = self.rings();
        let since = wanted.since.and_then(|since| SystemTime::now().checked_sub(since));
        let fits = |line: &&Entry| {
            since.is_none_or(|since| line.at >= since) && wanted.slot.is_none_or(|slot| line.slot == Some(slot))
        };
        let mut lines = Vec::new();
        for stream in Log::ALL.into_iter().filter(|log| wanted.streams.is_empty() || wanted.streams.contains(log)) {
            let Some(ring) = rings.rings.get(index(stream)) else { continue };
            let new = ring.lines.iter().rev().take_while(|line| line.number >= wanted.from);
            let last = new.filter(fits).take(wanted.last.unwrap_or(usize::MAX));
            lines.extend(last.map(|entry| entry.shown(stream)));
        }
        lines.sort_by_key(|line| line.number);
        Lines { lines, memory: rings.id, next: rings.next, kept_bytes: rings.max }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn shown(&self, stream: Log) -> Line {
        let time = humantime::format_rfc3339_millis(self.at).to_string();
        Line { number: self.number, time, stream, slot: self.slot, line: self.line.to_string() }
    }
}

fn index(stream: Log) -> usize {
    stream as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(kept: &Kept, wanted: &Wanted) -> Vec<String> {
        kept.lines(wanted).lines.into_iter().map(|line| line.line).collect()
    }

    #[test]
    fn lines_come_in_their_order_and_can_be_chosen() {
        let kept = Kept::new(1 << 20);
        kept.add(Log::Out, Some(0), b"a\n");
        kept.add(Log::Err, Some(1), b"b\r\n");
        kept.add(Log::Master, None, b"c");
        kept.add(Log::Out, Some(1), b"d\n");
        assert_eq!(texts(&kept, &Wanted::default()), ["a", "b", "c", "d"]);
        assert_eq!(texts(&kept, &Wanted { slot: Some(1), ..Wanted::default() }), ["b", "d"]);
        assert_eq!(texts(&kept, &Wanted { streams: vec![Log::Out], ..Wanted::default() }), ["a", "d"]);
        assert_eq!(texts(&kept, &Wanted { last: Some(1), ..Wanted::default() }), ["b", "c", "d"]);
        assert_eq!(texts(&kept, &Wanted { from: 3, ..Wanted::default() }), ["d"]);
        assert_eq!(texts(&kept, &Wanted { since: Some(Duration::from_secs(60)), ..Wanted::default() }).len(), 4);
        assert_eq!(kept.lines(&Wanted::default()).next, 4);
    }

    #[test]
    fn the_oldest_of_a_stream_makes_room_and_other_streams_keep_theirs() {
        let kept = Kept::new(2 * (LINE_COSTS + 1));
        kept.add(Log::Err, None, b"e");
        for line in ["1", "2", "3"] {
            kept.add(Log::Out, None, line.as_bytes());
        }
        assert_eq!(texts(&kept, &Wanted::default()), ["e", "2", "3"]);
        // A line that is longer than all that may be kept leaves nothing.
        kept.add(Log::Out, None, &[b'x'; 1000]);
        assert_eq!(texts(&kept, &Wanted::default()), ["e"]);
        let none = Kept::new(0);
        none.add(Log::Out, None, b"x");
        assert!(!none.keeps() && none.lines(&Wanted::default()).lines.is_empty());
    }
}
