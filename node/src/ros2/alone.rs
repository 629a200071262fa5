//! Topics that are published with one type and not subscribed yet.
//!
//! Publishers that were there before this node are discovered one after the other, so the first type that is seen of a topic may not
//! be the only one. It is waited a moment before a type is taken for the topic's.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a type must have been the only one.
const ALONE: Duration = Duration::from_millis(100);

struct Seen {
    type_name: String,
    since: Instant,
    /// The look in which it was last seen.
    look: u64,
}

/// What was seen, as many topics as the graph has.
#[derive(Default)]
pub(super) struct Alone {
    topics: BTreeMap<String, Seen>,
    look: u64,
}

impl Alone {
    /// A topic is published with this type and no other. Whether that has been so for long enough.
    pub(super) fn is_settled(&mut self, topic: &str, type_name: &str, now: Instant) -> bool {
        let look = self.look;
        let seen = self.topics.entry(topic.to_owned()).or_insert_with(|| Seen {
            type_name: type_name.to_owned(),
            since: now,
            look,
        });
        if seen.type_name != type_name {
            *seen = Seen { type_name: type_name.to_owned(), since: now, look };
        }
        seen.look = look;
        now.saturating_duration_since(seen.since) >= ALONE
    }

    /// Ends a look at all topics: what was not seen in it is forgotten. Says when one of the others may be settled.
    pub(super) fn end_look(&mut self) -> Option<Instant> {
        let look = self.look;
        self.topics.retain(|_, seen| seen.look == look);
        self.look += 1;
        self.topics.values().map(|seen| seen.since + ALONE).min()
    }

    /// A topic is subscribed.
    pub(super) fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_settled_when_it_was_alone_for_a_while() {
        let (mut alone, began) = (Alone::default(), Instant::now());
        assert!(!alone.is_settled("/a", "p/msg/A", began));
        assert_eq!(alone.end_look(), Some(began + ALONE));
        assert!(!alone.is_settled("/a", "p/msg/A", began + ALONE / 2));
        assert!(alone.is_settled("/a", "p/msg/A", began + ALONE));
        alone.forget("/a");
        assert_eq!(alone.end_look(), None);
    }

    #[test]
    fn another_type_and_a_gap_begin_anew() {
        let (mut alone, began) = (Alone::default(), Instant::now());
        assert!(!alone.is_settled("/a", "p/msg/A", began));
        assert!(!alone.is_settled("/a", "p/msg/B", began + ALONE));
        alone.end_look();
        alone.end_look();
        assert!(!alone.is_settled("/a", "p/msg/B", began + 3 * ALONE), "it was not seen in between");
    }
}
