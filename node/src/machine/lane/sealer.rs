//! From slices to sealed chunks: key, place in the chain, record, log entry.
//!
//! Owns the open dataset of one stream and its log's writer. It never waits for the disk, except when a key epoch begins.

use std::sync::Arc;

use rand::Rng as _;
use tributary_protocol::{
    dataset::DatasetBuilder,
    entry::{EntryBody, SignedEntry},
    ids::{DatasetId, Hash, StreamId},
    keys::FeedKey,
    record::{ContentEncoding, MAX_PLAINTEXT_LEN},
    seal::{SealInput, seal},
};

use super::{LaneError, slices::Slice};
use crate::machine::{epochs::Epochs, log_writer::LogWriter, plaintext_hashes::PlaintextHashes};

/// zstd level: 3 is its default and keeps up with a camera on one core.
const ZSTD_LEVEL: i32 = 3;

/// A chunk, sealed and described, on its way to the store.
#[derive(Debug, Clone)]
pub(crate) struct SealedChunk {
    pub(crate) entry: Arc<SignedEntry>,
    pub(crate) body: Arc<[u8]>,
    pub(crate) hash: Hash,
    pub(crate) dataset: DatasetId,
    pub(crate) index: u32,
    pub(crate) packages: u32,
}

/// A dataset that is not closed yet.
pub(crate) struct OpenDataset {
    pub(crate) builder: DatasetBuilder,
    /// When its first chunk was sealed, ms since 1970.
    pub(crate) opened_ms: u64,
}

/// Seals the slices of one stream, in order.
pub(crate) struct Sealer {
    stream: StreamId,
    feed: Arc<FeedKey>,
    writer: LogWriter,
    epochs: Epochs,
    encoding: ContentEncoding,
    plaintext_hashes: Arc<PlaintextHashes>,
    dataset: Option<OpenDataset>,
}

impl Sealer {
    pub(crate) fn new(
        stream: StreamId,
        feed: Arc<FeedKey>,
        writer: LogWriter,
        epochs: Epochs,
        encoding: ContentEncoding,
        plaintext_hashes: Arc<PlaintextHashes>,
    ) -> Self {
        Self { stream, feed, writer, epochs, encoding, plaintext_hashes, dataset: None }
    }

    /// The dataset that new chunks go to, if one is open.
    pub(crate) fn dataset(&self) -> Option<&OpenDataset> {
        self.dataset.as_ref()
    }

    /// Ends the open dataset: the next slice begins another. Its chunks must be durable before the result is announced.
    pub(crate) fn close_dataset(&mut self) -> Option<OpenDataset> {
        self.dataset.take()
    }

    /// Whether the key epoch has to change before another chunk can be sealed; a dataset never spans two epochs, so close it.
    pub(crate) fn epoch_ended(&self, now_ms: u64) -> bool {
        self.epochs.ended(now_ms)
    }

    /// Makes sure that there are keys: what [`Sealer::seal`] would have to write for them is durable then, and a failure here
    /// has cost nothing.
    pub(crate) fn prepare(&mut self, now_ms: u64) -> Result<(), LaneError> {
        Ok(self.epochs.prepare(now_ms)?)
    }

    /// Seals one slice.
    pub(crate) fn seal(&mut self, slice: Slice, now_ms: u64) -> Result<SealedChunk, LaneError> {
        let (position, epoch, key) = self.epochs.next_key(now_ms)?;
        let seq = self.writer.next_seq();
        let incarnation = self.writer.log().incarnation;
        let open = self.dataset.get_or_insert_with(|| OpenDataset {
            builder: DatasetBuilder::new(self.stream, epoch, incarnation, seq),
            opened_ms: now_ms,
        });
        let (dataset, index) = (open.builder.id(), open.builder.next_index());
        let previous_chunk_id = open.builder.last_chunk_id();
        let (time_from_ms, time_to_ms) = slice.time_ms.unwrap_or((now_ms, now_ms));
        let mut nonce = [0; 24];
        rand::rng().fill_bytes(&mut nonce);
        let (plaintext, encoding) = self.compress(slice.bytes)?;
        let sealed = seal(SealInput {
            key: &key,
            feed_key: &self.feed,
            nonce,
            plaintext,
            stream: self.stream,
            dataset,
            index,
            epoch,
            position,
            previous_chunk_id,
            encoding,
            package_count: slice.packages,
            first_number: slice.first_number,
            gaps: slice.gaps,
            time_from_ms,
            time_to_ms,
        })
        .map_err(|error| LaneError::Seal(error.to_string()))?;
        let record = sealed.record;
        if let Some(open) = &mut self.dataset {
            open.builder.push(seq, &record).map_err(|error| LaneError::Seal(error.to_string()))?;
        }
        let (hash, packages) = (record.hash, record.package_count);
        // peaq's tools do not undo compression, so nobody will ask.
        if !encoding.zstd {
            self.plaintext_hashes.put(hash, sealed.plaintext_sha256);
        }
        let entry = self.writer.sign(now_ms, EntryBody::Chunk(record))?;
        Ok(SealedChunk { entry: Arc::new(entry), body: sealed.ciphertext.into(), hash, dataset, index, packages })
    }

    /// Compresses a slice where that makes it smaller; the record says which it is.
    fn compress(&self, bytes: Vec<u8>) -> Result<(Vec<u8>, ContentEncoding), LaneError> {
        let plain = ContentEncoding { zstd: false, ..self.encoding };
        if !self.encoding.zstd {
            return Ok((bytes, plain));
        }
        let packed = zstd::bulk::compress(&bytes, ZSTD_LEVEL).map_err(|error| LaneError::Seal(error.to_string()))?;
        Ok(if packed.len() < bytes.len() && packed.len() <= MAX_PLAINTEXT_LEN {
            (packed, self.encoding)
        } else {
            (bytes, plain)
        })
    }

    /// Lets the next chunk begin a new key epoch. The open dataset must be closed.
    pub(crate) fn renew_epoch(&mut self) {
        self.epochs.renew();
    }
}
