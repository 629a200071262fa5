//! Entries: what a log is made of, and heads: how far it goes.
//!
//! Owns the signed layout of both. Whether an entry belongs where it says, and who may sign there, is decided by
//! [`crate::feed`].
//!
//! # Entry (version 1)
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind, see [`Kind`] |
//! | 2 | 20 | machine: address of its DID |
//! | 22 | 32 | log: zeros for the machine log, else the stream id |
//! | 54 | 4 | incarnation |
//! | 58 | 8 | sequence number |
//! | 66 | 32 | hash of the entry before; for number 0 the last entry of the incarnation before, or zeros |
//! | 98 | 8 | time, ms since 1970: max(last, now) of the writer |
//! | 106 | 2 | length of the body |
//! | 108 | n | body, see [`body`] |
//! | 108 + n | 32 | signer: feed key |
//! | 140 + n | 64 | Ed25519 signature in the context `tributary/entry/1` over all bytes before it |
//!
//! Numbers are big endian. A whole entry has at most 16 KiB. The hash of an entry is BLAKE3 in key derivation mode over all
//! bytes before the signature: an entry that is signed twice is still one entry.
//!
//! # Head (version 1)
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 20 | machine |
//! | 21 | 32 | log |
//! | 53 | 4 | incarnation |
//! | 57 | 8 | sequence number of the newest entry |
//! | 65 | 32 | its hash |
//! | 97 | 8 | time, ms since 1970 |
//! | 105 | 32 | signer: the feed key that may write the *next* position |
//! | 137 | 64 | Ed25519 signature in the context `tributary/head/1` over all bytes before it |

pub mod body;
pub(crate) mod layout;

use crate::{
    ids::{Did, Hash, LogId, LogKey},
    keys::{BadSignature, Context, FeedKey, FeedPublicKey, SIGNATURE_LEN},
};
pub use body::{
    EntryBody, EpochInfo, EpochName, Kind, Listing, ListingSubject, Mode, Policy, SealedSeed, StreamInfo, Tombstone,
    TombstoneTarget,
};
pub use layout::LayoutError;
use layout::{Reader, put_block};

/// The longest entry in bytes, signature included.
pub const MAX_ENTRY_LEN: usize = 16 * 1024;
/// Length of a signed head in bytes.
pub const HEAD_LEN: usize = 201;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 108;
const TRAILER_LEN: usize = 32 + SIGNATURE_LEN;
/// The longest body in bytes.
pub const MAX_BODY_LEN: usize = MAX_ENTRY_LEN - HEADER_LEN - TRAILER_LEN;

/// Why bytes are not an entry or a head, or a value cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The bytes do not follow the layout, or a value does not fit in it.
    #[error("not a log entry")]
    Layout(#[from] LayoutError),
    /// The binding in it is none.
    #[error("the entry carries a bad key binding")]
    Binding(#[from] crate::binding::BindingError),
    /// The chunk record or the dataset entry in it is none.
    #[error("the entry carries a bad {what}: {reason}")]
    Record {
        /// What it should have been.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The kind does not belong in this log, or the body is about another machine or stream.
    #[error("a {kind} entry does not belong here: {reason}")]
    Misplaced {
        /// The kind.
        kind: &'static str,
        /// Why not.
        reason: &'static str,
    },
}

/// One entry, unsigned.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The machine.
    pub did: Did,
    /// Which of its logs.
    pub log: LogId,
    /// In which incarnation.
    pub incarnation: u32,
    /// The position, from 0.
    pub seq: u64,
    /// Hash of the entry before.
    pub prev: Hash,
    /// When it was written, ms since 1970, by the machine's clock, never going back in a log.
    pub time_ms: u64,
    /// What it says.
    pub body: EntryBody,
}

impl Entry {
    /// The log it is in.
    #[must_use]
    pub fn key(&self) -> LogKey {
        LogKey { did: self.did, log: self.log, incarnation: self.incarnation }
    }
}

/// An entry with its signature: the bytes as they arrived, and what they say.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedEntry {
    bytes: Vec<u8>,
    entry: Entry,
    signer: FeedPublicKey,
    hash: Hash,
}

