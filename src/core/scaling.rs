//! How many workers there should be, within a range (`--workers A..B`). Samples come in, changes go out.
//!
//! It grows soon: while connections wait everywhere, or while all workers are busy. It shrinks late: when for a long time
//! fewer would have done. Between the two there is room, so that a constant load does not make it go back and forth:
//! one more worker is wanted from [`BUSY`] on, and one less only if the others would then be below [`FITS`]. Where
//! workers block and use no processor time, what they have open tells how many are occupied, measured against what they
//! had open when connections waited.

use super::moment::Moment;
use std::time::Duration;

/// Time from one sample to the next.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// A sample that comes later than this after the last says nothing of the time between: this process stood still.
const STALE: Duration = Duration::from_secs(4);
/// How many samples in a row must say the same before it grows.
pub const GROWS_AFTER: u32 = 3;
/// The same where connections wait for some workers only: by chance that is more often so.
pub const GROWS_AFTER_SOME: u32 = 5;
/// A worker that takes less than this share of what each takes on average is slow: what waits for it is no reason.
const SLOW: f64 = 0.5;
/// All workers are busy from this share of a core each on.
pub const BUSY: f64 = 0.8;
/// The others must stay below this share of a core each when one leaves.
pub const FITS: f64 = 0.6;
/// When connections wait again this soon after a worker left, it left too early.
const REGRET: Duration = Duration::from_secs(60);
/// How much less must be going on then so that it may become too low again: this share of what fits.
const MUCH_LESS: f64 = 0.5;
/// How long the number stays above the one that was too low, the first time and at most; it doubles each time.
const FLOOR_FIRST: Duration = Duration::from_secs(600);
const FLOOR_MAX: Duration = Duration::from_secs(4 * 3600);

/// The range, and how fast it is gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Never fewer; at least one.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// How many at a time, at least one.
    pub step: u32,
    /// For how long fewer must have been enough.
    pub down_after: Duration,
}

/// What was seen at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The workers that serve; all that are wanted do.
    pub workers: Vec<Load>,
    /// Connections that wait to be accepted.
    pub waiting: u64,
    /// Processor seconds that all have used, ever.
    pub cpu_s: f64,
}

/// What one worker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections that wait for it.
    pub queued: u64,
    /// Connections that it has open.
    pub open: u64,
    /// Connections that it has taken, ever.
    pub taken: u64,
}

impl Sample {
    fn serving(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    fn open(&self) -> u64 {
        self.workers.iter().map(|worker| worker.open).sum()
    }

    /// Whether connections wait for every worker.
    fn waits_everywhere(&self) -> bool {
        let serving = u64::from(self.serving());
        serving > 0 && (self.waiting >= serving || self.workers.iter().all(|worker| worker.queued > 0))
    }

    /// Connections that wait, without those that wait for slow workers.
    fn waits_since(&self, taken_before: &[u64]) -> u64 {
        let took =
            || self.workers.iter().zip(taken_before).map(|(worker, before)| worker.taken.saturating_sub(*before));
        let mean = took().sum::<u64>() as f64 / f64::from(self.serving().max(1));
        let healthy = self.workers.iter().zip(took()).filter(|(_, took)| *took as f64 >= SLOW * mean);
        self.waiting + healthy.map(|(worker, _)| worker.queued).sum::<u64>()
    }
}

/// Why the number changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// Connections wait for every worker.
    Waiting,
    /// All workers are busy.
    Busy,
    /// Fewer have been enough for a long time.
    Quiet,
    /// There were fewer or more than there may be: somebody chose another number, or another range.
    Outside,
}

impl Because {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Because::Waiting => "connections wait for every worker",
            Because::Busy => "all workers are busy",
            Because::Quiet => "fewer were enough for a long time",
            Because::Outside => "the number was outside the range",
        }
    }
}

/// A change of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// From this many.
    pub from: u32,
    /// To this many.
    pub to: u32,
    /// Why.
    pub because: Because,
}

