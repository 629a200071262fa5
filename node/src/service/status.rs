//! What a running node says about itself. Plain data: the control API sends it, the command line shows it.

pub(super) mod gather;
mod process;
mod reach;
mod traffic;

use serde::{Deserialize, Serialize};
use tributary_protocol::ids::{Did, LogId, StreamId};

pub use self::{
    process::ProcessStatus,
    reach::{
        AddressState, AddressStatus, PathStatus, PeerStatus, ProvidingReport, Reach, ReachStatus, RelayStatus,
        Relaying, ReservationState, Translation, UpgradeStatus, Upnp,
    },
    traffic::{GossipStatus, TrafficStatus},
};
pub use super::{
    access::{AccessStatus, HookStatus},
    depositor::LeavingStatus,
    sync_server::SyncStatus,
};
pub use crate::buyer::{SubscriptionState, SubscriptionStatus};
pub use crate::feeds::{EvidenceStatus, SourceTotal};
use crate::machine::LaneReport;
pub use crate::mirror::{DepositCounts, MirrorStatus, MirroredStatus};
pub use crate::net::{RateReport, RatesReport, WayReport};
pub use crate::{
    machine::{FaultyPublisher, SourceReport, SourceState},
    ros2::{RefusedTopic, Ros2Status},
};

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Version of the program.
    pub version: String,
    /// The node's peaqID.
    pub did: Did,
    /// What it does: `machine`, `buyer`.
    pub roles: Vec<String>,
    /// Its libp2p peer id.
    pub peer: String,
    /// When this was written, ms since 1970.
    pub now_ms: u64,
    /// Seconds since it was started.
    pub uptime_s: u64,
    /// Addresses it listens on.
    pub listen: Vec<String>,
    /// Links to pass its feed on with; empty without the role machine.
    pub links: Vec<String>,
    /// Connected peers.
    pub peers: Vec<PeerStatus>,
    /// Peers that are banned.
    #[serde(default)]
    pub banned: Vec<BannedStatus>,
    /// How it is reached, and how it reaches others.
    pub reach: ReachStatus,
    /// Inbound connections.
    pub inbound: InboundStatus,
    /// What the protocols carried since the start.
    pub traffic: TrafficStatus,
    /// The machine's incarnation.
    pub incarnation: Option<u32>,
    /// When its key binding ends, ms since 1970.
    pub binding_expires_ms: Option<u64>,
    /// Its streams.
    pub streams: Vec<StreamStatus>,
    /// Its logs.
    pub logs: Vec<OwnLogStatus>,
    /// Its part in ROS 2, where live topics are ingested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ros2: Option<Ros2Status>,
    /// What became of its announcements.
    pub outbox: Option<OutboxStatus>,
    /// Requests for access that wait for the operator.
    pub pending_requests: u64,
    /// What became of requests for access since the start.
    pub access: AccessStatus,
    /// What became of the programs that tell the operator about such requests (`access.hook`).
    pub hooks: HookStatus,
    /// Feeds that are followed.
    pub followed: Vec<FollowedStatus>,
    /// The feeds that it keeps for others; `None` without the role mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorStatus>,
    /// What became of what it leaves with its mirrors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<LeavingStatus>,
    /// Live subscriptions.
    pub subscriptions: Vec<SubscriptionStatus>,
    /// The store.
    pub store: StoreStatus,
    /// Chunks served to peers since the start.
    pub served: ServedStatus,
    /// What the process takes of the computer.
    pub process: ProcessStatus,
    /// What somebody should look at.
    pub warnings: Vec<Warning>,
}

/// A peer that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BannedStatus {
    /// The peer.
    pub peer: String,
    /// What is left of its ban, in seconds; `None` for one that does not end.
    pub left_s: Option<u64>,
}

/// Inbound connections: how many there are, and what keeps one address from having them all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundStatus {
    /// Established now.
    pub established: u64,
    /// In the handshake now.
    pub handshakes: u64,
    /// Refused since the start because their address had too many.
    pub refused_per_address: u64,
    /// How many established ones an IPv4 address or IPv6 /64 may have.
    pub connections_per_address: u32,
    /// How many it may have in the handshake.
    pub handshakes_per_address: u32,
    /// How many established ones an IPv4 /24 or IPv6 /48 may have.
    #[serde(default)]
    pub connections_per_network: u32,
    /// How many it may have in the handshake.
    #[serde(default)]
    pub handshakes_per_network: u32,
    /// How many established ones there may be in all.
    pub limit: u32,
}

/// A stream of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Its public name.
    pub name: String,
    /// Its id.
    pub stream: StreamId,
    /// `free`, `allowlist` or `manual`.
    pub policy: String,
    /// Entries in its log.
    pub entries: u64,
    /// Messages that may wait in its queue; 0 for a stream of files, which has none.
    pub queue_limit: u64,
    /// What its lane counted since the start.
    pub lane: LaneReport,
    /// How its live source stands, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceReport>,
}

/// A log of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLogStatus {
    /// The log.
    pub log: LogId,
    /// The stream's public name; `None` for the machine log and for streams that are no longer configured.
    pub stream: Option<String>,
    /// Its incarnation.
    pub incarnation: u32,
    /// Entries in it.
    pub entries: u64,
    /// Time of the newest entry, ms since 1970.
    pub newest_ms: u64,
    /// Its age in seconds.
    pub age_s: u64,
}

