//! Wakes connections whose gossip would sleep.
//!
//! In libp2p-gossipsub 0.50 all connections to a peer share one queue, and only a connection that has sent gossip before is woken
//! when a message comes into it. When that one closes and another one stays (a relayed connection gives way to a direct one, two
//! peers had dialled each other at once), messages lie in the queue until something else wakes the connection, and are dropped
//! after five seconds. Here the connections of such a peer are woken twice a second; a connection that is awake looks into the
//! queue by itself.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse, upgrade::DeniedUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
        handler::ConnectionEvent,
    },
};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Well below the time after which gossipsub drops what waits.
const EVERY: Duration = Duration::from_millis(500);

/// The behaviour.
pub(super) struct Nudge {
    /// Bounded by the limits on connections.
    connections: HashMap<PeerId, HashSet<ConnectionId>>,
    /// Connected peers that have lost one of several connections.
    sleepy: HashSet<PeerId>,
    /// Made with the first of them.
    timer: Option<Interval>,
    nudges: VecDeque<(PeerId, ConnectionId)>,
}

impl Nudge {
    pub(super) fn new() -> Self {
        Self { connections: HashMap::new(), sleepy: HashSet::new(), timer: None, nudges: VecDeque::new() }
    }

    fn came(&mut self, peer: PeerId, connection: ConnectionId) {
        self.connections.entry(peer).or_default().insert(connection);
    }

    fn went(&mut self, peer: PeerId, connection: ConnectionId) {
        let Some(left) = self.connections.get_mut(&peer) else { return };
        left.remove(&connection);
        if left.is_empty() {
            self.connections.remove(&peer);
            self.sleepy.remove(&peer);
        } else {
            self.sleepy.insert(peer);
        }
    }

    /// All connections of the peers that may sleep.
    fn round(&self) -> VecDeque<(PeerId, ConnectionId)> {
        let of =
            |peer: &PeerId| self.connections.get(peer).into_iter().flatten().map(|id| (*peer, *id)).collect::<Vec<_>>();
        self.sleepy.iter().flat_map(of).collect()
    }
}

impl NetworkBehaviour for Nudge {
    type ConnectionHandler = Sleeper;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Sleeper)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Sleeper)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                self.came(peer_id, connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.went(peer_id, connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some((peer_id, connection)) = self.nudges.pop_front() {
                let handler = NotifyHandler::One(connection);
                return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: Wake });
            }
            if self.sleepy.is_empty() {
                self.timer = None;
                return Poll::Pending;
            }
            let timer = self.timer.get_or_insert_with(|| {
                let mut timer = interval(EVERY);
                timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
                timer
            });
            match timer.poll_tick(cx) {
                Poll::Ready(_) => self.nudges = self.round(),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What wakes a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wake;

/// A handler that does nothing: being told something is enough to have the whole connection looked at.
pub(super) struct Sleeper;

impl ConnectionHandler for Sleeper {
    type FromBehaviour = Wake;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Wake: Wake) {}

    fn on_connection_event(&mut self, _: ConnectionEvent<DeniedUpgrade, DeniedUpgrade>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lost_one_of_two_connections_is_woken_until_it_is_gone() {
        let (mut nudge, peer, other) = (Nudge::new(), PeerId::random(), PeerId::random());
        let [one, two, three] = [1, 2, 3].map(ConnectionId::new_unchecked);
        nudge.came(peer, one);
        nudge.came(other, three);
        assert!(nudge.round().is_empty());
        nudge.came(peer, two);
        assert!(nudge.round().is_empty());
        nudge.went(peer, one);
        assert_eq!(nudge.round(), [(peer, two)]);
        nudge.went(peer, two);
        nudge.went(other, three);
        assert!(nudge.round().is_empty() && nudge.connections.is_empty() && nudge.sleepy.is_empty());
    }
}
