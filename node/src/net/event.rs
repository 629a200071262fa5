//! What the network hands to the rest of the node: messages, requests, peers coming and going, counters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, gossipsub::MessageId, multiaddr::Protocol, request_response::ResponseChannel};
use tokio::sync::mpsc;

use super::{
    error::NetError,
    frame::FrameError,
    meter::{PullMeter, PulledStats, RequestMeter, RequestStats},
    reachability::{OwnAddress, Reach},
    reservations::RelayReservation,
};

/// The queues through which the network hands things on. Each is bounded ([`super::QueueCaps`]) and has one reader.
#[derive(Debug)]
pub struct NetEvents {
    /// Gossip messages; each must be answered with [`super::Client::report`] within a few heartbeats.
    pub gossip: mpsc::Receiver<GossipMessage>,
    /// Requests of the sync protocol.
    pub sync: mpsc::Receiver<InboundRequest>,
    /// Requests of the access protocol.
    pub access: mpsc::Receiver<InboundRequest>,
}

/// A message that arrived on a subscribed topic and was not forwarded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipMessage {
    /// BLAKE3 of the bytes.
    pub id: MessageId,
    /// The peer that passed it to us, which need not be its author.
    pub source: PeerId,
    /// The topic.
    pub topic: String,
    /// The message, at most [`super::MAX_GOSSIP_MESSAGE`] bytes.
    pub bytes: Vec<u8>,
}

/// What a gossip message was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// Good: pass it on.
    Accept,
    /// Neither good nor bad, or already known: do not pass it on, blame nobody.
    Ignore,
    /// Provably wrong: do not pass it on, and lower the score of whoever sent it.
    Reject,
}

/// What became of a message that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Handed to gossipsub while `listeners` connected peers were subscribed to the topic.
    Sent {
        /// How many, at least 1.
        listeners: usize,
    },
    /// No connected peer listens to the topic; try again when one does.
    NoPeers,
    /// The same bytes were sent within the last minute; nothing to do.
    Duplicate,
    /// The queues to all listeners are full; try again later.
    QueuesFull,
}

/// A request of a peer, with the way to answer it.
#[derive(Debug)]
pub struct InboundRequest {
    /// Who asks.
    pub peer: PeerId,
    /// The request, within the limit of its protocol.
    pub bytes: Vec<u8>,
    /// Takes the answer.
    pub responder: Responder,
}

/// Takes the answer to one request. Dropped without one, it closes the stream, and the peer sees an error.
#[derive(Debug)]
pub struct Responder {
    pub(super) which: Which,
    pub(super) peer: PeerId,
    pub(super) max: usize,
    pub(super) channel: ResponseChannel<Vec<u8>>,
    pub(super) replies: mpsc::Sender<Reply>,
}

/// Which of the two request-response protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Which {
    Sync,
    Access,
}

/// An answer on its way to the task.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) which: Which,
    pub(super) peer: PeerId,
    pub(super) channel: ResponseChannel<Vec<u8>>,
    pub(super) bytes: Vec<u8>,
}

/// Why an answer was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RespondError {
    /// It is over the limit of the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The network has been shut down.
    #[error(transparent)]
    Closed(#[from] NetError),
}

impl Responder {
    /// Whether the peer still waits.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.channel.is_open()
    }

    /// Sends the answer. A peer that has given up in the meantime is no error.
    pub async fn send(self, bytes: Vec<u8>) -> Result<(), RespondError> {
        if bytes.len() > self.max {
            return Err(FrameError::TooLarge { len: bytes.len(), max: self.max }.into());
        }
        let reply = Reply { which: self.which, peer: self.peer, channel: self.channel, bytes };
        self.replies.send(reply).await.map_err(|_| NetError.into())
    }
}

/// A change among the connected peers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// The first connection to a peer stands.
    Connected(PeerId),
    /// The last connection to a peer is gone.
    Disconnected(PeerId),
    /// A peer has told its protocols and addresses.
    Identified(PeerId),
    /// A peer subscribed to a topic that it can now be reached on.
    Subscribed {
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: String,
    },
    /// A peer is no longer subscribed to a topic.
    Unsubscribed {
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: String,
    },
    /// A peer was banned.
    Banned(PeerId),
}

