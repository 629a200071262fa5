//! `/tributary/sync/1`: catching up. One request, one response; signed objects travel as they are.
//!
//! | request | fields |
//! |---|---|
//! | 0 bindings | machine (20), serial of the first |
//! | 1 heads | machine (20), log (32): heads of the logs from this id on |
//! | 2 entries | log key (56), first position, at most so many |
//! | 3 dataset | machine (20), dataset (32) |
//! | 4 inclusion | machine (20), dataset (32), index |
//!
//! | response | fields |
//! |---|---|
//! | 0 bindings | list of signed bindings ascending by serial, more |
//! | 1 heads | list of signed heads ascending by log, more |
//! | 2 entries | list of entries ascending by position, more |
//! | 3 dataset | the entry that closed it |
//! | 4 inclusion | the entry that closed the dataset, the chunk record, the proof |
//! | 5 not found | |
//! | 6 busy | ms after which to ask again |
//!
//! *More* means that the responder holds more than it sent; a list is never empty then, so asking again makes progress.

use super::{
    WireError,
    cbor::{Reader, Writer},
};
use crate::{
    binding::MAX_SIGNED_BINDING_LEN,
    entry::{HEAD_LEN, MAX_ENTRY_LEN},
    ids::{DatasetId, Did, LogId, LogKey},
    record::ChunkRecord,
};

/// Name of the protocol.
pub const PROTOCOL: &str = "/tributary/sync/1";
/// The longest request in bytes.
pub const MAX_REQUEST: usize = 4 * 1024;
/// The longest response in bytes.
pub const MAX_RESPONSE: usize = 1024 * 1024;
/// At most this many objects in a response, whatever was asked for.
pub const MAX_ITEMS: usize = 4096;
/// Bytes of a response that are not objects: with a list of `n`, a responder may use `MAX_RESPONSE - ENVELOPE - 5 * n` for them.
pub const ENVELOPE: usize = 64;

/// What one node asks another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncRequest {
    /// Bindings of a machine.
    Bindings {
        /// The machine.
        did: Did,
        /// Serial of the first one wanted.
        from_serial: u64,
    },
    /// Newest heads of a machine's logs.
    Heads {
        /// The machine.
        did: Did,
        /// From this log on, by id.
        from_log: LogId,
    },
    /// Entries of a log.
    Entries {
        /// The log.
        log: LogKey,
        /// The first position wanted.
        from: u64,
        /// At most so many; the responder sends fewer when they do not fit.
        max: u32,
    },
    /// The entry that closed a dataset.
    Dataset {
        /// The machine.
        did: Did,
        /// The dataset.
        dataset: DatasetId,
    },
    /// The proof that a chunk is in a dataset.
    Inclusion {
        /// The machine.
        did: Did,
        /// The dataset.
        dataset: DatasetId,
        /// Index of the chunk.
        index: u32,
    },
}

impl SyncRequest {
    /// The bytes to send.
    ///
    /// # Errors
    ///
    /// Never for these requests; the size is checked all the same.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let writer = match self {
            Self::Bindings { did, from_serial } => {
                let mut w = Writer::message(0, 2);
                w.bytes(did.as_bytes()).uint(*from_serial);
                w
            }
            Self::Heads { did, from_log } => {
                let mut w = Writer::message(1, 2);
                w.bytes(did.as_bytes()).bytes(from_log.as_bytes());
                w
            }
            Self::Entries { log, from, max } => {
                let mut w = Writer::message(2, 3);
                w.bytes(&log.to_bytes()).uint(*from).uint(u64::from(*max));
                w
            }
            Self::Dataset { did, dataset } => {
                let mut w = Writer::message(3, 2);
                w.bytes(did.as_bytes()).bytes(dataset.as_bytes());
                w
            }
            Self::Inclusion { did, dataset, index } => {
                let mut w = Writer::message(4, 3);
                w.bytes(did.as_bytes()).bytes(dataset.as_bytes()).uint(u64::from(*index));
                w
            }
        };
        writer.finish("sync request", MAX_REQUEST)
    }

    /// Reads a request.
    ///
    /// # Errors
    ///
    /// For anything but one whole request.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let what = "sync request";
        let (mut r, number) = Reader::message(what, bytes, MAX_REQUEST)?;
        r.expect(what, if matches!(number, 2 | 4) { 3 } else { 2 })?;
        let request = match number {
            0 => Self::Bindings { did: r.did()?, from_serial: r.u64()? },
            1 => Self::Heads { did: r.did()?, from_log: r.log_id()? },
            2 => Self::Entries { log: r.log_key()?, from: r.u64()?, max: r.u32()? },
            3 => Self::Dataset { did: r.did()?, dataset: r.dataset()? },
            4 => Self::Inclusion { did: r.did()?, dataset: r.dataset()?, index: r.u32()? },
            _ => return Err(WireError::Value { what, reason: "no such request" }),
        };
        r.finish()?;
        Ok(request)
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncResponse {
    /// Signed bindings, ascending by serial.
    Bindings {
        /// See [`crate::binding::SignedBinding::decode`].
        bindings: Vec<Vec<u8>>,
        /// Whether there are more.
        more: bool,
    },
    /// Signed heads, ascending by log.
    Heads {
        /// See [`crate::entry::SignedHead::decode`].
        heads: Vec<Vec<u8>>,
        /// Whether there are more.
        more: bool,
    },
    /// Entries, ascending by position, without gaps.
    Entries {
        /// See [`crate::entry::SignedEntry::decode`].
        entries: Vec<Vec<u8>>,
        /// Whether there are more.
        more: bool,
    },
    /// The entry that closed the dataset.
    Dataset {
        /// See [`crate::entry::SignedEntry::decode`].
        entry: Vec<u8>,
    },
    /// A chunk and the proof that it is in the dataset.
    Inclusion {
        /// The entry that closed the dataset.
        entry: Vec<u8>,
        /// The chunk record, see [`crate::record`].
        record: Vec<u8>,
        /// The proof, see [`crate::dataset`].
        proof: Vec<u8>,
    },
    /// The responder has nothing of this.
    NotFound,
    /// The responder has too much to do.
    Busy {
        /// When to ask again, in ms from now.
        retry_ms: u32,
    },
}

