//! The chunk record: everything about one chunk except its bytes, and what a feed entry signs about it.
//!
//! Owns the byte layout. It never checks a chunk against its record; that is [`crate::seal`].
//!
//! # Byte layout
//!
//! 408 bytes, integers big endian. There is one encoding per record; everything else is refused.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | content: 0 packages, 1 bytes of a file |
//! | 2 | 1 | compression before sealing: 0 none, 1 zstd |
//! | 3 | 1 | 0 first chunk of its dataset (index 0), 1 a later one |
//! | 4 | 32 | stream id |
//! | 36 | 32 | dataset id |
//! | 68 | 4 | index in the dataset, from 0 |
//! | 72 | 8 | key epoch |
//! | 80 | 8 | key position, below 2^48 |
//! | 88 | 32 | chunkId of peaq's chain |
//! | 120 | 32 | chunkId of the chunk before; zeros in the first |
//! | 152 | 32 | SHA-256 of the ciphertext |
//! | 184 | 32 | BLAKE3 of the ciphertext: the name it is pulled by |
//! | 216 | 4 | length of the ciphertext in bytes, 16 to 1,048,592 |
//! | 220 | 24 | nonce |
//! | 244 | 32 | SHA-256 of the chunk key |
//! | 276 | 32 | commitment to the SHA-256 of the plaintext, keyed by the chunk key |
//! | 308 | 4 | number of packages that begin in the chunk |
//! | 312 | 8 | number of the first of them; 0 when there is none |
//! | 320 | 8 | packages missing before or between them |
//! | 328 | 8 | time of the earliest content, Unix milliseconds |
//! | 336 | 8 | time of the latest content, not before the earliest |
//! | 344 | 64 | v1 signature: Ed25519 over `0x` and the hex of the SHA-256 of the ciphertext |

use crate::{
    ids::{DatasetId, Hash, StreamId},
    keytree::Position,
};

/// The longest plaintext of a chunk in bytes, before and after compression: 1 MiB.
pub const MAX_PLAINTEXT_LEN: usize = 1 << 20;

/// What sealing adds: the tag of XChaCha20-Poly1305.
pub const TAG_LEN: usize = 16;

/// The longest ciphertext of a chunk in bytes.
pub const MAX_CIPHERTEXT_LEN: usize = MAX_PLAINTEXT_LEN + TAG_LEN;

/// What the bytes of a dataset are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Package lines, each followed by its blobs.
    Packages,
    /// The bytes of a file as they are.
    File,
}

/// How to read what a chunk decrypts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentEncoding {
    /// What the bytes are.
    pub content: Content,
    /// Whether they were compressed with zstd before sealing. They are at most [`MAX_PLAINTEXT_LEN`] bytes long again after
    /// decompression; a reader stops there.
    pub zstd: bool,
}

impl ContentEncoding {
    /// Packages, not compressed.
    pub const PACKAGES: Self = Self { content: Content::Packages, zstd: false };
    /// A file's bytes, not compressed.
    pub const FILE: Self = Self { content: Content::File, zstd: false };
}

