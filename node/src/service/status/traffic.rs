//! What the protocols carried, for the status.

use serde::{Deserialize, Serialize};

use super::super::sync_server::SyncStatus;
use crate::net::{NetStats, PulledStats, RatesReport, RequestStats};

/// What the protocols carried since the start. Chunks served to peers are in [`super::ServedStatus`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Gossip of the feeds.
    pub gossip: GossipStatus,
    /// The sync protocol, both ways.
    pub sync: RequestStats,
    /// What peers asked in it.
    pub sync_served: SyncStatus,
    /// The access protocol, both ways.
    pub access: RequestStats,
    /// Chunks pulled from peers.
    pub pulled: PulledStats,
    /// Frames over a limit or broken.
    pub bad_frames: u64,
    /// Streams lost because the node did not take them in time.
    pub streams_dropped: u64,
    /// Peers banned.
    pub bans: u64,
    /// Bytes by direction and class, with their limits.
    #[serde(default)]
    pub rates: RatesReport,
}

/// Gossip since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipStatus {
    /// Messages sent.
    pub sent: u64,
    /// Copies of messages that came off the wire.
    pub arrived: u64,
    /// Their bytes.
    pub arrived_bytes: u64,
    /// Of these, copies of messages that had come before, or that no subscription asks for any more.
    pub duplicates: u64,
    /// Messages that were looked at: the first copy of each.
    pub received: u64,
    /// Messages ignored because the node was too busy.
    pub dropped: u64,
    /// Messages found wrong.
    pub rejected: u64,
}

impl TrafficStatus {
    pub(super) fn new(net: &NetStats, rates: RatesReport, sync_served: SyncStatus) -> Self {
        Self {
            gossip: GossipStatus {
                sent: net.gossip_sent,
                arrived: net.gossip_arrived,
                arrived_bytes: net.gossip_bytes,
                duplicates: net.gossip_duplicates,
                received: net.gossip_received,
                dropped: net.gossip_dropped,
                rejected: net.gossip_rejected,
            },
            sync: net.sync,
            sync_served,
            access: net.access,
            pulled: net.pulls,
            bad_frames: net.bad_frames,
            streams_dropped: net.streams_dropped,
            bans: net.bans,
            rates,
        }
    }
}