/// What it remembers.
#[derive(Clone, Debug, Default)]
pub struct Scaling {
    last: Option<Last>,
    /// Samples in a row in which connections waited for every worker, in which as many waited as there are
    /// workers, and in which all were busy.
    waits: u32,
    pressed: u32,
    busy: u32,
    quiet: Option<Quiet>,
    /// What one worker had open when connections waited: as many as it can have.
    capacity: Option<f64>,
    shrunk: Option<(Moment, u32)>,
    floor: Option<(Moment, u32)>,
    floor_for: Duration,
}

/// The last sample.
#[derive(Clone, Debug)]
struct Last {
    at: Moment,
    taken: Vec<u64>,
    cpu_s: f64,
}

/// A time in which nothing waited.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    since: Moment,
    cpu_s: f64,
    most_open: u64,
}

impl Scaling {
    /// The number of workers changes otherwise, or is not settled: what was seen does not count.
    pub fn forget(&mut self) {
        self.last = None;
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        (self.waits, self.pressed, self.busy, self.quiet) = (0, 0, 0, None);
    }

    /// Whether the number should change now.
    pub fn sample(&mut self, now: Moment, sample: &Sample, range: &Range) -> Option<Change> {
        let from = sample.serving();
        let taken = sample.workers.iter().map(|worker| worker.taken).collect();
        let before = self.last.replace(Last { at: now, taken, cpu_s: sample.cpu_s });
        // Where less was used than before, a worker has another one in its place.
        let same = |was: &Last| was.taken.len() == sample.workers.len() && was.cpu_s <= sample.cpu_s;
        let fresh = |was: &Last| now.since(was.at) < STALE && same(was);
        let Some(before) = before.filter(fresh) else {
            self.begin_anew();
            return self.bring_back(from, range);
        };
        let is_busy = cores_used(before.at, before.cpu_s, now, sample) >= BUSY * f64::from(from);
        self.busy = if is_busy { self.busy + 1 } else { 0 };
        if sample.waits_everywhere() {
            // Where nothing is known to be open, nothing can be told from that.
            let open = Some(sample.open()).filter(|open| *open > 0);
            self.capacity = open.map(|open| (open as f64 / f64::from(from)).max(1.0));
            self.waits += 1;
        } else {
            self.waits = 0;
        }
        let somewhere = sample.waits_since(&before.taken) >= u64::from(from);
        self.pressed = if somewhere { self.pressed + 1 } else { 0 };
        if somewhere {
            self.quiet = None;
        } else {
            let quiet = self.quiet.get_or_insert(Quiet { since: before.at, cpu_s: before.cpu_s, most_open: 0 });
            quiet.most_open = quiet.most_open.max(sample.open());
        }
        if let Some(outside) = self.bring_back(from, range) {
            return Some(outside);
        }
        let waits = self.waits >= GROWS_AFTER || self.pressed >= GROWS_AFTER_SOME;
        let because = match (waits, self.busy >= GROWS_AFTER) {
            (true, _) => Some(Because::Waiting),
            (false, true) => Some(Because::Busy),
            (false, false) => None,
        };
        if let Some(because) = because.filter(|_| from < range.max) {
            return Some(self.grow(now, from, because, range));
        }
        self.shrink(now, sample, range)
    }

    fn bring_back(&mut self, from: u32, range: &Range) -> Option<Change> {
        let to = from.clamp(range.min, range.max);
        (to != from).then(|| self.change(Change { from, to, because: Because::Outside }))
    }

    fn grow(&mut self, now: Moment, from: u32, because: Because, range: &Range) -> Change {
        if let Some((at, too_few)) = self.shrunk.take_if(|(at, _)| now.since(*at) < REGRET) {
            self.floor_for = (self.floor_for * 2).clamp(FLOOR_FIRST, FLOOR_MAX);
            self.floor = Some((at + self.floor_for, too_few + 1));
        }
        let to = from.saturating_add(range.step).min(range.max);
        self.change(Change { from, to, because })
    }

