//! A closed dataset of this machine: its records in order, and its keys. What is delivered and what is written into files begins here.

use tributary_protocol::{
    access::GrantRange,
    dataset::DatasetEntry,
    entry::{EntryBody, SignedEntry},
    ids::{DatasetId, LogId, LogKey},
    keys::FeedPublicKey,
    keytree::{ChunkKey, Cover},
    record::ChunkRecord,
};
use tributary_store::{Store, StoreError, Table};

use crate::machine::{Machine, MachineError};

/// Bytes of entries read at a time.
const PAGE_BYTES: usize = 1 << 20;

/// Why a dataset cannot be used.
#[derive(Debug)]
pub(super) enum OwnError {
    NotFound(DatasetId),
    Damaged { index: u64, reason: String },
    Store(StoreError),
    Machine(Box<MachineError>),
}

impl From<StoreError> for OwnError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A record, and the key that signed it.
pub(super) type SignedRecord = (ChunkRecord, FeedPublicKey);

pub(super) struct OwnDataset {
    store: Store,
    log: LogKey,
    entry: DatasetEntry,
    keys: Cover,
}

impl OwnDataset {
    pub(super) fn open(machine: &Machine, store: &Store, dataset: DatasetId) -> Result<Self, OwnError> {
        let row = store.row(Table::Dataset, dataset.as_bytes())?;
        let entry = row.and_then(|row| DatasetEntry::decode(&row).ok()).ok_or(OwnError::NotFound(dataset))?;
        let log = LogKey { did: machine.did(), log: LogId::from(entry.stream), incarnation: entry.incarnation };
        // Datasets of followed machines stand in the same table.
        if store.entry(&log, entry.first_seq)?.is_none() {
            return Err(OwnError::NotFound(dataset));
        }
        let DatasetEntry { stream, epoch, first_position: first, last_position: last, .. } = entry;
        let range = GrantRange { stream, epoch, first, last };
        let keys = machine.cover(&range).map_err(|error| OwnError::Machine(Box::new(error)))?;
        Ok(Self { store: store.clone(), log, entry, keys })
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn entry(&self) -> &DatasetEntry {
        &self.entry
    }

    /// The record of one chunk.
    pub(super) fn record(&self, index: u32) -> Result<SignedRecord, OwnError> {
        let bytes = self.store.entry(&self.log, self.entry.first_seq + u64::from(index))?;
        read(&bytes.ok_or_else(|| missing(index))?, index)
    }

    /// The records from this index on, at most `max` and at least one of them; none behind the last.
    pub(super) fn records(&self, from: u32, max: usize) -> Result<Vec<SignedRecord>, OwnError> {
        let left = usize::try_from(self.entry.chunk_count.saturating_sub(from)).unwrap_or(max);
        if left == 0 {
            return Ok(Vec::new());
        }
        let seq = self.entry.first_seq + u64::from(from);
        let page = self.store.entries(&self.log, seq, left.min(max), PAGE_BYTES)?;
        if page.is_empty() {
            return Err(missing(from));
        }
        (from..).zip(page).map(|(index, stored)| read(&stored.bytes, index)).collect()
    }

    /// The key of a chunk.
    pub(super) fn key(&self, record: &ChunkRecord) -> Option<ChunkKey> {
        self.keys.chunk_key(record.position)
    }
}

fn read(bytes: &[u8], index: u32) -> Result<SignedRecord, OwnError> {
    let damaged = |reason: String| OwnError::Damaged { index: index.into(), reason };
    let signed = SignedEntry::decode(bytes).map_err(|error| damaged(error.to_string()))?;
    match &signed.entry().body {
        EntryBody::Chunk(record) => Ok((record.clone(), signed.signer())),
        _ => Err(damaged("its log entry is about something else".to_owned())),
    }
}

fn missing(index: u32) -> OwnError {
    OwnError::Damaged { index: index.into(), reason: "its log entry is missing".to_owned() }
}
