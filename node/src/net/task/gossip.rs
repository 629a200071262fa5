//! Gossip: subscriptions, publishing, and what peers send.

use libp2p::{
    PeerId,
    gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, TopicHash},
};
use tokio::sync::mpsc;

use super::Task;
use crate::net::{
    MAX_GOSSIP_MESSAGE,
    behaviour::topic_score,
    error::{PublishError, SubscribeError},
    event::{Acceptance, GossipMessage, PeerEvent, PublishOutcome, count},
    reputation::Offence,
    shaping::{Class, Way},
    topics::is_topic,
};

/// Peers that a message goes to at most: the largest mesh that gossipsub keeps by default.
const MAX_COPIES: usize = 12;
/// Messages whose length is remembered until their verdict; as long as gossipsub waits for it there are few more.
const MAX_HANDED: usize = 2048;
/// Messages that met only full queues and are remembered, so that a retry is not taken for a duplicate.
const MAX_UNSENT: usize = 1024;
/// Subscribers of a topic that are told at a time.
const MAX_LISTENERS: usize = 64;

impl Task {
    pub(super) fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        if !self.own_topics.insert(topic)? {
            return Ok(false);
        }
        let ident = IdentTopic::new(topic);
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        // Scoring was switched on at the start, so this cannot be refused.
        if let Err(reason) = gossip.set_topic_params(ident.clone(), topic_score()) {
            tracing::warn!(topic, reason, "topic without scoring");
        }
        // The filter of gossipsub asks the same question as `OwnTopics`, so this is refused only if the two drift apart.
        gossip.subscribe(&ident).map_err(|_| self.own_topics.refuse(topic))
    }

    pub(super) fn publish(&mut self, topic: String, bytes: Vec<u8>) -> Result<PublishOutcome, PublishError> {
        if !is_topic(&topic) {
            return Err(PublishError::Topic(topic.chars().take(160).collect()));
        }
        let id = MessageId::new(blake3::hash(&bytes).as_bytes());
        let topic = TopicHash::from_raw(topic);
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        let copies = gossip.all_peers().filter(|(_, topics)| topics.contains(&&topic)).count().min(MAX_COPIES);
        if copies > 0 && self.shaper.take(Class::Gossip, Way::Up, None, 0).is_err() {
            return Ok(PublishOutcome::QueuesFull);
        }
        let len = bytes.len();
        match gossip.publish(topic.clone(), bytes) {
            Ok(_) => {
                count(&self.counters.gossip_sent);
                self.shaper.spend(Class::Gossip, Way::Up, None, len.saturating_mul(copies));
                let listeners = gossip.all_peers().filter(|(_, topics)| topics.contains(&&topic)).count();
                self.unsent.retain(|unsent| *unsent != id);
                Ok(PublishOutcome::Sent { listeners: listeners.max(1) })
            }
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Ok(PublishOutcome::NoPeers),
            // Gossipsub notes the id before it tries the queues, so for a minute a retry looks like a duplicate.
            Err(gossipsub::PublishError::Duplicate) if self.unsent.contains(&id) => Ok(PublishOutcome::QueuesFull),
            Err(gossipsub::PublishError::Duplicate) => Ok(PublishOutcome::Duplicate),
            Err(gossipsub::PublishError::AllQueuesFull(_)) => {
                if self.unsent.len() >= MAX_UNSENT {
                    self.unsent.pop_front();
                }
                self.unsent.push_back(id);
                Ok(PublishOutcome::QueuesFull)
            }
            Err(error) => Err(PublishError::Refused(error.to_string())),
        }
    }

    pub(super) fn listeners(&self, topic: String) -> Vec<PeerId> {
        let topic = TopicHash::from_raw(topic);
        let all = self.swarm.behaviour().gossip.all_peers();
        all.filter(|(_, topics)| topics.contains(&&topic)).map(|(peer, _)| *peer).take(MAX_LISTENERS).collect()
    }

    pub(super) fn report(&mut self, id: &MessageId, source: PeerId, acceptance: Acceptance) {
        let handed = self.handed.remove(id);
        let verdict = match acceptance {
            Acceptance::Accept if !self.may_pass_on(handed) => MessageAcceptance::Ignore,
            Acceptance::Accept => MessageAcceptance::Accept,
            Acceptance::Ignore => MessageAcceptance::Ignore,
            Acceptance::Reject => {
                count(&self.counters.gossip_rejected);
                MessageAcceptance::Reject
            }
        };
        let known = self.swarm.behaviour_mut().gossip.report_message_validation_result(id, &source, verdict);
        if !known && acceptance == Acceptance::Reject {
            // It fell out of gossipsub's cache before the verdict, so the score did not hear of it.
            self.penalize(source, Offence::InvalidGossip);
        }
    }

    /// Whether the limits leave room for the copies of a good message that others would get from us. They have other peers.
    fn may_pass_on(&self, handed: Option<(TopicHash, usize)>) -> bool {
        let Some((topic, len)) = handed else { return true };
        // Whoever sent it to us does not get it back.
        let copies = self.swarm.behaviour().gossip.mesh_peers(&topic).count().saturating_sub(1);
        copies == 0 || self.shaper.take(Class::Gossip, Way::Up, None, len.saturating_mul(copies)).is_ok()
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                count(&self.counters.gossip_first);
                if message.data.len() > MAX_GOSSIP_MESSAGE {
                    count(&self.counters.bad_frames);
                    self.report(&message_id, propagation_source, Acceptance::Reject);
                    return;
                }
                // Its bytes are counted already; what is over the limit is not worth the work behind it.
                if self.shaper.take(Class::Gossip, Way::Down, Some(propagation_source), 0).is_err() {
                    count(&self.counters.gossip_dropped);
                    self.report(&message_id, propagation_source, Acceptance::Ignore);
                    return;
                }
                if self.handed.len() >= MAX_HANDED {
                    self.handed.clear();
                }
                self.handed.insert(message_id.clone(), (message.topic.clone(), message.data.len()));
                let gossip = GossipMessage {
                    id: message_id,
                    source: propagation_source,
                    topic: message.topic.into_string(),
                    bytes: message.data,
                };
                match self.gossip_tx.try_send(gossip) {
                    Ok(()) => count(&self.counters.gossip_received),
                    Err(mpsc::error::TrySendError::Full(message) | mpsc::error::TrySendError::Closed(message)) => {
                        count(&self.counters.gossip_dropped);
                        self.report(&message.id, message.source, Acceptance::Ignore);
                    }
                }
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                self.tell(PeerEvent::Subscribed { peer: peer_id, topic: topic.into_string() });
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                self.tell(PeerEvent::Unsubscribed { peer: peer_id, topic: topic.into_string() });
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "peer is slow to take gossip")
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                tracing::debug!(peer = %peer_id, "peer speaks no gossip");
            }
        }
    }
}
