//! Raw streams of one protocol as a libp2p behaviour: peers' streams go to one bounded queue, ours are opened on request.
//!
//! It stands where `libp2p-stream` could: that one drops an inbound stream whenever two arrive before the acceptor has run
//! (its queue holds one), picks among several connections at random, and keeps a little memory of every connection for ever.
//! Here the queue has room for all streams of a connection, a direct TCP connection is preferred (it moves bulk fastest), and
//! nothing outlives its connection.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::{Ready, ready},
    option,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        ConnectedPoint, Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure},
        dial_opts::{DialOpts, PeerCondition},
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::{mpsc, oneshot};

use super::event::{Counters, Transport, count};

/// Streams that wait for a dial; a further one fails at once.
const MAX_WAITING: usize = 256;

/// Why a stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OpenError {
    Unreachable,
    Unsupported,
    Broken(String),
}

/// Where an opened stream goes.
pub(super) type Opened = oneshot::Sender<Result<Stream, OpenError>>;
/// Streams peers have opened.
pub(super) type Incoming = mpsc::Receiver<(PeerId, Stream)>;

/// What all connections share.
#[derive(Clone)]
struct Shared {
    protocol: StreamProtocol,
    incoming: mpsc::Sender<(PeerId, Stream)>,
    serving: Arc<AtomicBool>,
    counters: Arc<Counters>,
}

impl Shared {
    fn inbound(&self) -> Offer {
        Offer(self.serving.load(Relaxed).then(|| self.protocol.clone()))
    }
}

/// The behaviour.
pub(super) struct Streams {
    shared: Shared,
    /// Connections of each peer, the preferred one first. Bounded by the limits on connections.
    connections: HashMap<PeerId, Vec<(u8, ConnectionId)>>,
    /// Bounded by [`MAX_WAITING`].
    waiting: Vec<(PeerId, Opened)>,
    events: VecDeque<ToSwarm<Infallible, Opened>>,
}

impl Streams {
    /// Streams of `protocol`, offered to peers while `serving` is set; at most `queue` of them wait to be taken.
    pub(super) fn new(
        protocol: &'static str,
        queue: usize,
        serving: Arc<AtomicBool>,
        counters: Arc<Counters>,
    ) -> (Self, Incoming) {
        let (incoming, receiver) = mpsc::channel(queue);
        let shared = Shared { protocol: StreamProtocol::new(protocol), incoming, serving, counters };
        (Self { shared, connections: HashMap::new(), waiting: Vec::new(), events: VecDeque::new() }, receiver)
    }

    /// Opens a stream to a peer, dialling it at a known address when it is not connected.
    pub(super) fn open(&mut self, peer: PeerId, opened: Opened) {
        if let Some((_, connection)) = self.connections.get(&peer).and_then(|connections| connections.first()) {
            let handler = NotifyHandler::One(*connection);
            self.events.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: opened });
            return;
        }
        // Callers give up after a while; their places are free again.
        self.waiting.retain(|(_, opened)| !opened.is_closed());
        if self.waiting.len() >= MAX_WAITING {
            let _ = opened.send(Err(OpenError::Unreachable));
            return;
        }
        self.waiting.push((peer, opened));
        let condition = PeerCondition::DisconnectedAndNotDialing;
        self.events.push_back(ToSwarm::Dial { opts: DialOpts::peer_id(peer).condition(condition).build() });
    }

    fn take_waiting(&mut self, peer: PeerId) -> Vec<Opened> {
        let (theirs, others) = std::mem::take(&mut self.waiting).into_iter().partition(|(who, _)| *who == peer);
        self.waiting = others;
        let theirs: Vec<(PeerId, Opened)> = theirs;
        theirs.into_iter().map(|(_, opened)| opened).collect()
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler { peer, shared: self.shared.clone(), asked: VecDeque::new() }
    }
}

/// The lower, the sooner a connection is used.
fn rank(endpoint: &ConnectedPoint) -> u8 {
    match (endpoint.is_relayed(), Transport::of(endpoint.get_remote_address())) {
        (false, Transport::Tcp) => 0,
        (false, _) => 1,
        (true, _) => 2,
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let connections = self.connections.entry(peer_id).or_default();
                connections.push((rank(endpoint), connection_id));
                connections.sort_by_key(|(rank, _)| *rank);
                for opened in self.take_waiting(peer_id) {
                    self.open(peer_id, opened);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|(_, id)| *id != connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            // Somebody else dials this peer already: what comes of that decides.
            FromSwarm::DialFailure(DialFailure { error: DialError::DialPeerConditionFalse(_), .. }) => {}
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), .. }) => {
                for opened in self.take_waiting(peer) {
                    let _ = opened.send(Err(OpenError::Unreachable));
                }
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

/// The protocol as an upgrade that does nothing; `None` offers nothing.
pub(super) struct Offer(Option<StreamProtocol>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

/// The streams of one connection.
pub(super) struct Handler {
    peer: PeerId,
    shared: Shared,
    /// Streams to open; each belongs to a caller that waits.
    asked: VecDeque<Opened>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Opened;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(self.shared.inbound(), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, Opened, Infallible>> {
        // A caller that has given up needs no stream any more.
        while let Some(opened) = self.asked.pop_front() {
            if !opened.is_closed() {
                let protocol = SubstreamProtocol::new(Offer(Some(self.shared.protocol.clone())), opened);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, opened: Opened) {
        self.asked.push_back(opened);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Offer, Offer, (), Opened>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                let taken = self.shared.incoming.try_send((self.peer, protocol));
                if taken.is_err() {
                    count(&self.shared.counters.streams_dropped);
                    tracing::debug!(peer = %self.peer, "stream dropped: the queue is full");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let _ = info.send(Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Timeout => OpenError::Broken("negotiation took too long".into()),
                    StreamUpgradeError::Io(error) => OpenError::Broken(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.send(Err(error));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_tcp_connection_comes_first_and_a_relayed_one_last() {
        let rank_of = |address: &str| {
            let address = address.parse().unwrap();
            rank(&ConnectedPoint::Dialer { address, role_override: Endpoint::Dialer, port_use: PortUse::Reuse })
        };
        let relayed = format!("/ip4/192.0.2.1/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        let ranks = ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1", &relayed].map(rank_of);
        assert!(ranks.is_sorted() && ranks[0] < ranks[1] && ranks[1] < ranks[2], "{ranks:?}");
    }
}
