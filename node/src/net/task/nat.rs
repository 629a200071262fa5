//! Being reached: places at relays, tests of our own addresses, holes punched, the router asked, and our own relay's books.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::transport::ListenerId,
    dcutr, mdns,
    multiaddr::Protocol,
    relay,
    swarm::{ConnectionId, dial_opts::DialOpts},
    upnp,
};
use tokio::sync::oneshot;

use super::{Task, peers::Peer};
use crate::net::{
    autonat::{self, DIAL_REQUEST, Outcome},
    behaviour::local_peers,
    event::{ReachReport, Relaying, Translation, Transport, Upnp},
    reachability::Change,
    scope::{Scope, bare, ip_of, is_relayed},
    streams::OpenError,
};

/// A relayed connection is closed so long after a direct one has come up, and its transfers with it; they go on over the other.
const RELAYED_END: Duration = Duration::from_secs(20);
/// Most peers of the local network that are connected to without having been asked for.
const MAX_LOCAL: usize = 32;
/// mDNS is switched off for a while when more peers and addresses than this are claimed to be on the local network: libp2p-mdns
/// 0.49 keeps them all.
const MAX_CLAIMED: usize = 1024;
/// For so long.
const MDNS_PAUSE: Duration = Duration::from_secs(600);
/// Longest text of a failed attempt at a direct connection, characters.
const MAX_REASON: usize = 200;

/// What this node does as a relay: who is reached through it, and how much goes through it.
#[derive(Debug, Default)]
pub(super) struct RelayBooks {
    /// Bounded by the relay's own limit.
    reserved: BTreeSet<PeerId>,
    circuits: HashMap<(PeerId, PeerId), u64>,
    served: u64,
    refused: u64,
}

impl RelayBooks {
    /// A peer is no longer connected.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        self.reserved.remove(peer);
        self.circuits.retain(|(from, to), _| from != peer && to != peer);
    }

    fn on_event(&mut self, event: &relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                self.reserved.insert(*src_peer_id);
            }
            relay::Event::ReservationTimedOut { src_peer_id } => {
                self.reserved.remove(src_peer_id);
            }
            relay::Event::ReservationReqDenied { .. } | relay::Event::CircuitReqDenied { .. } => self.refused += 1,
            relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                self.served += 1;
                *self.circuits.entry((*src_peer_id, *dst_peer_id)).or_default() += 1;
            }
            relay::Event::CircuitClosed { src_peer_id, dst_peer_id, .. } => {
                let key = (*src_peer_id, *dst_peer_id);
                if let Some(open) = self.circuits.get_mut(&key) {
                    *open -= 1;
                    if *open == 0 {
                        self.circuits.remove(&key);
                    }
                }
            }
            _ => {}
        }
    }

    fn report(&self) -> Relaying {
        Relaying {
            reservations: self.reserved.len() as u64,
            circuits: self.circuits.values().sum(),
            circuits_served: self.served,
            refused: self.refused,
        }
    }
}

/// A test of an address that has ended.
#[derive(Debug)]
pub(super) struct Tested {
    address: Multiaddr,
    server: PeerId,
    outcome: Outcome,
}

impl Task {
    /// What is looked after every second.
    pub(super) fn on_beat(&mut self) {
        let now = Instant::now();
        for (relay, address) in self.reservations.due(now) {
            match self.swarm.listen_on(address) {
                Ok(listener) => self.reservations.asked(relay, listener),
                Err(error) => self.reservations.failed(relay, error.to_string(), now),
            }
        }
        if self.config.autonat_client {
            self.start_test(now);
        }
        if std::mem::take(&mut self.addresses_changed) {
            let peers: Vec<PeerId> = self.peers.keys().copied().collect();
            self.swarm.behaviour_mut().identify.push(peers);
        }
        self.dial_wanted(now);
        self.announce_feeds(now);
        self.end_relayed(now);
        self.watch_mdns(now);
    }

    fn start_test(&mut self, now: Instant) {
        let testers = self.testers();
        let Some((address, server)) = self.reachability.next(&testers, now) else { return };
        tracing::debug!(%address, %server, "a peer is asked to dial an address of ours");
        let (opened, stream) = oneshot::channel();
        self.swarm.behaviour_mut().dial_request.open(server, opened);
        let (nonces, done, limit) = (self.nonces.clone(), self.tested_tx.clone(), self.config.open_timeout);
        tokio::spawn(async move {
            let stream = tokio::time::timeout(limit, stream).await;
            let outcome = match stream {
                Ok(Ok(Ok(stream))) => autonat::test(stream, &address, &nonces).await,
                Ok(Ok(Err(OpenError::Unsupported))) => Outcome::Inconclusive("it tests no addresses".into()),
                _ => Outcome::Inconclusive("it could not be asked".into()),
            };
            // Nobody waits for it when the network has stopped.
            let _ = done.send(Tested { address, server, outcome }).await;
        });
    }

