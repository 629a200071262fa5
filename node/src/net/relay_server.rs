//! The relay role: connections between two peers that cannot reach each other go through this node, as ciphertext.
//!
//! Circuit relay v2 of libp2p with limits of our own: how many reservations and circuits there may be, by peer and in all, how
//! long a circuit lasts, how much it carries, and how often somebody may ask. What a circuit carries is bounded by them too:
//! `circuits_per_hour` times `circuit_bytes` for one peer.
//!
//! The wrapper keeps one entry of each peer in libp2p's table that it never removes before the peer is gone. Without it, a
//! peer that lets its reservation run out just before it takes the answer to a renewal leaves the table without an entry
//! that libp2p takes for granted, and the whole node would stop (libp2p-relay 0.22, `ReservationReqAccepted`).

use std::{
    collections::HashMap,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay::{self, RateLimiter},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
    },
};

use super::{addresses::Origin, buckets::Buckets, config::RelayCaps};

/// Reservations that one peer may ask for at once, and the time in which one more is allowed: it renews at three quarters of
/// their time, and asks anew after each break of its connection.
const RESERVATIONS: (u32, Duration) = (10, Duration::from_secs(60));
/// The same for one IPv4 address or IPv6 /64: a fleet behind one NAT that all reconnects.
const RESERVATIONS_PER_ORIGIN: (u32, Duration) = (64, Duration::from_secs(15));
/// Circuits that one address may ask for at once, and the time in which one more is allowed.
const CIRCUITS_PER_ORIGIN: (u32, Duration) = (128, Duration::from_secs(15));
const HOUR: Duration = Duration::from_secs(3600);

fn by_peer((burst, every): (u32, Duration)) -> Box<dyn RateLimiter> {
    let mut buckets = Buckets::new(burst, every);
    Box::new(move |peer: PeerId, _: &Multiaddr, _| buckets.take(peer, Instant::now()))
}

/// Loopback is no origin here: everybody behind a proxy on this host, or a whole test network, comes from there.
fn by_origin((burst, every): (u32, Duration)) -> Box<dyn RateLimiter> {
    let mut buckets = Buckets::new(burst, every);
    Box::new(move |_: PeerId, address: &Multiaddr, _| match Origin::of(address) {
        None | Some(Origin::Loopback(_)) => true,
        Some(origin) => buckets.take(origin, Instant::now()),
    })
}

fn config(caps: &RelayCaps) -> relay::Config {
    let hourly = caps.circuits_per_hour.max(1);
    relay::Config {
        max_reservations: caps.reservations,
        // libp2p refuses what is above the number, so it lets one more in.
        max_reservations_per_peer: caps.reservations_per_peer.saturating_sub(1),
        reservation_duration: caps.reservation_time,
        reservation_rate_limiters: vec![by_peer(RESERVATIONS), by_origin(RESERVATIONS_PER_ORIGIN)],
        max_circuits: caps.circuits,
        max_circuits_per_peer: caps.circuits_per_peer.saturating_sub(1),
        max_circuit_duration: caps.circuit_time,
        max_circuit_bytes: caps.circuit_bytes,
        circuit_src_rate_limiters: vec![by_peer((hourly, HOUR / hourly)), by_origin(CIRCUITS_PER_ORIGIN)],
    }
}

/// The behaviour.
pub(super) struct RelayServer {
    inner: relay::Behaviour,
    /// The entry of each connected peer that stays. Bounded by the limits on connections.
    stays: HashMap<PeerId, ConnectionId>,
    next: usize,
}

impl RelayServer {
    pub(super) fn new(me: PeerId, caps: &RelayCaps) -> Self {
        let mut inner = relay::Behaviour::new(me, config(caps));
        // The operator says that others reach this node; libp2p would wait until an address is confirmed.
        inner.set_status(Some(relay::Status::Enable));
        Self { inner, stays: HashMap::new(), next: usize::MAX }
    }

    fn came(&mut self, event: &ConnectionEstablished) {
        if !self.stays.contains_key(&event.peer_id) {
            // Real ones count from 0 upwards.
            let stays = ConnectionId::new_unchecked(self.next);
            self.next = self.next.wrapping_sub(1);
            self.stays.insert(event.peer_id, stays);
            let event = ConnectionEstablished { connection_id: stays, failed_addresses: &[], ..*event };
            self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(event));
        }
    }

    fn went(&mut self, event: &ConnectionClosed) {
        if event.remaining_established == 0
            && let Some(stays) = self.stays.remove(&event.peer_id)
        {
            let event = ConnectionClosed { connection_id: stays, cause: None, ..*event };
            self.inner.on_swarm_event(FromSwarm::ConnectionClosed(event));
        }
    }
}

impl NetworkBehaviour for RelayServer {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = relay::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(event) = &event {
            self.came(event);
        }
        self.inner.on_swarm_event(event);
        if let FromSwarm::ConnectionClosed(event) = &event {
            self.went(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}
