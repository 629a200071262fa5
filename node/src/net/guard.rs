//! A behaviour of libp2p that dials addresses which strangers named, held to what a careful node does for strangers.
//!
//! Three do: AutoNAT's server (the address a client wants tested), DCUtR (the addresses a peer wants holes punched to) and
//! Kademlia (addresses of third parties). None of them looks at an address, counts dials, or bounds how many addresses one dial
//! tries. The guard stands around them and changes nothing else: it takes addresses of too narrow a scope out, and refuses a
//! dial beyond a rate, by peer and in all.

use std::{
    collections::{HashMap, HashSet},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure},
    },
};

use super::{buckets::Buckets, scope::Scope};

/// Most addresses of strangers that one dial tries. An honest peer has one or two for each transport and interface.
const MAX_ADDRESSES: usize = 16;
/// Most addresses that a peer may want tried in one dial of its own making, above which it is refused: what DCUtR keeps.
const MAX_NAMED: usize = 20;

/// What a guarded behaviour may do for strangers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// No address of a narrower scope.
    pub(super) floor: Scope,
    /// Nor of a narrower scope than the connection over which its peer is connected: who is met on the Internet has no
    /// business with the local network.
    pub(super) as_met: bool,
    /// Dials for one peer at once, and the time in which one more is allowed.
    pub(super) per_peer: (u32, Duration),
    /// The same for all peers together.
    pub(super) total: (u32, Duration),
}

/// Why a dial for a stranger was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0} is no address to dial for a stranger")]
    Address(Multiaddr),
    #[error("it names {0} addresses")]
    Many(usize),
    #[error("too many dials for one peer")]
    Peer,
    #[error("too many dials for strangers")]
    Total,
}

/// The guard around a behaviour.
pub(super) struct Guarded<B> {
    pub(super) inner: B,
    terms: Terms,
    per_peer: Buckets<PeerId>,
    total: Buckets<()>,
    /// Dials of the behaviour that the swarm has not asked about yet; it does at once.
    begun: HashSet<ConnectionId>,
    /// Scopes of the connections of each peer. Bounded by the limits on connections.
    met: HashMap<PeerId, HashMap<ConnectionId, Scope>>,
}

impl<B> Guarded<B> {
    pub(super) fn new(inner: B, terms: Terms) -> Self {
        let buckets = |(burst, every)| (burst, every);
        let ((burst, every), (all, all_every)) = (buckets(terms.per_peer), buckets(terms.total));
        Self {
            inner,
            terms,
            per_peer: Buckets::new(burst, every),
            total: Buckets::new(all, all_every),
            begun: HashSet::new(),
            met: HashMap::new(),
        }
    }

    /// Whether the behaviour may dial these addresses for a peer now.
    fn judge(&mut self, peer: Option<PeerId>, addresses: &[Multiaddr], now: Instant) -> Result<(), Refused> {
        if addresses.len() > MAX_NAMED {
            return Err(Refused::Many(addresses.len()));
        }
        let met = peer.and_then(|peer| self.met.get(&peer)).and_then(|all| all.values().min().copied());
        let floor = match met {
            Some(met) if self.terms.as_met => self.terms.floor.max(met),
            _ => self.terms.floor,
        };
        if let Some(bad) = addresses.iter().find(|address| !floor.takes(address)) {
            return Err(Refused::Address(bad.clone()));
        }
        if peer.is_some_and(|peer| !self.per_peer.take(peer, now)) {
            return Err(Refused::Peer);
        }
        if self.total.take((), now) { Ok(()) } else { Err(Refused::Total) }
    }

