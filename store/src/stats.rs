//! Counts and sizes.

use crate::{Store, index::TOMBSTONES, queue::lock};

/// What the store holds and takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Chunks present.
    pub chunks: u64,
    /// Bytes of their bodies.
    pub chunk_bytes: u64,
    /// Chunks removed on purpose.
    pub tombstones: u64,
    /// Log entries.
    pub entries: u64,
    /// Entries that truncations removed, kept as evidence.
    pub evidence: u64,
    /// Rows in all tables.
    pub rows: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes on the disk, with everything in the directory: the number the quota limits.
    pub used_bytes: u64,
    /// Bytes on the disk that are not segments: index, ballast, small files.
    pub index_bytes: u64,
    /// The quota in bytes.
    pub quota_bytes: Option<u64>,
    /// Bytes other programs could still write on the same file system.
    pub free_bytes: Option<u64>,
    /// Batches that wait to be written.
    pub queued_batches: u64,
    /// Whether the store stopped after a failure and must be opened again.
    pub stopped: bool,
}

impl Store {
    /// Counts and sizes, from memory except for the size of the index, which is measured.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.inner.shared;
        shared.measure_index();
        let used_bytes = shared.used_bytes();
        let totals = lock(&shared.totals);
        Stats {
            chunks: totals.kind(b'c'),
            chunk_bytes: totals.body_bytes(),
            tombstones: totals.kind(TOMBSTONES),
            entries: totals.kind(b'e'),
            evidence: totals.kind(b'v'),
            rows: totals.kind(b'r'),
            segments: lock(&shared.segments).len() as u64,
            used_bytes,
            index_bytes: shared.index_bytes.load(std::sync::atomic::Ordering::Relaxed),
            quota_bytes: shared.options.quota_bytes,
            free_bytes: shared.options.fs.free_bytes(&shared.dir).ok(),
            queued_batches: shared.queue.depth().0 as u64,
            stopped: shared.check_poison().is_err(),
        }
    }
}
