//! The byte layout of one frame of the segment log, format version 1. All numbers are little endian.
//!
//! ```text
//! header, 64 bytes
//!   0  magic      "TRF1"
//!   4  kind       u8, then 3 zero bytes
//!   8  lsn        u64   log sequence number, one per change, never reused, ascending within a segment
//!  16  meta_len   u32
//!  20  body_len   u32   0 unless the frame is a chunk
//!  24  meta_sum   24 bytes of BLAKE3, keyed, of meta
//!  48  head_sum   16 bytes of BLAKE3, keyed, of segment id (u32) || header[0..48]
//! meta, then body
//! ```
//!
//! The key is random, made with the store and kept in `FORMAT` and in every segment header: a peer who sends a chunk whose
//! bytes look like a frame cannot know it, so the search for the next valid frame behind damage never takes such bytes for a
//! record. A chunk's body is not under `meta_sum`: its BLAKE3 is its name, and the name is in the meta.

use tributary_protocol::ids::{DatasetId, Hash, LogKey};

use crate::{
    batch::{EntryIndex, Op},
    options::{Reason, Table},
};

pub(crate) const HEADER_LEN: usize = 64;
const MAGIC: [u8; 4] = *b"TRF1";

/// Longest chunk body.
pub(crate) const MAX_BODY: usize = 4 << 20;
/// Longest entry.
pub(crate) const MAX_ENTRY: usize = 64 << 10;
/// Longest row key or counter name.
pub(crate) const MAX_KEY: usize = 1024;
/// Longest row value.
pub(crate) const MAX_VALUE: usize = 1 << 20;
/// Longest meta: a row with the longest key and value.
pub(crate) const MAX_META: usize = MAX_VALUE + MAX_KEY + 16;

/// Length of a chunk frame's meta.
pub(crate) const CHUNK_META: usize = 40;
/// Where a chunk's body begins, from its frame.
pub(crate) const CHUNK_BODY_AT: u32 = (HEADER_LEN + CHUNK_META) as u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// hash (32) || stored at, ms (u64); the body follows
    Chunk = 1,
    /// log key (56) || seq (u64) || flags (u8) || [chunk (32)] || [dataset (32) || index (u32)] || entry
    Entry = 2,
    /// table (u8) || key length (u16) || key || value
    RowPut = 3,
    /// table (u8) || key
    RowDelete = 4,
    /// hash (32) || reason (u8) || at, ms (u64)
    Tombstone = 5,
    /// log key (56) || from seq (u64)
    Truncate = 6,
    /// value (u64) || name
    Counter = 7,
    /// hash (32)
    Release = 8,
    /// ids of the segments (u32 each) whose live frames now live in a copy
    Moved = 9,
    /// frames in the group (u32) || BLAKE3 of their head_sums (32); makes the group whole
    GroupEnd = 10,
    /// frames in the segment without group ends (u64) || last lsn (u64); nothing follows
    Footer = 11,
}

impl Kind {
    fn from_u8(number: u8) -> Option<Self> {
        use Kind::*;
        [Chunk, Entry, RowPut, RowDelete, Tombstone, Truncate, Counter, Release, Moved, GroupEnd, Footer]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// A header that passed its checksum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) lsn: u64,
    pub(crate) meta_len: u32,
    pub(crate) body_len: u32,
    pub(crate) meta_sum: [u8; 24],
    pub(crate) head_sum: [u8; 16],
}

impl Header {
    /// Length of the whole frame.
    pub(crate) fn frame_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.meta_len) + u64::from(self.body_len)
    }
}

/// The store's frame key.
#[derive(Clone, Copy)]
pub(crate) struct FrameKey(pub(crate) [u8; 32]);

impl FrameKey {
    fn head_sum(&self, segment: u32, header: &[u8]) -> [u8; 16] {
        let mut input = [0u8; 52];
        input[..4].copy_from_slice(&segment.to_le_bytes());
        input[4..].copy_from_slice(&header[..48]);
        truncated(&blake3::keyed_hash(&self.0, &input))
    }

    /// Whether `meta` is what the header was written for.
    pub(crate) fn meta_matches(&self, header: &Header, meta: &[u8]) -> bool {
        truncated::<24>(&blake3::keyed_hash(&self.0, meta)) == header.meta_sum
    }

    /// Appends header and meta; returns the header's checksum.
    pub(crate) fn encode(
        &self,
        out: &mut Vec<u8>,
        segment: u32,
        kind: Kind,
        lsn: u64,
        meta: &[u8],
        body_len: u32,
    ) -> [u8; 16] {
        let mut header = [0u8; HEADER_LEN];
        header[..4].copy_from_slice(&MAGIC);
        header[4] = kind as u8;
        header[8..16].copy_from_slice(&lsn.to_le_bytes());
        let meta_len = u32::try_from(meta.len()).expect("metas are bounded by MAX_META when a batch is checked");
        header[16..20].copy_from_slice(&meta_len.to_le_bytes());
        header[20..24].copy_from_slice(&body_len.to_le_bytes());
        header[24..48].copy_from_slice(&truncated::<24>(&blake3::keyed_hash(&self.0, meta)));
        let sum = self.head_sum(segment, &header);
        header[48..].copy_from_slice(&sum);
        out.extend_from_slice(&header);
        out.extend_from_slice(meta);
        sum
    }

