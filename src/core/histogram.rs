//! Times in classes, as Prometheus counts them: each class has an upper bound, and the last one none.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Counts of times up to each bound.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Upper bounds in seconds, ascending; what is above the last belongs to a class without one.
    pub bounds_s: Vec<f64>,
    /// How many times are in each class, and in the one above the last bound.
    pub counts: Vec<u64>,
    /// All times together, in seconds.
    pub sum_s: f64,
}

impl Histogram {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(bounds_s: &[f64]) -> Histogram {
        Histogram { bounds_s: bounds_s.to_vec(), counts: vec![0; bounds_s.len() + 1], sum_s: 0.0 }
    }

    /// Counts a time.
    pub fn count(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let class = self.bounds_s.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
        }
        self.sum_s += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_belongs_to_the_first_class_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::new(&[0.001, 1.0]);
        for millis in [0, 1, 2, 1000, 5000] {
            histogram.count(Duration::from_millis(millis));
        }
        assert_eq!(histogram.counts, [2, 2, 1]);
        assert!((histogram.sum_s - 6.003).abs() < 1e-9);
    }
}
