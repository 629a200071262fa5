//! The books on peers: their connections, what they told about themselves, penalties and bans.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{PeerId, core::ConnectedPoint, identify, ping, swarm::ConnectionId};

use super::Task;
use crate::net::{
    event::{PeerEvent, PeerInfo, Transport, count},
    reputation::Offence,
};

/// A connection that misses this many pings in a row is closed.
const MAX_MISSED_PINGS: u32 = 3;

/// One connection to a peer.
pub(super) struct Connection {
    endpoint: ConnectedPoint,
    rtt: Option<Duration>,
    missed_pings: u32,
}

/// A connected peer.
#[derive(Default)]
pub(super) struct Peer {
    connections: HashMap<ConnectionId, Connection>,
    protocols: Vec<String>,
    agent: String,
}

impl Task {
    pub(super) fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: ConnectedPoint, first: bool) {
        let connection = Connection { endpoint, rtt: None, missed_pings: 0 };
        self.peers.entry(peer).or_default().connections.insert(id, connection);
        self.dialled(id, peer);
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
            self.answering.retain(|_, peer| *peer != peer_id);
            self.tell(PeerEvent::Disconnected(peer_id));
        }
    }

    pub(super) fn on_identified(&mut self, peer_id: PeerId, info: identify::Info) {
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.protocols = info.protocols.iter().map(ToString::to_string).collect();
            peer.agent = info.agent_version;
            self.tell(PeerEvent::Identified(peer_id));
        }
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
        let gossip = &self.swarm.behaviour().gossip;
        let info = |(id, peer): (&PeerId, &Peer)| {
            let shown = peer.connections.values().min_by_key(|connection| connection.endpoint.is_relayed())?;
            let addr = shown.endpoint.get_remote_address().clone();
            Some(PeerInfo {
                peer: *id,
                direct: !shown.endpoint.is_relayed(),
                inbound: shown.endpoint.is_listener(),
                transport: Transport::of(&addr),
                addr,
                rtt: shown.rtt,
                protocols: peer.protocols.clone(),
                agent: peer.agent.clone(),
                connections: peer.connections.len(),
                score: gossip.peer_score(id).unwrap_or(0.0),
            })
        };
        self.peers.iter().filter_map(info).collect()
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
        if blocked.block_peer(peer) {
            count(&self.counters.bans);
            tracing::info!(%peer, "peer banned");
            self.tell(PeerEvent::Banned(peer));
        }
    }

    pub(super) fn on_tick(&mut self) {
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
