//! Where the entry stands that closed a dataset, and proofs of what is in one.
//!
//! The machine logs are read once, from front to back, and what was found is remembered; a lookup reads a bounded number of
//! entries and says "busy" when there are more to read. Both memories are caches: what they point to is read and compared
//! again, so a log that was cut back costs a second reading and nothing else.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, TryLockError},
};

use tributary_protocol::{
    dataset::{DatasetEntry, DatasetTree},
    entry::{EntryBody, SignedEntry},
    ids::{DatasetId, Did, LogId, LogKey},
    wire::SyncResponse,
};
use tributary_store::{Store, StoreError};

/// Entries of machine logs that one lookup reads.
const ENTRIES_PER_LOOKUP: usize = 8192;
/// Datasets whose place is remembered: about 25 MB. Beyond, the memory begins anew.
const MAX_KNOWN: usize = 1 << 18;
/// Logs that are remembered as read.
const MAX_LOGS: usize = 8192;
/// Datasets with more chunks are proven by whoever has all their records: 64 GiB at the usual size of a chunk.
const MAX_PROVABLE: u32 = 1 << 18;
/// Trees that are kept: at most 10 MB each.
const TREES: usize = 4;
/// Entries read at a time.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 1 << 20;
/// When to come back for the rest of a lookup, in ms.
const GO_ON_MS: u32 = 50;
/// When to come back while another tree is built, in ms.
const BUILD_MS: u32 = 500;

/// Looks datasets up in the machine logs of a store.
pub(super) struct Datasets {
    store: Store,
    known: Mutex<Known>,
    trees: Mutex<VecDeque<(DatasetId, Arc<DatasetTree>)>>,
    /// One tree is built at a time: it may take seconds and 10 MB.
    building: Mutex<()>,
}

#[derive(Default)]
struct Known {
    places: HashMap<DatasetId, (LogKey, u64)>,
    /// The first position of each machine log that was not read yet.
    read: HashMap<LogKey, u64>,
}

/// Another tree is being built.
struct Building;

enum Found {
    Entry(Vec<u8>, Box<DatasetEntry>),
    Nothing,
    /// Not looked everywhere yet.
    Unfinished,
}

impl Datasets {
    pub(super) fn new(store: Store) -> Self {
        Self { store, known: Mutex::default(), trees: Mutex::default(), building: Mutex::default() }
    }

    /// The entry that closed a dataset.
    pub(super) fn closing(&self, did: &Did, dataset: &DatasetId) -> Result<SyncResponse, StoreError> {
        Ok(match self.find(did, dataset)? {
            Found::Entry(entry, _) => SyncResponse::Dataset { entry },
            Found::Nothing => SyncResponse::NotFound,
            Found::Unfinished => SyncResponse::Busy { retry_ms: GO_ON_MS },
        })
    }

    /// The proof that a chunk is in a dataset.
    pub(super) fn inclusion(&self, did: &Did, dataset: &DatasetId, index: u32) -> Result<SyncResponse, StoreError> {
        let (entry, closed) = match self.find(did, dataset)? {
            Found::Entry(entry, closed) => (entry, closed),
            Found::Nothing => return Ok(SyncResponse::NotFound),
            Found::Unfinished => return Ok(SyncResponse::Busy { retry_ms: GO_ON_MS }),
        };
        if index >= closed.chunk_count || closed.chunk_count > MAX_PROVABLE {
            return Ok(SyncResponse::NotFound);
        }
        let log = stream_log(did, &closed);
        let seq = closed.first_seq.saturating_add(u64::from(index));
        let Some(record) = self.store.entry(&log, seq)?.as_deref().and_then(record_of) else {
            return Ok(SyncResponse::NotFound);
        };
        let tree = match self.tree(did, &closed)? {
            Some(Ok(tree)) => tree,
            Some(Err(Building)) => return Ok(SyncResponse::Busy { retry_ms: BUILD_MS }),
            None => return Ok(SyncResponse::NotFound),
        };
        Ok(match tree.prove(index) {
            Some(proof) => SyncResponse::Inclusion { entry, record, proof },
            None => SyncResponse::NotFound,
        })
    }

