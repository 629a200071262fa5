//! How long the parts of a node take for what they do.

use std::sync::PoisonError;

use super::Inner;
use crate::{durations::DurationsReport, feeds::Feeds, net::NetTimings};

/// How long things took since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timings {
    /// Batches of chunks to the disk, waits for room included, by the public name of their stream.
    pub commits: Vec<(String, DurationsReport)>,
    /// From the time in an entry to its arrival over gossip, over the clocks of two machines.
    pub feed_lag: DurationsReport,
    /// What a gossip message is worth: decoding, signatures, the disk.
    pub gossip: DurationsReport,
    /// Answers to sync requests of peers.
    pub sync: DurationsReport,
    /// Answers to access messages of peers.
    pub access: DurationsReport,
    /// Transfers to peers that ran to their end.
    pub served: DurationsReport,
    /// Requests of ours, and transfers from peers.
    pub net: NetTimings,
}

impl Timings {
    pub(super) fn of(inner: &Inner) -> Self {
        let pulls = inner.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            commits: inner.machine.as_ref().map(|machine| machine.commits()).unwrap_or_default(),
            feed_lag: inner.feeds.as_ref().map(Feeds::lag).unwrap_or_default(),
            gossip: inner.gossip_took.report(),
            sync: inner.sync.durations(),
            access: inner.access.durations(),
            served: pulls.as_ref().map(|pulls| pulls.durations()).unwrap_or_default(),
            net: inner.net.timings(),
        }
    }
}
