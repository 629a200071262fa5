//! Limits on inbound connections by the address they come from.
//!
//! Owns counting, per origin, inbound connections that are not yet authenticated and those that are. Without it one host that
//! opens connections and stays silent holds every place there is until the handshake times out, again and again. An origin is an
//! IPv4 address or an IPv6 /64, since a /64 is what one host has to itself; loopback is an origin with limits of its own, because
//! all of a test network, or everybody behind a local proxy, comes from there. The network around an origin (an IPv4 /24, an IPv6
//! /48) has limits, too: addresses in one are had by the hundred. What comes by way of a relay has no address of its
//! own here: the limits in total hold for it.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished, dummy,
    },
};

use super::{
    config::{AddressCaps, ConnectionCaps},
    event::{Counters, count},
};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6(u64),
    /// One loopback address; each counts for itself.
    Loopback(IpAddr),
    /// The first 24 bits of an IPv4 address.
    Net4(u32),
    /// The first 48 bits of an IPv6 address.
    Net6(u64),
}

impl Origin {
    /// `None` for what has no address: relayed connections, transports without IP.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        if address.iter().any(|part| part == Protocol::P2pCircuit) {
            return None;
        }
        let ip = match address.iter().next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            // An IPv4 peer of a socket that listens on both.
            Protocol::Ip6(ip) => ip.to_canonical(),
            _ => return None,
        };
        Some(match ip {
            _ if ip.is_loopback() => Self::Loopback(ip),
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        })
    }
}

impl Origin {
    /// The network that it is in: an IPv4 /24 or an IPv6 /48.
    fn network(self) -> Option<Self> {
        match self {
            Self::V4(ip) => Some(Self::Net4(ip.to_bits() >> 8)),
            Self::V6(prefix) => Some(Self::Net6(prefix >> 16)),
            Self::Loopback(_) | Self::Net4(_) | Self::Net6(_) => None,
        }
    }

    /// It, and the network that it is in.
    fn ranges(origin: Option<Self>) -> impl Iterator<Item = Self> {
        origin.into_iter().chain(origin.and_then(Self::network))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(prefix) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*prefix) << 64)),
            Self::Loopback(ip) => ip.fmt(f),
            Self::Net4(prefix) => write!(f, "{}/24", Ipv4Addr::from_bits(prefix << 8)),
            Self::Net6(prefix) => write!(f, "{}/48", Ipv6Addr::from_bits(u128::from(*prefix) << 80)),
        }
    }
}

/// A connection is refused: there are too many from its address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin} has {limit} inbound connections already {state}")]
struct TooMany {
    origin: String,
    limit: u32,
    state: &'static str,
}

#[derive(Debug, Default, Clone, Copy)]
struct Held {
    pending: u32,
    established: u32,
}

/// Refuses inbound connections of an address that has too many.
pub(super) struct AddressLimits {
    caps: ConnectionCaps,
    counters: Arc<Counters>,
    /// Bounded by the limits in total, as are the others.
    pending: HashMap<ConnectionId, Option<Origin>>,
    established: HashMap<ConnectionId, Option<Origin>>,
    held: HashMap<Origin, Held>,
}

impl AddressLimits {
    pub(super) fn new(caps: &ConnectionCaps, counters: Arc<Counters>) -> Self {
        let (pending, established, held) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { caps: caps.clone(), counters, pending, established, held }
    }

    fn caps_of(&self, origin: Origin) -> &AddressCaps {
        match origin {
            Origin::Loopback(_) => &self.caps.per_loopback_address,
            Origin::V4(_) | Origin::V6(_) => &self.caps.per_address,
            Origin::Net4(_) | Origin::Net6(_) => &self.caps.per_network,
        }
    }

    fn held(&self, origin: Origin) -> Held {
        self.held.get(&origin).copied().unwrap_or_default()
    }

    fn refuse(&self, origin: Origin, limit: u32, state: &'static str) -> ConnectionDenied {
        count(&self.counters.refused_per_address);
        ConnectionDenied::new(TooMany { origin: origin.to_string(), limit, state })
    }

    fn may_begin(&self, origin: Option<Origin>) -> Result<(), ConnectionDenied> {
        for origin in Origin::ranges(origin) {
            let limit = self.caps_of(origin).pending;
            if self.held(origin).pending >= limit {
                return Err(self.refuse(origin, limit, "in the handshake"));
            }
        }
        Ok(())
    }

    fn may_stay(&self, origin: Option<Origin>) -> Result<(), ConnectionDenied> {
        for origin in Origin::ranges(origin) {
            let limit = self.caps_of(origin).established;
            if self.held(origin).established >= limit {
                return Err(self.refuse(origin, limit, "established"));
            }
        }
        Ok(())
    }