impl SignedEntry {
    /// Signs an entry.
    ///
    /// # Errors
    ///
    /// When the body does not fit, or does not belong in the log it is for.
    pub fn sign(entry: Entry, key: &FeedKey) -> Result<Self, EntryError> {
        entry.body.check_place(&entry)?;
        let body = entry.body.encode()?;
        if body.len() > MAX_BODY_LEN {
            return Err(LayoutError::TooLong { what: "entry body", found: body.len(), limit: MAX_BODY_LEN }.into());
        }
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len() + TRAILER_LEN);
        bytes.push(VERSION);
        bytes.push(entry.body.kind() as u8);
        bytes.extend_from_slice(entry.did.as_bytes());
        bytes.extend_from_slice(entry.log.as_bytes());
        bytes.extend_from_slice(&entry.incarnation.to_be_bytes());
        bytes.extend_from_slice(&entry.seq.to_be_bytes());
        bytes.extend_from_slice(entry.prev.as_bytes());
        bytes.extend_from_slice(&entry.time_ms.to_be_bytes());
        put_block(&mut bytes, &body);
        let signer = key.public();
        bytes.extend_from_slice(signer.as_bytes());
        let signature = key.sign(Context::Entry, &bytes);
        let hash = Self::hash_of(&bytes);
        bytes.extend_from_slice(&signature);
        Ok(Self { bytes, entry, signer, hash })
    }

    /// Reads an entry. Checks everything but the signature: see [`SignedEntry::verify_signature`].
    ///
    /// # Errors
    ///
    /// For anything but one whole entry of a known kind in the right log.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY_LEN {
            return Err(LayoutError::TooLong { what: "entry", found: bytes.len(), limit: MAX_ENTRY_LEN }.into());
        }
        let mut r = Reader::new(bytes);
        r.version(VERSION, "log entry")?;
        let kind = Kind::from_byte(r.u8("kind")?)?;
        let (did, log) = (Did::from_bytes(r.array("machine")?), LogId::from_bytes(r.array("log")?));
        let (incarnation, seq) = (r.u32("incarnation")?, r.u64("sequence number")?);
        let (prev, time_ms) = (r.hash("previous entry")?, r.u64("time")?);
        let body = EntryBody::decode(kind, r.block(MAX_BODY_LEN, "entry body")?)?;
        let signer = FeedPublicKey::from_bytes(r.array("signer")?);
        let _signature: [u8; SIGNATURE_LEN] = r.array("signature")?;
        r.finish("log entry")?;
        let entry = Entry { did, log, incarnation, seq, prev, time_ms, body };
        entry.body.check_place(&entry)?;
        let hash = Self::hash_of(&bytes[..bytes.len() - SIGNATURE_LEN]);
        Ok(Self { bytes: bytes.to_vec(), entry, signer, hash })
    }

    fn hash_of(signed: &[u8]) -> Hash {
        Hash::derive("tributary 2026 log entry", signed)
    }

    /// Checks that the key the entry names signed it. Whose key that is, is another question.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when it did not.
    pub fn verify_signature(&self) -> Result<(), BadSignature> {
        verify_tail(&self.bytes, &self.signer, Context::Entry)
    }

    /// What it says.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The key that it names as its signer.
    #[must_use]
    pub fn signer(&self) -> FeedPublicKey {
        self.signer
    }

    /// The bytes, signature included: what is stored and sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, signature included.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What the next entry names as its predecessor.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }
}

/// Checks a signature that stands behind everything it signs.
fn verify_tail(bytes: &[u8], signer: &FeedPublicKey, context: Context) -> Result<(), BadSignature> {
    let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(BadSignature)?;
    signer.verify(context, signed, signature)
}

/// How far a log goes, by word of its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The machine.
    pub did: Did,
    /// Which of its logs.
    pub log: LogId,
    /// In which incarnation.
    pub incarnation: u32,
    /// Position of the newest entry.
    pub seq: u64,
    /// Its hash.
    pub entry_hash: Hash,
    /// When this was said, ms since 1970.
    pub time_ms: u64,
}

impl Head {
    /// The log it is about.
    #[must_use]
    pub fn key(&self) -> LogKey {
        LogKey { did: self.did, log: self.log, incarnation: self.incarnation }
    }
}

/// A head with its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedHead {
    bytes: [u8; HEAD_LEN],
    head: Head,
    signer: FeedPublicKey,
}

impl SignedHead {
    /// Signs a head.
    #[must_use]
    pub fn sign(head: Head, key: &FeedKey) -> Self {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.push(VERSION);
        out.extend_from_slice(head.did.as_bytes());
        out.extend_from_slice(head.log.as_bytes());
        out.extend_from_slice(&head.incarnation.to_be_bytes());
        out.extend_from_slice(&head.seq.to_be_bytes());
        out.extend_from_slice(head.entry_hash.as_bytes());
        out.extend_from_slice(&head.time_ms.to_be_bytes());
        let signer = key.public();
        out.extend_from_slice(signer.as_bytes());
        let signature = key.sign(Context::Head, &out);
        out.extend_from_slice(&signature);
        let bytes = out.try_into().expect("the fields above have 201 bytes");
        Self { bytes, head, signer }
    }

    /// Reads a head. Checks everything but the signature.
    ///
    /// # Errors
    ///
    /// [`EntryError::Layout`] for anything but one whole head.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "head")?;
        let head = Head {
            did: Did::from_bytes(r.array("machine")?),
            log: LogId::from_bytes(r.array("log")?),
            incarnation: r.u32("incarnation")?,
            seq: r.u64("sequence number")?,
            entry_hash: r.hash("entry hash")?,
            time_ms: r.u64("time")?,
        };
        let signer = FeedPublicKey::from_bytes(r.array("signer")?);
        let _signature: [u8; SIGNATURE_LEN] = r.array("signature")?;
        r.finish("head")?;
        let bytes = *bytes.first_chunk().ok_or(LayoutError::Truncated { what: "head" })?;
        Ok(Self { bytes, head, signer })
    }

    /// Checks that the key the head names signed it.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when it did not.
    pub fn verify_signature(&self) -> Result<(), BadSignature> {
        verify_tail(&self.bytes, &self.signer, Context::Head)
    }

    /// What it says.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The key that it names as its signer.
    #[must_use]
    pub fn signer(&self) -> FeedPublicKey {
        self.signer
    }

    /// The bytes, signature included.
    #[must_use]
    pub fn bytes(&self) -> &[u8; HEAD_LEN] {
        &self.bytes
    }
}

#[cfg(test)]
pub(crate) mod tests;