    fn shrink(&mut self, now: Moment, sample: &Sample, range: &Range) -> Option<Change> {
        let from = sample.serving();
        let quiet = self.quiet.filter(|quiet| now.since(quiet.since) >= range.down_after)?;
        self.floor = self.floor.filter(|(until, _)| *until > now);
        let used = cores_used(quiet.since, quiet.cpu_s, now, sample);
        let fits = |workers: u32, room: f64| {
            let workers = f64::from(workers) * room;
            used < FITS * workers && self.capacity.is_none_or(|each| quiet.most_open as f64 <= each * workers)
        };
        // Not below a number that was too low before, unless much less is going on now.
        let may = |workers: u32| match self.floor {
            Some((_, floor)) if workers < floor => self.capacity.is_some() && fits(workers, MUCH_LESS),
            _ => fits(workers, 1.0),
        };
        let least = from.saturating_sub(range.step).max(range.min);
        match (least..from).find(|workers| may(*workers)) {
            Some(to) => {
                self.shrunk = Some((now, to));
                Some(self.change(Change { from, to, because: Because::Quiet }))
            }
            None => {
                // What was long ago says nothing of now.
                self.quiet = None;
                None
            }
        }
    }

    fn change(&mut self, change: Change) -> Change {
        self.forget();
        change
    }
}

