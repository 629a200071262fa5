//! What is for sale: closed datasets of this machine, as chains that peaq's tools can verify.
//!
//! peaq's verifier takes whole chains and beginnings of chains, nothing else, so only those are sold; and what its delivery has
//! no room for, or its reader could not unpack, is not sold at all. Decides nothing about who may buy. Blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use tributary_protocol::{
    dataset::DatasetEntry,
    entry::{EntryBody, SignedEntry},
    ids::{DatasetId, LogId, LogKey},
    peaq::{access::AccessEntry, parties::Recipient},
};
use tributary_store::{Store, StoreError, Table};

use crate::{
    machine::Machine,
    peaq::{Chunk, ChunkError, ChunkSource, DatasetChunks, Parties},
};

/// Most chunks of one purchase: as many keys are sealed for the buyer in one answer, 480 bytes each.
pub(super) const MAX_CHUNKS: u32 = 16_384;
/// Datasets read at a time.
const PAGE: usize = 256;
/// Datasets whose check is remembered.
const MAX_CHECKED: usize = 16_384;
/// What listings' ids begin with.
const PREFIX: &str = "lst_";

/// Why something cannot be sold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoodsError {
    /// No such dataset for sale.
    #[error("there is no such listing here")]
    NotFound,
    /// Chunks from the middle.
    #[error(
        "only a whole dataset or its first chunks can be sold, because peaq's verifier takes nothing else; leave `selection` out, or name the first chunks without a gap"
    )]
    NotAPrefix,
    /// Another stream.
    #[error("the listing is of another topic; leave `selection.topic` out")]
    Topic,
    /// zstd.
    #[error(
        "the dataset was compressed before it was sealed, and peaq's reader does not unpack; it is sold natively only"
    )]
    Compressed,
    /// Longer than a frame.
    #[error("the chunks of this dataset are too large for peaq's delivery; it is sold natively only")]
    ChunkTooLarge,
    /// Too many keys.
    #[error("the order is for {found} chunks, at most {MAX_CHUNKS} are sold at once; order the first ones")]
    TooManyChunks {
        /// How many.
        found: u32,
    },
    /// Retention dropped it.
    #[error("chunks of the dataset are not here any more")]
    Gone,
    /// The chunks.
    #[error(transparent)]
    Chunks(ChunkError),
    /// The store.
    #[error("the dataset cannot be read: {0}")]
    Store(#[from] StoreError),
}

impl From<ChunkError> for GoodsError {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Compressed(_) => Self::Compressed,
            ChunkError::TooLarge { .. } => Self::ChunkTooLarge,
            ChunkError::Dropped { .. } | ChunkError::NoDataset(_) => Self::Gone,
            other => Self::Chunks(other),
        }
    }
}

/// A dataset for sale.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Its id in the API.
    pub id: String,
    /// The dataset.
    pub entry: DatasetEntry,
    /// Its stream's public name.
    pub stream: String,
}

/// Which part of a dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Its chunks, by id; `None` is all.
    pub chunk_ids: Option<Vec<String>>,
    /// Its stream.
    pub topic: Option<String>,
    /// From, ms since 1970.
    pub from_ms: Option<u64>,
    /// To, ms since 1970.
    pub to_ms: Option<u64>,
}

/// Whether peaq's delivery can carry a dataset.
#[derive(Debug, Clone, Copy)]
enum Fit {
    Good,
    Compressed,
    TooLarge,
}

/// Everything that is for sale. See the module.
pub struct Shelf {
    machine: Arc<Machine>,
    store: Store,
    parties: Parties,
    /// A closed dataset does not change.
    checked: Mutex<BTreeMap<DatasetId, Fit>>,
}

