//! Kademlia: finding the addresses of a peer by its id, through peers that know peers.
//!
//! The settings, and what gets into the routing table. Only what identified peers say of themselves gets in, a few addresses
//! each. Of records only those of providers are kept, in a store of our own (`providers.rs`), and a lookup has an end.

use std::{num::NonZeroUsize, time::Duration};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    kad::{self, Behaviour, BucketInserts, Caching, Config, StoreInserts},
};

use super::{
    providers::{ProviderCaps, ProviderStore},
    scope::bare,
};

/// Name of the protocol; its peers are ours alone.
pub(super) const KAD_PROTOCOL: &str = "/tributary/kad/1";
/// Addresses of one peer in the routing table.
const MAX_ADDRESSES: usize = 8;
/// A lookup ends after this time.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the routing table is looked through for gaps.
const REFRESH: Duration = Duration::from_secs(600);
/// Peers that know a key, in Kademlia's terms `k`.
const CLOSEST: NonZeroUsize = NonZeroUsize::new(20).expect("not 0");

/// Longest message, bytes: an answer names up to 20 peers that are closer and 20 that provide, with their addresses, and libp2p's
/// 16 KiB do not hold them where they are reached through relays.
const MAX_PACKET: usize = 32 << 10;

pub(super) type Kad = Behaviour<ProviderStore>;

/// The behaviour. `server` says whether others may look things up here, however reachable this node finds itself.
pub(super) fn kad(me: PeerId, server: bool, providers: ProviderCaps) -> Kad {
    let mut config = Config::new(StreamProtocol::new(KAD_PROTOCOL));
    config
        .set_query_timeout(LOOKUP_TIMEOUT)
        .set_replication_factor(CLOSEST)
        // Liars must then lie on every path.
        .disjoint_query_paths(true)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_caching(Caching::Disabled)
        .set_replication_interval(None)
        .set_publication_interval(None)
        // The network task announces, and says for how long a record is kept.
        .set_provider_publication_interval(None)
        .set_max_packet_size(MAX_PACKET)
        .set_kbucket_inserts(BucketInserts::Manual)
        .set_periodic_bootstrap_interval(Some(REFRESH));
    let mut kad = Behaviour::with_config(me, ProviderStore::new(me, providers), config);
    if server {
        kad.set_mode(Some(kad::Mode::Server));
    }
    kad
}

/// Puts what a peer says of itself into the routing table, instead of what was there; `true` if it is new there.
pub(super) fn learn(kad: &mut Kad, peer: PeerId, addresses: &[Multiaddr]) -> bool {
    let named: Vec<Multiaddr> = addresses.iter().take(MAX_ADDRESSES).cloned().map(bare).collect();
    let known: Vec<Multiaddr> = match kad.kbucket(peer) {
        Some(bucket) => bucket
            .iter()
            .filter(|entry| *entry.node.key.preimage() == peer)
            .flat_map(|entry| entry.node.value.iter().cloned().map(bare).collect::<Vec<_>>())
            .collect(),
        None => Vec::new(),
    };
    for address in &named {
        kad.add_address(&peer, address.clone());
    }
    for old in known.iter().filter(|old| !named.contains(old)) {
        kad.remove_address(&peer, old);
    }
    known.is_empty() && !named.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(kad: &mut Kad, peer: PeerId) -> Vec<String> {
        let bucket = kad.kbucket(peer).unwrap();
        let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer);
        entry
            .map(|entry| entry.node.value.iter().map(|own| bare(own.clone()).to_string()).collect())
            .unwrap_or_default()
    }

    #[test]
    fn the_routing_table_has_what_a_peer_said_last_and_not_more() {
        let (me, peer) = (PeerId::random(), PeerId::random());
        let mut kad = kad(me, true, ProviderCaps::default());
        let address = |n: usize| format!("/ip4/198.51.100.{n}/tcp/1").parse::<Multiaddr>().unwrap();
        assert!(learn(&mut kad, peer, &(1..100).map(address).collect::<Vec<_>>()));
        assert_eq!(known(&mut kad, peer).len(), MAX_ADDRESSES);
        assert!(!learn(&mut kad, peer, &[address(200)]));
        assert_eq!(known(&mut kad, peer), [address(200).to_string()]);
    }
}
