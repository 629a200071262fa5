//! Room for newcomers: inbound connections that have done nothing give way when most places are taken.
//!
//! Identities are free, so a limit on connections alone lets anybody fill a node with connections that idle. Here the oldest of
//! those is closed as soon as more than seven of eight places are taken; who has asked for something, listens to a topic or is
//! being served stays, and at the limit itself newcomers are refused as ever. What stands is bounded by that limit.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    gossipsub, relay,
    request_response::{self, Message},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
        dummy,
    },
};

use super::behaviour::BehaviourEvent;

/// With fewer places than this nobody gives way: a handful of connections is somebody's choice.
const MIN_PLACES: u32 = 16;

/// The behaviour.
pub(super) struct Room {
    /// Inbound connections above this number make the oldest idle one give way.
    soft: usize,
    inbound: HashSet<ConnectionId>,
    /// Inbound connections of peers that have done nothing, oldest first.
    idle: BTreeMap<u64, (PeerId, ConnectionId)>,
    places: HashMap<ConnectionId, u64>,
    next: u64,
    /// Connected peers that have done something.
    active: HashSet<PeerId>,
    events: VecDeque<ToSwarm<Infallible, Infallible>>,
}

/// Who did something that keeps its connections.
pub(super) fn actor(event: &BehaviourEvent) -> Option<PeerId> {
    match event {
        BehaviourEvent::Gossip(gossipsub::Event::Subscribed { peer_id, .. }) => Some(*peer_id),
        BehaviourEvent::Sync(request_response::Event::Message { peer, message: Message::Request { .. }, .. })
        | BehaviourEvent::Access(request_response::Event::Message { peer, message: Message::Request { .. }, .. }) => {
            Some(*peer)
        }
        // Who is reached through us, and who reaches others.
        BehaviourEvent::RelayServer(
            relay::Event::ReservationReqAccepted { src_peer_id, .. }
            | relay::Event::CircuitReqAccepted { src_peer_id, .. },
        ) => Some(*src_peer_id),
        _ => None,
    }
}

impl Room {
    /// Room among `limit` inbound connections.
    pub(super) fn new(limit: u32) -> Self {
        let soft = if limit < MIN_PLACES { u32::MAX } else { limit - limit / 8 };
        Self {
            soft: usize::try_from(soft).unwrap_or(usize::MAX),
            inbound: HashSet::new(),
            idle: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
            active: HashSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Keeps the connections of a peer, as long as it is connected.
    pub(super) fn keep(&mut self, peer: PeerId) {
        if self.active.insert(peer) {
            self.idle.retain(|_, (idle, connection)| {
                let stays = *idle != peer;
                if !stays {
                    self.places.remove(connection);
                }
                stays
            });
        }
    }

    fn came(&mut self, peer: PeerId, connection: ConnectionId) {
        self.inbound.insert(connection);
        if !self.active.contains(&peer) {
            self.idle.insert(self.next, (peer, connection));
            self.places.insert(connection, self.next);
            self.next += 1;
        }
        if self.inbound.len() > self.soft
            && let Some((_, (peer_id, connection))) = self.idle.pop_first()
        {
            self.places.remove(&connection);
            tracing::debug!(peer = %peer_id, "an idle connection gives way to a newcomer");
            let connection = CloseConnection::One(connection);
            self.events.push_back(ToSwarm::CloseConnection { peer_id, connection });
        }
    }

    fn went(&mut self, peer: PeerId, connection: ConnectionId, last: bool) {
        self.inbound.remove(&connection);
        if let Some(place) = self.places.remove(&connection) {
            self.idle.remove(&place);
        }
        if last {
            self.active.remove(&peer);
        }
    }
}

impl NetworkBehaviour for Room {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. })
                if endpoint.is_listener() =>
            {
                self.came(peer_id, connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, remaining_established, .. }) => {
                self.went(peer_id, connection_id, remaining_established == 0);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(room: &mut Room) -> Vec<PeerId> {
        let peers = room.events.drain(..).map(|event| match event {
            ToSwarm::CloseConnection { peer_id, .. } => peer_id,
            other => panic!("{other:?}"),
        });
        peers.collect()
    }

    #[test]
    fn the_oldest_idle_connection_gives_way_and_who_did_something_stays() {
        let mut room = Room::new(16);
        let peers: Vec<PeerId> = (0..20).map(|_| PeerId::random()).collect();
        let connections: Vec<ConnectionId> = (0..20).map(ConnectionId::new_unchecked).collect();
        for at in 0..14 {
            room.came(peers[at], connections[at]);
        }
        assert_eq!(closed(&mut room), []);
        room.keep(peers[0]);
        room.came(peers[14], connections[14]);
        assert_eq!(closed(&mut room), [peers[1]]);
        room.went(peers[1], connections[1], true);
        room.went(peers[2], connections[2], true);
        room.came(peers[15], connections[15]);
        assert_eq!(closed(&mut room), []);
        for peer in &peers {
            room.keep(*peer);
        }
        room.came(peers[16], connections[16]);
        assert_eq!(closed(&mut room), []);
        for at in 0..20 {
            room.went(peers[at], connections[at], true);
        }
        assert!(room.inbound.is_empty() && room.idle.is_empty() && room.places.is_empty() && room.active.is_empty());
    }

    #[test]
    fn a_handful_of_places_is_left_alone() {
        let mut room = Room::new(MIN_PLACES - 1);
        for at in 0..100 {
            room.came(PeerId::random(), ConnectionId::new_unchecked(at));
        }
        assert_eq!(closed(&mut room), []);
    }
}
