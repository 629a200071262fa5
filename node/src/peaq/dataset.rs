//! A closed dataset of this machine as chunks of peaq's: the ciphertexts of the feed, and envelopes made from its records.

use std::{collections::HashMap, sync::Arc};

use tributary_protocol::{
    dataset::DatasetEntry,
    ids::DatasetId,
    keytree::ChunkKey,
    peaq::{access::AccessEntry, hexes, parties::Recipient},
    record::ChunkRecord,
    seal::{self, OpenError},
};
use tributary_store::Store;
use zeroize::Zeroizing;

use super::{
    chunks::{Chunk, ChunkError, ChunkSource, check_frame},
    own::{OwnDataset, OwnError},
    parties::Parties,
};
use crate::machine::{Machine, PlaintextHashes};

/// Records read at a time.
const PAGE: usize = 256;

/// A closed dataset. Holds the chunks' ids, and reads one chunk at a time.
pub struct DatasetChunks {
    own: OwnDataset,
    parties: Parties,
    places: HashMap<[u8; 32], u32>,
    plaintext_hashes: Arc<PlaintextHashes>,
}

impl DatasetChunks {
    /// Opens a dataset and makes sure that all of it is here and can be delivered. Blocks.
    ///
    /// # Errors
    /// No such dataset; it is compressed; a chunk is gone, or too large for a frame.
    pub fn open(machine: &Machine, store: &Store, dataset: DatasetId, parties: Parties) -> Result<Self, ChunkError> {
        let own = OwnDataset::open(machine, store, dataset)?;
        let mut envelope = parties.longest_envelope().map_err(ChunkError::Party)?;
        let mut places = HashMap::new();
        let mut next = 0;
        while next < own.entry().chunk_count {
            for (record, _) in own.records(next, PAGE)? {
                if record.encoding.zstd {
                    return Err(ChunkError::Compressed(dataset));
                }
                let index = u64::from(record.index);
                if store.chunk_len(&record.hash)?.is_none() {
                    return Err(ChunkError::Dropped { index });
                }
                envelope.index = index;
                envelope.previous_chunk_id = record.previous_chunk_id.as_ref().map(hexes::hash_text);
                check_frame(&envelope, usize::try_from(record.len).unwrap_or(usize::MAX))?;
                places.insert(record.chunk_id, record.index);
                next += 1;
            }
        }
        Ok(Self { own, parties, places, plaintext_hashes: Arc::clone(machine.plaintext_hashes()) })
    }

    /// The dataset.
    #[must_use]
    pub fn entry(&self) -> &DatasetEntry {
        self.own.entry()
    }

    /// The ids of the chunks, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.places.iter().map(|(id, place)| (*place, hexes::hash_text(id))).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Access to every chunk for a buyer, in order; `each` takes them one by one. Blocks.
    ///
    /// # Errors
    /// The store cannot be read, or what `each` says.
    pub fn grant<E: From<ChunkError>>(
        &self,
        buyer: &Recipient,
        each: impl FnMut(AccessEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        self.grant_first(self.entry().chunk_count, buyer, each)
    }

    /// As [`DatasetChunks::grant`], for the first `count` chunks.
    ///
    /// # Errors
    /// As [`DatasetChunks::grant`].
    pub fn grant_first<E: From<ChunkError>>(
        &self,
        count: u32,
        buyer: &Recipient,
        mut each: impl FnMut(AccessEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut next, end) = (0, count.min(self.entry().chunk_count));
        while next < end {
            let max = usize::try_from(end - next).unwrap_or(PAGE).min(PAGE);
            for (record, _) in self.own.records(next, max).map_err(ChunkError::from)? {
                let key = self.key(&record)?;
                let id = hexes::hash_text(&record.chunk_id);
                let entry = AccessEntry::wrap(&id, key.as_bytes(), buyer, &mut rand::rng());
                each(entry.map_err(ChunkError::Party)?)?;
                next += 1;
            }
        }
        Ok(())
    }

    fn key(&self, record: &ChunkRecord) -> Result<ChunkKey, ChunkError> {
        self.own.key(record).ok_or_else(|| ChunkError::Damaged {
            index: record.index.into(),
            reason: "its key is not among the dataset's".to_owned(),
        })
    }
}

impl ChunkSource for DatasetChunks {
    fn count(&self) -> u64 {
        self.entry().chunk_count.into()
    }

    fn read(&self, place: u64) -> Result<Chunk, ChunkError> {
        let damaged = |reason: String| ChunkError::Damaged { index: place, reason };
        let index = u32::try_from(place).ok().filter(|index| *index < self.entry().chunk_count);
        let (record, signer) = self.own.record(index.ok_or_else(|| damaged("there is no such chunk".to_owned()))?)?;
        let ciphertext = self.own.store().chunk(&record.hash)?.ok_or(ChunkError::Dropped { index: place })?;
        let key = self.key(&record)?;
        // A record only commits to it, under the chunk's key; the envelope's maker compares it with that.
        let plaintext_hash = match self.plaintext_hashes.get(&record.hash) {
            Some(known) => known,
            None => {
                let found = plaintext_hash(&record, &key, &ciphertext).map_err(|error| damaged(error.to_string()))?;
                self.plaintext_hashes.put(record.hash, found);
                found
            }
        };
        let envelope = self.parties.envelope(&record, signer, &key, &plaintext_hash).map_err(ChunkError::Party)?;
        Ok(Chunk { envelope, ciphertext })
    }

    fn find(&self, chunk_id: &str) -> Option<u64> {
        let bytes: [u8; 32] = hex::decode(chunk_id.strip_prefix("0x")?).ok()?.try_into().ok()?;
        self.places.get(&bytes).map(|index| u64::from(*index))
    }
}

/// SHA-256 of what a chunk decrypts to, compared with what its machine committed to.
fn plaintext_hash(record: &ChunkRecord, key: &ChunkKey, ciphertext: &[u8]) -> Result<[u8; 32], OpenError> {
    let plaintext = Zeroizing::new(seal::open_unhashed(record, key, ciphertext.to_vec())?);
    seal::verify_plaintext(record, key, &plaintext)
}

impl From<OwnError> for ChunkError {
    fn from(error: OwnError) -> Self {
        match error {
            OwnError::NotFound(dataset) => Self::NoDataset(dataset),
            OwnError::Damaged { index, reason } => Self::Damaged { index, reason },
            OwnError::Store(error) => error.into(),
            OwnError::Machine(error) => error.into(),
        }
    }
}