    /// Reads a header; `None` unless every byte of it is valid and the lengths are within bounds.
    pub(crate) fn decode(&self, segment: u32, bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER_LEN)?;
        if bytes[..4] != MAGIC || bytes[5..8] != [0; 3] {
            return None;
        }
        let kind = Kind::from_u8(bytes[4])?;
        let mut read = Reader(&bytes[8..]);
        let header = Header {
            kind,
            lsn: read.u64()?,
            meta_len: read.u32()?,
            body_len: read.u32()?,
            meta_sum: read.array()?,
            head_sum: read.array()?,
        };
        let bodies = if kind == Kind::Chunk { MAX_BODY } else { 0 };
        let fits = header.meta_len as usize <= MAX_META && header.body_len as usize <= bodies;
        (fits && self.head_sum(segment, bytes) == header.head_sum).then_some(header)
    }
}

fn truncated<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&hash.as_bytes()[..N]);
    out
}

/// The meaning of a frame's meta.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    Chunk { hash: Hash, time_ms: u64 },
    Entry { log: LogKey, seq: u64, index: EntryIndex, bytes: &'a [u8] },
    RowPut { table: Table, key: &'a [u8], value: &'a [u8] },
    RowDelete { table: Table, key: &'a [u8] },
    Tombstone { hash: Hash, reason: Reason, time_ms: u64 },
    Truncate { log: LogKey, from_seq: u64 },
    Counter { name: &'a [u8], value: u64 },
    Release { hash: Hash },
}

impl<'a> Change<'a> {
    /// The change an operation stands for, at `now_ms`.
    pub(crate) fn of(op: &'a Op, now_ms: u64) -> Self {
        match op {
            Op::Chunk { hash, .. } => Self::Chunk { hash: *hash, time_ms: now_ms },
            Op::Entry { log, seq, index, bytes } => Self::Entry { log: *log, seq: *seq, index: *index, bytes },
            Op::RowPut { table, key, value } => Self::RowPut { table: *table, key, value },
            Op::RowDelete { table, key } => Self::RowDelete { table: *table, key },
            Op::Tombstone { hash, reason } => Self::Tombstone { hash: *hash, reason: *reason, time_ms: now_ms },
            Op::Truncate { log, from_seq } => Self::Truncate { log: *log, from_seq: *from_seq },
            Op::Counter { name, value } => Self::Counter { name: name.as_bytes(), value: *value },
            Op::Release { hash } => Self::Release { hash: *hash },
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Chunk { .. } => Kind::Chunk,
            Self::Entry { .. } => Kind::Entry,
            Self::RowPut { .. } => Kind::RowPut,
            Self::RowDelete { .. } => Kind::RowDelete,
            Self::Tombstone { .. } => Kind::Tombstone,
            Self::Truncate { .. } => Kind::Truncate,
            Self::Counter { .. } => Kind::Counter,
            Self::Release { .. } => Kind::Release,
        }
    }

    /// Writes the meta over `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Chunk { hash, time_ms } => {
                out.extend_from_slice(hash.as_bytes());
                out.extend_from_slice(&time_ms.to_le_bytes());
            }
            Self::Entry { log, seq, index, bytes } => {
                out.extend_from_slice(&log.to_bytes());
                out.extend_from_slice(&seq.to_le_bytes());
                out.push(u8::from(index.chunk.is_some()) | u8::from(index.dataset.is_some()) << 1);
                if let Some(chunk) = &index.chunk {
                    out.extend_from_slice(chunk.as_bytes());
                }
                if let Some((dataset, number)) = &index.dataset {
                    out.extend_from_slice(dataset.as_bytes());
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.extend_from_slice(bytes);
            }
            Self::RowPut { table, key, value } => {
                out.push(*table as u8);
                let len = u16::try_from(key.len()).expect("keys are bounded by MAX_KEY when a batch is checked");
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            Self::RowDelete { table, key } => {
                out.push(*table as u8);
                out.extend_from_slice(key);
            }
            Self::Tombstone { hash, reason, time_ms } => {
                out.extend_from_slice(hash.as_bytes());
                out.push(*reason as u8);
                out.extend_from_slice(&time_ms.to_le_bytes());
            }
            Self::Truncate { log, from_seq } => {
                out.extend_from_slice(&log.to_bytes());
                out.extend_from_slice(&from_seq.to_le_bytes());
            }
            Self::Counter { name, value } => {
                out.extend_from_slice(&value.to_le_bytes());
                out.extend_from_slice(name);
            }
            Self::Release { hash } => out.extend_from_slice(hash.as_bytes()),
        }
    }

    /// Reads a meta; `None` when it is no valid one, or the frame is one of the log's own.
    pub(crate) fn decode(kind: Kind, meta: &'a [u8]) -> Option<Self> {
        let mut read = Reader(meta);
        let change = match kind {
            Kind::Chunk => Self::Chunk { hash: read.hash()?, time_ms: read.u64()? },
            Kind::Entry => {
                let log = read.log()?;
                let seq = read.u64()?;
                let flags = read.u8()?;
                if flags > 3 {
                    return None;
                }
                let chunk = if flags & 1 != 0 { Some(read.hash()?) } else { None };
                let dataset =
                    if flags & 2 != 0 { Some((DatasetId::from_bytes(read.array()?), read.u32()?)) } else { None };
                return Some(Self::Entry { log, seq, index: EntryIndex { chunk, dataset }, bytes: read.0 });
            }
            Kind::RowPut => {
                let table = Table::from_u8(read.u8()?)?;
                let len = usize::from(read.u16()?);
                return Some(Self::RowPut { table, key: read.take(len)?, value: read.0 });
            }
            Kind::RowDelete => {
                let table = Table::from_u8(read.u8()?)?;
                return Some(Self::RowDelete { table, key: read.0 });
            }
            Kind::Tombstone => {
                Self::Tombstone { hash: read.hash()?, reason: Reason::from_u8(read.u8()?)?, time_ms: read.u64()? }
            }
            Kind::Truncate => Self::Truncate { log: read.log()?, from_seq: read.u64()? },
            Kind::Counter => {
                let value = read.u64()?;
                return Some(Self::Counter { name: read.0, value });
            }
            Kind::Release => Self::Release { hash: read.hash()? },
            Kind::Moved | Kind::GroupEnd | Kind::Footer => return None,
        };
        read.0.is_empty().then_some(change)
    }
}

/// Takes fixed-width fields off the front of a slice.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn hash(&mut self) -> Option<Hash> {
        self.array().map(Hash::from_bytes)
    }

    pub(crate) fn log(&mut self) -> Option<LogKey> {
        self.array::<{ LogKey::LEN }>().map(|bytes| LogKey::from_bytes(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tributary_protocol::ids::{Did, LogId};

    use super::*;

    const KEY: FrameKey = FrameKey([7; 32]);

    fn encoded(kind: Kind, meta: &[u8], body_len: u32) -> Vec<u8> {
        let mut out = Vec::new();
        KEY.encode(&mut out, 3, kind, 42, meta, body_len);
        out
    }

    proptest! {
        #[test]
        fn every_flipped_bit_of_a_frame_is_noticed(meta in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = encoded(Kind::RowDelete, &meta, 0);
            let header = KEY.decode(3, &bytes).expect("untouched");
            prop_assert!(KEY.meta_matches(&header, &bytes[HEADER_LEN..]));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let still = KEY.decode(3, &bytes).is_some_and(|header| KEY.meta_matches(&header, &bytes[HEADER_LEN..]));
            prop_assert!(!still);
        }

        #[test]
        fn garbage_is_no_frame_and_no_change(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..14) {
            prop_assert!(KEY.decode(3, &bytes).is_none());
            if let Some(kind) = Kind::from_u8(kind) {
                let mut again = Vec::new();
                if let Some(change) = Change::decode(kind, &bytes) {
                    change.encode(&mut again);
                    prop_assert_eq!(again, bytes);
                }
            }
        }

        #[test]
        fn every_change_survives_its_bytes(hash: [u8; 32], did: [u8; 20], log: [u8; 32], seq: u64, number: u32, key in prop::collection::vec(any::<u8>(), 0..50), value in prop::collection::vec(any::<u8>(), 0..50), flags in 0u8..4) {
            let hash = Hash::from_bytes(hash);
            let log = LogKey { did: Did::from_bytes(did), log: LogId::from_bytes(log), incarnation: number };
            let index = EntryIndex {
                chunk: (flags & 1 != 0).then_some(hash),
                dataset: (flags & 2 != 0).then_some((DatasetId::from_bytes(*hash.as_bytes()), number)),
            };
            for change in [
                Change::Chunk { hash, time_ms: seq },
                Change::Entry { log, seq, index, bytes: &value },
                Change::RowPut { table: Table::Audit, key: &key, value: &value },
                Change::RowDelete { table: Table::Audit, key: &key },
                Change::Tombstone { hash, reason: Reason::Expired, time_ms: seq },
                Change::Truncate { log, from_seq: seq },
                Change::Counter { name: &key, value: seq },
                Change::Release { hash },
            ] {
                let mut meta = Vec::new();
                change.encode(&mut meta);
                let back = Change::decode(change.kind(), &meta).expect("just encoded");
                prop_assert_eq!(format!("{back:?}"), format!("{change:?}"));
            }
        }
    }

    #[test]
    fn a_frame_of_another_segment_or_store_is_refused() {
        let bytes = encoded(Kind::Release, &[1; 32], 0);
        assert!(KEY.decode(3, &bytes).is_some());
        assert!(KEY.decode(4, &bytes).is_none());
        assert!(FrameKey([8; 32]).decode(3, &bytes).is_none());
    }
}