/// What became of announcements since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxStatus {
    /// Entries that became durable.
    pub announced: u64,
    /// Of these, sent to at least one peer.
    pub sent: u64,
    /// Of these, sent with their ciphertext.
    pub attached: u64,
    /// Entries that did not fit into the queue; followers catch up on them.
    pub overflowed: u64,
    /// Entries that nobody heard; followers catch up on them.
    pub unheard: u64,
    /// Logs with such entries and without a head sent since.
    pub logs_unheard: usize,
    /// Most peers that listened to one log when it was last sent something.
    pub listeners: usize,
}

/// A followed feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedStatus {
    /// The machine.
    pub did: Did,
    /// From where its streams are followed: `start`, `now`, or `dataset:` and an id.
    pub from: String,
    /// Serial of its newest binding; `None` when none is known.
    pub binding_serial: Option<u64>,
    /// Whether that binding is past its time.
    pub stale_binding: bool,
    /// Proofs that the machine tells two stories.
    pub equivocations: u64,
    /// These proofs.
    #[serde(default)]
    pub proofs: Vec<EvidenceStatus>,
    /// Entries and heads that counted for nothing, since this node started.
    pub noise: u64,
    /// Entries that count and looked odd, since this node started.
    pub flagged: u64,
    /// By how many seconds its clock was ahead of this node's when it last spoke to it; negative when it was behind.
    #[serde(default)]
    pub clock_offset_s: Option<i64>,
    /// Its logs.
    pub logs: Vec<FollowedLogStatus>,
    /// Who brought its chunks since this node started, the most first.
    #[serde(default)]
    pub sources: Vec<SourceTotal>,
}

/// A log of a followed feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedLogStatus {
    /// The log.
    pub log: LogId,
    /// Its incarnation.
    pub incarnation: u32,
    /// Position of the first entry that is followed; more than 0 when following began later.
    pub first: u64,
    /// How far it is held: one behind the position of the newest entry.
    pub entries: u64,
    /// Entries that the machine says there are; `None` before its first head.
    pub announced: Option<u64>,
    /// Age of its newest head in seconds. An old one means: the machine is offline, or somebody hides what it says.
    pub head_age_s: Option<u64>,
}

/// The store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Chunks held.
    pub chunks: u64,
    /// Bytes of their bodies.
    pub chunk_bytes: u64,
    /// Log entries held.
    pub entries: u64,
    /// Rows in all tables.
    pub rows: u64,
    /// Chunks removed on purpose.
    pub tombstones: u64,
    /// Entries kept as evidence.
    pub evidence: u64,
    /// Segment files.
    pub segments: u64,
    /// Batches that wait to be written.
    pub queued_batches: u64,
    /// Bytes on the disk that are not segments: index, ballast, small files.
    pub index_bytes: u64,
    /// Bytes on the disk, everything included: what the quota limits.
    pub used_bytes: u64,
    /// The quota in bytes.
    pub quota_bytes: Option<u64>,
    /// Bytes the file system has left.
    pub free_bytes: Option<u64>,
    /// Whether the store stopped after a failure: restart the node.
    pub stopped: bool,
}

/// Chunks served to peers since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedStatus {
    /// Transfers that ran to their end.
    pub transfers: u64,
    /// Transfers under way now.
    pub active: u64,
    /// How many there may be.
    pub limit: u32,
    /// Transfers refused with "busy".
    pub busy: u64,
    /// Transfers reset because even the refusals were too many.
    pub dropped: u64,
    /// Transfers that broke.
    pub failed: u64,
    /// Requests that made no sense.
    pub malformed: u64,
    /// Chunks sent.
    pub chunks: u64,
    /// Bytes of ciphertext sent.
    pub bytes: u64,
    /// Whether entries and chunks of other machines are served, too: a buyer does so with `reseed`.
    #[serde(default)]
    pub followed: bool,
}

/// Something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// For programs.
    pub code: WarningCode,
    /// For people: what it is and what to do.
    pub message: String,
}

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WarningCode {
    /// The owner's secret key is on this machine.
    OwnerKeyHere,
    /// The machine must not publish.
    Displaced,
    /// The machine's binding ends soon, or has ended.
    BindingExpires,
    /// A stream cannot store anything at the moment.
    LaneStalled,
    /// A stream has stopped.
    LaneStopped,
    /// A live topic cannot be subscribed.
    TopicRefused,
    /// Nothing comes from a publisher of a live topic.
    PublisherFaulty,
    /// Messages of a live topic were lost.
    MessagesLost,
    /// Live topics are left out, since the operator paused the node.
    Ros2Paused,
    /// Something of the ROS side does not work.
    Ros2Trouble,
    /// A program that tells the operator about requests failed.
    HookFailed,
    /// A followed machine tells two stories.
    Equivocation,
    /// The clock of a followed machine and this node's differ by minutes or more.
    ClockDiffers,
    /// A subscription has ended: the machine took access back or refused it.
    SubscriptionEnded,
    /// A subscription does not go on at the moment.
    SubscriptionFailing,
    /// The store has stopped.
    StoreStopped,
    /// The store could not be read for this status.
    StatusIncomplete,
}