impl Shelf {
    /// The shelf of a machine; `parties` stand in the envelopes.
    #[must_use]
    pub fn new(machine: Arc<Machine>, store: Store, parties: Parties) -> Self {
        Self { machine, store, parties, checked: Mutex::default() }
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Listings behind the one named `after`, in the order of their ids, at most `limit`, and where to go on. What cannot be
    /// sold is left out.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<(Vec<Listing>, Option<String>), GoodsError> {
        let mut listings = Vec::new();
        let mut after = match after {
            Some(id) => Some(dataset_of(id).ok_or(GoodsError::NotFound)?.as_bytes().to_vec()),
            None => None,
        };
        loop {
            let rows = self.store.rows(Table::Dataset, &[], after.as_deref(), PAGE)?;
            let full = rows.len() == PAGE;
            for (key, row) in rows {
                after = Some(key);
                let Some(listing) = DatasetEntry::decode(&row).ok().and_then(|entry| self.listing(entry)) else {
                    continue;
                };
                if self.held(&listing.entry)? && matches!(self.fit(&listing.entry)?, Fit::Good) {
                    listings.push(listing);
                }
                if listings.len() == limit {
                    let next = listings.last().map(|listing| listing.id.clone());
                    return Ok((listings, next));
                }
            }
            if !full {
                return Ok((listings, None));
            }
        }
    }

    /// A listing of this machine, if there is a dataset of that id.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be sold.
    pub fn find(&self, id: &str) -> Result<Listing, GoodsError> {
        let dataset = dataset_of(id).ok_or(GoodsError::NotFound)?;
        let row = self.store.row(Table::Dataset, dataset.as_bytes())?;
        let entry = row.and_then(|row| DatasetEntry::decode(&row).ok());
        let listing = entry.and_then(|entry| self.listing(entry)).ok_or(GoodsError::NotFound)?;
        match self.fit(&listing.entry)? {
            Fit::Good => Ok(listing),
            Fit::Compressed => Err(GoodsError::Compressed),
            Fit::TooLarge => Err(GoodsError::ChunkTooLarge),
        }
    }

    /// Datasets of machines that are followed stand in the same table; a stream's id says whose it is.
    fn listing(&self, entry: DatasetEntry) -> Option<Listing> {
        let stream = self.machine.stream_config(&entry.stream)?.name().to_owned();
        Some(Listing { id: listing_id(&entry.dataset), entry, stream })
    }

    /// Retention drops datasets from the oldest chunk on, so the first tells for all. Orders look at each.
    fn held(&self, entry: &DatasetEntry) -> Result<bool, GoodsError> {
        let log = LogKey { did: self.machine.did(), log: LogId::from(entry.stream), incarnation: entry.incarnation };
        let first = self.store.entry(&log, entry.first_seq)?.and_then(|bytes| SignedEntry::decode(&bytes).ok());
        match first.as_ref().map(|signed| &signed.entry().body) {
            Some(EntryBody::Chunk(record)) => Ok(self.store.has_chunk(&record.hash)?),
            _ => Ok(false),
        }
    }