    fn begin(&mut self, id: ConnectionId, origin: Option<Origin>) {
        if self.pending.insert(id, origin).is_none() {
            self.change(origin, |held| held.pending = held.pending.saturating_add(1));
        }
        self.tell();
    }

    fn end_pending(&mut self, id: ConnectionId) {
        if let Some(origin) = self.pending.remove(&id) {
            self.change(origin, |held| held.pending = held.pending.saturating_sub(1));
        }
        self.tell();
    }

    fn establish(&mut self, id: ConnectionId, origin: Option<Origin>) {
        if self.established.insert(id, origin).is_none() {
            self.change(origin, |held| held.established = held.established.saturating_add(1));
        }
        self.tell();
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(origin) = self.established.remove(&id) {
            self.change(origin, |held| held.established = held.established.saturating_sub(1));
        }
        self.tell();
    }

    /// Changes what an origin holds, and forgets one that holds nothing.
    fn change(&mut self, origin: Option<Origin>, change: impl Fn(&mut Held)) {
        for origin in Origin::ranges(origin) {
            match self.held.entry(origin) {
                Entry::Occupied(mut entry) => {
                    change(entry.get_mut());
                    if let Held { pending: 0, established: 0 } = entry.get() {
                        entry.remove();
                    }
                }
                Entry::Vacant(entry) => change(entry.insert(Held::default())),
            }
        }
    }

    fn tell(&self) {
        let tell = |gauge: &AtomicU64, number: usize| gauge.store(number as u64, Relaxed);
        tell(&self.counters.inbound_pending, self.pending.len());
        tell(&self.counters.inbound, self.established.len());
    }
}

