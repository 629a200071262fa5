//! The provider records that this node keeps for others, and what it says itself: a store of Kademlia that does not grow.
//!
//! A record says "this peer serves that feed". Anyone may send records about itself (Kademlia drops those about others), peer ids
//! are free to mint, and libp2p's own store bounds neither the peers nor what one of them may claim. Here every bound has an
//! answer: a peer beyond its own is refused; beyond the bound in all, the peer with the most records loses one to a newcomer with
//! fewer, so that a few peers with thousands push nobody out; a key keeps those who came first. Addresses are kept once for each
//! peer. `now` is an argument where time counts.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, hash_map},
    iter,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{
        ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore, Result},
    },
};
use tributary_protocol::{ids::Hash, wire::PROVIDER_EXPIRY};

use super::scope::bare;

/// Most feeds that this node itself provides.
pub(super) const MAX_OWN: usize = 4096;
/// Addresses kept of one provider.
const MAX_ADDRESSES: usize = 4;
/// Longest address that is kept, bytes: one through a relay has about 120.
const MAX_ADDRESS_BYTES: usize = 256;

/// How many provider records of others are kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderCaps {
    /// In all. A record takes about 100 bytes, and the addresses of its peer at most 1 KiB more.
    pub records: usize,
    /// Of one peer: feeds that it says it serves.
    pub per_peer: usize,
    /// Of one feed: peers that say they serve it. An answer names at most 20.
    pub per_feed: usize,
    /// A record is dropped after this time, unless it is renewed.
    pub expiry: Duration,
}

impl Default for ProviderCaps {
    fn default() -> Self {
        Self { records: 8192, per_peer: 1024, per_feed: 20, expiry: PROVIDER_EXPIRY }
    }
}

/// A peer that has records here.
#[derive(Debug, Default)]
struct Claimant {
    addresses: Vec<Multiaddr>,
    records: usize,
}

/// The records. Every feed and every claimant in it has at least one.
#[derive(Debug)]
pub(super) struct ProviderStore {
    me: PeerId,
    caps: ProviderCaps,
    feeds: HashMap<Hash, BTreeMap<PeerId, Instant>>,
    claimants: HashMap<PeerId, Claimant>,
    records: usize,
    refused: u64,
    own: HashMap<Hash, ProviderRecord>,
}

fn hash_of(key: &RecordKey) -> Option<Hash> {
    Some(Hash::from_bytes(key.as_ref().try_into().ok()?))
}

impl ProviderStore {
    pub(super) fn new(me: PeerId, caps: ProviderCaps) -> Self {
        let (feeds, claimants, own) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { me, caps, feeds, claimants, records: 0, refused: 0, own }
    }

    /// Records of others.
    pub(super) fn foreign(&self) -> usize {
        self.records
    }

    /// Records of others that were refused or gave way.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// A peer said that it serves a feed. Addresses that are not kept are left out.
    pub(super) fn claim(&mut self, key: &RecordKey, peer: PeerId, addresses: &[Multiaddr], now: Instant) {
        let taken = hash_of(key).is_some_and(|feed| self.take(feed, peer, now));
        if taken {
            self.told(peer, addresses);
        } else {
            self.refused += 1;
        }
    }

    fn take(&mut self, feed: Hash, peer: PeerId, now: Instant) -> bool {
        let Some(expires) = now.checked_add(self.caps.expiry) else { return false };
        if let Some(known) = self.feeds.get_mut(&feed).and_then(|peers| peers.get_mut(&peer)) {
            *known = expires;
            return true;
        }
        let theirs = self.claimants.get(&peer).map_or(0, |claimant| claimant.records);
        if theirs >= self.caps.per_peer {
            return false;
        }
        if self.feeds.get(&feed).is_some_and(|peers| peers.len() >= self.caps.per_feed) {
            self.expire(now);
            if self.feeds.get(&feed).is_some_and(|peers| peers.len() >= self.caps.per_feed) {
                return false;
            }
        }
        if self.records >= self.caps.records && !self.make_room(theirs, now) {
            return false;
        }
        self.feeds.entry(feed).or_default().insert(peer, expires);
        self.claimants.entry(peer).or_default().records += 1;
        self.records += 1;
        true
    }

