//! What a lane counts: nothing may get lost without a number that says so.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::durations::{Durations, DurationsReport};

/// Counters of one lane, shared with whoever shows them.
#[derive(Debug, Default)]
pub(crate) struct LaneStats {
    received: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    packages: AtomicU64,
    durable_packages: AtomicU64,
    bytes_in: AtomicU64,
    announced_packages: AtomicU64,
    chunks: AtomicU64,
    bytes_sealed: AtomicU64,
    datasets: AtomicU64,
    commits: Durations,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    stalled: Option<String>,
    stopped: Option<String>,
}

/// A reading of a lane's counters. All of them count since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneReport {
    /// Messages that came from sources.
    pub received: u64,
    /// Messages that the queue dropped under `drop_oldest`.
    pub dropped: u64,
    /// Messages that could not become a package.
    pub refused: u64,
    /// Packages signed.
    pub packages: u64,
    /// Packages in chunks that are on the disk.
    pub durable_packages: u64,
    /// Packages in chunks that were announced; who was offline catches up on them.
    #[serde(default)]
    pub announced_packages: u64,
    /// Bytes of package lines and blobs, before compression and sealing.
    pub bytes_in: u64,
    /// Chunks on the disk.
    pub chunks: u64,
    /// Bytes of their ciphertext.
    pub bytes_sealed: u64,
    /// Datasets closed.
    pub datasets: u64,
    /// Messages waiting now.
    pub queued: u64,
    /// Why nothing can be stored at the moment.
    pub stalled: Option<String>,
    /// Why the lane has stopped for good.
    pub stopped: Option<String>,
}

impl LaneStats {
    pub(crate) fn received(&self) {
        self.received.fetch_add(1, Relaxed);
    }

    pub(crate) fn dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn packaged(&self, bytes: usize) {
        self.packages.fetch_add(1, Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sliced(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn durable(&self, packages: u64, bytes: usize) {
        self.chunks.fetch_add(1, Relaxed);
        self.durable_packages.fetch_add(packages, Relaxed);
        self.bytes_sealed.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn announced(&self, packages: u64) {
        self.announced_packages.fetch_add(packages, Relaxed);
    }

    /// A batch of chunks is on the disk that was offered to the store at `since`.
    pub(crate) fn committed(&self, since: Instant) {
        self.commits.since(since);
    }

    /// How long batches of chunks took to the disk, waits for room included.
    pub(crate) fn commits(&self) -> DurationsReport {
        self.commits.report()
    }

    pub(crate) fn dataset_closed(&self) {
        self.datasets.fetch_add(1, Relaxed);
    }

    pub(crate) fn stall(&self, reason: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.stalled.as_deref() != Some(reason) {
            tracing::error!(reason, "nothing can be stored; the lane waits for room");
            trouble.stalled = Some(reason.to_owned());
        }
    }

    pub(crate) fn unstall(&self) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).stalled = None;
    }

    pub(crate) fn stop(&self, reason: &str) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).stopped = Some(reason.to_owned());
    }

    pub(crate) fn report(&self, queued: usize) -> LaneReport {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        LaneReport {
            received: self.received.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            refused: self.refused.load(Relaxed),
            packages: self.packages.load(Relaxed),
            durable_packages: self.durable_packages.load(Relaxed),
            announced_packages: self.announced_packages.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            chunks: self.chunks.load(Relaxed),
            bytes_sealed: self.bytes_sealed.load(Relaxed),
            datasets: self.datasets.load(Relaxed),
            queued: queued as u64,
            stalled: trouble.stalled.clone(),
            stopped: trouble.stopped.clone(),
        }
    }
}
