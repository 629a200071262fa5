//! Which gossip topics there may be, and how many of our own fit.
//!
//! Two traps of gossipsub end here. A peer keeps every topic name another peer sends it, so names are bounded in form, length
//! and number. And on a new connection gossipsub tells all our topics in one frame: were it larger than peers accept, that
//! peer would learn none of them and drop the stream, so a subscription that would not fit is refused.

use std::collections::BTreeSet;

use libp2p::gossipsub::{MaxCountSubscriptionFilter, TopicHash, TopicSubscriptionFilter};

use tributary_protocol::wire::{gossip::TOPIC_PREFIX, parse_topic};

use super::{MAX_GOSSIP_FRAME, MAX_TOPICS_PER_PEER, error::SubscribeError};

/// Longest topic, bytes: `/tributary/feed/1/<did>/<stream id>`.
const MAX_TOPIC_LEN: usize = 18 + 51 + 1 + 64;
/// Bytes a topic costs in the hello beside its name: tags, lengths and flags of the protobuf message, rounded up.
const HELLO_OVERHEAD: usize = 16;

/// Whether a name can be a topic of this network.
pub(super) fn is_topic(name: &str) -> bool {
    name.len() <= MAX_TOPIC_LEN && parse_topic(name).is_some()
}

/// Lets through the topics of this network, whoever subscribes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FeedTopics;

impl TopicSubscriptionFilter for FeedTopics {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        is_topic(topic.as_str())
    }
}

/// The filter every node uses: the default would drop the whole hello of a peer with more than 100 topics.
pub(super) fn filter() -> MaxCountSubscriptionFilter<FeedTopics> {
    MaxCountSubscriptionFilter {
        filter: FeedTopics,
        max_subscribed_topics: MAX_TOPICS_PER_PEER,
        max_subscriptions_per_request: MAX_TOPICS_PER_PEER,
    }
}

/// Our own subscriptions, and what they cost in the hello.
#[derive(Debug, Default)]
pub(super) struct OwnTopics {
    topics: BTreeSet<String>,
    hello_bytes: usize,
}

impl OwnTopics {
    /// Takes a topic in; `false` when it was there already.
    pub(super) fn insert(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        if !is_topic(topic) {
            return Err(self.refuse(topic));
        }
        if self.topics.contains(topic) {
            return Ok(false);
        }
        let hello_bytes = self.hello_bytes + topic.len() + HELLO_OVERHEAD;
        if hello_bytes > MAX_GOSSIP_FRAME || self.topics.len() >= MAX_TOPICS_PER_PEER {
            return Err(SubscribeError::TooMany { topics: self.topics.len() });
        }
        self.hello_bytes = hello_bytes;
        Ok(self.topics.insert(topic.to_owned()))
    }

    /// Takes a topic out and says that its name cannot be one.
    pub(super) fn refuse(&mut self, topic: &str) -> SubscribeError {
        self.remove(topic);
        let topic = topic.chars().take(MAX_TOPIC_LEN).collect();
        SubscribeError::Name { topic, prefix: TOPIC_PREFIX }
    }

    /// Takes a topic out; `false` when it was not there.
    pub(super) fn remove(&mut self, topic: &str) -> bool {
        let removed = self.topics.remove(topic);
        if removed {
            self.hello_bytes -= topic.len() + HELLO_OVERHEAD;
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_topics_never_outgrow_one_hello() {
        let mut own = OwnTopics::default();
        let name = |i: usize| format!("/tributary/feed/1/did:peaq:0x{i:040x}/{:064x}", i + 1);
        let mut taken = 0;
        let refused = (0..).map(name).map(|topic| own.insert(&topic)).find_map(|result| match result {
            Ok(new) => {
                assert!(new);
                taken += 1;
                None
            }
            Err(error) => Some(error),
        });
        assert_eq!(refused, Some(SubscribeError::TooMany { topics: taken }));
        assert!(taken > 400, "{taken}");
        assert_eq!(own.insert(&name(0)), Ok(false));
        assert!(own.remove(&name(0)) && !own.remove(&name(0)));
        assert_eq!(own.insert(&name(taken)), Ok(true));
    }

    #[test]
    fn foreign_and_endless_names_are_no_topics() {
        let mut own = OwnTopics::default();
        for bad in [String::from("news"), format!("{TOPIC_PREFIX}{}", "x".repeat(1 << 20))] {
            assert!(matches!(own.insert(&bad), Err(SubscribeError::Name { .. })));
            assert!(!FeedTopics.can_subscribe(&TopicHash::from_raw(bad)));
        }
    }
}
