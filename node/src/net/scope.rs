//! How far an address reaches, and which addresses of strangers are dialled.
//!
//! Peers name addresses: their own (identify), those of others (Kademlia), addresses to test (AutoNAT) and to punch holes to
//! (DCUtR). Whoever dials them all can be made to knock at the doors of its own host and its own network. So an address of
//! narrower scope than a node itself listens on is not dialled, and not passed on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// How far an address reaches, the narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// This host.
    Loopback,
    /// One link (RFC 3927, RFC 4291); the metadata services of clouds are there.
    Link,
    /// One site, or one carrier (RFC 1918, RFC 4193, RFC 6598).
    Private,
    /// The Internet, and names.
    Global,
}

impl Scope {
    /// The scope of the first hop of an address: of the relay, where it leads through one. `None` where nobody can be reached
    /// by dialling: wildcard, multicast, broadcast, port 0, or no address of a network at all.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let scope = match parts.next()? {
            Protocol::Ip4(ip) => Self::of_ip4(ip)?,
            Protocol::Ip6(ip) => match ip.to_canonical() {
                IpAddr::V4(ip) => Self::of_ip4(ip)?,
                IpAddr::V6(ip) => Self::of_ip6(ip)?,
            },
            Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => Self::Global,
            _ => return None,
        };
        match parts.next() {
            Some(Protocol::Tcp(0) | Protocol::Udp(0)) => None,
            _ => Some(scope),
        }
    }

    fn of_ip4(ip: Ipv4Addr) -> Option<Self> {
        let [a, b, ..] = ip.octets();
        Some(match ip {
            // 0.0.0.0/8 and 240.0.0.0/4 are nobody's.
            _ if a == 0 || a >= 240 || ip.is_multicast() => return None,
            _ if ip.is_loopback() => Self::Loopback,
            _ if ip.is_link_local() => Self::Link,
            _ if ip.is_private() || (a == 100 && b & 0xc0 == 64) => Self::Private,
            _ => Self::Global,
        })
    }

    fn of_ip6(ip: Ipv6Addr) -> Option<Self> {
        Some(match ip {
            _ if ip.is_unspecified() || ip.is_multicast() => return None,
            _ if ip.is_loopback() => Self::Loopback,
            _ if ip.is_unicast_link_local() => Self::Link,
            _ if ip.is_unique_local() => Self::Private,
            _ => Self::Global,
        })
    }

    /// The narrowest scope of strangers' addresses that a node deals with, by what it was told to listen on: a node on loopback
    /// lives on loopback; any other leaves its host and its link alone.
    pub(super) fn floor(listen: &[Multiaddr]) -> Self {
        let loopback = listen.iter().any(|address| Self::of_listener(address) == Some(Self::Loopback));
        if loopback { Self::Loopback } else { Self::Private }
    }

    /// As [`Scope::of`], whatever the port.
    fn of_listener(address: &Multiaddr) -> Option<Self> {
        Self::of(&address.iter().take(1).collect())
    }

    /// Whether an address that a stranger named is one to dial.
    pub(super) fn takes(self, address: &Multiaddr) -> bool {
        Self::of(address).is_some_and(|scope| scope >= self)
    }
}

/// The IP address of the host, or of the relay, that an address leads to first.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    }
}

/// Whether an address leads through a relay.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The relay in an address.
pub(super) fn relay_of(address: &Multiaddr) -> Option<libp2p::PeerId> {
    let before = address.iter().take_while(|part| *part != Protocol::P2pCircuit);
    let relay = before.filter_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None }).last();
    relay.filter(|_| is_relayed(address))
}

/// An address without the id of the peer at its end.
pub(super) fn bare(mut address: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

/// The peer an address leads to, if it says.
pub(super) fn target_of(address: &Multiaddr) -> Option<libp2p::PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    fn scope(address: &str) -> Option<Scope> {
        Scope::of(&address.parse().unwrap())
    }

    #[test]
    fn an_address_reaches_as_far_as_its_first_hop() {
        let relay = PeerId::random();
        for (address, expected) in [
            ("/ip4/127.0.0.1/tcp/1", Some(Scope::Loopback)),
            ("/ip6/::1/udp/1/quic-v1", Some(Scope::Loopback)),
            ("/ip6/::ffff:127.0.0.1/tcp/1", Some(Scope::Loopback)),
            ("/ip4/169.254.169.254/tcp/80", Some(Scope::Link)),
            ("/ip6/fe80::1/tcp/1", Some(Scope::Link)),
            ("/ip4/10.1.2.3/tcp/1", Some(Scope::Private)),
            ("/ip4/100.64.0.1/tcp/1", Some(Scope::Private)),
            ("/ip4/100.128.0.1/tcp/1", Some(Scope::Global)),
            ("/ip6/fd00::1/tcp/1", Some(Scope::Private)),
            ("/ip4/198.51.100.1/tcp/1", Some(Scope::Global)),
            ("/ip6/2001:db8::1/tcp/1", Some(Scope::Global)),
            ("/dns4/relay.example/tcp/1", Some(Scope::Global)),
            (&format!("/ip4/10.1.2.3/tcp/1/p2p/{relay}/p2p-circuit"), Some(Scope::Private)),
            ("/ip4/0.0.0.0/tcp/1", None),
            ("/ip4/10.1.2.3/tcp/0", None),
            ("/ip4/224.0.0.251/udp/5353", None),
            ("/ip4/255.255.255.255/udp/1", None),
            ("/ip6/ff02::fb/udp/5353", None),
            ("/memory/5", None),
            (&format!("/p2p/{relay}"), None),
        ] {
            assert_eq!(scope(address), expected, "{address}");
        }
    }

    #[test]
    fn only_a_node_on_loopback_dials_loopback_for_others() {
        let floor =
            |listen: &[&str]| Scope::floor(&listen.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(floor(&["/ip4/127.0.0.1/tcp/0"]), Scope::Loopback);
        assert_eq!(floor(&["/ip4/0.0.0.0/tcp/4600", "/ip6/::/tcp/4600"]), Scope::Private);
        assert_eq!(floor(&[]), Scope::Private);
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        assert!(Scope::Loopback.takes(&address) && !Scope::Private.takes(&address));
    }

    #[test]
    fn the_relay_and_the_target_of_an_address_are_told_apart() {
        let (relay, target) = (PeerId::random(), PeerId::random());
        let address: Multiaddr = format!("/ip4/192.0.2.7/tcp/1/p2p/{relay}/p2p-circuit/p2p/{target}").parse().unwrap();
        assert_eq!((relay_of(&address), target_of(&address)), (Some(relay), Some(target)));
        assert_eq!(bare(address).to_string(), format!("/ip4/192.0.2.7/tcp/1/p2p/{relay}/p2p-circuit"));
        let direct: Multiaddr = format!("/ip4/192.0.2.7/tcp/1/p2p/{target}").parse().unwrap();
        assert_eq!((relay_of(&direct), target_of(&direct), is_relayed(&direct)), (None, Some(target), false));
    }
}
