//! The chunks of followed feeds as a buyer sees them: which are here, and which are granted.

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    ids::{DatasetId, Did, Hash, LogKey, StreamId},
    record::{ChunkRecord, Content},
};

use super::Buyer;
use crate::feeds::{FeedsError, PullSelection, blocking};

/// A chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkInfo {
    /// Its dataset.
    pub dataset: DatasetId,
    /// Its stream.
    pub stream: StreamId,
    /// Index in the dataset.
    pub index: u32,
    /// Position of its entry in the stream's log.
    pub seq: u64,
    /// Incarnation of that log.
    pub incarnation: u32,
    /// Key epoch.
    pub epoch: u64,
    /// Key position, `slot:counter`.
    pub position: String,
    /// BLAKE3 of the ciphertext.
    pub hash: Hash,
    /// Bytes of ciphertext.
    pub len: u32,
    /// Packages that begin in it.
    pub packages: u32,
    /// Number of the first of them.
    pub first_number: u64,
    /// Packages missing before or between them.
    pub gaps: u64,
    /// Time of the earliest content, ms since 1970.
    pub time_from_ms: u64,
    /// Time of the latest content, ms since 1970.
    pub time_to_ms: u64,
    /// Whether it was packed with zstd.
    pub zstd: bool,
    /// Whether its ciphertext is here.
    pub held: bool,
    /// Whether its key is.
    pub granted: bool,
}

impl Buyer {
    /// Chunks of a selection in order, at most `limit` (and 4,096), behind the first `skip`.
    ///
    /// # Errors
    ///
    /// What cannot be read.
    pub async fn chunks(
        &self,
        did: &Did,
        selection: PullSelection,
        skip: u64,
        limit: usize,
    ) -> Result<Vec<ChunkInfo>, FeedsError> {
        let (buyer, did) = (self.clone(), *did);
        blocking(move || {
            let mut list = Vec::new();
            let (mut left, limit) = (skip, limit.min(4096));
            let mut failed = None;
            buyer.feeds().visit_chunks(&did, selection, &mut |log, seq, record| {
                if left > 0 {
                    left -= 1;
                    return true;
                }
                match buyer.feeds().store().has_chunk(&record.hash) {
                    Ok(held) => list.push(chunk_info(log, seq, record, held, buyer.inner.wallet.holds(&did, record))),
                    Err(error) => failed = Some(error),
                }
                failed.is_none() && list.len() < limit
            })?;
            failed.map_or(Ok(list), |error| Err(error.into()))
        })
        .await?
    }
}

fn chunk_info(log: LogKey, seq: u64, record: &ChunkRecord, held: bool, granted: bool) -> ChunkInfo {
    ChunkInfo {
        dataset: record.dataset,
        stream: record.stream,
        index: record.index,
        seq,
        incarnation: log.incarnation,
        epoch: record.epoch,
        position: record.position.to_string(),
        hash: record.hash,
        len: record.len,
        packages: record.package_count,
        first_number: record.first_number,
        gaps: record.gaps,
        time_from_ms: record.time_from_ms,
        time_to_ms: record.time_to_ms,
        zstd: record.encoding.zstd,
        held,
        granted,
    }
}

/// What the bytes of a dataset are, for messages.
pub(super) const fn holds(content: Content) -> &'static str {
    match content {
        Content::Packages => "packages",
        Content::File => "a file",
    }
}
