//! A batch: changes that become durable and visible together, or not at all.

use std::sync::Arc;

use tributary_protocol::ids::{DatasetId, Hash, LogKey};

use crate::{
    error::StoreError,
    frame::{MAX_BODY, MAX_ENTRY, MAX_KEY, MAX_VALUE},
    options::{Reason, Table},
};

/// Bytes of a chunk: owned or shared, moved to the writer without a copy.
#[derive(Debug, Clone)]
pub enum Body {
    /// Owned bytes.
    Owned(Vec<u8>),
    /// Bytes that somebody else reads too (a cache, a gossip message).
    Shared(Arc<[u8]>),
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<Arc<[u8]>> for Body {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        Self::Owned(bytes.to_vec())
    }
}

/// A chunk whose bytes are known to have its hash, so that the store need not hash them a second time.
#[derive(Debug, Clone)]
pub struct VerifiedChunk {
    hash: Hash,
    body: Body,
}

impl VerifiedChunk {
    /// Hashes the bytes.
    #[must_use]
    pub fn of(body: impl Into<Body>) -> Self {
        let body = body.into();
        Self { hash: Hash::of(body.as_ref()), body }
    }

    /// Checks the bytes against the hash.
    ///
    /// # Errors
    /// [`StoreError::HashMismatch`].
    pub fn check(hash: Hash, body: impl Into<Body>) -> Result<Self, StoreError> {
        let chunk = Self::of(body);
        if chunk.hash == hash {
            Ok(chunk)
        } else {
            Err(StoreError::HashMismatch { expected: hash, actual: chunk.hash })
        }
    }

    /// Takes the caller's word: for those who computed this very hash from these very bytes a moment ago (sealing, pulling).
    /// Debug builds hash anyway, and `check` finds a lie later.
    ///
    /// # Panics
    /// In debug builds, if the hash is wrong: a bug of the caller.
    #[must_use]
    pub fn trust(hash: Hash, body: impl Into<Body>) -> Self {
        let body = body.into();
        debug_assert_eq!(Hash::of(body.as_ref()), hash, "a chunk was vouched for under a wrong hash");
        Self { hash, body }
    }

    /// The hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }
}

/// What an entry is found by, beside its place in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntryIndex {
    /// The chunk it announces.
    pub chunk: Option<Hash>,
    /// The dataset it belongs to, and its index there.
    pub dataset: Option<(DatasetId, u32)>,
}

#[derive(Debug)]
pub(crate) enum Op {
    Chunk { hash: Hash, body: Body, verified: bool },
    Entry { log: LogKey, seq: u64, index: EntryIndex, bytes: Vec<u8> },
    RowPut { table: Table, key: Vec<u8>, value: Vec<u8> },
    RowDelete { table: Table, key: Vec<u8> },
    Tombstone { hash: Hash, reason: Reason },
    Truncate { log: LogKey, from_seq: u64 },
    Counter { name: String, value: u64 },
    Release { hash: Hash },
}

/// Changes that become durable and visible together, or not at all. They apply in the order they were added.
#[derive(Debug, Default)]
pub struct WriteBatch {
    pub(crate) ops: Vec<Op>,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Adds an entry (at most 64 KiB) at its place in a log. The same entry again is no change; a different one at the same
    /// place fails the batch with [`StoreError::EntryConflict`].
    pub fn put_entry(&mut self, log: LogKey, seq: u64, bytes: impl Into<Vec<u8>>, index: EntryIndex) -> &mut Self {
        self.push(Op::Entry { log, seq, index, bytes: bytes.into() })
    }

    /// Adds a chunk body (at most 4 MiB). `commit` hashes it and fails the batch if `hash` is wrong; a chunk that is already
    /// there is no change; one that was tombstoned comes back.
    pub fn put_chunk(&mut self, hash: Hash, body: impl Into<Body>) -> &mut Self {
        self.push(Op::Chunk { hash, body: body.into(), verified: false })
    }

    /// As [`WriteBatch::put_chunk`], without hashing the body again.
    pub fn put_verified(&mut self, chunk: VerifiedChunk) -> &mut Self {
        self.push(Op::Chunk { hash: chunk.hash, body: chunk.body, verified: true })
    }

    /// Sets a row: key up to 1 KiB, value up to 1 MiB.
    pub fn put_row(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Op::RowPut { table, key: key.into(), value: value.into() })
    }

    /// Removes a row; a missing one is no error.
    pub fn delete_row(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Op::RowDelete { table, key: key.into() })
    }

    /// Removes a chunk for good, or refuses one that never came. The space comes back with the next garbage collection.
    pub fn tombstone_chunk(&mut self, hash: Hash, reason: Reason) -> &mut Self {
        self.push(Op::Tombstone { hash, reason })
    }

    /// Removes the entries from `from_seq` on from the log. They stay readable through [`crate::Store::evidence`].
    pub fn truncate_log(&mut self, log: LogKey, from_seq: u64) -> &mut Self {
        self.push(Op::Truncate { log, from_seq })
    }

    /// Sets a named counter (name up to 1 KiB).
    pub fn set_counter(&mut self, name: impl Into<String>, value: u64) -> &mut Self {
        self.push(Op::Counter { name: name.into(), value })
    }

    /// Marks a chunk as sold or mirrored: retention with `only_released` may now remove it. Without effect on a chunk that is
    /// not present.
    pub fn release_chunk(&mut self, hash: Hash) -> &mut Self {
        self.push(Op::Release { hash })
    }

    fn push(&mut self, op: Op) -> &mut Self {
        self.ops.push(op);
        self
    }

    /// Checks sizes and hashes on the caller's thread, so that a bad batch never reaches the writer.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        for op in &self.ops {
            match op {
                Op::Chunk { hash, body, verified } => {
                    limit("chunk body", body.as_ref().len(), MAX_BODY)?;
                    if !verified {
                        let actual = Hash::of(body.as_ref());
                        if actual != *hash {
                            return Err(StoreError::HashMismatch { expected: *hash, actual });
                        }
                    }
                }
                Op::Entry { bytes, .. } => limit("entry", bytes.len(), MAX_ENTRY)?,
                Op::RowPut { key, value, .. } => {
                    limit("row key", key.len(), MAX_KEY)?;
                    limit("row value", value.len(), MAX_VALUE)?;
                }
                Op::RowDelete { key, .. } => limit("row key", key.len(), MAX_KEY)?,
                Op::Counter { name, .. } => limit("counter name", name.len(), MAX_KEY)?,
                Op::Tombstone { .. } | Op::Truncate { .. } | Op::Release { .. } => {}
            }
        }
        Ok(())
    }

    /// Whether the batch only removes or marks: such batches may use the space reserved for cleaning up.
    pub(crate) fn only_frees(&self) -> bool {
        self.ops.iter().all(|op| {
            matches!(op, Op::RowDelete { .. } | Op::Tombstone { .. } | Op::Truncate { .. } | Op::Release { .. })
        })
    }

    pub(crate) fn has_chunk(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Chunk { .. }))
    }
}

fn limit(what: &'static str, len: usize, max: usize) -> Result<(), StoreError> {
    if len <= max { Ok(()) } else { Err(StoreError::TooLarge { what, len: len as u64, max: max as u64 }) }
}