/// Everything about one chunk except its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRecord {
    /// The stream.
    pub stream: StreamId,
    /// The dataset.
    pub dataset: DatasetId,
    /// Index in the dataset, from 0.
    pub index: u32,
    /// The key epoch of the stream.
    pub epoch: u64,
    /// Where the chunk's key is in the epoch's tree.
    pub position: Position,
    /// The id in peaq's chain: links the chunk before, the ciphertext and the index.
    pub chunk_id: [u8; 32],
    /// The id of the chunk before; `None` exactly at index 0.
    pub previous_chunk_id: Option<[u8; 32]>,
    /// SHA-256 of the ciphertext.
    pub sha256: [u8; 32],
    /// BLAKE3 of the ciphertext: the name it is pulled by.
    pub hash: Hash,
    /// Length of the ciphertext in bytes, [`TAG_LEN`] to [`MAX_CIPHERTEXT_LEN`].
    pub len: u32,
    /// The nonce of XChaCha20-Poly1305.
    pub nonce: [u8; 24],
    /// SHA-256 of the chunk key.
    pub key_commitment: [u8; 32],
    /// Commitment to the SHA-256 of the plaintext, keyed by the chunk key: without the key, no guess can be tested.
    pub plaintext_commitment: [u8; 32],
    /// How many packages begin in the chunk.
    pub package_count: u32,
    /// The number of the first of them; 0 when there is none.
    pub first_number: u64,
    /// How many packages are missing before or between them: dropped under pressure, with their numbers.
    pub gaps: u64,
    /// Time of the earliest content, Unix milliseconds.
    pub time_from_ms: u64,
    /// Time of the latest content, Unix milliseconds; not before the earliest.
    pub time_to_ms: u64,
    /// How to read what the chunk decrypts to.
    pub encoding: ContentEncoding,
    /// Ed25519 of the feed key over the text of `sha256`, for peaq's tools.
    pub v1_signature: [u8; 64],
}

/// Bytes that are not a chunk record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not 408 bytes.
    #[error("a chunk record is 408 bytes long, this is {found}; refuse the entry")]
    Length {
        /// The length that was found.
        found: usize,
    },
    /// Written by a later version.
    #[error("the chunk record has version {found}, this program reads version 1; update it")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// A field has a value it cannot have.
    #[error("the {field} of the chunk record is out of range; refuse the entry")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

/// Cuts a fixed layout into its fields. Past the end it yields zeros, so the length has to be checked before.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    /// The next byte.
    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.bytes())
    }

    /// The next four bytes, big endian.
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }

    /// The next eight bytes, big endian.
    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes())
    }
}

impl ChunkRecord {
    /// Length of the byte form.
    pub const LEN: usize = 408;

    const VERSION: u8 = 1;

    /// The byte layout above. What breaks its rules (see [`ChunkRecord::check`]) is written as it is, and refused by every
    /// reader.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend_from_slice(&[
            Self::VERSION,
            match self.encoding.content {
                Content::Packages => 0,
                Content::File => 1,
            },
            u8::from(self.encoding.zstd),
            u8::from(self.previous_chunk_id.is_some()),
        ]);
        out.extend_from_slice(self.stream.as_bytes());
        out.extend_from_slice(self.dataset.as_bytes());
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.position.as_u64().to_be_bytes());
        out.extend_from_slice(&self.chunk_id);
        out.extend_from_slice(&self.previous_chunk_id.unwrap_or_default());
        out.extend_from_slice(&self.sha256);
        out.extend_from_slice(self.hash.as_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.key_commitment);
        out.extend_from_slice(&self.plaintext_commitment);
        out.extend_from_slice(&self.package_count.to_be_bytes());
        for number in [self.first_number, self.gaps, self.time_from_ms, self.time_to_ms] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.v1_signature);
        debug_assert_eq!(out.len(), Self::LEN);
        out
    }

    /// Reads [`ChunkRecord::encode`].
    ///
    /// # Errors
    ///
    /// When the bytes are not the encoding of a record that keeps the rules.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        // The version first: a later one may have another length.
        match bytes.first() {
            Some(&Self::VERSION) if bytes.len() == Self::LEN => {}
            None | Some(&Self::VERSION) => return Err(RecordError::Length { found: bytes.len() }),
            Some(found) => return Err(RecordError::Version { found: *found }),
        }
        let field = |field| RecordError::Field { field };
        let mut fields = Fields(&bytes[1..]);
        let content = match fields.u8() {
            0 => Content::Packages,
            1 => Content::File,
            _ => return Err(field("content")),
        };
        let zstd = flag(fields.u8()).ok_or(field("compression"))?;
        let later = flag(fields.u8()).ok_or(field("link to the chunk before"))?;
        let record = Self {
            stream: StreamId::from_bytes(fields.bytes()),
            dataset: DatasetId::from_bytes(fields.bytes()),
            index: fields.u32(),
            epoch: fields.u64(),
            position: Position::from_u64(fields.u64()).ok_or(field("key position"))?,
            chunk_id: fields.bytes(),
            previous_chunk_id: match (later, fields.bytes::<32>()) {
                (true, id) => Some(id),
                (false, id) if id == [0; 32] => None,
                (false, _) => return Err(field("link to the chunk before")),
            },
            sha256: fields.bytes(),
            hash: Hash::from_bytes(fields.bytes()),
            len: fields.u32(),
            nonce: fields.bytes(),
            key_commitment: fields.bytes(),
            plaintext_commitment: fields.bytes(),
            package_count: fields.u32(),
            first_number: fields.u64(),
            gaps: fields.u64(),
            time_from_ms: fields.u64(),
            time_to_ms: fields.u64(),
            encoding: ContentEncoding { content, zstd },
            v1_signature: fields.bytes(),
        };
        record.check()?;
        Ok(record)
    }

    /// Checks the rules between the fields: what every reader refuses, a writer must not sign.
    ///
    /// # Errors
    ///
    /// [`RecordError::Field`] names the first field that breaks one.
    pub fn check(&self) -> Result<(), RecordError> {
        let rules = [
            (self.previous_chunk_id.is_some() == (self.index > 0), "link to the chunk before"),
            (usize::try_from(self.len).is_ok_and(|len| (TAG_LEN..=MAX_CIPHERTEXT_LEN).contains(&len)), "length"),
            (self.package_count > 0 || self.first_number == 0, "first package number"),
            (self.encoding.content == Content::Packages || self.package_count == 0, "package count"),
            (self.time_from_ms <= self.time_to_ms, "time range"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, field)) => Err(RecordError::Field { field }),
            None => Ok(()),
        }
    }
}

fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any record that keeps the rules.
    pub(crate) fn records() -> impl Strategy<Value = ChunkRecord> {
        let ids = any::<([u8; 32], [u8; 32], [u8; 32], [u8; 32], [u8; 32], [u8; 32])>();
        let more = any::<([u8; 32], [u8; 32], [u8; 24], u32, u64, u64)>();
        let numbers =
            (0..=Position::MAX.as_u64(), 16..=1_048_592u32, any::<u32>(), any::<[u64; 4]>(), any::<[bool; 2]>());
        (ids, more, numbers).prop_map(|(ids, more, (position, len, packages, numbers, flags))| {
            let content = if flags[0] { Content::File } else { Content::Packages };
            let package_count = if flags[0] { 0 } else { packages };
            let index = if more.3 % 4 == 0 { 0 } else { more.3 };
            ChunkRecord {
                stream: StreamId::from_bytes(ids.0),
                dataset: DatasetId::from_bytes(ids.1),
                index,
                epoch: more.4,
                position: Position::from_u64(position).expect("48 bits"),
                chunk_id: ids.2,
                previous_chunk_id: (index > 0).then_some(ids.3),
                sha256: ids.4,
                hash: Hash::from_bytes(ids.5),
                len,
                nonce: more.2,
                key_commitment: more.0,
                plaintext_commitment: more.1,
                package_count,
                first_number: if package_count > 0 { numbers[0] } else { 0 },
                gaps: numbers[1],
                time_from_ms: numbers[2].min(numbers[3]),
                time_to_ms: numbers[2].max(numbers[3]),
                encoding: ContentEncoding { content, zstd: flags[1] },
                v1_signature: [u8::try_from(len % 251).expect("a byte"); 64],
            }
        })
    }

    fn sample() -> ChunkRecord {
        ChunkRecord {
            stream: StreamId::from_bytes([1; 32]),
            dataset: DatasetId::from_bytes([2; 32]),
            index: 0x0304_0506,
            epoch: 7,
            position: Position::new(8, 9),
            chunk_id: [10; 32],
            previous_chunk_id: Some([11; 32]),
            sha256: [12; 32],
            hash: Hash::from_bytes([13; 32]),
            len: 0x0001_0203,
            nonce: [14; 24],
            key_commitment: [15; 32],
            plaintext_commitment: [16; 32],
            package_count: 17,
            first_number: 18,
            gaps: 19,
            time_from_ms: 20,
            time_to_ms: 21,
            encoding: ContentEncoding { content: Content::Packages, zstd: true },
            v1_signature: [22; 64],
        }
    }

    /// The table of the documentation, byte by byte.
    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), ChunkRecord::LEN);
        let fields: [(usize, &[u8]); 19] = [
            (0, &[1, 0, 1, 1]),
            (4, &[1; 32]),
            (36, &[2; 32]),
            (68, &[3, 4, 5, 6]),
            (72, &[0, 0, 0, 0, 0, 0, 0, 7]),
            (80, &[0, 0, 0, 8, 0, 0, 0, 9]),
            (88, &[10; 32]),
            (120, &[11; 32]),
            (152, &[12; 32]),
            (184, &[13; 32]),
            (216, &[0, 1, 2, 3]),
            (220, &[14; 24]),
            (244, &[15; 32]),
            (276, &[16; 32]),
            (308, &[0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 18]),
            (320, &[0, 0, 0, 0, 0, 0, 0, 19]),
            (328, &[0, 0, 0, 0, 0, 0, 0, 20]),
            (336, &[0, 0, 0, 0, 0, 0, 0, 21]),
            (344, &[22; 64]),
        ];
        let mut at = 0;
        for (offset, field) in fields {
            assert_eq!(offset, at);
            at += field.len();
            assert_eq!(&bytes[offset..at], field, "offset {offset}");
        }
        assert_eq!(at, ChunkRecord::LEN);
        const { assert!(ChunkRecord::LEN < 512) };
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let refused = |offset: usize, value: &[u8]| {
            let mut bytes = sample().encode();
            bytes[offset..offset + value.len()].copy_from_slice(value);
            ChunkRecord::decode(&bytes)
        };
        let field = |field| Err(RecordError::Field { field });
        assert_eq!(refused(0, &[2]), Err(RecordError::Version { found: 2 }));
        assert_eq!(refused(1, &[2]), field("content"));
        assert_eq!(refused(1, &[1]), field("package count"));
        assert_eq!(refused(2, &[2]), field("compression"));
        assert_eq!(refused(3, &[2]), field("link to the chunk before"));
        assert_eq!(refused(3, &[0]), field("link to the chunk before"));
        assert_eq!(refused(68, &[0; 4]), field("link to the chunk before"));
        assert_eq!(refused(80, &[0, 1]), field("key position"));
        assert_eq!(refused(216, &[0, 0, 0, 15]), field("length"));
        assert_eq!(refused(216, &1_048_593u32.to_be_bytes()), field("length"));
        assert_eq!(refused(308, &[0; 4]), field("first package number"));
        assert_eq!(refused(336, &[0; 8]), field("time range"));
    }

    proptest! {
        #[test]
        fn a_record_survives_its_bytes(record in records()) {
            prop_assert_eq!(ChunkRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn another_length_is_refused(record in records(), cut in 0..ChunkRecord::LEN, more in 1..40usize) {
            let mut bytes = record.encode();
            prop_assert_eq!(ChunkRecord::decode(&bytes[..cut]), Err(RecordError::Length { found: cut }));
            bytes.resize(ChunkRecord::LEN + more, 0);
            prop_assert_eq!(ChunkRecord::decode(&bytes), Err(RecordError::Length { found: bytes.len() }));
        }

        #[test]
        fn one_record_has_one_encoding(record in records(), at in 0..ChunkRecord::LEN, bit in 0..8u8) {
            let mut bytes = record.encode();
            bytes[at] ^= 1 << bit;
            if let Ok(other) = ChunkRecord::decode(&bytes) {
                prop_assert_ne!(&other, &record);
                prop_assert_eq!(other.encode(), bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), fixed: bool) {
            if fixed {
                bytes.resize(ChunkRecord::LEN, 0);
                bytes[0] = 1;
            }
            if let Ok(record) = ChunkRecord::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}
