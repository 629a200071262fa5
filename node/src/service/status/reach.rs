//! How a node reaches others and is reached, as it says so.

use serde::{Deserialize, Serialize};

pub use crate::net::{AddressState, ProvidingReport, Reach, Relaying, ReservationState, Translation, Upnp};
use crate::net::{OwnAddress, Path, PeerInfo, ReachReport, RelayReservation, Upgrade};

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id.
    pub peer: String,
    /// Its address.
    pub addr: String,
    /// What it calls itself; empty until it has told.
    pub agent: String,
    /// `tcp`, `quic` or `other`; for a relayed connection, of its part up to the relay.
    pub transport: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// Whether a connection to it goes through no relay.
    pub direct: bool,
    /// The relay that its connection goes through; `None` for a direct one.
    pub relay: Option<String>,
    /// All connections to it, direct ones first.
    pub paths: Vec<PathStatus>,
    /// The last attempt to replace a relayed connection by a direct one.
    pub upgrade: Option<UpgradeStatus>,
    /// Last round trip, ms.
    pub rtt_ms: Option<u64>,
    /// Its gossip score; 0 is neutral.
    pub score: f64,
    /// Gossip topics that it listens to.
    #[serde(default)]
    pub topics: u64,
}

/// One connection to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStatus {
    /// The peer's address on it.
    pub addr: String,
    /// Whether it goes through no relay.
    pub direct: bool,
    /// The relay it goes through.
    pub relay: Option<String>,
    /// `tcp`, `quic` or `other`.
    pub transport: String,
    /// Whether the peer dialled us.
    pub inbound: bool,
}

/// An attempt to replace a relayed connection by a direct one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeStatus {
    /// How long ago it ended, in seconds.
    pub age_s: u64,
    /// Why it failed; `None` if it succeeded.
    pub error: Option<String>,
}

/// How a node is reached, and how it reaches others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachStatus {
    /// Whether others reach it directly.
    pub reach: Reach,
    /// Its addresses, and what is known about them.
    pub addresses: Vec<AddressStatus>,
    /// Connected peers that can test addresses.
    pub testers: u64,
    /// What peers see of its address.
    pub translation: Translation,
    /// Its places at relays.
    pub relays: Vec<RelayStatus>,
    /// What it does as a relay; `None` without the role relay.
    pub relaying: Option<Relaying>,
    /// Whether direct connections are tried in place of relayed ones.
    pub hole_punching: bool,
    /// Peers that it knows for finding others; `None` without Kademlia.
    pub routing_peers: Option<u64>,
    /// Provider records: what it says of the feeds it serves, and keeps of others. `None` without Kademlia.
    #[serde(default)]
    pub providing: Option<ProvidingReport>,
    /// Whether peers on the local network are looked for.
    pub mdns: bool,
    /// What the router said; `None` where it is not asked.
    pub upnp: Option<Upnp>,
}

/// An address of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressStatus {
    /// The address.
    pub addr: String,
    /// What is known about it.
    pub state: AddressState,
    /// The peer that tested it last.
    pub tested_by: Option<String>,
    /// How long ago, in seconds.
    pub tested_s: Option<u64>,
    /// Why the last test failed, or showed nothing.
    pub reason: Option<String>,
}

/// A place at a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// The relay.
    pub relay: String,
    /// Its address.
    pub addr: String,
    /// How the reservation stands.
    pub state: ReservationState,
    /// Where others reach this node through it; only while reserved.
    pub circuit: Option<String>,
    /// Longest time of one connection through it, in seconds, if the relay said so.
    pub circuit_s: Option<u64>,
    /// Most bytes of one connection through it, if the relay said so.
    pub circuit_bytes: Option<u64>,
    /// Why the last attempt failed.
    pub reason: Option<String>,
    /// Attempts that failed in a row.
    pub failures: u32,
}

impl From<PeerInfo> for PeerStatus {
    fn from(info: PeerInfo) -> Self {
        let relay = info.paths.first().filter(|path| !path.direct).and_then(|path| path.relay);
        Self {
            peer: info.peer.to_string(),
            addr: info.addr.to_string(),
            agent: info.agent,
            transport: info.transport.name().to_owned(),
            inbound: info.inbound,
            direct: info.direct,
            relay: relay.map(|relay| relay.to_string()),
            paths: info.paths.into_iter().map(PathStatus::from).collect(),
            upgrade: info.upgrade.map(UpgradeStatus::from),
            rtt_ms: info.rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
            score: info.score,
            topics: u64::try_from(info.topics).unwrap_or(u64::MAX),
        }
    }
}

impl From<Path> for PathStatus {
    fn from(path: Path) -> Self {
        Self {
            addr: path.addr.to_string(),
            direct: path.direct,
            relay: path.relay.map(|relay| relay.to_string()),
            transport: path.transport.name().to_owned(),
            inbound: path.inbound,
        }
    }
}

impl From<Upgrade> for UpgradeStatus {
    fn from(upgrade: Upgrade) -> Self {
        Self { age_s: upgrade.ago.as_secs(), error: upgrade.error }
    }
}

impl From<ReachReport> for ReachStatus {
    fn from(report: ReachReport) -> Self {
        Self {
            reach: report.reach,
            addresses: report.addresses.into_iter().map(AddressStatus::from).collect(),
            testers: report.testers as u64,
            translation: report.translation,
            relays: report.relays.into_iter().map(RelayStatus::from).collect(),
            relaying: report.relaying,
            hole_punching: report.hole_punching,
            routing_peers: report.routing_peers.map(|peers| peers as u64),
            providing: report.providing,
            mdns: report.mdns,
            upnp: report.upnp,
        }
    }
}

impl From<OwnAddress> for AddressStatus {
    fn from(own: OwnAddress) -> Self {
        Self {
            addr: own.address.to_string(),
            state: own.state,
            tested_by: own.server.map(|server| server.to_string()),
            tested_s: own.tested.map(|ago| ago.as_secs()),
            reason: own.reason,
        }
    }
}

impl From<RelayReservation> for RelayStatus {
    fn from(reservation: RelayReservation) -> Self {
        Self {
            relay: reservation.relay.to_string(),
            addr: reservation.address.to_string(),
            state: reservation.state,
            circuit: reservation.circuit.map(|circuit| circuit.to_string()),
            circuit_s: reservation.circuit_time.map(|time| time.as_secs()),
            circuit_bytes: reservation.circuit_bytes,
            reason: reservation.reason,
            failures: reservation.failures,
        }
    }
}