    /// Takes a record from the peer that has the most, if that is more than somebody with `theirs` would then have.
    fn make_room(&mut self, theirs: usize, now: Instant) -> bool {
        self.expire(now);
        if self.records < self.caps.records {
            return true;
        }
        let most = self.claimants.iter().max_by_key(|(_, claimant)| claimant.records);
        let Some((peer, _)) = most.filter(|(_, claimant)| claimant.records > theirs + 1) else { return false };
        let peer = *peer;
        let of_peer = self.feeds.iter().filter_map(|(feed, peers)| Some((peers.get(&peer)?, feed)));
        let Some((_, feed)) = of_peer.min_by_key(|(expires, _)| **expires) else { return false };
        let feed = *feed;
        self.drop_record(&feed, &peer);
        self.refused += 1;
        true
    }

    /// Drops what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let over: Vec<(Hash, PeerId)> = self
            .feeds
            .iter()
            .flat_map(|(feed, peers)| peers.iter().map(move |(peer, expires)| (feed, peer, expires)))
            .filter(|(_, _, expires)| **expires <= now)
            .map(|(feed, peer, _)| (*feed, *peer))
            .collect();
        for (feed, peer) in over {
            self.drop_record(&feed, &peer);
        }
    }

    fn drop_record(&mut self, feed: &Hash, peer: &PeerId) {
        let hash_map::Entry::Occupied(mut peers) = self.feeds.entry(*feed) else { return };
        if peers.get_mut().remove(peer).is_none() {
            return;
        }
        if peers.get().is_empty() {
            peers.remove();
        }
        self.records -= 1;
        if let hash_map::Entry::Occupied(mut claimant) = self.claimants.entry(*peer) {
            claimant.get_mut().records -= 1;
            if claimant.get().records == 0 {
                claimant.remove();
            }
        }
    }

    /// Where a peer says it is, if it has records here: what it said last counts.
    pub(super) fn told(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        let Some(claimant) = self.claimants.get_mut(&peer).filter(|_| !addresses.is_empty()) else { return };
        let short = addresses.iter().filter(|address| address.len() <= MAX_ADDRESS_BYTES);
        claimant.addresses = short.take(MAX_ADDRESSES).cloned().map(bare).collect();
    }

    /// Where a peer that has records here says it is.
    pub(super) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.claimants.get(peer).map_or(&[], |claimant| &claimant.addresses)
    }
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> =
        iter::Map<hash_map::Values<'a, Hash, ProviderRecord>, fn(&'a ProviderRecord) -> Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        let Some(feed) = hash_of(&record.key).filter(|_| record.provider == self.me) else {
            return Err(Error::MaxProvidedKeys);
        };
        if self.own.len() >= MAX_OWN && !self.own.contains_key(&feed) {
            return Err(Error::MaxProvidedKeys);
        }
        self.own.insert(feed, record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let Some(feed) = hash_of(key) else { return Vec::new() };
        let foreign = self.feeds.get(&feed).into_iter().flatten().map(|(peer, expires)| ProviderRecord {
            key: key.clone(),
            provider: *peer,
            expires: Some(*expires),
            addresses: self.addresses(peer).to_vec(),
        });
        self.own.get(&feed).cloned().into_iter().chain(foreign).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.own.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &RecordKey, peer: &PeerId) {
        let Some(feed) = hash_of(key) else { return };
        if *peer == self.me {
            self.own.remove(&feed);
        } else {
            self.drop_record(&feed, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(caps: ProviderCaps) -> ProviderStore {
        ProviderStore::new(PeerId::random(), caps)
    }

    fn key(n: usize) -> RecordKey {
        RecordKey::from(Hash::of(&n.to_be_bytes()).as_bytes().to_vec())
    }

    fn peers(store: &ProviderStore, key: &RecordKey) -> Vec<PeerId> {
        store.providers(key).into_iter().map(|record| record.provider).collect()
    }

    #[test]
    fn one_peer_has_only_so_many_records() {
        let (mut store, peer, now) = (store(ProviderCaps::default()), PeerId::random(), Instant::now());
        (0..5000).for_each(|n| store.claim(&key(n), peer, &[], now));
        assert_eq!((store.foreign(), store.refused()), (1024, 5000 - 1024));
        // Others are not concerned, and what is there can be renewed.
        let other = PeerId::random();
        store.claim(&key(0), other, &[], now);
        store.claim(&key(0), peer, &[], now);
        assert_eq!((store.foreign(), peers(&store, &key(0)).len()), (1025, 2));
    }

    #[test]
    fn who_has_the_most_makes_room_for_who_has_less() {
        let caps = ProviderCaps { records: 40, per_peer: 20, ..ProviderCaps::default() };
        let (mut store, now) = (store(caps), Instant::now());
        let (greedy, second, honest) = (PeerId::random(), PeerId::random(), PeerId::random());
        (0..20).for_each(|n| store.claim(&key(n), greedy, &[], now));
        (0..20).for_each(|n| store.claim(&key(100 + n), second, &[], now));
        (0..5).for_each(|n| store.claim(&key(200 + n), honest, &[], now));
        assert_eq!(store.foreign(), 40);
        assert!((0..5).all(|n| peers(&store, &key(200 + n)) == [honest]));
        // Somebody with as many as everybody else pushes nobody out.
        (0..40).for_each(|n| store.claim(&key(300 + n), honest, &[], now));
        let count = |peer: &PeerId| store.claimants.get(peer).map_or(0, |claimant| claimant.records);
        assert_eq!(count(&greedy) + count(&second) + count(&honest), 40);
        assert!(count(&greedy) >= 13 && count(&second) >= 13 && count(&honest) >= 13, "{:?}", store.claimants);
    }

    #[test]
    fn a_feed_has_only_so_many_and_those_who_renew_stay() {
        let (mut store, start) = (store(ProviderCaps::default()), Instant::now());
        let first = PeerId::random();
        store.claim(&key(1), first, &[], start);
        (0..100).for_each(|_| store.claim(&key(1), PeerId::random(), &[], start));
        assert_eq!((peers(&store, &key(1)).len(), store.refused()), (20, 81));
        let half = start + PROVIDER_EXPIRY / 2;
        store.claim(&key(1), first, &[], half);
        let newcomer = PeerId::random();
        store.claim(&key(1), newcomer, &[], start + PROVIDER_EXPIRY);
        let mut left = peers(&store, &key(1));
        left.sort_unstable();
        let mut expected = vec![first, newcomer];
        expected.sort_unstable();
        assert_eq!((left, store.foreign()), (expected, 2));
        store.expire(start + PROVIDER_EXPIRY * 3);
        assert_eq!(store.foreign(), 0);
        assert!(store.feeds.is_empty() && store.claimants.is_empty());
    }

    #[test]
    fn addresses_are_few_short_and_those_that_were_said_last() {
        let (mut store, peer, now) = (store(ProviderCaps::default()), PeerId::random(), Instant::now());
        let address = |n: usize| format!("/ip4/198.51.100.{n}/tcp/1").parse::<Multiaddr>().unwrap();
        let long: Multiaddr = format!("/dns4/{}/tcp/1", "a".repeat(300)).parse().unwrap();
        store.claim(&key(1), peer, &[], now);
        assert!(store.addresses(&peer).is_empty());
        let many: Vec<Multiaddr> = iter::once(long).chain((1..100).map(address)).collect();
        store.told(peer, &many);
        assert_eq!(store.addresses(&peer), (1..5).map(address).collect::<Vec<_>>());
        store.told(peer, &[address(7)]);
        assert_eq!(store.providers(&key(1))[0].addresses, [address(7)]);
        // Of a peer without records nothing is kept.
        store.told(PeerId::random(), &[address(8)]);
        assert_eq!(store.claimants.len(), 1);
    }

    #[test]
    fn keys_of_another_length_and_values_are_not_kept() {
        let (mut store, now) = (store(ProviderCaps::default()), Instant::now());
        store.claim(&RecordKey::from(vec![1; 31]), PeerId::random(), &[], now);
        store.claim(&RecordKey::from(vec![1; 4000]), PeerId::random(), &[], now);
        assert_eq!((store.foreign(), store.refused()), (0, 2));
        assert!(store.put(Record::new(key(1), vec![1])).is_err() && store.get(&key(1)).is_none());
        // What this node provides itself is known by its own id alone.
        assert!(store.add_provider(ProviderRecord::new(key(1), PeerId::random(), Vec::new())).is_err());
        assert!(store.add_provider(ProviderRecord::new(key(1), store.me, Vec::new())).is_ok());
        assert_eq!((store.provided().count(), peers(&store, &key(1))), (1, vec![store.me]));
        let me = store.me;
        store.remove_provider(&key(1), &me);
        assert_eq!(store.provided().count(), 0);
    }
}
