//! What `doctor` says about the way to others: whether they reach this node, and how it reaches them.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket},
    time::Duration,
};

use libp2p::{Multiaddr, multiaddr::Protocol};
use serde::Serialize;

use super::{Area::Network, Check, State, must_be_reached};
use crate::{
    config::Config,
    control::api::{NodeStatus, PeerStatus},
    service::status::{AddressState, Reach, ReachStatus, RelayStatus, ReservationState, Translation, Upnp},
};

/// A peer of the configuration must take a connection within this time.
const CONNECT: Duration = Duration::from_secs(4);
/// Most addresses that are tried from here.
const MAX_TRIED: usize = 16;
/// What makes a node reachable.
const OPEN_A_PORT: &str = "forward the port on the router (or set `network.nat.upnp: true`), put the public address into \
                           `network.external`, or name a relay in `network.relays`";

fn check(name: &'static str, state: State, message: impl Into<String>) -> Check {
    Check::new(Network, name, state, message)
}

/// How a connected peer is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PeerReport {
    pub(super) peer: String,
    pub(super) addr: String,
    pub(super) direct: bool,
    /// For people: `direct over tcp`, `relayed by 12D3… over quic`.
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why_not_direct: Option<String>,
}

/// "direct over tcp", "relayed by 12D3KooW… over quic".
pub(in crate::cli) fn path_of(peer: &PeerStatus) -> String {
    match (peer.direct, &peer.relay) {
        (true, _) => format!("direct over {}", peer.transport),
        (false, Some(relay)) => format!("relayed by {relay} over {}", peer.transport),
        (false, None) => format!("relayed over {}", peer.transport),
    }
}

pub(super) fn peers(status: &NodeStatus) -> Vec<PeerReport> {
    let report = |peer: &PeerStatus| PeerReport {
        peer: peer.peer.clone(),
        addr: peer.addr.clone(),
        direct: peer.direct,
        path: path_of(peer),
        why_not_direct: (!peer.direct).then(|| why_not_direct(peer, &status.reach)),
    };
    status.peers.iter().map(report).collect()
}

fn why_not_direct(peer: &PeerStatus, reach: &ReachStatus) -> String {
    if !reach.hole_punching {
        return "hole punching is switched off here (network.nat.hole_punching)".into();
    }
    let symmetric = reach.translation == Translation::PortPerPeer;
    match &peer.upgrade {
        Some(upgrade) => {
            let error = upgrade.error.as_deref().unwrap_or("it succeeded, and was lost again");
            let nat = if symmetric { "; the NAT here gives each peer another port (symmetric)" } else { "" };
            format!("a direct connection was tried {} s ago: {error}{nat}", upgrade.age_s)
        }
        None if symmetric => "no attempt has ended yet; the NAT here gives each peer another port (symmetric)".into(),
        None => "no attempt has ended yet".into(),
    }
}

/// What a running node knows.
pub(super) fn of_node(status: &NodeStatus, config: &Config) -> Vec<Check> {
    let mut checks = vec![listening(status)];
    checks.extend(reached(status, config));
    checks.extend(status.reach.relays.iter().map(|relay| reservation(relay, status)));
    checks.extend(upnp(&status.reach));
    if let Some(relaying) = &status.reach.relaying {
        let message = format!(
            "{} peers are reached through this relay, {} connections go through it, {} were refused",
            relaying.reservations, relaying.circuits, relaying.refused
        );
        checks.push(check("relaying", State::Ok, message));
    }
    checks.extend(wanted(config).map(|(name, address)| connected(name, address, status)));
    let relayed = status.peers.iter().filter(|peer| !peer.direct).count();
    let message = match (status.peers.len(), relayed) {
        (0, _) => "none is connected".to_owned(),
        (all, 0) => format!("{all} connected, all directly"),
        (all, relayed) => format!("{all} connected, {relayed} of them through a relay"),
    };
    checks.push(check("peers", State::Ok, message));
    checks
}