    /// Peers that test addresses, with the scope of the connection over which they are asked. Only those that were dialled
    /// do: libp2p's server answers who came to it.
    fn testers(&self) -> Vec<(PeerId, Scope)> {
        let tester = |(id, peer): (&PeerId, &Peer)| {
            let dialled = peer.direct().find(|connection| connection.endpoint.is_dialer())?;
            let scope = Scope::of(dialled.endpoint.get_remote_address())?;
            peer.speaks(DIAL_REQUEST).then_some((*id, scope))
        };
        self.peers.iter().filter_map(tester).collect()
    }

    pub(super) fn on_tested(&mut self, Tested { address, server, outcome }: Tested) {
        tracing::debug!(%address, %server, ?outcome, "an address of ours was tested");
        match self.reachability.tested(&address, server, outcome, Instant::now()) {
            Some(Change::Confirmed) => self.swarm.add_external_address(address),
            Some(Change::Lost) => {
                tracing::warn!(%address, "peers no longer reach this address");
                self.swarm.remove_external_address(&address);
                self.addresses_changed = true;
            }
            None => {}
        }
    }

    pub(super) fn on_candidate(&mut self, address: Multiaddr) {
        self.reachability.seen(address, Instant::now());
    }

    pub(super) fn on_confirmed(&mut self, address: &Multiaddr) {
        tracing::info!(%address, "peers reach this node here");
        self.addresses_changed = true;
    }

    pub(super) fn on_expired(&mut self, address: &Multiaddr) {
        tracing::info!(%address, "peers no longer reach this node here");
        self.addresses_changed = true;
    }

    /// We listen on one more address.
    pub(super) fn on_listening(&mut self, address: &Multiaddr) {
        if is_relayed(address) {
            return;
        }
        // A relay dials nobody who could test it; that others reach it is what its operator says by making it one. Peers take no
        // place at a relay that cannot name an address.
        let floor = Scope::floor(&self.config.listen);
        if self.config.relay.is_some() && self.config.external.is_empty() && floor.takes(address) {
            self.reachability.listening(address.clone());
            self.swarm.add_external_address(bare(address.clone()));
        }
        self.network_changed();
    }

    /// An address is no longer one of ours. Connections that used it are dead, and would only be found out in a minute.
    pub(super) fn on_address_gone(&mut self, address: &Multiaddr) {
        if is_relayed(address) {
            return;
        }
        if self.reachability.not_listening(address) {
            self.swarm.remove_external_address(&bare(address.clone()));
        }
        let Some(gone) = ip_of(address) else { return };
        if self.swarm.listeners().any(|own| ip_of(own) == Some(gone)) {
            return;
        }
        let scope = Scope::of(address);
        let dead: Vec<ConnectionId> = self
            .peers
            .values()
            .flat_map(|peer| &peer.connections)
            .filter(|(_, connection)| match &connection.endpoint {
                endpoint if endpoint.is_relayed() => false,
                libp2p::core::ConnectedPoint::Listener { local_addr, .. } => ip_of(local_addr) == Some(gone),
                // Which of our addresses a dialled connection has is not told. Those that stand are dialled anew.
                libp2p::core::ConnectedPoint::Dialer { address, .. } => {
                    scope > Some(Scope::Loopback)
                        && ip_of(address)
                            .is_some_and(|remote| remote.is_ipv4() == gone.is_ipv4() && !remote.is_loopback())
                }
            })
            .map(|(id, _)| *id)
            .collect();
        tracing::info!(%address, connections = dead.len(), "an address of this node is gone, and connections with it");
        for id in dead {
            self.swarm.close_connection(id);
        }
        // Peers have reached us there at this port and at others; they are told at the next beat that they no longer do.
        for told in self.reachability.gone(gone) {
            self.swarm.remove_external_address(&told);
        }
        self.network_changed();
    }

    fn network_changed(&mut self) {
        let now = Instant::now();
        self.reservations.hurry(now);
        self.wanted.hurry(now);
        self.reachability.network_changed(now);
        self.addresses_changed = true;
    }

    /// A listener has ended; `true` if it was a place at a relay.
    pub(super) fn on_relay_listener_closed(&mut self, listener: ListenerId, reason: Option<String>) -> bool {
        let was = self.reservations.closed(listener, reason, Instant::now());
        if was {
            tracing::info!("a place at a relay is lost; it is asked for again");
        }
        was
    }

