//! The entry that closes a dataset.

use crate::{
    ids::{DatasetId, StreamId},
    keytree::Position,
    record::{Fields, MAX_CIPHERTEXT_LEN, TAG_LEN},
};

/// What is said about a dataset when it is closed.
///
/// # Byte layout
///
/// 177 bytes, integers big endian. There is one encoding per entry; everything else is refused.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version, 1 |
/// | 1 | 32 | dataset id; follows from stream, incarnation and first entry |
/// | 33 | 32 | stream id |
/// | 65 | 8 | key epoch |
/// | 73 | 4 | incarnation of the stream's log |
/// | 77 | 4 | number of chunks, at least 1 |
/// | 81 | 8 | number of packages |
/// | 89 | 8 | sum of the ciphertexts in bytes |
/// | 97 | 8 | time of the earliest content, Unix milliseconds |
/// | 105 | 8 | time of the latest content, not before the earliest |
/// | 113 | 8 | sequence number of the first chunk's entry in the stream's log |
/// | 121 | 8 | sequence number of the last chunk's entry: the chunks are consecutive entries |
/// | 129 | 8 | key position of the first chunk, below 2^48 |
/// | 137 | 8 | key position of the last chunk, below 2^48 |
/// | 145 | 32 | Merkle root over the chunk records |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetEntry {
    /// The dataset.
    pub dataset: DatasetId,
    /// Its stream.
    pub stream: StreamId,
    /// The key epoch of all its chunks.
    pub epoch: u64,
    /// The incarnation of the stream's log that its chunks are in.
    pub incarnation: u32,
    /// Number of chunks, at least 1.
    pub chunk_count: u32,
    /// Number of packages.
    pub package_count: u64,
    /// Sum of the ciphertexts in bytes: what a full pull transfers.
    pub bytes: u64,
    /// Time of the earliest content, Unix milliseconds.
    pub time_from_ms: u64,
    /// Time of the latest content, Unix milliseconds.
    pub time_to_ms: u64,
    /// Sequence number of the first chunk's entry in the stream's log.
    pub first_seq: u64,
    /// Sequence number of the last chunk's entry.
    pub last_seq: u64,
    /// Key position of the first chunk.
    pub first_position: Position,
    /// Key position of the last chunk.
    pub last_position: Position,
    /// RFC 6962 root over the encoded chunk records, with BLAKE3.
    pub merkle_root: [u8; 32],
}

/// Bytes that are not a dataset entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetEntryError {
    /// Not 177 bytes.
    #[error("a dataset entry is 177 bytes long, this is {found}; refuse the entry")]
    Length {
        /// The length that was found.
        found: usize,
    },
    /// Written by a later version.
    #[error("the dataset entry has version {found}, this program reads version 1; update it")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// A field has a value it cannot have.
    #[error("the {field} of the dataset entry is impossible; refuse the entry")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

impl DatasetEntry {
    /// Length of the byte form.
    pub const LEN: usize = 177;

    const VERSION: u8 = 1;

    /// The byte layout above. What breaks its rules (see [`DatasetEntry::check`]) is written as it is, and refused by every
    /// reader.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.push(Self::VERSION);
        out.extend_from_slice(self.dataset.as_bytes());
        out.extend_from_slice(self.stream.as_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        out.extend_from_slice(&self.chunk_count.to_be_bytes());
        for number in [
            self.package_count,
            self.bytes,
            self.time_from_ms,
            self.time_to_ms,
            self.first_seq,
            self.last_seq,
            self.first_position.as_u64(),
            self.last_position.as_u64(),
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.merkle_root);
        debug_assert_eq!(out.len(), Self::LEN);
        out
    }

    /// Reads [`DatasetEntry::encode`].
    ///
    /// # Errors
    ///
    /// When the bytes are not the encoding of an entry that keeps the rules.
    pub fn decode(bytes: &[u8]) -> Result<Self, DatasetEntryError> {
        match bytes.first() {
            Some(&Self::VERSION) if bytes.len() == Self::LEN => {}
            None | Some(&Self::VERSION) => return Err(DatasetEntryError::Length { found: bytes.len() }),
            Some(found) => return Err(DatasetEntryError::Version { found: *found }),
        }
        let mut fields = Fields(&bytes[1..]);
        let position = |bits| Position::from_u64(bits).ok_or(DatasetEntryError::Field { field: "key position" });
        let entry = Self {
            dataset: DatasetId::from_bytes(fields.bytes()),
            stream: StreamId::from_bytes(fields.bytes()),
            epoch: fields.u64(),
            incarnation: fields.u32(),
            chunk_count: fields.u32(),
            package_count: fields.u64(),
            bytes: fields.u64(),
            time_from_ms: fields.u64(),
            time_to_ms: fields.u64(),
            first_seq: fields.u64(),
            last_seq: fields.u64(),
            first_position: position(fields.u64())?,
            last_position: position(fields.u64())?,
            merkle_root: fields.bytes(),
        };
        entry.check()?;
        Ok(entry)
    }

    /// Checks the rules between the fields: what every reader refuses, a writer must not sign.
    ///
    /// # Errors
    ///
    /// [`DatasetEntryError::Field`] names the first field that breaks one.
    pub fn check(&self) -> Result<(), DatasetEntryError> {
        let chunks = u64::from(self.chunk_count);
        let behind_first = chunks.saturating_sub(1);
        let len = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let bytes = chunks * len(TAG_LEN)..=chunks * len(MAX_CIPHERTEXT_LEN);
        let rules = [
            (self.dataset == DatasetId::of(&self.stream, self.incarnation, self.first_seq), "dataset id"),
            (chunks > 0, "chunk count"),
            (bytes.contains(&self.bytes), "byte count"),
            (self.time_from_ms <= self.time_to_ms, "time range"),
            (self.last_seq.checked_sub(self.first_seq) == Some(behind_first), "range of entries"),
            // Positions only go up, but may leave some out.
            (
                self.last_position
                    .as_u64()
                    .checked_sub(self.first_position.as_u64())
                    .is_some_and(|n| n >= behind_first),
                "range of key positions",
            ),
            (chunks > 1 || self.first_position == self.last_position, "range of key positions"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, field)) => Err(DatasetEntryError::Field { field }),
            None => Ok(()),
        }
    }
}
