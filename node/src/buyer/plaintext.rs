//! The plaintext of a dataset as a stream of bytes.
//!
//! Owns reading chunk after chunk: body, every check there is about it, decryption, unpacking. Holds one chunk at a time.

use std::{io, sync::Arc};

use tributary_protocol::{
    entry::EntryBody,
    ids::{DatasetId, Did, LogKey},
    keys::FeedPublicKey,
    keytree::ChunkKey,
    record::{ChunkRecord, Content, MAX_PLAINTEXT_LEN},
    seal,
};

use super::{Buyer, error::ContentError};
use crate::feeds::{FeedsError, dataset_place, decode_stored, stored_chain};

/// Unpacks what a chunk decrypted to.
///
/// # Errors
///
/// `None` when it is not one zstd frame of at most 1 MiB.
pub(super) fn unpack(record: &ChunkRecord, plaintext: Vec<u8>) -> Option<Vec<u8>> {
    if !record.encoding.zstd {
        return Some(plaintext);
    }
    zstd::bulk::decompress(&plaintext, MAX_PLAINTEXT_LEN).ok()
}

/// Reads the decrypted, unpacked bytes of a dataset, chunk by chunk. Each chunk passes BLAKE3, SHA-256, its v1 signature, the
/// key commitment, the tag, and the commitment to its plaintext before a byte of it comes out. Blocks.
pub struct DatasetPlaintext {
    buyer: Buyer,
    did: Did,
    dataset: DatasetId,
    log: LogKey,
    next_seq: u64,
    last_seq: u64,
    next_index: u32,
    content: Content,
    reigns: Arc<tributary_protocol::binding::chain::Reigns>,
    chunk: Vec<u8>,
    read: usize,
    failed: bool,
}

impl DatasetPlaintext {
    pub(super) fn open(buyer: &Buyer, did: &Did, dataset: DatasetId) -> Result<Self, ContentError> {
        let store = buyer.feeds().store();
        let unknown = ContentError::NotFound(dataset);
        let place = dataset_place(store, did, &dataset).map_err(content)?;
        let Some((log, first, last)) = place else { return Err(unknown) };
        let Some(chain) = stored_chain(store, did).map_err(content)? else { return Err(unknown) };
        let reigns = chain.reigns(&log.log, log.incarnation);
        let mut plaintext = Self {
            buyer: buyer.clone(),
            did: *did,
            dataset,
            log,
            next_seq: first,
            last_seq: last,
            next_index: 0,
            content: Content::Packages,
            reigns: Arc::new(reigns),
            chunk: Vec::new(),
            read: 0,
            failed: false,
        };
        let first = plaintext.record()?.ok_or(unknown)?;
        plaintext.content = first.0.encoding.content;
        Ok(plaintext)
    }

    /// What the bytes are.
    #[must_use]
    pub fn content(&self) -> Content {
        self.content
    }

    /// Whether the machine closed the dataset; the bytes of an open one end where the first chunk is not here.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.last_seq != u64::MAX
    }

    /// The record of the next chunk and the key that signed it; `None` behind the last.
    fn record(&self) -> Result<Option<(ChunkRecord, FeedPublicKey)>, ContentError> {
        let (dataset, index) = (self.dataset, self.next_index);
        if self.next_seq > self.last_seq {
            return Ok(None);
        }
        let broken = ContentError::Record { dataset, index };
        let Some(bytes) = self.buyer.feeds().store().entry(&self.log, self.next_seq)? else {
            // The end of an open dataset is the end of the log.
            return if self.is_closed() { Err(broken) } else { Ok(None) };
        };
        let entry = decode_stored(&bytes).map_err(content)?;
        let EntryBody::Chunk(record) = &entry.entry().body else { return Err(broken) };
        if record.dataset != dataset {
            return if self.is_closed() { Err(broken) } else { Ok(None) };
        }
        let key = self.reigns.at(self.next_seq).map(|reign| reign.key);
        match key {
            Some(key) if record.index == index => Ok(Some((record.clone(), key))),
            _ => Err(broken),
        }
    }

    /// The bytes of the next chunk; `None` behind the last.
    ///
    /// # Errors
    ///
    /// See [`ContentError`]; it names the chunk.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ContentError> {
        let Some((record, feed_key)) = self.record()? else { return Ok(None) };
        let (dataset, index) = (self.dataset, record.index);
        let body = match self.buyer.feeds().store().chunk(&record.hash)? {
            Some(body) => body,
            None if index > 0 && !self.is_closed() => return Ok(None),
            None => return Err(ContentError::Missing { dataset, index }),
        };
        let key = self.buyer.key_for(&self.did, &record).map_err(content)?;
        let key = key.ok_or(ContentError::NotGranted { dataset, index })?;
        let plaintext = open_chunk(&record, &feed_key, &key, &body)?;
        self.next_seq = self.next_seq.saturating_add(1);
        self.next_index = self.next_index.saturating_add(1);
        Ok(Some(plaintext))
    }
}

/// Checks everything about a chunk whose BLAKE3 was checked when it was read, and gives its unpacked bytes.
pub(super) fn open_chunk(
    record: &ChunkRecord,
    feed_key: &FeedPublicKey,
    key: &ChunkKey,
    body: &[u8],
) -> Result<Vec<u8>, ContentError> {
    let (dataset, index) = (record.dataset, record.index);
    let open = |source| ContentError::Open { dataset, index, source };
    let plaintext = seal::open_proven(record, feed_key, key, body).map_err(open)?;
    unpack(record, plaintext).ok_or(ContentError::Unpack { dataset, index })
}

fn content(error: FeedsError) -> ContentError {
    match error {
        FeedsError::Store(error) => ContentError::Store(error),
        error => ContentError::Store(tributary_store::StoreError::Damaged { what: error.to_string() }),
    }
}

impl io::Read for DatasetPlaintext {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            if self.failed {
                return Err(io::Error::other("the dataset could not be read up to here"));
            }
            match self.next_chunk() {
                Ok(Some(chunk)) => (self.chunk, self.read) = (chunk, 0),
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.failed = true;
                    return Err(io::Error::other(error));
                }
            }
        }
        let rest = &self.chunk[self.read..];
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}

impl Buyer {
    /// The plaintext of a dataset that was pulled. Blocks; so does reading from it.
    ///
    /// # Errors
    ///
    /// When the dataset is not known here. A chunk that is missing shows when it is its turn.
    pub fn plaintext(&self, did: &Did, dataset: DatasetId) -> Result<DatasetPlaintext, ContentError> {
        DatasetPlaintext::open(self, did, dataset)
    }
}