    pub(super) fn on_relay_client(&mut self, event: relay::client::Event) {
        match event {
            relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, limit } => {
                let (time, bytes) = match limit {
                    Some(limit) => (limit.duration(), limit.data_in_bytes()),
                    None => (None, None),
                };
                if !renewal {
                    tracing::info!(relay = %relay_peer_id, "others reach this node through a relay");
                }
                self.reservations.accepted(relay_peer_id, time, bytes, Instant::now());
            }
            relay::client::Event::OutboundCircuitEstablished { relay_peer_id, .. } => {
                tracing::debug!(relay = %relay_peer_id, "connected through a relay");
            }
            relay::client::Event::InboundCircuitEstablished { src_peer_id, .. } => {
                tracing::debug!(peer = %src_peer_id, "a peer connects through a relay");
            }
        }
    }

    pub(super) fn on_relay_server(&mut self, event: &relay::Event) {
        self.relaying.on_event(event);
        if let relay::Event::CircuitClosed { src_peer_id, dst_peer_id, error: Some(error) } = event {
            tracing::debug!(from = %src_peer_id, to = %dst_peer_id, %error, "a relayed connection ended");
        }
    }

    pub(super) fn on_dcutr(&mut self, dcutr::Event { remote_peer_id, result }: dcutr::Event) {
        let result = result.map(drop).map_err(|error| {
            let text = error.to_string();
            text.strip_prefix("Failed to hole-punch connection: ").unwrap_or(&text).chars().take(MAX_REASON).collect()
        });
        tracing::debug!(peer = %remote_peer_id, ?result, "a direct connection was tried");
        if let Some(peer) = self.peers.get_mut(&remote_peer_id) {
            peer.upgrade = Some((Instant::now(), result));
        }
    }

    /// Closes relayed connections that a direct one has stood beside for a while.
    fn end_relayed(&mut self, now: Instant) {
        let superseded = |peer: &Peer| {
            let direct = peer.direct().map(|connection| connection.since).min();
            direct.is_some_and(|since| now.saturating_duration_since(since) >= RELAYED_END)
        };
        let over: Vec<ConnectionId> = self
            .peers
            .values()
            .filter(|peer| superseded(peer))
            .flat_map(|peer| peer.connections.iter().filter(|(_, connection)| !connection.is_direct()))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.swarm.close_connection(id);
        }
    }

    pub(super) fn on_upnp(&mut self, event: upnp::Event) {
        let now = Instant::now();
        self.upnp = match event {
            upnp::Event::NewExternalAddr { external_addr, .. } => {
                self.reachability.mapped(external_addr, now);
                Upnp::Mapped
            }
            upnp::Event::ExpiredExternalAddr { external_addr, .. } => {
                self.reachability.unmapped(&external_addr);
                Upnp::Lost
            }
            upnp::Event::GatewayNotFound => Upnp::NoRouter,
            upnp::Event::NonRoutableGateway => Upnp::NoPublicAddress,
        };
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        for (peer, address) in found {
            if self.swarm.is_connected(&peer) || self.local.len() >= MAX_LOCAL {
                continue;
            }
            tracing::debug!(%peer, %address, "a peer on the local network");
            let opts = DialOpts::peer_id(peer).build();
            if self.swarm.dial(opts).is_ok() {
                self.local.insert(peer);
            }
        }
    }

    fn watch_mdns(&mut self, now: Instant) {
        if !self.config.mdns {
            return;
        }
        let me = *self.swarm.local_peer_id();
        let mdns = &mut self.swarm.behaviour_mut().mdns;
        match (mdns.as_ref().map(|mdns| mdns.inner.discovered_nodes().len()), self.mdns_pause) {
            (Some(claimed), _) if claimed > MAX_CLAIMED => {
                tracing::warn!(
                    claimed,
                    "somebody floods the local network with peers; it is not listened to for a while"
                );
                *mdns = None.into();
                self.mdns_pause = now.checked_add(MDNS_PAUSE);
            }
            (None, Some(until)) if until <= now => {
                *mdns = local_peers(me, Scope::floor(&self.config.listen)).into();
                self.mdns_pause = None;
            }
            _ => {}
        }
    }

    pub(super) fn reach_report(&mut self) -> ReachReport {
        let testers = self.testers().len();
        let providing = self.providing_report();
        let behaviour = self.swarm.behaviour_mut();
        let routing_peers =
            behaviour.kad.as_mut().map(|kad| kad.inner.kbuckets().map(|bucket| bucket.num_entries()).sum::<usize>());
        let mdns = behaviour.mdns.is_enabled();
        ReachReport {
            reach: self.reachability.reach(),
            addresses: self.reachability.report(Instant::now()),
            testers,
            translation: self.translation(),
            relays: self.reservations.report(),
            relaying: self.config.relay.is_some().then(|| self.relaying.report()),
            hole_punching: self.config.hole_punching,
            routing_peers,
            providing,
            mdns,
            upnp: self.config.upnp.then_some(self.upnp),
        }
    }

    /// What peers that were dialled say about where they see us.
    fn translation(&self) -> Translation {
        let own: Vec<_> = self.swarm.listeners().filter_map(ip_of).collect();
        let mut ports: HashMap<Transport, BTreeMap<PeerId, Option<u16>>> = HashMap::new();
        for (peer, seen) in self.sightings() {
            if ip_of(seen).is_some_and(|ip| own.contains(&ip)) {
                return Translation::None;
            }
            ports.entry(Transport::of(seen)).or_default().insert(peer, port_of(seen));
        }
        let told = ports.values().filter(|seen| seen.len() > 1);
        let differ = told.map(|seen| seen.values().collect::<BTreeSet<_>>().len() > 1);
        match differ.reduce(|one, other| one || other) {
            Some(true) => Translation::PortPerPeer,
            Some(false) => Translation::SamePort,
            None => Translation::Unknown,
        }
    }
}

/// The port in a multiaddr.
fn port_of(address: &Multiaddr) -> Option<u16> {
    match address.iter().nth(1)? {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
