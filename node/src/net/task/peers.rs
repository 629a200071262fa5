//! The books on peers: their connections, what they told about themselves, penalties and bans.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, identify, ping, swarm::ConnectionId};

use super::Task;
use crate::net::{
    event::{Path, PeerEvent, PeerInfo, Transport, Upgrade, count},
    kad::{self, KAD_PROTOCOL},
    reputation::Offence,
    scope::{Scope, bare, relay_of},
};

/// A connection that misses this many pings in a row is closed. The first that is missed is not told (libp2p-ping 0.48), so with
/// pings every 15 s a dead link is found within a minute.
const MAX_MISSED_PINGS: u32 = 1;
/// Addresses of a peer that are remembered from what it says of itself.
const MAX_NAMED_ADDRESSES: usize = 10;

/// One connection to a peer.
pub(super) struct Connection {
    pub(super) endpoint: ConnectedPoint,
    pub(super) since: Instant,
    rtt: Option<Duration>,
    missed_pings: u32,
    /// Where the peer sees us on it.
    observed: Option<Multiaddr>,
}

impl Connection {
    pub(super) fn is_direct(&self) -> bool {
        !self.endpoint.is_relayed()
    }

    /// The address of the connection's first hop: the relay's, where it goes through one.
    fn hop(&self) -> &Multiaddr {
        match &self.endpoint {
            ConnectedPoint::Listener { local_addr, .. } if self.endpoint.is_relayed() => local_addr,
            endpoint => endpoint.get_remote_address(),
        }
    }

    fn path(&self) -> Path {
        Path {
            addr: self.endpoint.get_remote_address().clone(),
            direct: self.is_direct(),
            relay: relay_of(self.hop()),
            transport: Transport::of(self.hop()),
            inbound: self.endpoint.is_listener(),
            rtt: self.rtt,
        }
    }
}

/// A connected peer.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) connections: HashMap<ConnectionId, Connection>,
    /// Addresses that it says it has; at most [`MAX_NAMED_ADDRESSES`].
    pub(super) named: Vec<Multiaddr>,
    /// The last attempt at a direct connection.
    pub(super) upgrade: Option<(Instant, Result<(), String>)>,
    /// When TCP was last tried beside QUIC.
    pub(super) tcp_tried: Option<Instant>,
    protocols: Vec<String>,
    agent: String,
}

impl Peer {
    /// Whether it speaks a protocol, as far as it has told.
    pub(super) fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|known| known == protocol)
    }

    /// The connections that go through no relay.
    pub(super) fn direct(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().filter(|connection| connection.is_direct())
    }
}

