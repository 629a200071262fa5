//! Settings of the network and the limits behind them. Holds numbers only; nothing here runs.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tributary_protocol::wire::{AccessReply, SyncResponse};

use super::{book::Remembered, providers::ProviderCaps, shaping::RateCaps};

/// When a peer that was told "busy" may ask again, ms.
const RETRY_MS: u32 = 1000;

/// Settings of the network task.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// Addresses to listen on, TCP and QUIC; empty for a node that only dials. Port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// When not empty, only these peers may connect or be dialled.
    pub allow_only: Vec<PeerId>,
    /// Peers that may never connect.
    pub block: Vec<PeerId>,
    /// How many connections there may be.
    pub connections: ConnectionCaps,
    /// How many bytes a second may leave this node.
    pub up: RateCaps,
    /// How many may come in.
    pub down: RateCaps,
    /// Lengths of the queues between the network and the rest of the node.
    pub queues: QueueCaps,
    /// A connection that carries nothing is closed after this time.
    pub idle_timeout: Duration,
    /// A sync request must be answered within this time, a dial included.
    pub sync_timeout: Duration,
    /// An access request must be answered within this time, a dial included.
    pub access_timeout: Duration,
    /// A pull stream must be open within this time, a dial included.
    pub open_timeout: Duration,
    /// Open requests of one peer, per protocol, before it is told that we are busy.
    pub requests_per_peer: usize,
    /// How often peers are pinged.
    pub ping_interval: Duration,
    /// Time between two heartbeats of the gossip mesh, at least 100 ms.
    pub gossip_heartbeat: Duration,
    /// What a peer is answered when the queue of sync requests is full: an encoded "busy" response. When empty, the stream
    /// is closed without an answer.
    pub sync_busy: Vec<u8>,
    /// The same for the access protocol.
    pub access_busy: Vec<u8>,
    /// How long a peer stays blocked after its offences added up.
    pub ban_time: Duration,
    /// What was remembered when the node stopped the last time ([`super::Client::remembered`]).
    pub remembered: Remembered,
    /// Whether QUIC addresses get a head start over TCP addresses of the same peer (Happy Eyeballs, RFC 8305).
    pub smart_dial: bool,
    /// Addresses under which others reach this node, as its operator has set them up; told to peers as they are.
    pub external: Vec<Multiaddr>,
    /// Relays to be reached through; each address ends in `/p2p/<relay>`.
    pub relays: Vec<Multiaddr>,
    /// Whether this node is a relay for others, and how much of one.
    pub relay: Option<RelayCaps>,
    /// Whether peers are asked to test our addresses (AutoNAT v2).
    pub autonat_client: bool,
    /// Whether addresses of peers are tested for them.
    pub autonat_server: bool,
    /// Whether relayed connections are replaced by direct ones where holes can be punched (DCUtR).
    pub hole_punching: bool,
    /// Whether peers are found by their id through other peers (Kademlia).
    pub kademlia: bool,
    /// What is kept of peers that say which feeds they serve.
    pub providers: ProviderCaps,
    /// Whether peers on the local network are looked for, and connected to (mDNS).
    pub mdns: bool,
    /// Whether the router is asked to forward our ports (UPnP).
    pub upnp: bool,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            allow_only: Vec::new(),
            block: Vec::new(),
            connections: ConnectionCaps::default(),
            up: RateCaps::default(),
            down: RateCaps::default(),
            queues: QueueCaps::default(),
            idle_timeout: Duration::from_secs(60),
            sync_timeout: Duration::from_secs(20),
            access_timeout: Duration::from_secs(30),
            open_timeout: Duration::from_secs(15),
            requests_per_peer: 8,
            ping_interval: Duration::from_secs(15),
            gossip_heartbeat: Duration::from_secs(1),
            sync_busy: SyncResponse::Busy { retry_ms: RETRY_MS }.encode().unwrap_or_default(),
            access_busy: AccessReply::Busy { retry_ms: RETRY_MS }.encode().unwrap_or_default(),
            ban_time: Duration::from_secs(600),
            remembered: Remembered::default(),
            smart_dial: true,
            external: Vec::new(),
            relays: Vec::new(),
            relay: None,
            autonat_client: true,
            autonat_server: true,
            hole_punching: true,
            kademlia: true,
            providers: ProviderCaps::default(),
            mdns: false,
            upnp: false,
        }
    }
}