    fn fit(&self, entry: &DatasetEntry) -> Result<Fit, GoodsError> {
        let lock = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fit) = lock().get(&entry.dataset) {
            return Ok(*fit);
        }
        let fit = match self.open(entry.dataset) {
            Ok(_) => Fit::Good,
            Err(GoodsError::Compressed) => Fit::Compressed,
            Err(GoodsError::ChunkTooLarge) => Fit::TooLarge,
            Err(other) => return Err(other),
        };
        let mut checked = lock();
        if checked.len() >= MAX_CHECKED {
            checked.clear();
        }
        checked.insert(entry.dataset, fit);
        Ok(fit)
    }

    fn open(&self, dataset: DatasetId) -> Result<DatasetChunks, GoodsError> {
        Ok(DatasetChunks::open(&self.machine, &self.store, dataset, self.parties.clone())?)
    }

    /// How many chunks of a listing a selection means, from the first on.
    ///
    /// # Errors
    ///
    /// When it is no beginning of the dataset, too long, or not here any more.
    pub fn select(&self, listing: &Listing, part: &Part) -> Result<u32, GoodsError> {
        let entry = &listing.entry;
        if part.topic.as_ref().is_some_and(|topic| *topic != listing.stream) {
            return Err(GoodsError::Topic);
        }
        if part.from_ms.is_some_and(|from| from > entry.time_from_ms)
            || part.to_ms.is_some_and(|to| to < entry.time_to_ms)
        {
            return Err(GoodsError::NotAPrefix);
        }
        let chunks = self.open(entry.dataset)?;
        let count = match &part.chunk_ids {
            None => entry.chunk_count,
            Some(ids) => prefix(&chunks.ids(), ids).ok_or(GoodsError::NotAPrefix)?,
        };
        if count > MAX_CHUNKS { Err(GoodsError::TooManyChunks { found: count }) } else { Ok(count) }
    }

    /// The first `count` chunks of the dataset with this id, all of them or fewer.
    ///
    /// # Errors
    ///
    /// When they are not here any more.
    pub fn sold(&self, dataset: &DatasetId, count: u32) -> Result<Sold, GoodsError> {
        Ok(Sold { chunks: Arc::new(self.open(*dataset)?), count })
    }
}

/// How many chunks `wanted` names, when these are the first ones of `all`, in whatever order.
fn prefix(all: &[String], wanted: &[String]) -> Option<u32> {
    let named: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
    let first: BTreeSet<&str> = all.get(..named.len())?.iter().map(String::as_str).collect();
    if named.is_empty() || named != first { None } else { u32::try_from(named.len()).ok() }
}

/// The dataset of a listing's id.
fn dataset_of(id: &str) -> Option<DatasetId> {
    id.strip_prefix(PREFIX)?.parse().ok()
}

/// The listing of a dataset.
pub(super) fn listing_id(dataset: &DatasetId) -> String {
    format!("{PREFIX}{dataset}")
}

/// Whether an id is one of this node's own listings, whether it exists or not.
pub(super) fn is_own(id: &str) -> bool {
    dataset_of(id).is_some()
}

/// The first chunks of a dataset, as a chain of its own that peaq's tools verify.
#[derive(Clone)]
pub struct Sold {
    chunks: Arc<DatasetChunks>,
    count: u32,
}

impl Sold {
    /// The ids of the chunks, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let mut ids = self.chunks.ids();
        ids.truncate(usize::try_from(self.count).unwrap_or(usize::MAX));
        ids
    }

    /// The keys of the chunks, sealed for the buyer, in order.
    ///
    /// # Errors
    ///
    /// When a record cannot be read.
    pub fn access(&self, buyer: &Recipient) -> Result<Vec<AccessEntry>, GoodsError> {
        let mut entries = Vec::new();
        self.chunks.grant_first(self.count, buyer, |entry| {
            entries.push(entry);
            Ok::<_, ChunkError>(())
        })?;
        Ok(entries)
    }
}

impl ChunkSource for Sold {
    fn count(&self) -> u64 {
        self.count.into()
    }

    fn read(&self, place: u64) -> Result<Chunk, ChunkError> {
        if place < self.count() {
            return self.chunks.read(place);
        }
        Err(ChunkError::Damaged { index: place, reason: "it was not sold".to_owned() })
    }

    fn find(&self, chunk_id: &str) -> Option<u64> {
        self.chunks.find(chunk_id).filter(|place| *place < self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_beginning_can_be_bought() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let all = texts(&["a", "b", "c"]);
        assert_eq!(prefix(&all, &texts(&["a"])), Some(1));
        assert_eq!(prefix(&all, &texts(&["b", "a", "a"])), Some(2));
        assert_eq!(prefix(&all, &all), Some(3));
        for wanted in [&["b"][..], &["a", "c"], &["a", "b", "c", "d"], &["x"], &[]] {
            assert_eq!(prefix(&all, &texts(wanted)), None, "{wanted:?}");
        }
    }
}
