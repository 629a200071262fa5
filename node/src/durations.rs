//! How long things took: a histogram that is cheap enough to be kept where the thing happens.
//!
//! Recording is three relaxed additions, without a lock or an allocation. The bounds are the same everywhere, so that
//! histograms of different parts can be laid side by side.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Upper bounds of the buckets, seconds, included: from a lookup in memory to a transfer over a bad link.
pub const BOUNDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Buckets: one for each bound, and one for what took longer than all of them.
const BUCKETS: usize = BOUNDS.len() + 1;

/// A histogram of durations since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

/// A reading of a histogram.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DurationsReport {
    /// How many fell into each bucket (not cumulated): one for each of [`BOUNDS`], and one beyond.
    pub buckets: [u64; BUCKETS],
    /// The sum of all, seconds.
    pub sum_s: f64,
}

impl Durations {
    /// Records one.
    pub(crate) fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        // A sum that wraps after half a million years is no worry; a single value that does not fit is cut.
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Records what began at `since` and has just ended.
    pub(crate) fn since(&self, since: Instant) {
        self.record(since.elapsed());
    }

    /// What was recorded so far.
    pub(crate) fn report(&self) -> DurationsReport {
        let mut buckets = [0; BUCKETS];
        for (read, bucket) in buckets.iter_mut().zip(&self.buckets) {
            *read = bucket.load(Relaxed);
        }
        DurationsReport { buckets, sum_s: Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64() }
    }
}

impl DurationsReport {
    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Bounds and counts, the last bound infinite.
    pub fn bounded(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        BOUNDS.into_iter().chain([f64::INFINITY]).zip(self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_pass() {
        let durations = Durations::default();
        for ms in [0, 1, 2, 60_000, 60_001] {
            durations.record(Duration::from_millis(ms));
        }
        let report = durations.report();
        let filled: Vec<(f64, u64)> = report.bounded().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0005, 1), (0.001, 1), (0.0025, 1), (60.0, 1), (f64::INFINITY, 1)]);
        assert_eq!((report.count(), report.sum_s), (5, 120.004));
    }
}
