//! Loads as they come, against servers that block and servers that compute.

use super::{Change, Load, Range, Sample, Scaling};
use crate::core::chance::Chance;
use crate::core::moment::Moment;
use std::time::Duration;

const RANGE: Range = Range { min: 2, max: 8, step: 1, down_after: Duration::from_secs(60) };
/// How long a worker takes to serve after it was asked for.
const BOOT_S: u32 = 2;
/// Steps of the simulation in a second.
const STEPS: u32 = 100;

/// What a request costs.
#[derive(Clone, Copy)]
enum Kind {
    /// The worker waits for something else, 100 ms.
    Blocks,
    /// It computes for 10 ms, on a core of its own.
    Computes,
}

impl Kind {
    /// Requests that one worker can serve in a second.
    fn rate(self) -> f64 {
        match self {
            // No whole part of a second: samples are not to meet each request at the same point.
            Kind::Blocks => 9.7,
            Kind::Computes => 100.0,
        }
    }
}

/// What happened.
#[derive(Default)]
struct Told {
    /// The number of workers at each second.
    workers: Vec<u32>,
    /// Connections that waited at each second.
    waiting: Vec<u64>,
    changes: Vec<(u32, Change)>,
}

impl Told {
    fn between(&self, from: usize, to: usize) -> (u32, u32) {
        let part = &self.workers[from..to];
        (*part.iter().min().unwrap(), *part.iter().max().unwrap())
    }

    /// The most changes of direction within a minute.
    fn reversals_in_a_minute(&self) -> usize {
        let ups: Vec<(u32, bool)> = self.changes.iter().map(|(at, change)| (*at, change.to > change.from)).collect();
        let turns: Vec<u32> = ups.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0).collect();
        turns.iter().map(|at| turns.iter().filter(|other| (*at..at + 60).contains(other)).count()).max().unwrap_or(0)
    }
}

/// A server under a load: requests a second, by the second. In each second the first worker may stand still.
fn run(seed: u64, kind: Kind, range: &Range, load: &[f64], slow: impl Fn(u32) -> bool) -> Told {
    run_stalling(seed, kind, range, load, |worker, second| worker == 0 && slow(second))
}

/// The same where any worker may stand still.
fn run_stalling(seed: u64, kind: Kind, range: &Range, load: &[f64], stalls: impl Fn(usize, u32) -> bool) -> Told {
    let (mut scaling, mut chance, mut told) = (Scaling::default(), Chance::new(seed), Told::default());
    let (mut workers, mut wanted, mut since) = (range.min, range.min, 0);
    // Each worker's requests: what is left of the one that it serves, and how many wait for it.
    let mut busy_until: Vec<f64> = vec![0.0; 64];
    let (mut queued, mut taken): (Vec<u64>, Vec<u64>) = (vec![0; 64], vec![0; 64]);
    let (mut turn, mut cpu_s) = (0, 0.0);
    for (second, rate) in (0..).zip(load) {
        for step in 0..STEPS {
            let now = f64::from(second) + f64::from(step) / f64::from(STEPS);
            // About as Poisson has it: at this many steps a second more than one in a step is rare.
            let mut expected = rate / f64::from(STEPS);
            while expected > 0.0 {
                if f64::from(chance.below(1 << 20)) / f64::from(1 << 20) < expected {
                    queued[turn % workers as usize] += 1;
                    turn += 1;
                }
                expected -= 1.0;
            }
            for worker in 0..workers as usize {
                if stalls(worker, second) {
                    continue;
                }
                while queued[worker] > 0 && busy_until[worker] <= now {
                    queued[worker] -= 1;
                    taken[worker] += 1;
                    busy_until[worker] = busy_until[worker].max(now - 1.0 / f64::from(STEPS)) + 1.0 / kind.rate();
                    if matches!(kind, Kind::Computes) {
                        cpu_s += 1.0 / kind.rate();
                    }
                }
            }
        }
        let end = f64::from(second) + 1.0;
        let serving = 0..workers as usize;
        let load = |worker: usize| Load {
            queued: queued[worker],
            open: u64::from(busy_until[worker] > end),
            taken: taken[worker],
        };
        let loads: Vec<Load> = serving.clone().map(load).collect();
        told.workers.push(workers);
        told.waiting.push(serving.map(|worker| queued[worker]).sum());
        if workers != wanted {
            if second - since >= BOOT_S {
                workers = wanted;
            }
            scaling.forget();
            continue;
        }
        let sample = Sample { workers: loads, waiting: 0, cpu_s };
        let at = Moment::at(Duration::from_secs(u64::from(second)));
        if let Some(change) = scaling.sample(at, &sample, range) {
            assert!((range.min..=range.max).contains(&change.to), "{change:?}");
            assert!(change.to.abs_diff(change.from) <= range.step, "{change:?}");
            told.changes.push((second, change));
            (wanted, since) = (change.to, second);
            if change.to < change.from {
                // Its connections are taken back and given to the others.
                let left: u64 = queued[change.to as usize..].iter().sum();
                queued[change.to as usize..].fill(0);
                queued[0] += left;
                workers = wanted;
            }
        }
    }
    told
}

