//! How a store is opened, and what it may keep.

use std::{fmt, sync::Arc};

use tributary_protocol::ids::Hash;

use crate::disk::{RealDisk, SegmentFs};

/// Settings of a store. The defaults suit a robot with a small SSD.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Create the store if the directory is empty or missing; otherwise that is an error.
    pub create: bool,
    /// Hard limit in bytes for everything in the directory; `None` means as much as the disk holds.
    pub quota_bytes: Option<u64>,
    /// A segment is closed when it reaches this size. 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// How far ahead chunk segments are allocated, in bytes; 0 turns it off. With it, `fdatasync` need not journal a new
    /// file size, which nearly doubles the rate of small batches on ext4.
    pub preallocate_bytes: u64,
    /// Size of the ballast file in bytes: space that is given up when the disk is so full that nothing could be deleted.
    pub ballast_bytes: u64,
    /// Chunk bodies are refused when less than this many bytes would stay free on the disk, and entries and rows when less than
    /// half of it would, so that the index, which does not survive a full disk in mid-write, never meets one.
    pub min_free_bytes: u64,
    /// Cache of the index in bytes.
    pub index_cache_bytes: u64,
    /// At most this many batches wait for the writer.
    pub queue_batches: usize,
    /// At most this many bytes wait for the writer (one batch is always taken).
    pub queue_bytes: u64,
    /// At most this many bytes share one `fdatasync`.
    pub group_bytes: u64,
    /// The layer below the segment log; tests put faults here.
    pub fs: Arc<dyn SegmentFs>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            create: true,
            quota_bytes: None,
            segment_bytes: 64 << 20,
            preallocate_bytes: 8 << 20,
            ballast_bytes: 4 << 20,
            min_free_bytes: 8 << 20,
            index_cache_bytes: 64 << 20,
            queue_batches: 1024,
            queue_bytes: 32 << 20,
            group_bytes: 16 << 20,
            fs: Arc::new(RealDisk),
        }
    }
}

/// The tables for small state. The number is part of the format and of every stored row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Table {
    /// Sealed epoch seeds.
    Seed = 1,
    /// Grants issued and received.
    Grant = 2,
    /// Orders: quotes, requests, consumed payments.
    Order = 3,
    /// The audit log.
    Audit = 4,
    /// Bindings.
    Binding = 5,
    /// Closed datasets.
    Dataset = 6,
    /// Messages that wait to be announced.
    Outbox = 7,
    /// Feeds that are followed.
    Follow = 8,
    /// Policies set at run time.
    Policy = 9,
    /// Proofs of misbehaviour.
    Evidence = 10,
    /// Facts about this store and node.
    Meta = 11,
    /// Keys received.
    Key = 12,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 12] = [
        Self::Seed,
        Self::Grant,
        Self::Order,
        Self::Audit,
        Self::Binding,
        Self::Dataset,
        Self::Outbox,
        Self::Follow,
        Self::Policy,
        Self::Evidence,
        Self::Meta,
        Self::Key,
    ];

    /// The table with this number.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == number)
    }
}

/// Why a chunk was removed. The number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// Retention removed it.
    Expired = 1,
    /// The machine or the operator withdrew it.
    Deleted = 2,
    /// Its bytes were found damaged; it counts as absent, so that it can be fetched again.
    Damaged = 3,
}

impl Reason {
    pub(crate) fn from_u8(number: u8) -> Option<Self> {
        [Self::Expired, Self::Deleted, Self::Damaged].into_iter().find(|reason| *reason as u8 == number)
    }
}

/// Which chunks [`crate::Store::gc`] removes. With the default nothing expires; only space that is already free is reclaimed.
#[derive(Clone, Copy, Default)]
pub struct Retention<'a> {
    /// Chunks stored before this time (milliseconds since 1970) expire.
    pub stored_before_ms: Option<u64>,
    /// The oldest chunks expire until the bodies take at most this many bytes.
    pub max_chunk_bytes: Option<u64>,
    /// Only chunks that were released (sold or mirrored, see [`crate::WriteBatch::release_chunk`]) may expire.
    pub only_released: bool,
    /// Chunks for which this says `true` never expire.
    pub keep: Option<&'a (dyn Fn(&Hash) -> bool + Send + Sync)>,
}

impl fmt::Debug for Retention<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retention")
            .field("stored_before_ms", &self.stored_before_ms)
            .field("max_chunk_bytes", &self.max_chunk_bytes)
            .field("only_released", &self.only_released)
            .field("keep", &self.keep.is_some())
            .finish()
    }
}
