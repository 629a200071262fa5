//! Provider records: saying which feeds this node serves, and asking who serves one.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::Endpoint,
    kad::{self, GetProvidersOk, InboundRequest, ProviderRecord, QueryId, QueryResult, RecordKey},
    swarm::{ConnectionId, NetworkBehaviour},
};
use tokio::sync::oneshot;
use tributary_protocol::ids::Hash;

use super::{Task, answer};
use crate::net::{
    error::ProvidersError,
    event::{Provider, ProvidingReport},
    kad::Kad,
    providing::Providing,
    scope::{Scope, bare},
};

/// Announcements under way; the others wait.
const MAX_ANNOUNCING: usize = 8;
/// Lookups under way; a further one is refused.
const MAX_LOOKUPS: usize = 16;
/// Callers that wait for one lookup; a further one is refused.
const MAX_WAITING: usize = 64;
/// A lookup ends when it has found so many.
const ENOUGH: usize = 20;
/// Addresses of one provider.
const MAX_ADDRESSES: usize = 8;
/// What was found is given again for so long, and that nobody was found.
const FRESH: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));
/// Results that are remembered; the oldest gives way.
const MAX_RECENT: usize = 256;

type Found = oneshot::Sender<Result<Vec<Provider>, ProvidersError>>;

/// A lookup under way.
struct Lookup {
    feed: Hash,
    found: BTreeMap<PeerId, Vec<Multiaddr>>,
    waiting: Vec<Found>,
}

/// What this node provides, and whom it asks about.
pub(super) struct ProviderBooks {
    providing: Providing,
    announcing: HashMap<QueryId, Hash>,
    lookups: HashMap<QueryId, Lookup>,
    recent: HashMap<Hash, (Instant, Vec<Provider>)>,
    asked: u64,
}

impl ProviderBooks {
    pub(super) fn new(expiry: Duration) -> Self {
        Self {
            providing: Providing::new(expiry),
            announcing: HashMap::new(),
            lookups: HashMap::new(),
            recent: HashMap::new(),
            asked: 0,
        }
    }

    /// Somebody has come who keeps records.
    pub(super) fn met(&mut self) {
        self.providing.met(Instant::now());
    }

    /// What a lookup found, if that is not too long ago.
    fn fresh(&self, feed: &Hash, now: Instant) -> Option<Vec<Provider>> {
        let (at, found) = self.recent.get(feed)?;
        let keep = if found.is_empty() { FRESH.1 } else { FRESH.0 };
        (now.saturating_duration_since(*at) < keep).then(|| found.clone())
    }

    fn remember(&mut self, feed: Hash, found: Vec<Provider>, now: Instant) {
        if self.recent.len() >= MAX_RECENT && !self.recent.contains_key(&feed) {
            let oldest = self.recent.iter().min_by_key(|(_, (at, _))| *at).map(|(feed, _)| *feed);
            oldest.map(|oldest| self.recent.remove(&oldest));
        }
        self.recent.insert(feed, (now, found));
    }
}

fn record_key(feed: &Hash) -> RecordKey {
    RecordKey::from(feed.as_bytes().to_vec())
}

impl Task {
    fn kad(&mut self) -> Option<&mut Kad> {
        self.swarm.behaviour_mut().kad.as_mut().map(|kad| &mut kad.inner)
    }

    /// Whether there is somebody who can be told or asked.
    fn routes(&mut self) -> bool {
        self.kad().is_some_and(|kad| kad.kbuckets().any(|bucket| !bucket.is_empty()))
    }

    pub(super) fn provide(&mut self, feed: Hash) -> bool {
        self.providers.providing.add(feed, Instant::now())
    }

    pub(super) fn withdraw(&mut self, feed: &Hash) -> bool {
        if let Some(kad) = self.kad() {
            kad.stop_providing(&record_key(feed));
        }
        self.providers.providing.remove(feed)
    }

    /// Announces what is due.
    pub(super) fn announce_feeds(&mut self, now: Instant) {
        let room = MAX_ANNOUNCING.saturating_sub(self.providers.announcing.len());
        if room == 0 || !self.routes() {
            return;
        }
        for feed in self.providers.providing.due(room, now) {
            let begun = self.kad().and_then(|kad| kad.start_providing(record_key(&feed)).ok());
            match begun {
                Some(id) => drop(self.providers.announcing.insert(id, feed)),
                None => self.providers.providing.ended(&feed, false, now),
            }
        }
    }

    /// Drops records of others that are over.
    pub(super) fn expire_providers(&mut self, now: Instant) {
        if let Some(kad) = self.kad() {
            kad.store_mut().expire(now);
        }
    }