fn never(_: u32) -> bool {
    false
}

/// So many workers' worth of requests a second, for so many seconds.
fn level(kind: Kind, workers: f64, seconds: usize) -> Vec<f64> {
    vec![workers * kind.rate(); seconds]
}

const KINDS: [Kind; 2] = [Kind::Blocks, Kind::Computes];
const SEEDS: std::ops::Range<u64> = 0..20;

#[test]
fn a_step_is_followed_up_within_half_a_minute_and_down_in_time() {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| SEEDS.map(move |seed| (kind, seed))) {
        let load = [level(kind, 0.5, 60), level(kind, 4.5, 240), level(kind, 0.5, 600)].concat();
        let told = run(seed, kind, &RANGE, &load, never);
        let (least, most) = told.between(100, 300);
        assert!(least >= 5 && most <= 8, "{least} to {most}: {:?}", told.changes);
        assert!(told.waiting[200..300].iter().max() < Some(&100), "{:?}", &told.waiting[60..300]);
        assert_eq!(told.workers.last(), Some(&2), "{:?}", told.changes);
    }
}

#[test]
fn a_ramp_is_followed() {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| SEEDS.map(move |seed| (kind, seed))) {
        let load: Vec<f64> = (0..600).map(|second| kind.rate() * (0.5 + 6.0 * f64::from(second) / 600.0)).collect();
        let told = run(seed, kind, &RANGE, &load, never);
        assert!(told.between(560, 600).0 >= 6, "{:?}", told.changes);
        assert!(told.changes.iter().all(|(_, change)| change.to > change.from || change.from > 2));
    }
}

#[test]
fn a_day_needs_few_workers_at_night_and_many_at_noon() {
    for seed in FEW_SEEDS {
        // A day in an hour and a half.
        let day = |second: i32| 0.3 + 5.0 * (std::f64::consts::PI * f64::from(second) / 5400.0).sin().powi(2);
        let load: Vec<f64> = (0..5400).map(|second| Kind::Computes.rate() * day(second)).collect();
        let told = run(seed, Kind::Computes, &RANGE, &load, never);
        assert!(told.between(2600, 2800).0 >= 6, "{:?}", told.changes);
        assert_eq!(told.between(5380, 5400), (2, 2), "{:?}", told.changes);
        assert!(told.changes.len() <= 24, "{:?}", told.changes);
    }
}

/// Fewer where each run is long.
const FEW_SEEDS: std::ops::Range<u64> = 0..4;

#[test]
fn a_constant_load_changes_direction_at_most_once_a_minute_and_in_the_end_not_at_all() {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| FEW_SEEDS.map(move |seed| (kind, seed))) {
        for workers in [0.5, 1.7, 2.5, 3.9, 5.2, 7.9, 12.0] {
            let told = run(seed, kind, &RANGE, &level(kind, workers, 1800), never);
            assert!(told.reversals_in_a_minute() <= 1, "{workers}: {:?}", told.changes);
        }
    }
}

#[test]
fn noise_is_no_reason_to_go_back_and_forth() {
    for seed in SEEDS {
        let mut chance = Chance::new(seed);
        let noisy = |chance: &mut Chance| Kind::Computes.rate() * (2.0 + f64::from(chance.below(100)) / 100.0);
        let load: Vec<f64> = (0..1800).map(|_| noisy(&mut chance)).collect();
        let told = run(seed, Kind::Computes, &RANGE, &load, never);
        assert!(told.reversals_in_a_minute() <= 1, "{:?}", told.changes);
        assert!(told.changes.len() <= 12, "{:?}", told.changes);
    }
}

#[test]
fn one_slow_worker_does_not_bring_others() {
    for seed in SEEDS {
        let told = run(seed, Kind::Computes, &RANGE, &level(Kind::Computes, 0.6, 300), |second| second > 100);
        assert!(told.changes.is_empty(), "{:?}", told.changes);
    }
}

#[test]
fn a_stall_of_everything_brings_workers_and_they_leave_again() {
    // A database that all wait for answers nothing for 20 seconds.
    for seed in SEEDS {
        let load = level(Kind::Blocks, 0.4, 900);
        let told = run_stalling(seed, Kind::Blocks, &RANGE, &load, |_, second| (100..120).contains(&second));
        assert!(told.workers.iter().max() <= Some(&RANGE.max) && told.waiting[160..].iter().max() < Some(&20));
        assert!(told.reversals_in_a_minute() <= 1, "{:?}", told.changes);
        assert_eq!(told.workers.last(), Some(&2), "{:?}", told.changes);
    }
}

#[test]
fn a_wide_step_is_kept_to() {
    let range = Range { step: 4, max: 16, ..RANGE };
    for seed in SEEDS {
        let load = [level(Kind::Blocks, 0.5, 30), level(Kind::Blocks, 12.0, 120)].concat();
        let told = run(seed, Kind::Blocks, &range, &load, never);
        assert!(told.between(60, 150).0 >= 10, "{:?}", told.changes);
    }
}
