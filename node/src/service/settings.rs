//! From the configuration to the settings of the parts.

use std::num::{NonZeroU32, NonZeroU64};

use tributary_protocol::wire::gossip::{MAX_ATTACHMENT, MAX_ATTACHMENT_METERED};
use tributary_store::StoreOptions;

use super::{NodeError, access::AccessService, sync_server::SyncServer};
use crate::{
    config::{Config, RateLimits, Role},
    home::Home,
    net::{AddressCaps, ConnectionCaps, NetConfig, PullServerConfig, RateCaps},
    peaq::{DeliveryLimits, Parties, PartyNames},
};

/// When peers that found a queue full may ask again, in ms.
const BUSY_MS: u32 = 1000;

pub(super) fn store_options(config: &Config) -> StoreOptions {
    StoreOptions { quota_bytes: config.store.quota, ballast_bytes: config.store.ballast, ..StoreOptions::default() }
}

pub(super) fn net_config(config: &Config) -> NetConfig {
    let network = &config.network;
    let limits = &network.limits;
    NetConfig {
        listen: network.listen.clone(),
        external: network.external.clone(),
        up: RateCaps { pull: rate(limits.pull_bytes_per_second), ..rates(&limits.up) },
        down: rates(&limits.down),
        relays: network.relays.clone(),
        relay: config.has_role(Role::Relay).then(|| network.relay.clone()),
        autonat_client: network.nat.autonat,
        autonat_server: network.nat.autonat_server,
        hole_punching: network.nat.hole_punching,
        kademlia: network.discovery.kademlia,
        mdns: network.discovery.mdns,
        upnp: network.nat.upnp,
        connections: ConnectionCaps {
            incoming: limits.connections,
            per_peer: limits.connections_per_peer,
            per_address: AddressCaps {
                pending: limits.handshakes_per_address,
                established: limits.connections_per_address,
            },
            per_network: AddressCaps {
                pending: limits.handshakes_per_network,
                established: limits.connections_per_network,
            },
            per_loopback_address: AddressCaps {
                pending: limits.handshakes_per_loopback_address,
                established: limits.connections_per_loopback_address,
            },
            ..ConnectionCaps::default()
        },
        sync_busy: SyncServer::busy(BUSY_MS),
        access_busy: AccessService::busy(BUSY_MS),
        ..NetConfig::default()
    }
}

fn rate(limit: Option<u64>) -> Option<NonZeroU64> {
    limit.and_then(NonZeroU64::new)
}

fn rates(limits: &RateLimits) -> RateCaps {
    RateCaps {
        total: rate(limits.total),
        per_peer: rate(limits.per_peer),
        gossip: rate(limits.gossip),
        sync: rate(limits.sync),
        pull: rate(limits.pull),
    }
}

/// The longest attachment of an announcement, bytes.
pub(super) fn max_attachment(config: &Config) -> usize {
    if config.network.profile.is_metered() { MAX_ATTACHMENT_METERED } else { MAX_ATTACHMENT }
}

pub(super) fn pull_config(config: &Config) -> PullServerConfig {
    let limits = &config.network.limits;
    let count = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    // 4 GB a second stand for any speed.
    let rate = |limit: Option<u64>| limit.and_then(|rate| NonZeroU32::new(u32::try_from(rate).unwrap_or(u32::MAX)));
    PullServerConfig {
        max_streams: count(limits.pulls),
        max_streams_per_peer: count(limits.pulls_per_peer),
        bytes_per_second_per_peer: rate(limits.pull_bytes_per_second_per_peer),
        ..PullServerConfig::default()
    }
}

pub(super) fn delivery_limits(config: &Config) -> DeliveryLimits {
    let transfers = usize::try_from(config.peaq.deliveries).unwrap_or(usize::MAX);
    DeliveryLimits { transfers, ..DeliveryLimits::default() }
}

/// Who stands in envelopes for peaq's software.
pub(super) fn parties(config: &Config, home: &Home) -> Result<Parties, NodeError> {
    Parties::try_from(PartyNames::new(&config.peaq, &home.public_keys()?)).map_err(NodeError::Parties)
}
