//! What the protocols carried since the start: counters, and how long things took.
//!
//! The counters are read as [`super::NetStats`], the durations as [`NetTimings`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use libp2p::gossipsub::{DataTransform, Message, RawMessage, TopicHash};

use super::{
    event::{Counters, Which, count},
    pull_client::PullError,
    shaping::{Class, Shaper, Way},
};
use crate::durations::{Durations, DurationsReport};

/// One request-response protocol since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RequestStats {
    /// Requests of peers that were handed on.
    pub received: u64,
    /// Requests of peers that were answered "busy" for want of room.
    pub busy: u64,
    /// Requests of ours that were answered.
    pub answered: u64,
    /// Requests of ours that were not.
    pub failed: u64,
}

/// Pulls from peers since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PulledStats {
    /// Transfers in which every chunk was answered for.
    pub completed: u64,
    /// Transfers that the peer refused with "busy".
    pub busy: u64,
    /// Transfers that ended early: broken, refused for wrong bytes, or given up.
    pub failed: u64,
    /// Chunks that came and had the right bytes.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How long things took since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NetTimings {
    /// Sync requests of ours until their answer, a dial included.
    pub sync: DurationsReport,
    /// The same for access requests.
    pub access: DurationsReport,
    /// Transfers from peers that ran to their end.
    pub pulls: DurationsReport,
}

/// The counters behind [`RequestStats`].
#[derive(Debug, Default)]
pub(super) struct RequestMeter {
    pub(super) received: AtomicU64,
    pub(super) busy: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    took: Durations,
}

impl RequestMeter {
    /// A request of ours has ended.
    pub(super) fn ended(&self, begun: Instant, answered: bool) {
        if answered {
            count(&self.answered);
            self.took.since(begun);
        } else {
            count(&self.failed);
        }
    }

    pub(super) fn stats(&self) -> RequestStats {
        RequestStats {
            received: self.received.load(Relaxed),
            busy: self.busy.load(Relaxed),
            answered: self.answered.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

/// The counters behind [`PulledStats`].
#[derive(Debug, Default)]
pub(super) struct PullMeter {
    completed: AtomicU64,
    busy: AtomicU64,
    failed: AtomicU64,
    chunks: AtomicU64,
    bytes: AtomicU64,
    took: Durations,
}

impl PullMeter {
    pub(super) fn stats(&self) -> PulledStats {
        PulledStats {
            completed: self.completed.load(Relaxed),
            busy: self.busy.load(Relaxed),
            failed: self.failed.load(Relaxed),
            chunks: self.chunks.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}

impl Counters {
    pub(super) fn of(&self, which: Which) -> &RequestMeter {
        match which {
            Which::Sync => &self.sync,
            Which::Access => &self.access,
        }
    }

    /// What arrived and was not handed to us had come before. Called when nothing is on its way in between; if something is all the
    /// same, the count is ahead for a moment, and never goes back.
    pub(super) fn settle_gossip(&self) {
        let duplicates = self.gossip_arrived.load(Relaxed).saturating_sub(self.gossip_first.load(Relaxed));
        self.gossip_duplicates.fetch_max(duplicates, Relaxed);
    }

    pub(super) fn timings(&self) -> NetTimings {
        NetTimings { sync: self.sync.took.report(), access: self.access.took.report(), pulls: self.pulls.took.report() }
    }
}

/// Counts one transfer from a peer; its end is when this is dropped.
pub(super) struct Transfer {
    counters: Arc<Counters>,
    begun: Instant,
    /// Chunks that are not answered for.
    due: usize,
    busy: bool,
}

impl Transfer {
    pub(super) fn begin(counters: Arc<Counters>, due: usize) -> Self {
        Self { counters, begun: Instant::now(), due, busy: false }
    }

    /// What became of one chunk.
    pub(super) fn item(&mut self, result: &Result<Vec<u8>, PullError>) {
        let meter = &self.counters.pulls;
        match result {
            Ok(body) => {
                count(&meter.chunks);
                meter.bytes.fetch_add(body.len() as u64, Relaxed);
            }
            Err(error) if error.is_fatal() => {
                self.busy = matches!(error, PullError::Busy { .. });
                return;
            }
            Err(_) => {}
        }
        self.due = self.due.saturating_sub(1);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let meter = &self.counters.pulls;
        if self.due == 0 {
            count(&meter.completed);
            meter.took.since(self.begun);
        } else if self.busy {
            count(&meter.busy);
        } else {
            count(&meter.failed);
        }
    }
}

/// Counts gossip as it comes off the wire, before gossipsub drops what it has seen. Changes nothing.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    pub(super) counters: Arc<Counters>,
    pub(super) shaper: Arc<Shaper>,
}

impl DataTransform for Arrivals {
    fn inbound_transform(&self, raw: RawMessage) -> Result<Message, std::io::Error> {
        count(&self.counters.gossip_arrived);
        self.shaper.spend(Class::Gossip, Way::Down, None, raw.data.len());
        self.counters.gossip_bytes.fetch_add(raw.data.len() as u64, Relaxed);
        let RawMessage { source, data, sequence_number, topic, .. } = raw;
        Ok(Message { source, data, sequence_number, topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, std::io::Error> {
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use tributary_protocol::ids::Hash;

    use super::*;

    #[test]
    fn a_transfer_is_complete_busy_or_failed() {
        let counters = Arc::new(Counters::default());
        let run = |due, results: &[Result<Vec<u8>, PullError>]| {
            let mut transfer = Transfer::begin(Arc::clone(&counters), due);
            results.iter().for_each(|result| transfer.item(result));
        };
        run(2, &[Ok(vec![0; 7]), Err(PullError::NotFound(Hash::ZERO))]);
        run(2, &[Err(PullError::Busy { retry_after: std::time::Duration::ZERO })]);
        run(2, &[Ok(vec![0; 5]), Err(PullError::Closed)]);
        run(1, &[Err(PullError::Mismatch(Hash::ZERO))]);
        run(1, &[]);
        let expected = PulledStats { completed: 1, busy: 1, failed: 3, chunks: 2, bytes: 12 };
        assert_eq!(counters.pulls.stats(), expected);
        assert_eq!(counters.timings().pulls.count(), 1, "only what ran to its end");
    }
}
