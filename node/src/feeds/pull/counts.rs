//! What came, and from whom.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::PullProgress;

/// What came from one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// Its peer id.
    pub peer: String,
    /// Chunks that were kept.
    pub chunks: u64,
    /// Their ciphertext, bytes.
    pub bytes: u64,
    /// Chunks that came from another source first, and that were dropped.
    pub duplicates: u64,
    /// Chunks that it was asked for and does not have.
    pub lacking: u64,
    /// Why it was given up; `None` if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

impl SourceCounts {
    /// Adds what came from the sources of another pull.
    pub(crate) fn add(all: &mut Vec<Self>, more: Vec<Self>) {
        for source in more {
            match all.iter_mut().find(|known| known.peer == source.peer) {
                Some(known) => {
                    known.chunks += source.chunks;
                    known.bytes += source.bytes;
                    known.duplicates += source.duplicates;
                    known.lacking += source.lacking;
                    known.said = source.said;
                }
                None => all.push(source),
            }
        }
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.peer.cmp(&b.peer)));
    }
}

/// Counters of one job, and where they are told.
pub(super) struct Counts {
    chunks: AtomicU64,
    bytes: AtomicU64,
    total: (u64, u64),
    progress: Option<mpsc::Sender<PullProgress>>,
    /// Bounded by the peers that one job asks.
    sources: Mutex<BTreeMap<PeerId, SourceCounts>>,
}

impl Counts {
    /// For a job of so many chunks and bytes.
    pub(super) fn new(total: (u64, u64), progress: Option<mpsc::Sender<PullProgress>>) -> Self {
        Self { chunks: AtomicU64::new(0), bytes: AtomicU64::new(0), total, progress, sources: Mutex::default() }
    }

    fn sources(&self) -> MutexGuard<'_, BTreeMap<PeerId, SourceCounts>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chunks have become durable.
    pub(super) fn durable(&self, chunks: u64, bytes: u64) {
        let chunks = self.chunks.fetch_add(chunks, Relaxed) + chunks;
        let bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        if let Some(progress) = &self.progress {
            let (total_chunks, total_bytes) = self.total;
            let sources = self.sources().values().filter(|source| source.chunks > 0).count() as u64;
            // A full channel has a newer state to come.
            let _ = progress.try_send(PullProgress { chunks, bytes, total_chunks, total_bytes, sources });
        }
    }

    /// What is durable: chunks and bytes.
    pub(super) fn durable_so_far(&self) -> (u64, u64) {
        (self.chunks.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// Counts something of a source.
    pub(super) fn of(&self, peer: PeerId, count: impl FnOnce(&mut SourceCounts)) {
        let mut sources = self.sources();
        let fresh = || SourceCounts { peer: peer.to_string(), ..SourceCounts::default() };
        count(sources.entry(peer).or_insert_with(fresh));
    }

    /// The sources that were asked, those that brought the most first.
    pub(super) fn report(&self) -> Vec<SourceCounts> {
        let mut all = Vec::new();
        SourceCounts::add(&mut all, self.sources().values().cloned().collect());
        all
    }
}
