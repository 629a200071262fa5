//! What a link does to the packets of one direction. Without I/O: `now` is an argument, and chance has a seed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Conditions, Counted};

struct Packet {
    taken: Instant,
    due: Instant,
    bytes: Vec<u8>,
}

/// Packets on their way from one end to the other, first in, first out.
pub struct Direction {
    conditions: Conditions,
    rng: ChaCha8Rng,
    /// Bounded by the conditions.
    waiting: VecDeque<Packet>,
    counted: Counted,
}

impl Direction {
    /// An empty one. `number` tells the two directions of a link apart: what one loses the other need not.
    #[must_use]
    pub fn new(conditions: Conditions, number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(conditions.seed);
        rng.set_stream(number);
        Self { conditions, rng, waiting: VecDeque::new(), counted: Counted::default() }
    }

    /// A packet comes in.
    pub fn take(&mut self, bytes: &[u8], now: Instant) {
        self.counted.taken += 1;
        // Both are drawn for each packet: what becomes of one does not depend on what became of others.
        let lost = self.rng.random_range(0..1000) < self.conditions.loss_per_mille;
        let jitter = self.rng.random_range(0..=self.conditions.jitter_ms);
        if lost {
            self.counted.lost += 1;
        } else if self.waiting.len() >= self.conditions.queue {
            self.counted.overflowed += 1;
        } else {
            let due = now + Duration::from_millis(u64::from(self.conditions.delay_ms) + u64::from(jitter));
            let due = self.waiting.back().map_or(due, |before| before.due.max(due));
            self.waiting.push_back(Packet { taken: now, due, bytes: bytes.to_vec() });
        }
    }

    /// When the next packet is to go out.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|packet| packet.due)
    }

    /// The next packet that is due.
    pub fn deliver(&mut self, now: Instant) -> Option<Vec<u8>> {
        let packet = self.waiting.pop_front_if(|packet| packet.due <= now)?;
        let took = u64::try_from((now - packet.taken).as_micros()).unwrap_or(u64::MAX);
        let first = self.counted.delivered == 0;
        self.counted.shortest_us = if first { took } else { self.counted.shortest_us.min(took) };
        self.counted.delivered += 1;
        self.counted.total_us += took;
        Some(packet.bytes)
    }

    /// What became of the packets.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONDITIONS: Conditions =
        Conditions { delay_ms: 150, jitter_ms: 0, loss_per_mille: 100, queue: 10_000, seed: 7 };

    /// The packets, by number, that come out when a thousand go in at once.
    fn delivered(conditions: Conditions, number: u64) -> Vec<u32> {
        let (mut direction, now) = (Direction::new(conditions, number), Instant::now());
        for packet in 0..1000_u32 {
            direction.take(&packet.to_be_bytes(), now);
        }
        let late = now + Duration::from_secs(60);
        let out = std::iter::from_fn(|| direction.deliver(late));
        out.map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap())).collect()
    }

    #[test]
    fn the_same_seed_loses_the_same_packets_and_one_direction_others_than_the_other() {
        let out = delivered(CONDITIONS, 0);
        assert_eq!(out, delivered(CONDITIONS, 0));
        assert_ne!(out, delivered(CONDITIONS, 1));
        assert_ne!(out, delivered(Conditions { seed: 8, ..CONDITIONS }, 0));
        assert!((850..950).contains(&out.len()), "{}", out.len());
        assert!(out.is_sorted());
    }

    #[test]
    fn no_packet_goes_out_before_its_time_and_jitter_keeps_the_order() {
        let conditions = Conditions { jitter_ms: 50, loss_per_mille: 0, ..CONDITIONS };
        let (mut direction, start) = (Direction::new(conditions, 0), Instant::now());
        for packet in 0..100_u8 {
            direction.take(&[packet], start + Duration::from_millis(u64::from(packet)));
        }
        let (mut now, mut out) = (start, Vec::new());
        while let Some(due) = direction.due() {
            assert!(due >= now, "in order");
            assert_eq!(direction.deliver(due - Duration::from_micros(1)), None);
            now = due;
            out.extend(direction.deliver(now).unwrap());
        }
        assert_eq!(out, (0..100).collect::<Vec<u8>>());
        let counted = direction.counted();
        assert_eq!((counted.taken, counted.delivered), (100, 100));
        assert!(counted.shortest_us >= 150_000 && counted.total_us > 100 * 150_000, "{counted:?}");
        assert!(counted.total_us <= 100 * 200_000, "{counted:?}");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let conditions = Conditions { queue: 10, loss_per_mille: 0, ..CONDITIONS };
        assert_eq!(delivered(conditions, 0), (0..10).collect::<Vec<u32>>());
        let mut direction = Direction::new(conditions, 0);
        (0..11).for_each(|_| direction.take(&[1], Instant::now()));
        assert_eq!((direction.counted().overflowed, direction.counted().lost), (1, 0));
    }
}