fn listening(status: &NodeStatus) -> Check {
    if status.listen.is_empty() {
        return check("listening", State::Ok, "nowhere: this node only dials out");
    }
    check("listening", State::Ok, status.listen.iter().map(|addr| short(addr)).collect::<Vec<_>>().join(", "))
}

/// Whether others reach this node directly.
fn reached(status: &NodeStatus, config: &Config) -> Vec<Check> {
    let reach = &status.reach;
    let by_relay = reach.relays.iter().any(|relay| relay.state == ReservationState::Reserved);
    let up = |state| matches!(state, AddressState::Configured | AddressState::Mapped | AddressState::Reachable);
    let up: Vec<_> = reach.addresses.iter().filter(|own| up(own.state)).collect();
    let found = match reach.reach {
        Reach::Reachable => {
            let address = |own: &&crate::service::status::AddressStatus| {
                let how = match own.state {
                    AddressState::Configured => "as configured, not tested",
                    AddressState::Mapped => "forwarded by the router, not tested",
                    _ => "tested by a peer",
                };
                format!("{} ({how})", own.addr)
            };
            let addresses: Vec<String> = up.iter().map(address).collect();
            check("reachable", State::Ok, format!("directly, at {}", addresses.join(", ")))
        }
        Reach::Unreachable => {
            let why: Vec<String> = reach
                .addresses
                .iter()
                .filter(|own| own.state == AddressState::Unreachable)
                .map(|own| format!("{}: {}", own.addr, own.reason.as_deref().unwrap_or("no peer could connect")))
                .collect();
            let state = match (by_relay, must_be_reached(config)) {
                (true, _) | (_, false) => State::Ok,
                (false, true) => State::Failed,
            };
            let how = if by_relay { "not directly, but through a relay" } else { "not directly" };
            let found = check("reachable", state, format!("{how} ({})", why.join("; ")));
            if state == State::Failed { found.hint(OPEN_A_PORT) } else { found }
        }
        Reach::Unknown => {
            let reason = reach.addresses.iter().find_map(|own| own.reason.as_deref());
            let message = match (reach.testers, reach.addresses.len(), reason) {
                (_, _, Some(reason)) => format!("not known: the last test showed nothing: {reason}"),
                (0, ..) => "not known: no connected peer can test it".to_owned(),
                (_, 0, None) => "not known: no peer has said yet where it sees this node".to_owned(),
                _ => "not known yet: it is being tested".to_owned(),
            };
            check("reachable", State::Unknown, message)
        }
    };
    let translation = match reach.translation {
        Translation::Unknown => None,
        Translation::None => Some(check("nat", State::Ok, "none: peers see an address of this machine itself")),
        Translation::SamePort => Some(check("nat", State::Ok, "there is one, and holes can be punched through it")),
        Translation::PortPerPeer => Some(
            check(
                "nat",
                State::Warning,
                "there is one that gives each peer another port (symmetric): holes can hardly be punched",
            )
            .hint("forward the port on the router, or let relays carry what has to go through it"),
        ),
    };
    std::iter::once(found).chain(translation).collect()
}

/// A place at a relay.
fn reservation(relay: &RelayStatus, status: &NodeStatus) -> Check {
    let name = format!("{} ({})", relay.relay, relay.addr);
    match relay.state {
        ReservationState::Reserved => check("relay", State::Ok, format!("this node is reached through {name}")),
        ReservationState::Asking => check("relay", State::Unknown, format!("{name} is being asked for a place")),
        ReservationState::Failed => {
            let reason = relay.reason.as_deref().unwrap_or("it gives no place");
            let message = format!("no place at {name} after {} attempts: {reason}", relay.failures);
            let other = status.reach.relays.iter().any(|other| other.state == ReservationState::Reserved);
            let state = if other || status.reach.reach == Reach::Reachable { State::Warning } else { State::Failed };
            let hint = if reason.contains("expiration") {
                "the clock of this machine or of the relay is wrong by hours; set it"
            } else if reason.contains("not support") {
                "that node is no relay: its configuration needs the role `relay`"
            } else {
                "is the relay running, and its address right?"
            };
            check("relay", state, message).hint(hint)
        }
    }
}

