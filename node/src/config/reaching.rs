//! The part of `network` about reaching others and being reached: relays, NAT, finding peers.

use std::time::Duration;

use super::{
    error::ConfigError,
    rates::Profile,
    reader::{Field, Section},
};
use crate::net::{Multiaddr, RelayCaps};

/// How peers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// Whether peers on the local network are looked for, and connected to (mDNS).
    pub mdns: bool,
    /// Peers to stay connected to that know other peers; each ends in `/p2p/<peer id>`.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether peers are found by their id through other peers (Kademlia).
    pub kademlia: bool,
}

/// What is done about a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatConfig {
    /// Whether peers are asked to test our addresses (AutoNAT).
    pub autonat: bool,
    /// Whether addresses of peers are tested for them.
    pub autonat_server: bool,
    /// Whether direct connections are tried in place of relayed ones (DCUtR).
    pub hole_punching: bool,
    /// Whether the router is asked to forward our ports (UPnP).
    pub upnp: bool,
}

fn truth(section: Option<&Section<'_>>, key: &'static str, default: bool) -> Result<bool, ConfigError> {
    match section.and_then(|section| section.get(key)) {
        Some(field) => field.one_of(&[("true", true), ("false", false)]),
        None => Ok(default),
    }
}

/// `network.discovery`; `peers` reads a list of peers' addresses.
pub(super) fn discovery(
    field: Option<Field<'_>>,
    peers: impl Fn(&Field<'_>) -> Result<Vec<Multiaddr>, ConfigError>,
) -> Result<DiscoveryConfig, ConfigError> {
    let section = field.map(|field| field.section()).transpose()?;
    let bootstrap = section.as_ref().and_then(|section| section.get("bootstrap"));
    let out = DiscoveryConfig {
        mdns: truth(section.as_ref(), "mdns", false)?,
        bootstrap: bootstrap.map_or(Ok(Vec::new()), |field| peers(&field))?,
        kademlia: truth(section.as_ref(), "kademlia", true)?,
    };
    section.map_or(Ok(()), Section::finish)?;
    Ok(out)
}

/// `network.nat`.
pub(super) fn nat(field: Option<Field<'_>>, profile: Profile) -> Result<NatConfig, ConfigError> {
    let section = field.map(|field| field.section()).transpose()?;
    let out = NatConfig {
        autonat: truth(section.as_ref(), "autonat", true)?,
        autonat_server: truth(section.as_ref(), "autonat_server", !profile.is_metered())?,
        hole_punching: truth(section.as_ref(), "hole_punching", true)?,
        upnp: truth(section.as_ref(), "upnp", false)?,
    };
    section.map_or(Ok(()), Section::finish)?;
    Ok(out)
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `network.relay`.
pub(super) fn relay(field: Option<Field<'_>>) -> Result<RelayCaps, ConfigError> {
    let section = field.map(|field| field.section()).transpose()?;
    let get = |key| section.as_ref().and_then(|section| section.get(key));
    let number = |key, default: usize, max: u32| match get(key) {
        Some(field) => Ok(usize::try_from(field.integer32(1..=max)?).unwrap_or(default)),
        None => Ok(default),
    };
    let time = |key, default: Duration, range| match get(key) {
        Some(field) => field.duration(range),
        None => Ok(default),
    };
    let defaults = RelayCaps::default();
    let out = RelayCaps {
        reservations: number("reservations", defaults.reservations, 65_536)?,
        reservations_per_peer: number("reservations_per_peer", defaults.reservations_per_peer, 64)?,
        reservation_time: time("reservation_time", defaults.reservation_time, HOUR..=7 * DAY)?,
        circuits: number("circuits", defaults.circuits, 65_536)?,
        circuits_per_peer: number("circuits_per_peer", defaults.circuits_per_peer, 1_024)?,
        circuits_per_hour: match get("circuits_per_hour") {
            Some(field) => field.integer32(1..=100_000)?,
            None => defaults.circuits_per_hour,
        },
        circuit_time: time("circuit_time", defaults.circuit_time, Duration::from_secs(60)..=30 * DAY)?,
        circuit_bytes: match get("circuit_bytes") {
            Some(field) => field.or_none(|field| field.bytes(64 << 10..=1 << 50))?.unwrap_or(0),
            None => defaults.circuit_bytes,
        },
    };
    section.map_or(Ok(()), Section::finish)?;
    Ok(out)
}
