//! A followed feed in memory, and what is known about reaching it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tributary_protocol::ids::Did;

use super::super::{feed::Feed, pull::SourceCounts};

/// Bindings of a machine are asked for at most this often because of gossip.
const BINDINGS_EVERY: Duration = Duration::from_secs(5);
/// Peers remembered per feed beside the machine's own nodes.
pub(super) const MAX_PEERS: usize = 16;
/// Peers per feed of which it is known what they brought.
const MAX_TOTALS: usize = 64;

/// A followed feed and what is known about reaching it.
pub(crate) struct Handle {
    pub(crate) did: Did,
    /// Taken only where blocking is allowed, and for one step at a time.
    feed: Mutex<Feed>,
    /// One catch-up at a time.
    pub(super) turn: Semaphore,
    state: Mutex<Reach>,
    pub(super) flagged: AtomicU64,
    brought: Mutex<BTreeMap<String, SourceTotal>>,
    /// By how much the machine's clock is ahead of ours, ms; [`i64::MIN`] while that is not known.
    clock_offset_ms: AtomicI64,
}

/// What one peer brought of a feed since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTotal {
    /// Its peer id.
    pub peer: String,
    /// Chunks that were kept.
    pub chunks: u64,
    /// Their ciphertext, bytes.
    pub bytes: u64,
}

/// Who may be asked.
#[derive(Default)]
pub(super) struct Reach {
    /// Who told something about the feed, the newest first.
    pub(super) peers: Vec<PeerId>,
    /// Who was named as a provider of its chunks.
    pub(super) providers: Vec<PeerId>,
    bindings_asked: Option<Instant>,
}

impl Handle {
    pub(in crate::feeds) fn new(feed: Feed) -> Arc<Self> {
        // Who had the feed before a restart.
        let known = feed.row.addrs.iter().filter_map(|addr| match addr.parse::<Multiaddr>().ok()?.iter().last()? {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        let mut peers: Vec<PeerId> = Vec::new();
        for peer in known.take(MAX_PEERS) {
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        let state = Reach { providers: peers.clone(), peers, bindings_asked: None };
        Arc::new(Self {
            did: feed.did,
            feed: Mutex::new(feed),
            turn: Semaphore::new(1),
            state: Mutex::new(state),
            flagged: AtomicU64::new(0),
            brought: Mutex::default(),
            clock_offset_ms: AtomicI64::new(i64::MIN),
        })
    }

    pub(crate) fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reach(&self) -> MutexGuard<'_, Reach> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine itself has just said what time it is: so many ms ahead of our clock, or behind.
    pub(crate) fn clock_is(&self, offset_ms: i64) {
        self.clock_offset_ms.store(offset_ms, Relaxed);
    }

    /// By how much its clock is ahead of ours, ms; `None` while it has not said.
    pub(super) fn clock_offset_ms(&self) -> Option<i64> {
        Some(self.clock_offset_ms.load(Relaxed)).filter(|offset| *offset != i64::MIN)
    }

    /// Remembers a peer that may have the feed; the newest first.
    pub(super) fn remember(&self, peer: PeerId) {
        let mut reach = self.reach();
        reach.peers.retain(|known| *known != peer);
        reach.peers.insert(0, peer);
        reach.peers.truncate(MAX_PEERS);
    }

    /// Adds what a pull brought. When too many peers brought something, those that brought the least are forgotten.
    pub(in crate::feeds) fn brought(&self, sources: &[SourceCounts]) {
        let mut brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        for source in sources.iter().filter(|source| source.chunks > 0) {
            let fresh = || SourceTotal { peer: source.peer.clone(), ..SourceTotal::default() };
            let total = brought.entry(source.peer.clone()).or_insert_with(fresh);
            total.chunks += source.chunks;
            total.bytes += source.bytes;
        }
        while brought.len() > MAX_TOTALS {
            let least = brought.values().min_by_key(|total| total.bytes).map(|total| total.peer.clone());
            least.map(|peer| brought.remove(&peer));
        }
    }

    /// Who brought its chunks since the node started, the most first.
    pub(super) fn totals(&self) -> Vec<SourceTotal> {
        let brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<SourceTotal> = brought.values().cloned().collect();
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.peer.cmp(&b.peer)));
        all
    }

    /// Whether bindings may be asked for because of gossip.
    pub(super) fn may_ask_bindings(&self) -> bool {
        let mut reach = self.reach();
        let due = reach.bindings_asked.is_none_or(|at| at.elapsed() >= BINDINGS_EVERY);
        if due {
            reach.bindings_asked = Some(Instant::now());
        }
        due
    }
}
