//! Datasets: one stream, one key epoch, one time range, closed and countable.
//!
//! Owns the entry that closes a dataset, the rules by which its chunks follow each other, and the Merkle tree that proves one
//! of them without the others. It never decides when a dataset is closed, and never looks inside a chunk.

mod entry;
mod merkle;

pub use self::{
    entry::{DatasetEntry, DatasetEntryError},
    merkle::{DatasetTree, InclusionError, MAX_PROOF_LEN, RootAccumulator, verify_inclusion},
};
use crate::{
    ids::{DatasetId, StreamId},
    keytree::Position,
    record::ChunkRecord,
    seal,
};

/// A chunk that does not continue a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A field of the record is not what the chunk before it and the dataset ask for.
    #[error("chunk {index} of dataset {dataset} has the wrong {field}: it does not follow the chunk before it")]
    Broken {
        /// The dataset.
        dataset: DatasetId,
        /// The index that was expected.
        index: u32,
        /// Which field.
        field: &'static str,
    },
    /// It has as many chunks as there are indices.
    #[error("dataset {dataset} holds 2^32 - 1 chunks; close it")]
    Full {
        /// The dataset.
        dataset: DatasetId,
    },
}

/// A dataset while its chunks come in, on the machine that writes it and on every node that verifies it: both must arrive at
/// the same [`DatasetEntry`]. Holds about a kilobyte, whatever the size of the dataset.
#[derive(Debug, Clone)]
pub struct DatasetBuilder {
    entry: DatasetEntry,
    root: RootAccumulator,
    last_chunk_id: Option<[u8; 32]>,
    /// The lowest number that the next package may have.
    next_number: u64,
}

impl DatasetBuilder {
    /// A dataset whose first chunk is, or will be, the entry `first_seq` of the stream's log.
    #[must_use]
    pub fn new(stream: StreamId, epoch: u64, incarnation: u32, first_seq: u64) -> Self {
        let entry = DatasetEntry {
            dataset: DatasetId::of(&stream, incarnation, first_seq),
            stream,
            epoch,
            incarnation,
            chunk_count: 0,
            package_count: 0,
            bytes: 0,
            time_from_ms: u64::MAX,
            time_to_ms: 0,
            first_seq,
            last_seq: first_seq,
            first_position: Position::MIN,
            last_position: Position::MIN,
            merkle_root: [0; 32],
        };
        Self { entry, root: RootAccumulator::default(), last_chunk_id: None, next_number: 0 }
    }

    /// The id of the dataset.
    #[must_use]
    pub fn id(&self) -> DatasetId {
        self.entry.dataset
    }

    /// The index of the next chunk: how many there are.
    #[must_use]
    pub fn next_index(&self) -> u32 {
        self.entry.chunk_count
    }

    /// What the next chunk links to: the id of the last one.
    #[must_use]
    pub fn last_chunk_id(&self) -> Option<[u8; 32]> {
        self.last_chunk_id
    }

    /// Sum of the ciphertexts in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entry.bytes
    }

    /// How many packages begin in the chunks so far.
    #[must_use]
    pub fn packages(&self) -> u64 {
        self.entry.package_count
    }

    /// Adds the chunk of the log's entry `seq`.
    ///
    /// # Errors
    ///
    /// [`DatasetError`] when it does not follow the chunks before it. Nothing changes then.
    pub fn push(&mut self, seq: u64, record: &ChunkRecord) -> Result<(), DatasetError> {
        let Self { entry, root, last_chunk_id, next_number } = self;
        let (dataset, index) = (entry.dataset, entry.chunk_count);
        let chunk_count = index.checked_add(1).ok_or(DatasetError::Full { dataset })?;
        let first = index == 0;
        let rules = [
            (record.stream == entry.stream, "stream"),
            (record.dataset == dataset, "dataset"),
            (record.epoch == entry.epoch, "key epoch"),
            (record.index == index, "index"),
            (entry.first_seq.checked_add(u64::from(index)) == Some(seq), "place in the log"),
            (record.previous_chunk_id == *last_chunk_id, "link to the chunk before"),
            (first || record.position > entry.last_position, "key position"),
            (record.package_count == 0 || record.first_number >= *next_number, "first package number"),
            (record.check().is_ok(), "length or range"),
            (seal::verify_chunk_id(record).is_ok(), "id"),
        ];
        if let Some((_, field)) = rules.iter().find(|(kept, _)| !kept) {
            return Err(DatasetError::Broken { dataset, index, field });
        }
        root.push(&record.encode());
        *last_chunk_id = Some(record.chunk_id);
        if record.package_count > 0 {
            *next_number = record.first_number.saturating_add(u64::from(record.package_count));
        }
        if first {
            entry.first_position = record.position;
        }
        entry.last_position = record.position;
        entry.last_seq = seq;
        entry.chunk_count = chunk_count;
        // 2^32 chunks of at most 2^32 packages and bytes each: below 2^64.
        entry.package_count += u64::from(record.package_count);
        entry.bytes += u64::from(record.len);
        entry.time_from_ms = entry.time_from_ms.min(record.time_from_ms);
        entry.time_to_ms = entry.time_to_ms.max(record.time_to_ms);
        Ok(())
    }

    /// The entry that closes the dataset here; `None` when it has no chunk.
    #[must_use]
    pub fn close(&self) -> Option<DatasetEntry> {
        let merkle_root = self.root.root();
        (self.entry.chunk_count > 0).then(|| DatasetEntry { merkle_root, ..self.entry.clone() })
    }
}

#[cfg(test)]
mod tests;