fn upnp(reach: &ReachStatus) -> Option<Check> {
    let (state, message) = match reach.upnp? {
        Upnp::Searching => (State::Unknown, "the router was asked to forward ports, and has not answered yet"),
        Upnp::NoRouter => (State::Warning, "there is no router that forwards ports when asked (UPnP)"),
        Upnp::NoPublicAddress => (State::Warning, "the router that was asked to forward ports is behind a NAT itself"),
        Upnp::Mapped => (State::Ok, "the router forwards this node's ports"),
        Upnp::Lost => (State::Warning, "the router no longer forwards this node's ports"),
    };
    Some(check("upnp", state, message))
}

/// Peers that the configuration wants connected, with what they are called there.
fn wanted(config: &Config) -> impl Iterator<Item = (&'static str, &Multiaddr)> {
    let network = &config.network;
    let peers = network.peers.iter().map(|address| ("peer", address));
    peers.chain(network.discovery.bootstrap.iter().map(|address| ("bootstrap", address)))
}

fn connected(name: &'static str, address: &Multiaddr, status: &NodeStatus) -> Check {
    let id = match address.iter().last() {
        Some(Protocol::P2p(peer)) => peer.to_string(),
        _ => String::new(),
    };
    match status.peers.iter().find(|peer| peer.peer == id) {
        Some(peer) => check(name, State::Ok, format!("{id} is connected, {}", path_of(peer))),
        None => check(name, State::Failed, format!("{address} is not connected"))
            .hint("is it running, and is its address right? the log of the node says more with `run -vv`"),
    }
}

/// What can be tried without a node.
pub(super) fn from_here(config: &Config) -> Vec<Check> {
    let mut checks: Vec<Check> = config.network.listen.iter().take(MAX_TRIED).filter_map(free).collect();
    let relays = config.network.relays.iter().map(|address| ("relay", address));
    checks.extend(wanted(config).chain(relays).take(MAX_TRIED).map(|(name, address)| answers(name, address)));
    checks
}

/// Whether a port that the node is to listen on is free.
fn free(address: &Multiaddr) -> Option<Check> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let bound = match parts.next()? {
        Protocol::Tcp(port) => TcpListener::bind((ip, port)).map(drop),
        Protocol::Udp(port) => UdpSocket::bind((ip, port)).map(drop),
        _ => return None,
    };
    Some(match bound {
        Ok(()) => check("port", State::Ok, format!("{address} can be listened on")),
        Err(error) => check("port", State::Failed, format!("{address} cannot be listened on: {error}"))
            .hint("another program may have the port, or the address is none of this machine; change `network.listen`"),
    })
}

/// Whether somebody takes a connection at an address over TCP.
fn answers(name: &'static str, address: &Multiaddr) -> Check {
    let (host, port) = match tcp(address) {
        Some(found) => found,
        None => {
            return check(name, State::Unknown, format!("{address} is not over TCP; it is not tried without a node"));
        }
    };
    let found: Vec<SocketAddr> = match (host.as_str(), port).to_socket_addrs() {
        Ok(found) => found.take(2).collect(),
        Err(error) => {
            return check(name, State::Failed, format!("{address}: the name leads nowhere: {error}"))
                .hint("is the name right, and the network up?");
        }
    };
    let mut last = "no address".to_owned();
    for socket in found {
        match TcpStream::connect_timeout(&socket, CONNECT) {
            Ok(_) => return check(name, State::Ok, format!("{address} takes connections")),
            Err(error) => last = error.to_string(),
        }
    }
    check(name, State::Failed, format!("{address} takes no connection: {last}"))
        .hint("is it running, and is its address right?")
}

/// Host and port of an address over TCP.
fn tcp(address: &Multiaddr) -> Option<(String, u16)> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((host, port)),
        _ => None,
    }
}

/// An address without the peer's id.
fn short(address: &str) -> &str {
    address.split("/p2p/").next().unwrap_or(address)
}