    pub(super) fn find_providers(&mut self, feed: Hash, back: Found) {
        if self.kad().is_none() {
            return answer(back, Err(ProvidersError::Off));
        }
        let now = Instant::now();
        if let Some(found) = self.providers.fresh(&feed, now) {
            return answer(back, Ok(found));
        }
        if let Some(lookup) = self.providers.lookups.values_mut().find(|lookup| lookup.feed == feed) {
            return if lookup.waiting.len() < MAX_WAITING {
                lookup.waiting.push(back);
            } else {
                answer(back, Err(ProvidersError::Busy));
            };
        }
        if self.providers.lookups.len() >= MAX_LOOKUPS {
            return answer(back, Err(ProvidersError::Busy));
        }
        let id = self.kad().map(|kad| kad.get_providers(record_key(&feed)));
        match id {
            Some(id) => {
                self.providers.asked += 1;
                self.providers.lookups.insert(id, Lookup { feed, found: BTreeMap::new(), waiting: vec![back] });
            }
            None => answer(back, Err(ProvidersError::Off)),
        }
    }

    /// What Kademlia says about provider records.
    pub(super) fn on_providers(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                self.on_claim(record);
            }
            kad::Event::OutboundQueryProgressed { id, result, stats, step } => match result {
                QueryResult::StartProviding(_) => {
                    if let Some(feed) = self.providers.announcing.remove(&id) {
                        self.providers.providing.ended(&feed, stats.num_successes() > 0, Instant::now());
                    }
                }
                QueryResult::GetProviders(result) => {
                    if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                        self.on_found(id, providers);
                    }
                    if step.last {
                        self.end_lookup(id);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// A peer says that it serves a feed.
    fn on_claim(&mut self, record: ProviderRecord) {
        let floor = Scope::floor(&self.config.listen);
        // What it says of itself at the moment, or else what it put into the record.
        let named = self.peers.get(&record.provider).map(|peer| peer.named.clone()).unwrap_or_default();
        let mut addresses: Vec<Multiaddr> = named;
        addresses.extend(record.addresses.into_iter().map(bare));
        addresses.retain(|address| floor.takes(address));
        if let Some(kad) = self.kad() {
            kad.store_mut().claim(&record.key, record.provider, &addresses, Instant::now());
        }
    }

    fn on_found(&mut self, id: QueryId, providers: std::collections::HashSet<PeerId>) {
        let (me, floor) = (*self.swarm.local_peer_id(), Scope::floor(&self.config.listen));
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut().map(|kad| &mut kad.inner) else { return };
        let Some(lookup) = self.providers.lookups.get_mut(&id) else { return };
        for peer in providers.into_iter().filter(|peer| *peer != me) {
            if lookup.found.len() >= ENOUGH && !lookup.found.contains_key(&peer) {
                break;
            }
            let mut addresses = kad.store_mut().addresses(&peer).to_vec();
            // The addresses that came with the answer are in the query, which shows them only to whoever asks as for a dial. It
            // looks them up and changes nothing.
            let dial = ConnectionId::new_unchecked(0);
            let told = kad.handle_pending_outbound_connection(dial, Some(peer), &[], Endpoint::Dialer);
            addresses.extend(told.unwrap_or_default().into_iter().map(bare));
            let known = lookup.found.entry(peer).or_default();
            for address in addresses.into_iter().filter(|address| floor.takes(address)) {
                if known.len() < MAX_ADDRESSES && !known.contains(&address) {
                    known.push(address);
                }
            }
        }
        if lookup.found.len() >= ENOUGH
            && let Some(mut query) = kad.query_mut(&id)
        {
            query.finish();
        }
    }

    fn end_lookup(&mut self, id: QueryId) {
        let Some(Lookup { feed, found, waiting }) = self.providers.lookups.remove(&id) else { return };
        let found: Vec<Provider> = found.into_iter().map(|(peer, addresses)| Provider { peer, addresses }).collect();
        tracing::debug!(%feed, providers = found.len(), "other peers were asked who serves a feed");
        for back in waiting {
            answer(back, Ok(found.clone()));
        }
        self.providers.remember(feed, found, Instant::now());
    }

    pub(super) fn providing_report(&mut self) -> Option<ProvidingReport> {
        let (feeds, announced) = self.providers.providing.count();
        let lookups = self.providers.asked;
        let kad = self.kad()?;
        let store = kad.store_mut();
        let (records, refused) = (store.foreign() as u64, store.refused());
        Some(ProvidingReport { feeds: feeds as u64, announced: announced as u64, records, refused, lookups })
    }
}