    fn on_event(&mut self, event: &FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                self.begun.remove(connection_id);
                // What comes through a relay says only whom it comes from; the other end of it says by which relay.
                let remote = Scope::of(endpoint.get_remote_address());
                let scope = remote.or_else(|| match endpoint {
                    libp2p::core::ConnectedPoint::Listener { local_addr, .. } => Scope::of(local_addr),
                    libp2p::core::ConnectedPoint::Dialer { .. } => None,
                });
                let scope = scope.unwrap_or(Scope::Global);
                self.met.entry(*peer_id).or_default().insert(*connection_id, scope);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(all) = self.met.get_mut(peer_id) {
                    all.remove(connection_id);
                    if all.is_empty() {
                        self.met.remove(peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.begun.remove(connection_id);
            }
            _ => {}
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Guarded<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.begun.remove(&connection) {
            // What it dials without addresses of its own are peers it knows: only their number is bounded.
            self.judge(peer, addresses, Instant::now()).map_err(|refused| {
                tracing::debug!(peer = ?peer, %refused, "a dial for a stranger is refused");
                ConnectionDenied::new(refused)
            })?;
        }
        let mut known = self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        known.retain(|address| self.terms.floor.takes(address));
        known.truncate(MAX_ADDRESSES);
        Ok(known)
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
        // A neighbour on our own host may see us at an address that means nothing to anybody else.
        if let FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }) = &event
            && !self.terms.floor.takes(addr)
        {
            return;
        }
        self.on_event(&event);
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let action = self.inner.poll(cx);
        if let Poll::Ready(ToSwarm::Dial { opts }) = &action {
            self.begun.insert(opts.connection_id());
        }
        action
    }
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::dummy;

    use super::*;

    fn guard(as_met: bool) -> Guarded<dummy::Behaviour> {
        let terms = Terms {
            floor: Scope::Private,
            as_met,
            per_peer: (2, Duration::from_secs(60)),
            total: (3, Duration::from_secs(60)),
        };
        Guarded::new(dummy::Behaviour, terms)
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn nobody_makes_us_knock_at_our_own_doors() {
        let (mut guard, peer, now) = (guard(false), Some(PeerId::random()), Instant::now());
        for bad in ["/ip4/127.0.0.1/tcp/22", "/ip4/169.254.169.254/tcp/80", "/ip4/0.0.0.0/tcp/1", "/ip6/::1/tcp/22"] {
            let both = [address("/ip4/198.51.100.7/tcp/4600"), address(bad)];
            assert_eq!(guard.judge(peer, &both, now), Err(Refused::Address(both[1].clone())));
        }
        let many = vec![address("/ip4/198.51.100.7/tcp/4600"); MAX_NAMED + 1];
        assert_eq!(guard.judge(peer, &many, now), Err(Refused::Many(MAX_NAMED + 1)));
        assert_eq!(guard.judge(peer, &many[1..], now), Ok(()));
    }

    #[test]
    fn who_is_met_on_the_internet_has_no_say_about_the_local_network() {
        let (mut guard, now) = (guard(true), Instant::now());
        let (far, near) = (PeerId::random(), PeerId::random());
        let connection = ConnectionId::new_unchecked(1);
        guard.met.entry(far).or_default().insert(connection, Scope::Global);
        guard.met.entry(near).or_default().insert(connection, Scope::Private);
        let local = [address("/ip4/10.0.0.9/tcp/4600")];
        assert_eq!(guard.judge(Some(far), &local, now), Err(Refused::Address(local[0].clone())));
        assert_eq!(guard.judge(Some(near), &local, now), Ok(()));
    }

    #[test]
    fn dials_for_one_peer_and_for_all_have_a_rate() {
        let (mut guard, now) = (guard(false), Instant::now());
        let (one, other) = (Some(PeerId::random()), Some(PeerId::random()));
        let public = [address("/ip4/198.51.100.7/tcp/4600")];
        assert_eq!(guard.judge(one, &public, now), Ok(()));
        assert_eq!(guard.judge(one, &public, now), Ok(()));
        assert_eq!(guard.judge(one, &public, now), Err(Refused::Peer));
        assert_eq!(guard.judge(other, &public, now), Ok(()));
        assert_eq!(guard.judge(other, &public, now), Err(Refused::Total));
        assert_eq!(guard.judge(other, &public, now + Duration::from_secs(60)), Ok(()));
    }
}
