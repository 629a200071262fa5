//! Token buckets by key, in a table that does not grow: how often somebody may do something.
//!
//! `now` is an argument. A key that has not been seen for as long as its bucket takes to fill is forgotten. At the bound new
//! keys are refused: whoever fills the table with keys of his own delays newcomers, and nobody else.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Most keys at a time.
const MAX_KEYS: usize = 4096;

/// The buckets.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    /// Tokens of a full bucket.
    burst: f64,
    /// One token comes back in this time.
    every: Duration,
    buckets: HashMap<K, (f64, Instant)>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Buckets of `burst` tokens, one of which comes back `every` so often.
    pub(super) fn new(burst: u32, every: Duration) -> Self {
        Self { burst: f64::from(burst.max(1)), every: every.max(Duration::from_millis(1)), buckets: HashMap::new() }
    }

    /// Takes a token of `key`; `false` when there is none.
    pub(super) fn take(&mut self, key: K, now: Instant) -> bool {
        let (burst, every) = (self.burst, self.every);
        let filled = |tokens: f64, since: Instant| {
            let back = now.saturating_duration_since(since).as_secs_f64() / every.as_secs_f64();
            (tokens + back).min(burst)
        };
        if !self.buckets.contains_key(&key) && self.buckets.len() >= MAX_KEYS {
            self.buckets.retain(|_, (tokens, since)| filled(*tokens, *since) < burst);
            if self.buckets.len() >= MAX_KEYS {
                return false;
            }
        }
        let (tokens, since) = self.buckets.entry(key).or_insert((burst, now));
        let have = filled(*tokens, *since);
        let taken = have >= 1.0;
        (*tokens, *since) = (if taken { have - 1.0 } else { have }, now);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let (mut buckets, start) = (Buckets::new(3, Duration::from_secs(10)), Instant::now());
        assert!((0..3).all(|_| buckets.take("a", start)));
        assert!(!buckets.take("a", start) && buckets.take("b", start));
        let later = start + Duration::from_secs(10);
        assert!(buckets.take("a", later) && !buckets.take("a", later));
        // Asking in vain costs nothing.
        let soon = later + Duration::from_secs(5);
        assert!(!buckets.take("a", soon) && buckets.take("a", soon + Duration::from_secs(5)));
    }

    #[test]
    fn a_full_table_refuses_newcomers_until_somebody_is_forgotten() {
        let (mut buckets, start) = (Buckets::new(2, Duration::from_secs(1)), Instant::now());
        assert!((0..MAX_KEYS).all(|key| buckets.take(key, start)));
        assert!(!buckets.take(MAX_KEYS, start) && buckets.take(0, start));
        assert!(buckets.take(MAX_KEYS, start + Duration::from_secs(1)));
        assert!(buckets.buckets.len() < 3);
    }
}