impl NetworkBehaviour for AddressLimits {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        _: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let origin = Origin::of(remote_addr);
        self.may_begin(origin)?;
        self.begin(connection_id, origin);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.end_pending(connection_id);
        self.may_stay(Origin::of(remote_addr))?;
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

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                connection_id,
                endpoint: ConnectedPoint::Listener { send_back_addr, .. },
                ..
            }) => self.establish(connection_id, Origin::of(send_back_addr)),
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => self.close(connection_id),
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => self.end_pending(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Option<String> {
        Origin::of(&address.parse().unwrap()).map(|origin| origin.to_string())
    }

    #[test]
    fn an_origin_is_what_one_host_has_to_itself() {
        let cases = [
            ("/ip4/192.0.2.7/tcp/4600", Some("192.0.2.7")),
            ("/ip4/192.0.2.7/udp/4600/quic-v1", Some("192.0.2.7")),
            ("/ip6/2001:db8:1:2:3:4:5:6/tcp/1", Some("2001:db8:1:2::/64")),
            ("/ip6/2001:db8:1:2:ffff::1/udp/1/quic-v1", Some("2001:db8:1:2::/64")),
            ("/ip6/2001:db8:1:3::1/tcp/1", Some("2001:db8:1:3::/64")),
            ("/ip6/::ffff:192.0.2.7/tcp/1", Some("192.0.2.7")),
            ("/ip6/::1/tcp/1", Some("::1")),
            ("/ip6/::ffff:127.0.0.2/tcp/1", Some("127.0.0.2")),
            ("/memory/5", None),
            ("/ip4/192.0.2.7/tcp/1/p2p-circuit", None),
        ];
        for (address, expected) in cases {
            assert_eq!(origin(address).as_deref(), expected, "{address}");
        }
        let loopback = Origin::of(&"/ip6/::ffff:127.0.0.2/tcp/1".parse().unwrap());
        assert_eq!(loopback, Origin::of(&"/ip4/127.0.0.2/tcp/9".parse().unwrap()));
        assert!(matches!(loopback, Some(Origin::Loopback(_))));
    }

    #[test]
    fn one_address_fills_its_own_places_and_nobody_elses() {
        let caps = ConnectionCaps {
            per_address: AddressCaps { pending: 2, established: 3 },
            per_loopback_address: AddressCaps { pending: 4, established: 1 },
            ..ConnectionCaps::default()
        };
        let counters = Arc::new(Counters::default());
        let mut limits = AddressLimits::new(&caps, Arc::clone(&counters));
        let here: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let mut ids = 0..;
        let mut begin = |limits: &mut AddressLimits, from: &str| {
            let id = ConnectionId::new_unchecked(ids.next().unwrap());
            let address: Multiaddr = from.parse().unwrap();
            limits
                .handle_pending_inbound_connection(id, &here, &address)
                .map(|()| id)
                .map_err(|denied| denied.to_string())
        };
        let many = "/ip6/2001:db8::1/tcp/1";
        let first = begin(&mut limits, many).unwrap();
        begin(&mut limits, "/ip6/2001:db8::2/tcp/1").unwrap();
        begin(&mut limits, "/ip6/2001:db8::3/tcp/1").unwrap_err();
        begin(&mut limits, "/ip6/2001:db8:0:1::3/tcp/1").unwrap();
        assert_eq!(counters.snapshot().refused_per_address, 1);
        assert_eq!(counters.snapshot().inbound_pending, 3);

        // A place that becomes free is free, however the handshake ended, and once only.
        limits.end_pending(first);
        limits.end_pending(first);
        let second = begin(&mut limits, many).unwrap();
        begin(&mut limits, many).unwrap_err();
        limits.handle_established_inbound_connection(second, PeerId::random(), &here, &many.parse().unwrap()).unwrap();
        limits.establish(second, Origin::of(&many.parse().unwrap()));
        begin(&mut limits, many).unwrap();

        for _ in 0..4 {
            begin(&mut limits, "/ip4/127.0.0.1/tcp/7").unwrap();
        }
        begin(&mut limits, "/ip4/127.0.0.1/tcp/7").unwrap_err();
        begin(&mut limits, "/ip4/127.0.0.2/tcp/7").unwrap();
        for _ in 0..20 {
            begin(&mut limits, "/ip4/192.0.2.7/tcp/1/p2p-circuit").unwrap();
        }
    }

    #[test]
    fn a_network_has_limits_beyond_those_of_its_addresses() {
        let caps = ConnectionCaps {
            per_address: AddressCaps { pending: 2, established: 2 },
            per_network: AddressCaps { pending: 3, established: 3 },
            ..ConnectionCaps::default()
        };
        let counters = Arc::new(Counters::default());
        let mut limits = AddressLimits::new(&caps, Arc::clone(&counters));
        let mut ids = 0..;
        let mut begin = |limits: &mut AddressLimits, from: &str| {
            let id = ConnectionId::new_unchecked(ids.next().unwrap());
            let address: Multiaddr = from.parse().unwrap();
            limits.handle_pending_inbound_connection(id, &address, &address).map(|()| id)
        };
        for (near, far) in [
            (["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.3/tcp/1"], "/ip4/192.0.3.1/tcp/1"),
            (
                ["/ip6/2001:db8:7:1::1/tcp/1", "/ip6/2001:db8:7:2::1/tcp/1", "/ip6/2001:db8:7:3::1/tcp/1"],
                "/ip6/2001:db8:8:1::1/tcp/1",
            ),
        ] {
            let taken: Vec<ConnectionId> = near.iter().map(|from| begin(&mut limits, from).unwrap()).collect();
            let denied = begin(&mut limits, near[0]).unwrap_err();
            assert!(format!("{denied:?}").contains(if far.contains("ip4") { "/24" } else { "/48" }), "{denied:?}");
            begin(&mut limits, far).unwrap();
            limits.end_pending(taken[2]);
            begin(&mut limits, near[0]).unwrap();
        }
        assert_eq!(counters.snapshot().refused_per_address, 2);
    }

    #[test]
    fn established_connections_are_counted_until_they_close() {
        let per_address = AddressCaps { pending: 9, established: 2 };
        let caps = ConnectionCaps { per_address, ..ConnectionCaps::default() };
        let counters = Arc::new(Counters::default());
        let mut limits = AddressLimits::new(&caps, Arc::clone(&counters));
        let from: Multiaddr = "/ip4/192.0.2.7/udp/5/quic-v1".parse().unwrap();
        let enter = |limits: &mut AddressLimits, id: usize| {
            let id = ConnectionId::new_unchecked(id);
            limits.handle_pending_inbound_connection(id, &from, &from).unwrap();
            limits.handle_established_inbound_connection(id, PeerId::random(), &from, &from).map(|_| {
                limits.establish(id, Origin::of(&from));
            })
        };
        enter(&mut limits, 1).unwrap();
        enter(&mut limits, 2).unwrap();
        let denied = enter(&mut limits, 3).unwrap_err();
        assert!(format!("{denied:?}").contains("192.0.2.7"), "{denied:?}");
        assert_eq!((counters.snapshot().inbound, counters.snapshot().inbound_pending), (2, 0));
        limits.close(ConnectionId::new_unchecked(1));
        enter(&mut limits, 4).unwrap();
        for id in [2, 4] {
            limits.close(ConnectionId::new_unchecked(id));
        }
        assert!(limits.held.is_empty() && limits.pending.is_empty() && limits.established.is_empty());
    }
}
