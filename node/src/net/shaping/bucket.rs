//! A token bucket that may go into debt. `now` is an argument.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// The deepest debt, in seconds of the rate: what is beyond is forgiven, so that nobody waits for ever.
const DEEPEST: f64 = 60.0;

/// Bytes that may go. A full bucket holds a second's worth; one without a rate is always full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Bytes per second; 0 for no limit.
    rate: f64,
    /// Negative in debt.
    held: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Option<NonZeroU64>, now: Instant) -> Self {
        let rate = rate.map_or(0.0, |rate| rate.get() as f64);
        Self { rate, held: rate, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let came = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        self.held = (self.held + came).min(self.rate);
        self.at = self.at.max(now);
    }

    /// How long it takes until the debt is at most so many seconds' worth; zero when it is.
    pub(super) fn wait(&mut self, debt: Duration, now: Instant) -> Duration {
        if self.rate == 0.0 {
            return Duration::ZERO;
        }
        self.fill(now);
        let missing = -self.held / self.rate - debt.as_secs_f64();
        // At least what a timer can tell apart.
        if missing <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(missing).max(Duration::from_millis(1)) }
    }

    /// Takes bytes, there or not.
    pub(super) fn spend(&mut self, bytes: u64, now: Instant) {
        if self.rate > 0.0 {
            self.fill(now);
            self.held = (self.held - bytes as f64).max(-DEEPEST * self.rate);
        }
    }

    /// Whether it remembers nothing.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.held >= self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_second_at_once_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(NonZeroU64::new(1000), start);
        bucket.spend(1000, start);
        assert_eq!(bucket.wait(Duration::ZERO, start), Duration::ZERO, "no debt yet");
        bucket.spend(500, start);
        assert_eq!(bucket.wait(Duration::ZERO, start), SECOND / 2);
        assert_eq!(bucket.wait(SECOND / 4, start), SECOND / 4);
        assert_eq!(bucket.wait(SECOND, start), Duration::ZERO);
        assert_eq!(bucket.wait(Duration::ZERO, start + SECOND / 2), Duration::ZERO);
        // What was not used for long is a second's worth, no more.
        assert!(bucket.is_full(start + 100 * SECOND));
        bucket.spend(1500, start + 100 * SECOND);
        assert_eq!(bucket.wait(Duration::ZERO, start + 100 * SECOND), SECOND / 2);
    }

    #[test]
    fn in_the_long_run_no_more_than_the_rate_goes() {
        let start = Instant::now();
        let (mut bucket, mut now, mut went) = (Bucket::new(NonZeroU64::new(10_000), start), start, 0);
        while now < start + 100 * SECOND {
            match bucket.wait(Duration::ZERO, now) {
                Duration::ZERO => {
                    bucket.spend(65_536, now);
                    went += 65_536;
                }
                wait => now += wait,
            }
        }
        assert!((900_000..=1_010_000 + 65_536).contains(&went), "{went}");
    }

    #[test]
    fn without_a_rate_nobody_waits_and_no_debt_is_for_ever() {
        let start = Instant::now();
        let mut free = Bucket::new(None, start);
        free.spend(u64::MAX, start);
        assert!(free.wait(Duration::ZERO, start).is_zero() && free.is_full(start));
        let mut slow = Bucket::new(NonZeroU64::new(1), start);
        slow.spend(u64::MAX, start);
        assert_eq!(slow.wait(Duration::ZERO, start), 60 * SECOND);
        // A clock that goes back changes nothing.
        assert_eq!(slow.wait(Duration::ZERO, start.checked_sub(SECOND).unwrap_or(start)), 60 * SECOND);
    }
}