/// Cores that all workers together used on average since a moment at which they had used this many seconds.
fn cores_used(since: Moment, cpu_s: f64, now: Moment, sample: &Sample) -> f64 {
    (sample.cpu_s - cpu_s) / now.since(since).as_secs_f64().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range { min: 2, max: 8, step: 1, down_after: Duration::from_secs(60) };

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    /// This many workers, each with so many connections that wait and that are open.
    fn each(workers: usize, queued: u64, open: u64) -> Sample {
        Sample { workers: vec![Load { queued, open, taken: 0 }; workers], ..Sample::default() }
    }

    /// What comes of samples, a second apart.
    fn changes(scaling: &mut Scaling, samples: impl IntoIterator<Item = Sample>, range: &Range) -> Vec<(u64, Change)> {
        let seconds = samples.into_iter().zip(0..);
        seconds.filter_map(|(sample, second)| Some((second, scaling.sample(at(second), &sample, range)?))).collect()
    }

    /// Nothing waits, and all workers together use this share of a core.
    fn calm(serving: usize, share: f64) -> impl Iterator<Item = Sample> {
        (0..).map(move |second| Sample { cpu_s: share * f64::from(second), ..each(serving, 0, 0) })
    }

    #[test]
    fn it_grows_when_connections_wait_for_everybody_three_times_in_a_row() {
        let (pressed, calm) = (each(2, 1, 1), each(2, 0, 1));
        let mut scaling = Scaling::default();
        let found = changes(&mut scaling, vec![pressed.clone(); 4], &RANGE);
        assert_eq!(found, [(3, Change { from: 2, to: 3, because: Because::Waiting })]);
        let mut samples = vec![pressed; 6];
        samples[3] = calm;
        assert!(changes(&mut Scaling::default(), samples, &RANGE).is_empty());
    }

    #[test]
    fn it_grows_when_all_are_busy_and_by_no_more_than_a_step_and_not_beyond_the_range() {
        let wide = Range { step: 3, ..RANGE };
        let busy = |share: f64, serving, range: &Range| {
            let mut scaling = Scaling::default();
            changes(&mut scaling, calm(serving, share).take(4), range).first().map(|(_, change)| change.to)
        };
        assert_eq!((busy(1.7, 2, &RANGE), busy(1.7, 2, &wide), busy(6.0, 7, &wide)), (Some(3), Some(5), Some(8)));
        assert_eq!((busy(1.5, 2, &RANGE), busy(8.0, 8, &RANGE)), (None, None));
    }

    #[test]
    fn one_slow_worker_is_no_reason_and_a_backlog_at_one_that_works_is() {
        // Each second the others take ten.
        let backlog = |takes: u64| {
            (0..30).map(move |second| {
                let mut sample = Sample { waiting: 3, ..each(4, 0, 1) };
                sample.workers.iter_mut().for_each(|worker| worker.taken = 10 * second);
                sample.workers[1] = Load { queued: 64, open: 9, taken: takes * second };
                sample
            })
        };
        for takes in [0, 3] {
            assert!(changes(&mut Scaling::default(), backlog(takes), &RANGE).is_empty());
        }
        assert_eq!(changes(&mut Scaling::default(), backlog(10).take(6), &RANGE).len(), 1);
    }

    #[test]
    fn it_shrinks_by_a_step_when_fewer_were_enough_for_long() {
        let mut scaling = Scaling::default();
        let found = changes(&mut scaling, calm(4, 0.5).take(62), &RANGE);
        assert_eq!(found, [(60, Change { from: 4, to: 3, because: Because::Quiet })]);
        assert!(changes(&mut Scaling::default(), calm(2, 0.0).take(300), &RANGE).is_empty());
        // Three workers would be at 0.6.
        assert!(changes(&mut Scaling::default(), calm(4, 1.8).take(300), &RANGE).is_empty());
        let wide = Range { step: 9, ..RANGE };
        let found = changes(&mut Scaling::default(), calm(8, 2.0).take(61), &wide);
        assert_eq!(found, [(60, Change { from: 8, to: 4, because: Because::Quiet })]);
    }

    #[test]
    fn workers_that_block_are_needed_by_what_they_have_open() {
        // Each can have one: with four open, four are needed.
        let samples = |occupied: usize| {
            let mut calm = each(4, 0, 0);
            calm.workers[..occupied].fill(Load { queued: 0, open: 1, taken: 0 });
            vec![each(4, 1, 1); 3].into_iter().chain(std::iter::repeat_n(calm, 70))
        };
        let full = Range { max: 4, ..RANGE };
        assert!(changes(&mut Scaling::default(), samples(4), &full).is_empty());
        let found = changes(&mut Scaling::default(), samples(3), &full);
        assert!(matches!(found[..], [(_, Change { from: 4, to: 3, .. })]), "{found:?}");
    }

    #[test]
    fn a_number_outside_the_range_comes_back() {
        let mut scaling = Scaling::default();
        assert_eq!(scaling.sample(at(0), &each(9, 0, 0), &RANGE).map(|change| change.to), Some(8));
        assert_eq!(scaling.sample(at(1), &each(1, 0, 0), &RANGE).map(|change| change.to), Some(2));
    }

    #[test]
    fn another_worker_in_the_place_of_one_is_no_quiet_time() {
        // All are busy, and the third has used nothing yet in place of much.
        let samples = (0..70).map(|second: u64| {
            let used = if second < 30 { 5000.0 } else { 0.0 };
            Sample { cpu_s: used + 2.0 * second as f64, ..each(3, 0, 1) }
        });
        assert!(changes(&mut Scaling::default(), samples, &RANGE).is_empty());
    }

    #[test]
    fn who_left_too_early_is_not_let_go_again_soon() {
        let mut scaling = Scaling::default();
        let mut now = 0;
        let mut feed = |scaling: &mut Scaling, sample: Sample, times: u64| {
            let mut found = Vec::new();
            for _ in 0..times {
                found.extend(scaling.sample(at(now), &sample, &RANGE).map(|change| change.to));
                now += 1;
            }
            found
        };
        assert_eq!(feed(&mut scaling, each(3, 0, 0), 62), [2]);
        assert_eq!(feed(&mut scaling, each(2, 9, 0), 5), [3]);
        assert!(feed(&mut scaling, each(3, 0, 0), 500).is_empty());
        assert_eq!(feed(&mut scaling, each(3, 0, 0), 200)[..1], [2]);
    }

    #[test]
    fn a_time_in_which_this_process_stood_still_says_nothing() {
        let mut scaling = Scaling::default();
        for second in [0, 1, 2, 60, 61, 62] {
            assert_eq!(scaling.sample(at(second), &each(2, 1, 1), &RANGE), None, "{second}");
        }
        assert!(scaling.sample(at(63), &each(2, 1, 1), &RANGE).is_some());
    }
}
