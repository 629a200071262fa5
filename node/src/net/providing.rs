//! When this node says which feeds it serves. Sans-I/O: `now` is an argument.
//!
//! A feed is announced at once, again when half of the time is over after which others forget it, and within a minute when it
//! has reached nobody, or as soon as somebody is there who can be told.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tributary_protocol::ids::Hash;

use super::providers::MAX_OWN;

/// When an announcement that has reached nobody is tried again.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Feed {
    next: Instant,
    /// Whether an announcement is under way.
    running: bool,
    /// Whether the last one reached somebody.
    reached: bool,
}

/// The feeds that this node serves.
#[derive(Debug)]
pub(super) struct Providing {
    feeds: BTreeMap<Hash, Feed>,
    every: Duration,
}

impl Providing {
    /// `expiry`: after what time others forget a record.
    pub(super) fn new(expiry: Duration) -> Self {
        Self { feeds: BTreeMap::new(), every: expiry / 2 }
    }

    /// Begins to announce a feed; `false` when it is announced already, or there are too many.
    pub(super) fn add(&mut self, feed: Hash, now: Instant) -> bool {
        if self.feeds.contains_key(&feed) || self.feeds.len() >= MAX_OWN {
            return false;
        }
        self.feeds.insert(feed, Feed { next: now, running: false, reached: false });
        true
    }

    /// Announces it no more; `false` when it was not announced.
    pub(super) fn remove(&mut self, feed: &Hash) -> bool {
        self.feeds.remove(feed).is_some()
    }

    /// The feeds to announce now, at most `room`.
    pub(super) fn due(&mut self, room: usize, now: Instant) -> Vec<Hash> {
        let due = self.feeds.iter_mut().filter(|(_, feed)| !feed.running && feed.next <= now).take(room);
        due.map(|(hash, feed)| {
            feed.running = true;
            *hash
        })
        .collect()
    }

    /// An announcement is over.
    pub(super) fn ended(&mut self, feed: &Hash, reached: bool, now: Instant) {
        if let Some(feed) = self.feeds.get_mut(feed) {
            let wait = if reached { self.every } else { AGAIN.min(self.every) };
            (feed.running, feed.reached, feed.next) = (false, reached, now + wait);
        }
    }

    /// Somebody has come who keeps records: what has reached nobody is due.
    pub(super) fn met(&mut self, now: Instant) {
        for feed in self.feeds.values_mut().filter(|feed| !feed.reached) {
            feed.next = feed.next.min(now);
        }
    }

    /// How many feeds there are, and how many of them were last announced to somebody.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.feeds.len(), self.feeds.values().filter(|feed| feed.reached).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(7200);

    #[test]
    fn a_feed_is_renewed_when_half_of_its_time_is_over() {
        let (mut providing, feed, start) = (Providing::new(EXPIRY), Hash::of(b"a"), Instant::now());
        assert!(providing.add(feed, start) && !providing.add(feed, start));
        assert_eq!(providing.due(8, start), [feed]);
        assert!(providing.due(8, start).is_empty(), "one at a time");
        providing.ended(&feed, true, start);
        assert_eq!(providing.count(), (1, 1));
        assert!(providing.due(8, start + EXPIRY / 2 - Duration::from_secs(1)).is_empty());
        assert_eq!(providing.due(8, start + EXPIRY / 2), [feed]);
        assert!(providing.remove(&feed) && !providing.remove(&feed));
        providing.ended(&feed, true, start);
        assert_eq!(providing.count(), (0, 0));
    }

    #[test]
    fn what_reached_nobody_is_tried_again_when_somebody_comes() {
        let (mut providing, start) = (Providing::new(EXPIRY), Instant::now());
        let feeds: Vec<Hash> = (0u8..10).map(|n| Hash::of(&[n])).collect();
        feeds.iter().for_each(|feed| assert!(providing.add(*feed, start)));
        assert_eq!(providing.due(4, start).len(), 4);
        assert_eq!(providing.due(100, start).len(), 6);
        feeds.iter().for_each(|feed| providing.ended(feed, *feed == feeds[0], start));
        assert!(providing.due(100, start).is_empty());
        providing.met(start);
        assert_eq!(providing.due(100, start).len(), 9, "the one that reached somebody waits");
        feeds.iter().for_each(|feed| providing.ended(feed, false, start));
        assert_eq!(providing.due(100, start + AGAIN).len(), 10);
    }

    #[test]
    fn there_are_only_so_many() {
        let (mut providing, now) = (Providing::new(EXPIRY), Instant::now());
        assert!((0..MAX_OWN).all(|n| providing.add(Hash::of(&n.to_be_bytes()), now)));
        assert!(!providing.add(Hash::of(b"one more"), now));
    }
}