/// What carries a connection; for a relayed one, its part up to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP with TLS or Noise, and Yamux.
    Tcp,
    /// QUIC.
    Quic,
    /// Anything else.
    Other,
}

impl Transport {
    /// As it is written: `tcp`, `quic` or `other`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Other => "other",
        }
    }

    pub(crate) fn of(address: &Multiaddr) -> Self {
        if address.iter().any(|part| matches!(part, Protocol::QuicV1 | Protocol::Quic)) {
            Self::Quic
        } else if address.iter().any(|part| matches!(part, Protocol::Tcp(_))) {
            Self::Tcp
        } else {
            Self::Other
        }
    }
}

/// A connected peer.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Its id.
    pub peer: PeerId,
    /// Its address on the connection shown (a direct one, where there are several).
    pub addr: Multiaddr,
    /// The protocols it speaks; empty until it has told.
    pub protocols: Vec<String>,
    /// What it calls itself; empty until it has told.
    pub agent: String,
    /// Whether the connection goes through no relay.
    pub direct: bool,
    /// Whether the peer dialled us.
    pub inbound: bool,
    /// What carries the connection.
    pub transport: Transport,
    /// Last measured round trip.
    pub rtt: Option<Duration>,
    /// All connections to it, direct ones first; at least one.
    pub paths: Vec<Path>,
    /// The last attempt to replace a relayed connection by a direct one, if there was one.
    pub upgrade: Option<Upgrade>,
    /// Its gossip score; 0 is neutral, below -80 it is not listened to.
    pub score: f64,
    /// Gossip topics that it listens to, at most [`super::MAX_TOPICS_PER_PEER`].
    pub topics: usize,
}

/// One connection to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The peer's address on it; only its id where it came to us through a relay.
    pub addr: Multiaddr,
    /// Whether it goes through no relay.
    pub direct: bool,
    /// The relay it goes through.
    pub relay: Option<PeerId>,
    /// What carries it.
    pub transport: Transport,
    /// Whether the peer dialled us.
    pub inbound: bool,
    /// Last measured round trip.
    pub rtt: Option<Duration>,
}

/// An attempt to replace a relayed connection by a direct one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// How long ago it ended.
    pub ago: Duration,
    /// Why it failed; `None` if it succeeded.
    pub error: Option<String>,
}

/// How the addresses of this node look from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Translation {
    /// Too few peers on the Internet have said where they see us.
    #[default]
    Unknown,
    /// Peers see an address that this node has itself.
    None,
    /// A NAT stands between, and all peers see the same port: holes can be punched.
    SamePort,
    /// A NAT stands between, and each peer sees another port ("symmetric"): holes can hardly be punched.
    PortPerPeer,
}

/// How this node can be reached, and how it reaches others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachReport {
    /// Whether others reach it directly.
    pub reach: Reach,
    /// Its addresses and what is known about them.
    pub addresses: Vec<OwnAddress>,
    /// Connected peers that can test addresses.
    pub testers: usize,
    /// What peers see of its address.
    pub translation: Translation,
    /// Its places at relays.
    pub relays: Vec<RelayReservation>,
    /// What it does as a relay; `None` if it is none.
    pub relaying: Option<Relaying>,
    /// Whether holes are punched.
    pub hole_punching: bool,
    /// Peers in the routing table; `None` without Kademlia.
    pub routing_peers: Option<usize>,
    /// Provider records; `None` without Kademlia.
    pub providing: Option<ProvidingReport>,
    /// Whether peers on the local network are looked for.
    pub mdns: bool,
    /// What the router said; `None` where it is not asked.
    pub upnp: Option<Upnp>,
}

/// A peer that says it serves a feed. A hint whom to ask: what it says is checked like everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The peer.
    pub peer: PeerId,
    /// Where it is, at most 8 addresses; may be empty.
    pub addresses: Vec<Multiaddr>,
}