/// The longest inclusion proof: 32 levels of 32 bytes.
const MAX_PROOF: usize = 32 * 32;

impl SyncResponse {
    /// The bytes to send.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] when more was put in than fits in a response.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let writer = match self {
            Self::Bindings { bindings, more } => {
                let mut w = Writer::message(0, 2);
                w.blobs(bindings).bool(*more);
                w
            }
            Self::Heads { heads, more } => {
                let mut w = Writer::message(1, 2);
                w.blobs(heads).bool(*more);
                w
            }
            Self::Entries { entries, more } => {
                let mut w = Writer::message(2, 2);
                w.blobs(entries).bool(*more);
                w
            }
            Self::Dataset { entry } => {
                let mut w = Writer::message(3, 1);
                w.bytes(entry);
                w
            }
            Self::Inclusion { entry, record, proof } => {
                let mut w = Writer::message(4, 3);
                w.bytes(entry).bytes(record).bytes(proof);
                w
            }
            Self::NotFound => Writer::message(5, 0),
            Self::Busy { retry_ms } => {
                let mut w = Writer::message(6, 1);
                w.uint(u64::from(*retry_ms));
                w
            }
        };
        writer.finish("sync response", MAX_RESPONSE)
    }

    /// Reads a response.
    ///
    /// # Errors
    ///
    /// For anything but one whole response.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let what = "sync response";
        let (mut r, number) = Reader::message(what, bytes, MAX_RESPONSE)?;
        r.expect(what, [2, 2, 2, 1, 3, 0, 1].get(usize::from(number)).copied().unwrap_or(0))?;
        let response = match number {
            0 => Self::Bindings { bindings: r.blobs("bindings", MAX_ITEMS, MAX_SIGNED_BINDING_LEN)?, more: r.bool()? },
            1 => Self::Heads { heads: r.blobs("heads", MAX_ITEMS, HEAD_LEN)?, more: r.bool()? },
            2 => Self::Entries { entries: r.blobs("entries", MAX_ITEMS, MAX_ENTRY_LEN)?, more: r.bool()? },
            3 => Self::Dataset { entry: r.bytes("entry", MAX_ENTRY_LEN)?.to_vec() },
            4 => Self::Inclusion {
                entry: r.bytes("entry", MAX_ENTRY_LEN)?.to_vec(),
                record: r.bytes("chunk record", ChunkRecord::LEN)?.to_vec(),
                proof: r.bytes("proof", MAX_PROOF)?.to_vec(),
            },
            5 => Self::NotFound,
            6 => Self::Busy { retry_ms: r.u32()? },
            _ => return Err(WireError::Value { what, reason: "no such response" }),
        };
        let empty_more = match &response {
            Self::Bindings { bindings: list, more }
            | Self::Heads { heads: list, more }
            | Self::Entries { entries: list, more } => *more && list.is_empty(),
            _ => false,
        };
        if empty_more {
            return Err(WireError::Value { what, reason: "promises more behind nothing" });
        }
        r.finish()?;
        Ok(response)
    }
}
