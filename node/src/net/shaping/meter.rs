//! Bytes in all, and lately. `now` is an argument.

use std::time::{Duration, Instant};

/// Seconds that count as lately.
const SLOTS: usize = 10;

/// A count of bytes, with one slot for each of the last seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    total: u64,
    slots: [u64; SLOTS],
    /// The second that the meter is in.
    at: u64,
    begun: Instant,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { total: 0, slots: [0; SLOTS], at: 0, begun: now }
    }

    fn turn(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.begun).as_secs();
        // Slots that were skipped are empty.
        for passed in self.at + 1..=second.min(self.at + SLOTS as u64) {
            self.slots[slot(passed)] = 0;
        }
        if second > self.at + SLOTS as u64 {
            self.slots = [0; SLOTS];
        }
        self.at = self.at.max(second);
    }

    pub(super) fn add(&mut self, bytes: u64, now: Instant) {
        self.turn(now);
        self.total = self.total.saturating_add(bytes);
        let slot = &mut self.slots[slot(self.at)];
        *slot = slot.saturating_add(bytes);
    }

    /// Bytes since the start.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes per second, the mean of the last ten seconds; of fewer at the start.
    pub(super) fn rate(&mut self, now: Instant) -> u64 {
        self.turn(now);
        let lately = self.slots.iter().fold(0_u64, |sum, slot| sum.saturating_add(*slot));
        let seconds = now.saturating_duration_since(self.begun).min(Duration::from_secs(SLOTS as u64)).as_secs();
        lately / seconds.max(1)
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_lately_is_forgotten_after_ten_seconds() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::new(start);
        meter.add(700, start);
        assert_eq!(meter.rate(after(0)), 700);
        assert_eq!(meter.rate(after(7)), 100);
        meter.add(300, after(9));
        assert_eq!(meter.rate(after(9)), 1000 / 9);
        assert_eq!(meter.rate(after(10)), 30, "the first second is over");
        assert_eq!((meter.rate(after(19)), meter.rate(after(1_000_000)), meter.total()), (0, 0, 1000));
    }
}