/// What this node says about the feeds it serves, and keeps of what others say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProvidingReport {
    /// Feeds that it serves and says so.
    pub feeds: u64,
    /// Of these, feeds whose last announcement reached somebody.
    pub announced: u64,
    /// Records of others that it keeps now.
    pub records: u64,
    /// Records of others that it refused, or dropped for those of peers with fewer, since the start.
    pub refused: u64,
    /// How often it asked other peers who serves a feed, since the start.
    pub lookups: u64,
}

/// What this node does as a relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Relaying {
    /// Peers that are reached through it now.
    pub reservations: u64,
    /// Connections that go through it now.
    pub circuits: u64,
    /// Connections that went through it since the start.
    pub circuits_served: u64,
    /// Reservations and connections refused since the start.
    pub refused: u64,
}

/// What the router said when it was asked to forward ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upnp {
    /// Nothing yet.
    #[default]
    Searching,
    /// There is no router that can be asked.
    NoRouter,
    /// The router is behind a NAT itself.
    NoPublicAddress,
    /// It forwards at least one port.
    Mapped,
    /// It forwarded, and does so no longer.
    Lost,
}

/// Counters since the network started, and what there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct NetStats {
    /// Gossip messages handed on.
    pub gossip_received: u64,
    /// Gossip messages ignored because nobody took them in time.
    pub gossip_dropped: u64,
    /// Gossip messages found wrong, here or by the node.
    pub gossip_rejected: u64,
    /// Messages published.
    pub gossip_sent: u64,
    /// Copies of gossip messages that came off the wire.
    pub gossip_arrived: u64,
    /// Their bytes.
    pub gossip_bytes: u64,
    /// Of these, copies of messages that had come before, or that no subscription asks for any more.
    pub gossip_duplicates: u64,
    /// The sync protocol.
    pub sync: RequestStats,
    /// The access protocol.
    pub access: RequestStats,
    /// Pulls from peers.
    pub pulls: PulledStats,
    /// Frames over a limit or broken.
    pub bad_frames: u64,
    /// Pull streams lost because the node did not take them in time.
    pub streams_dropped: u64,
    /// Peers banned.
    pub bans: u64,
    /// Inbound connections refused because their address has too many.
    pub refused_per_address: u64,
    /// Inbound connections that are established now.
    pub inbound: u64,
    /// Inbound connections that are in the handshake now.
    pub inbound_pending: u64,
}

/// The counters behind [`NetStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) gossip_received: AtomicU64,
    pub(super) gossip_dropped: AtomicU64,
    pub(super) gossip_rejected: AtomicU64,
    pub(super) gossip_sent: AtomicU64,
    pub(super) gossip_arrived: AtomicU64,
    pub(super) gossip_bytes: AtomicU64,
    /// Messages that gossipsub handed to us: the first copy of each.
    pub(super) gossip_first: AtomicU64,
    pub(super) gossip_duplicates: AtomicU64,
    pub(super) sync: RequestMeter,
    pub(super) access: RequestMeter,
    pub(super) pulls: PullMeter,
    pub(super) bad_frames: AtomicU64,
    pub(super) streams_dropped: AtomicU64,
    pub(super) bans: AtomicU64,
    pub(super) refused_per_address: AtomicU64,
    pub(super) inbound: AtomicU64,
    pub(super) inbound_pending: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(self: &Arc<Self>) -> NetStats {
        NetStats {
            gossip_received: self.gossip_received.load(Relaxed),
            gossip_dropped: self.gossip_dropped.load(Relaxed),
            gossip_rejected: self.gossip_rejected.load(Relaxed),
            gossip_sent: self.gossip_sent.load(Relaxed),
            gossip_arrived: self.gossip_arrived.load(Relaxed),
            gossip_bytes: self.gossip_bytes.load(Relaxed),
            gossip_duplicates: self.gossip_duplicates.load(Relaxed),
            sync: self.sync.stats(),
            access: self.access.stats(),
            pulls: self.pulls.stats(),
            bad_frames: self.bad_frames.load(Relaxed),
            streams_dropped: self.streams_dropped.load(Relaxed),
            bans: self.bans.load(Relaxed),
            refused_per_address: self.refused_per_address.load(Relaxed),
            inbound: self.inbound.load(Relaxed),
            inbound_pending: self.inbound_pending.load(Relaxed),
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
