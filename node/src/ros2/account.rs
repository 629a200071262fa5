//! What the middleware lost, counted exactly.
//!
//! A publisher numbers its messages, and the middleware hands the number over with each. What is missing between two of them was
//! published and never came: lost on the way, or overwritten in the subscription's history before it was taken. That is one number
//! for every cause, and each message is in it once. A message that is missing behind the last one is noticed with the next.
//!
//! Where the middleware does not number messages, its own count of lost messages is taken, which leaves out what was overwritten.

use std::collections::HashMap;

/// Longest id of a publisher in any release of ROS 2, in bytes.
const GID: usize = 24;
/// Publishers of one topic whose numbers are remembered. When there are more, the one that was silent longest is forgotten: it
/// counts from its next message on.
const MAX_PUBLISHERS: usize = 1024;

/// Which publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Gid([u8; GID]);

impl Gid {
    /// From the middleware's bytes: 16 or 24, depending on the release.
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut gid = [0; GID];
        gid.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self(gid)
    }
}

/// What the middleware says about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageInfo {
    /// When it was published, nanoseconds since 1970; 0 when that is not known.
    pub(super) published_ns: u64,
    /// When it was received, nanoseconds since 1970; 0 when that is not known.
    pub(super) received_ns: u64,
    /// Who published it.
    pub(super) publisher: Gid,
    /// Its number among that publisher's messages on this topic.
    pub(super) sequence: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    sequence: u64,
    /// Position of its last message among all.
    turn: u64,
}

/// Finds gaps in the numbers of one subscription's messages.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    last: HashMap<Gid, Last>,
    turn: u64,
    /// Messages that are missing for a reason that is counted elsewhere.
    excused: u64,
    /// How many the middleware said it lost, at the last look.
    told: u64,
    /// Whether messages are numbered; `None` before the first.
    numbered: Option<bool>,
}

impl Sequences {
    /// Notes a message, and says how many of its publisher's are missing before it.
    pub(super) fn note(&mut self, info: &MessageInfo) -> u64 {
        self.turn += 1;
        self.numbered = Some(info.sequence.is_some());
        let Some(sequence) = info.sequence else { return 0 };
        let turn = self.turn;
        let Some(last) = self.last.get_mut(&info.publisher) else {
            if self.last.len() >= MAX_PUBLISHERS {
                let silent = self.last.iter().min_by_key(|(_, last)| last.turn).map(|(gid, _)| *gid);
                silent.map(|gid| self.last.remove(&gid));
            }
            // What it published before it was met was not for this subscription.
            self.last.insert(info.publisher, Last { sequence, turn });
            return 0;
        };
        last.turn = turn;
        // A lower number was lost and came after all, or comes twice: numbers only go up in what is counted.
        let missing = sequence.saturating_sub(last.sequence).saturating_sub(1);
        last.sequence = last.sequence.max(sequence);
        let excused = missing.min(self.excused);
        self.excused -= excused;
        missing - excused
    }

    /// A message was taken out of the middleware and could not be handed on, so its number will be missing. It is counted elsewhere.
    pub(super) fn excuse(&mut self) {
        self.excused += 1;
    }

    /// The middleware says that it has lost so many since the subscription began. Says how many of them are to be counted: none
    /// where messages are numbered, since gaps tell it better.
    pub(super) fn told(&mut self, total: u64) -> u64 {
        let news = total.saturating_sub(self.told);
        self.told = self.told.max(total);
        if self.numbered == Some(true) { 0 } else { news }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(publisher: u8, sequence: u64) -> MessageInfo {
        MessageInfo { published_ns: 0, received_ns: 0, publisher: Gid::new(&[publisher; 16]), sequence: Some(sequence) }
    }

    #[test]
    fn a_gap_is_counted_for_its_publisher_and_a_newcomer_begins_where_it_is() {
        let mut numbers = Sequences::default();
        let missing = [(1, 5), (1, 6), (2, 100), (1, 9), (2, 101), (1, 10), (2, 103)];
        let missing = missing.map(|(publisher, sequence)| numbers.note(&info(publisher, sequence)));
        assert_eq!(missing, [0, 0, 0, 2, 0, 0, 1]);
    }

    #[test]
    fn a_restarted_publisher_is_another_one() {
        let mut numbers = Sequences::default();
        assert_eq!([numbers.note(&info(1, 900)), numbers.note(&info(2, 1)), numbers.note(&info(2, 2))], [0, 0, 0]);
    }

    #[test]
    fn what_is_counted_elsewhere_is_not_counted_twice() {
        let mut numbers = Sequences::default();
        numbers.note(&info(1, 1));
        numbers.excuse();
        assert_eq!(numbers.note(&info(1, 5)), 2, "2 to 4 are missing, one of them excused");
        assert_eq!(numbers.note(&info(1, 7)), 1);
    }

    #[test]
    fn the_middlewares_own_count_is_for_messages_without_numbers() {
        let mut numbers = Sequences::default();
        assert_eq!(numbers.told(3), 3);
        numbers.note(&MessageInfo { sequence: None, ..info(1, 0) });
        assert_eq!([numbers.told(3), numbers.told(10), numbers.told(10)], [0, 7, 0]);
        numbers.note(&info(1, 1));
        assert_eq!(numbers.told(20), 0);
    }

    #[test]
    fn the_table_of_publishers_is_bounded() {
        let mut numbers = Sequences::default();
        let gid = |n: usize| Gid::new(&n.to_be_bytes());
        for n in 0..MAX_PUBLISHERS + 1 {
            numbers.note(&MessageInfo { publisher: gid(n), ..info(0, 10) });
        }
        assert_eq!(numbers.last.len(), MAX_PUBLISHERS);
        assert_eq!(numbers.note(&MessageInfo { publisher: gid(1), ..info(0, 12) }), 1);
        assert_eq!(numbers.note(&MessageInfo { publisher: gid(0), ..info(0, 12) }), 0, "forgotten");
    }

    proptest! {
        /// Every message of a publisher is received or missing, once.
        #[test]
        fn received_and_missing_add_up(
            first in 1u64..1000,
            kept in proptest::collection::vec(any::<(bool, bool)>(), 1..200),
        ) {
            let (mut numbers, mut received, mut missing) = (Sequences::default(), [0u64; 2], 0);
            let mut next = [first; 2];
            let (mut begun, mut end) = ([None; 2], [0; 2]);
            for (publisher, arrives) in kept {
                let publisher = usize::from(publisher);
                let sequence = next[publisher];
                next[publisher] += 1;
                if arrives {
                    missing += numbers.note(&info(publisher as u8, sequence));
                    received[publisher] += 1;
                    begun[publisher].get_or_insert(sequence);
                    end[publisher] = sequence + 1;
                }
            }
            let published: u64 = (0..2).filter_map(|p| Some(end[p] - begun[p]?)).sum();
            prop_assert_eq!(received.iter().sum::<u64>() + missing, published);
        }
    }
}