    fn find(&self, did: &Did, dataset: &DatasetId) -> Result<Found, StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((log, seq)) = known.places.get(dataset).copied() {
            if log.did != *did {
                return Ok(Found::Nothing);
            }
            if let Some(found) = self.store.entry(&log, seq)?.and_then(|entry| closing_of(entry, dataset)) {
                return Ok(found);
            }
            // The log was cut back and written again.
            *known = Known::default();
        }
        let mut left = ENTRIES_PER_LOOKUP;
        for log in self.store.logs(Some(did))?.into_iter().filter(|log| log.log == LogId::MACHINE) {
            if known.read.len() >= MAX_LOGS && !known.read.contains_key(&log) {
                *known = Known::default();
            }
            if let Some(found) = self.read_on(&mut known, log, dataset, &mut left)? {
                return Ok(found);
            }
        }
        Ok(Found::Nothing)
    }

    /// Reads a machine log on from where it was left; `None` when it ended without the dataset.
    fn read_on(
        &self,
        known: &mut Known,
        log: LogKey,
        dataset: &DatasetId,
        left: &mut usize,
    ) -> Result<Option<Found>, StoreError> {
        loop {
            let from = known.read.get(&log).copied().unwrap_or(0);
            if *left == 0 {
                return Ok(Some(Found::Unfinished));
            }
            let page = self.store.entries(&log, from, PAGE.min(*left), PAGE_BYTES)?;
            let Some(last) = page.last() else { return Ok(None) };
            *left -= page.len();
            known.read.insert(log, last.seq + 1);
            let mut here = None;
            for entry in page {
                let Some(closed) = closed_by(&entry.bytes) else { continue };
                if known.places.len() >= MAX_KNOWN {
                    known.places.clear();
                }
                known.places.insert(closed.dataset, (log, entry.seq));
                if closed.dataset == *dataset {
                    here = Some(Found::Entry(entry.bytes, Box::new(closed)));
                }
            }
            if here.is_some() {
                return Ok(here);
            }
        }
    }

    /// The tree of a closed dataset; `None` when not all its records are here, or they are not what was closed.
    fn tree(&self, did: &Did, closed: &DatasetEntry) -> Result<Option<Result<Arc<DatasetTree>, Building>>, StoreError> {
        if let Some(tree) = self.kept(&closed.dataset) {
            return Ok(Some(Ok(tree)));
        }
        // Whoever finds it taken comes back: waiting here would hold a place that others could use.
        let _building = match self.building.try_lock() {
            Ok(building) => building,
            Err(TryLockError::Poisoned(building)) => building.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Some(Err(Building))),
        };
        let (log, mut tree, mut next) = (stream_log(did, closed), DatasetTree::default(), closed.first_seq);
        for stored in self.store.log(&log, closed.first_seq..=closed.last_seq) {
            let stored = stored?;
            let record = record_of(&stored.bytes).filter(|_| stored.seq == next);
            let Some(record) = record else { return Ok(None) };
            tree.push(&record);
            next += 1;
        }
        if next <= closed.last_seq || tree.root() != closed.merkle_root {
            return Ok(None);
        }
        let tree = Arc::new(tree);
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        trees.truncate(TREES - 1);
        trees.push_front((closed.dataset, Arc::clone(&tree)));
        Ok(Some(Ok(tree)))
    }

    fn kept(&self, dataset: &DatasetId) -> Option<Arc<DatasetTree>> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let at = trees.iter().position(|(id, _)| id == dataset)?;
        let found = trees.remove(at)?;
        let tree = Arc::clone(&found.1);
        trees.push_front(found);
        Some(tree)
    }
}

fn stream_log(did: &Did, closed: &DatasetEntry) -> LogKey {
    LogKey { did: *did, log: LogId::from(closed.stream), incarnation: closed.incarnation }
}

fn closed_by(entry: &[u8]) -> Option<DatasetEntry> {
    match &SignedEntry::decode(entry).ok()?.entry().body {
        EntryBody::DatasetClosed(closed) => Some(closed.clone()),
        _ => None,
    }
}

fn closing_of(entry: Vec<u8>, dataset: &DatasetId) -> Option<Found> {
    let closed = closed_by(&entry).filter(|closed| closed.dataset == *dataset)?;
    Some(Found::Entry(entry, Box::new(closed)))
}

fn record_of(entry: &[u8]) -> Option<Vec<u8>> {
    match &SignedEntry::decode(entry).ok()?.entry().body {
        EntryBody::Chunk(record) => Some(record.encode()),
        _ => None,
    }
}