/// What a relay does for others, at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayCaps {
    /// Peers that are reached through this node at a time.
    pub reservations: usize,
    /// Of these, reservations of one peer, over several connections; at least 1.
    pub reservations_per_peer: usize,
    /// How long a reservation holds before it must be renewed; it ends with the peer's connection in any case. The peer renews by
    /// its own clock when three quarters are over (the protocol names a time of day), so its clock may be behind ours by a
    /// third of this, and ahead by all of it.
    pub reservation_time: Duration,
    /// Connections through this node at a time.
    pub circuits: usize,
    /// Of these, those that one peer began; at least 1.
    pub circuits_per_peer: usize,
    /// Connections that one peer may begin in an hour; at least 1.
    pub circuits_per_hour: u32,
    /// A connection ends after this time; it is then begun anew by those who need it.
    pub circuit_time: Duration,
    /// A connection ends after so many bytes, both directions together; 0 for no limit.
    pub circuit_bytes: u64,
}

impl Default for RelayCaps {
    /// libp2p's own end a connection after two minutes or 128 KiB, which is enough to punch a hole and for nothing else. Where no
    /// hole can be punched, a relay carries whole datasets.
    fn default() -> Self {
        Self {
            reservations: 128,
            reservations_per_peer: 2,
            reservation_time: Duration::from_secs(24 * 3600),
            circuits: 64,
            circuits_per_peer: 8,
            circuits_per_hour: 60,
            circuit_time: Duration::from_secs(6 * 3600),
            circuit_bytes: 8 << 30,
        }
    }
}

/// Limits on connections. At a limit a new connection is refused; those that stand are left alone.
#[derive(Debug, Clone)]
pub struct ConnectionCaps {
    /// Inbound connections that are not yet authenticated. They cost little, and whoever says nothing holds one for 10 s.
    pub pending_incoming: u32,
    /// Of these and of established inbound ones, those of one IPv4 address or IPv6 /64.
    pub per_address: AddressCaps,
    /// The same for one IPv4 /24 or IPv6 /48: what one provider gives away at a time. Loopback has none.
    pub per_network: AddressCaps,
    /// As `per_address`, for one loopback address: all nodes of a test network, or everybody behind a proxy on this host, share one.
    pub per_loopback_address: AddressCaps,
    /// Dials under way.
    pub pending_outgoing: u32,
    /// Established inbound connections.
    pub incoming: u32,
    /// Established outbound connections. Counted apart, so that a storm of inbound ones cannot keep us from dialling.
    pub outgoing: u32,
    /// Established connections of one peer (TCP and QUIC, both directions).
    pub per_peer: u32,
    /// No new connections while the process uses more physical memory than this, bytes; 0 for no limit.
    pub memory_bytes: usize,
}

impl Default for ConnectionCaps {
    fn default() -> Self {
        Self {
            pending_incoming: 256,
            // It takes 32 silent hosts to fill all places for handshakes; a fleet of 32 robots fits behind one NAT.
            per_address: AddressCaps { pending: 8, established: 32 },
            // It takes three such networks to fill all places, and two to fill those for handshakes.
            per_network: AddressCaps { pending: 128, established: 96 },
            // As much as there is in total.
            per_loopback_address: AddressCaps { pending: 256, established: 256 },
            pending_outgoing: 64,
            incoming: 256,
            outgoing: 128,
            per_peer: 4,
            memory_bytes: 2 << 30,
        }
    }
}

/// Inbound connections of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressCaps {
    /// Not yet authenticated.
    pub pending: u32,
    /// Established.
    pub established: u32,
}

/// Lengths of the queues of the network task.
#[derive(Debug, Clone)]
pub struct QueueCaps {
    /// Commands of all clients; a full queue makes the caller wait.
    pub commands: usize,
    /// Gossip messages nobody has taken yet; when full, further ones are ignored (not forwarded, not held against the sender)
    /// and counted: catch-up brings them later.
    pub gossip: usize,
    /// Sync requests nobody has taken yet; when full, the peer is told that we are busy.
    pub sync: usize,
    /// The same for access requests.
    pub access: usize,
    /// Requests of ours that wait for an answer; when full, a further one fails at once.
    pub outbound_requests: usize,
    /// Peer events a slow watcher may fall behind before it loses the oldest.
    pub peer_events: usize,
    /// Gossip messages that wait for one slow peer, each up to 64 KiB.
    pub gossip_per_peer: usize,
}

impl Default for QueueCaps {
    fn default() -> Self {
        Self {
            commands: 256,
            gossip: 512,
            sync: 64,
            access: 32,
            outbound_requests: 512,
            peer_events: 1024,
            gossip_per_peer: 256,
        }
    }
}