impl Task {
    pub(super) fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: ConnectedPoint, first: bool) {
        if let ConnectedPoint::Dialer { address, .. } = &endpoint {
            self.book.met(peer, address);
        }
        let connection = Connection { endpoint, since: Instant::now(), rtt: None, missed_pings: 0, observed: None };
        self.peers.entry(peer).or_default().connections.insert(id, connection);
        self.dialled(id, peer);
        self.found(peer);
        self.wanted.found(&peer);
        if first {
            self.tell(PeerEvent::Connected(peer));
        }
    }

    pub(super) fn on_disconnected(&mut self, peer_id: PeerId, id: ConnectionId, last: bool) {
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.connections.remove(&id);
        }
        if last {
            self.peers.remove(&peer_id);
            self.relaying.gone(&peer_id);
            self.local.remove(&peer_id);
            self.wanted.lost(&peer_id, Instant::now());
            self.answering.retain(|_, peer| *peer != peer_id);
            self.tell(PeerEvent::Disconnected(peer_id));
        }
    }

    pub(super) fn on_identified(&mut self, peer_id: PeerId, connection: ConnectionId, info: identify::Info) {
        let floor = Scope::floor(&self.config.listen);
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        peer.protocols = info.protocols.iter().map(ToString::to_string).collect();
        peer.agent = info.agent_version;
        // Private addresses among them: who was met through a relay may be next door.
        let named = info.listen_addrs.into_iter().filter(|address| floor.takes(address));
        peer.named = named.take(MAX_NAMED_ADDRESSES).map(bare).collect();
        if let Some(connection) = peer.connections.get_mut(&connection) {
            connection.observed = Some(info.observed_addr);
        }
        let (named, serves) = (peer.named.clone(), peer.speaks(KAD_PROTOCOL));
        for address in &named {
            self.swarm.add_peer_address(peer_id, address.clone());
        }
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
            && serves
        {
            let new = kad::learn(&mut kad.inner, peer_id, &named);
            if new {
                self.providers.met();
            }
        }
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            kad.inner.store_mut().told(peer_id, &named);
        }
        self.tell(PeerEvent::Identified(peer_id));
    }

    pub(super) fn on_ping(&mut self, ping::Event { peer, connection, result }: ping::Event) {
        let known = self.peers.get_mut(&peer).and_then(|peer| peer.connections.get_mut(&connection));
        let Some(state) = known else { return };
        match result {
            Ok(rtt) => (state.rtt, state.missed_pings) = (Some(rtt), 0),
            Err(ping::Failure::Unsupported) => {}
            Err(error) => {
                state.missed_pings += 1;
                if state.missed_pings >= MAX_MISSED_PINGS {
                    tracing::debug!(%peer, %error, "connection is dead");
                    self.swarm.close_connection(connection);
                }
            }
        }
    }

    pub(super) fn peer_list(&self) -> Vec<PeerInfo> {
        let (gossip, now) = (&self.swarm.behaviour().gossip, Instant::now());
        let topics: HashMap<&PeerId, usize> = gossip.all_peers().map(|(peer, topics)| (peer, topics.len())).collect();
        let info = |(id, peer): (&PeerId, &Peer)| {
            let mut paths: Vec<Path> = peer.connections.values().map(Connection::path).collect();
            // In the order in which bulk takes them.
            paths.sort_by_key(|path| (!path.direct, path.transport != Transport::Tcp, path.addr.to_string()));
            let shown = paths.first()?.clone();
            let upgrade = peer.upgrade.as_ref().map(|(at, result)| Upgrade {
                ago: now.saturating_duration_since(*at),
                error: result.as_ref().err().cloned(),
            });
            Some(PeerInfo {
                peer: *id,
                direct: shown.direct,
                inbound: shown.inbound,
                transport: shown.transport,
                addr: shown.addr,
                rtt: shown.rtt,
                protocols: peer.protocols.clone(),
                agent: peer.agent.clone(),
                paths,
                upgrade,
                score: gossip.peer_score(id).unwrap_or(0.0),
                topics: topics.get(id).copied().unwrap_or(0),
            })
        };
        self.peers.iter().filter_map(info).collect()
    }

    /// Where peers see us that we dialled directly, with who says so.
    pub(super) fn sightings(&self) -> impl Iterator<Item = (PeerId, &Multiaddr)> {
        self.peers.iter().flat_map(|(id, peer)| {
            let dialled = peer.direct().filter(|connection| {
                connection.endpoint.is_dialer() && Scope::of(connection.hop()) == Some(Scope::Global)
            });
            dialled.filter_map(|connection| Some((*id, connection.observed.as_ref()?)))
        })
    }

    pub(super) fn penalize(&mut self, peer: PeerId, offence: Offence) {
        let now = Instant::now();
        let verdict = self.reputation.offend(peer, offence, now);
        tracing::debug!(%peer, ?offence, penalty = verdict.penalty, "peer penalized");
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, -verdict.penalty);
        if verdict.ban {
            self.ban(peer, now.checked_add(self.config.ban_time));
        }
    }

    pub(super) fn ban(&mut self, peer: PeerId, until: Option<Instant>) {
        let lifted = self.reputation.ban(peer, until);
        let blocked = &mut self.swarm.behaviour_mut().blocked;
        if let Some(lifted) = lifted {
            blocked.unblock_peer(lifted);
        }
        self.book.forget(&peer);
        if blocked.block_peer(peer) {
            count(&self.counters.bans);
            tracing::info!(%peer, "peer banned");
            self.tell(PeerEvent::Banned(peer));
        }
    }

    pub(super) fn on_tick(&mut self) {
        self.expire_providers(Instant::now());
        let (ended, penalties) = self.reputation.tick(Instant::now());
        for peer in ended {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        for (peer, penalty) in penalties {
            self.swarm.behaviour_mut().gossip.set_application_score(&peer, -penalty);
        }
    }

    /// Tells whoever watches; nobody has to.
    pub(super) fn tell(&self, event: PeerEvent) {
        let _ = self.peer_events.send(event);
    }
}
