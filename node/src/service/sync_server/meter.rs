//! What was asked of the sync server, and how long the answers took.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use tributary_protocol::wire::SyncRequest;

use crate::durations::{Durations, DurationsReport};

/// Requests of the sync protocol since the start, by what was asked or why there was no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// Bindings of a machine.
    pub bindings: u64,
    /// Heads of its logs.
    pub heads: u64,
    /// Entries of a log.
    pub entries: u64,
    /// The statement that closed a dataset.
    pub datasets: u64,
    /// Proof that a chunk is in a dataset.
    pub proofs: u64,
    /// Told to come back: the peer, or all of them together, asked too often.
    pub refused: u64,
    /// Made no sense.
    pub malformed: u64,
    /// The store could not be read.
    pub failed: u64,
}

#[derive(Default)]
pub(super) struct SyncMeter {
    bindings: AtomicU64,
    heads: AtomicU64,
    entries: AtomicU64,
    datasets: AtomicU64,
    proofs: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
    failed: AtomicU64,
    took: Durations,
}

impl SyncMeter {
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    /// A request was looked up, well or not.
    pub(super) fn looked_up(&self, request: &SyncRequest, well: bool, begun: Instant) {
        let kind = match request {
            _ if !well => &self.failed,
            SyncRequest::Bindings { .. } => &self.bindings,
            SyncRequest::Heads { .. } => &self.heads,
            SyncRequest::Entries { .. } => &self.entries,
            SyncRequest::Dataset { .. } => &self.datasets,
            SyncRequest::Inclusion { .. } => &self.proofs,
        };
        kind.fetch_add(1, Relaxed);
        self.took.since(begun);
    }

    pub(super) fn status(&self) -> SyncStatus {
        SyncStatus {
            bindings: self.bindings.load(Relaxed),
            heads: self.heads.load(Relaxed),
            entries: self.entries.load(Relaxed),
            datasets: self.datasets.load(Relaxed),
            proofs: self.proofs.load(Relaxed),
            refused: self.refused.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }

    pub(super) fn durations(&self) -> DurationsReport {
        self.took.report()
    }
}
