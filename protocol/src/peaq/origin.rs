//! What makes a directory of peaq's files provable from the machine's DID down.
//!
//! peaq's files say who made them but prove nothing: the key that verifies them lies among them, and the machine signed only one
//! hash per chunk. Files that come from a feed carry the feed's own statements along, in one more key of `manifest.json`, which
//! peaq's tools ignore ([`OriginText`]). [`Origin::open`] checks these statements from the DID's identity key down, and
//! [`Origin::check_chunk`] holds a chunk's envelope and ciphertext against its record. Then nothing that the record covers can
//! have been changed, added, left out or moved: index, order, number, hashes, nonce, key commitment, signature.
//!
//! Not covered, because no record has them: `machineDid` and `keyId`, recipients, `storageRef`, and `sourceHash`, which
//! follows from the plaintexts. `plaintextHash` is covered for whoever has the chunk's key ([`Origin::check_plaintext`]).
//!
//! This proves what the machine said up to the newest binding in the files. A binding made later, which takes a key back, is not
//! among them: who needs to know follows the machine's feed.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{envelope::Envelope, hexes};
use crate::{
    binding::{BindingChain, BindingError, ChainError, SignedBinding, chain::Reigns},
    dataset::{DatasetBuilder, DatasetEntry, DatasetError},
    entry::{EntryBody, EntryError, SignedEntry},
    ids::{Did, Hash, LogId},
    keytree::ChunkKey,
    record::{ChunkRecord, RecordError},
    seal,
};

/// `version` of the key in the manifest.
pub const ORIGIN_VERSION: u32 = 1;

/// The value of the manifest's key `tributary`. Bytes are standard base64 with padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginText {
    /// [`ORIGIN_VERSION`].
    pub version: u32,
    /// The machine's signed bindings, from serial 0 on.
    pub bindings: Vec<String>,
    /// The signed entry of the machine log that closed the dataset. When a later binding took its key back, the entries that
    /// follow, up to the one that this binding pins.
    pub entries: Vec<String>,
    /// The chunk records of the dataset, one after the other, 408 bytes each.
    pub records: String,
}

impl OriginText {
    /// The statements as text.
    #[must_use]
    pub fn new(bindings: &[SignedBinding], entries: &[SignedEntry], records: &[u8]) -> Self {
        Self {
            version: ORIGIN_VERSION,
            bindings: bindings.iter().map(|signed| BASE64_STANDARD.encode(signed.encode())).collect(),
            entries: entries.iter().map(|signed| BASE64_STANDARD.encode(signed.bytes())).collect(),
            records: BASE64_STANDARD.encode(records),
        }
    }
}

/// Statements that do not prove what they should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// Written by a later version.
    #[error("the statements of origin have version {found}, this program reads version {ORIGIN_VERSION}; update it")]
    Version {
        /// The version that was found.
        found: u32,
    },
    /// Not base64.
    #[error("{what} is not base64")]
    Base64 {
        /// Which part.
        what: &'static str,
    },
    /// No binding.
    #[error("there is no binding: nothing leads to a DID")]
    NoBinding,
    /// A binding that cannot be read.
    #[error("binding {serial} cannot be read")]
    Binding {
        /// Its place.
        serial: usize,
        /// Why.
        source: BindingError,
    },
    /// Bindings that do not follow each other from the DID.
    #[error("the bindings do not lead from the DID to a feed key")]
    Chain(#[source] ChainError),
    /// An entry that cannot be read.
    #[error("entry {place} cannot be read")]
    Entry {
        /// Its place.
        place: usize,
        /// Why.
        source: EntryError,
    },
    /// The first entry closes no dataset of the machine.
    #[error("the first entry is no dataset entry of {did}")]
    NotTheDataset {
        /// The machine.
        did: Did,
    },
    /// The dataset entry is not by a key that was bound for its place.
    #[error("the dataset entry is not signed by the feed key that {did} bound for its place in the log")]
    Signature {
        /// The machine.
        did: Did,
    },
    /// The key was taken back, and the entries do not lead to what the later binding pins.
    #[error("the dataset entry is by a retired key and does not lead to the entry that a later binding pins")]
    NotPinned,
    /// Not whole records.
    #[error("the records have {found} bytes, which is no multiple of 408")]
    RecordLength {
        /// Length found.
        found: usize,
    },
    /// A record that cannot be read.
    #[error("the record of chunk {index} cannot be read")]
    Record {
        /// Index of the chunk.
        index: u64,
        /// Why.
        source: RecordError,
    },
    /// The records are no dataset.
    #[error("the records do not follow each other")]
    Dataset(#[source] DatasetError),
    /// The records are not those that the machine signed.
    #[error("the records are not those whose Merkle root and totals {did} signed")]
    Totals {
        /// The machine.
        did: Did,
    },
}

/// A chunk of the files is not the one that the machine recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} is not what the machine recorded and signed")]
pub struct OriginMismatch {
    /// What differs, by the name it has in the files.
    pub field: &'static str,
}

/// Statements that were checked, from the DID down to the records of one dataset.
pub struct Origin {
    did: Did,
    serial: u64,
    expires_ms: u64,
    dataset: DatasetEntry,
    /// Who may sign what in the stream's log.
    reigns: Reigns,
    /// [`ChunkRecord::LEN`] bytes each, all of them decodable.
    records: Vec<u8>,
}

impl Origin {
    /// Checks everything that needs no chunk: bindings, the dataset entry, and that the records are the recorded ones. Holds the
    /// records, 408 bytes per chunk.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn open(text: &OriginText) -> Result<Self, OriginError> {
        if text.version != ORIGIN_VERSION {
            return Err(OriginError::Version { found: text.version });
        }
        let chain = open_chain(&text.bindings)?;
        let did = chain.did();
        let dataset = open_dataset(&chain, &text.entries)?;
        let records = decode(&text.records, "records")?;
        let (whole, rest) = records.as_chunks::<{ ChunkRecord::LEN }>();
        if !rest.is_empty() {
            return Err(OriginError::RecordLength { found: records.len() });
        }
        let mut builder = DatasetBuilder::new(dataset.stream, dataset.epoch, dataset.incarnation, dataset.first_seq);
        for (index, (seq, bytes)) in (0u64..).zip((dataset.first_seq..).zip(whole)) {
            let record = ChunkRecord::decode(bytes).map_err(|source| OriginError::Record { index, source })?;
            builder.push(seq, &record).map_err(OriginError::Dataset)?;
        }
        if builder.close().as_ref() != Some(&dataset) {
            return Err(OriginError::Totals { did });
        }
        let reigns = chain.reigns(&LogId::from(dataset.stream), dataset.incarnation);
        let (serial, expires_ms) = (chain.current().serial, chain.current().expires_ms);
        Ok(Self { did, serial, expires_ms, dataset, reigns, records })
    }

    /// The machine.
    #[must_use]
    pub fn did(&self) -> Did {
        self.did
    }

    /// Serial of the newest binding in the files.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// When that binding becomes stale, ms since 1970.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// What the machine signed about the dataset.
    #[must_use]
    pub fn dataset(&self) -> &DatasetEntry {
        &self.dataset
    }

    /// The record of a chunk.
    #[must_use]
    pub fn record(&self, index: u64) -> Option<ChunkRecord> {
        let (whole, _) = self.records.as_chunks::<{ ChunkRecord::LEN }>();
        ChunkRecord::decode(whole.get(usize::try_from(index).ok()?)?).ok()
    }

    /// Holds the envelope and the ciphertext of chunk `index` against the chunk's record.
    ///
    /// # Errors
    /// The first field that is not as recorded.
    pub fn check_chunk(&self, index: u64, envelope: &Envelope, ciphertext: &[u8]) -> Result<(), OriginMismatch> {
        let field = |field| OriginMismatch { field };
        let record = self.record(index).ok_or(field("totalChunks"))?;
        let encryption = &envelope.encryption;
        let signature = &envelope.signature;
        let bytes = |text: &str, name| hexes::decode(text, name).unwrap_or_default();
        let key = self.dataset.first_seq.checked_add(index).and_then(|seq| self.reigns.at(seq)).map(|reign| reign.key);
        let key = key.ok_or(field("signature.publicKeyHex"))?;
        let rules = [
            (envelope.index == u64::from(record.index), "index"),
            (envelope.previous_chunk_id == record.previous_chunk_id.as_ref().map(hexes::hash_text), "previousChunkId"),
            (usize::try_from(record.len) == Ok(ciphertext.len()), "length of the ciphertext"),
            (Hash::of(ciphertext) == record.hash, "ciphertext"),
            (envelope.encrypted_data_hash == hexes::hash_text(&record.sha256), "encryptedDataHash"),
            (envelope.chunk_id == hexes::hash_text(&record.chunk_id), "chunkId"),
            (bytes(&encryption.nonce, "nonce") == record.nonce, "nonce"),
            (encryption.key_commitment == format!("sha256:{}", hex::encode(record.key_commitment)), "keyCommitment"),
            (bytes(&signature.public_key_hex, "public_key_hex") == key.as_bytes(), "signature.publicKeyHex"),
            (bytes(&signature.value, "value") == record.v1_signature, "signature.value"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, name)) => Err(field(name)),
            None => Ok(()),
        }
    }

    /// Holds the SHA-256 of a decrypted chunk against what the machine committed to; `key` is the chunk's.
    ///
    /// # Errors
    /// When it committed to another plaintext.
    pub fn check_plaintext(
        &self,
        index: u64,
        key: &[u8; 32],
        plaintext_sha256: &[u8; 32],
    ) -> Result<(), OriginMismatch> {
        let record = self.record(index).ok_or(OriginMismatch { field: "totalChunks" })?;
        let found = seal::plaintext_commitment(&ChunkKey::from_bytes(key), plaintext_sha256);
        if found == record.plaintext_commitment { Ok(()) } else { Err(OriginMismatch { field: "plaintextHash" }) }
    }
}

fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, OriginError> {
    BASE64_STANDARD.decode(text).map_err(|_| OriginError::Base64 { what })
}

fn open_chain(texts: &[String]) -> Result<BindingChain, OriginError> {
    let mut chain = None;
    for (serial, text) in texts.iter().enumerate() {
        let signed = SignedBinding::decode(&decode(text, "a binding")?)
            .map_err(|source| OriginError::Binding { serial, source })?;
        BindingChain::extend(&mut chain, &signed).map_err(OriginError::Chain)?;
    }
    chain.ok_or(OriginError::NoBinding)
}

/// The dataset entry, signed by the key of its place in the machine log, and on the way to what a later binding pins.
fn open_dataset(chain: &BindingChain, texts: &[String]) -> Result<DatasetEntry, OriginError> {
    let did = chain.did();
    let open = |(place, text): (usize, &String)| {
        SignedEntry::decode(&decode(text, "an entry")?).map_err(|source| OriginError::Entry { place, source })
    };
    let mut entries = texts.iter().enumerate().map(open);
    let first = entries.next().ok_or(OriginError::NotTheDataset { did })??;
    let entry = first.entry();
    let EntryBody::DatasetClosed(dataset) = &entry.body else { return Err(OriginError::NotTheDataset { did }) };
    if entry.did != did || entry.log != LogId::MACHINE || dataset.check().is_err() {
        return Err(OriginError::NotTheDataset { did });
    }
    let reigns = chain.reigns(&entry.log, entry.incarnation);
    let bound = reigns.at(entry.seq).is_some_and(|reign| reign.key == first.signer());
    if !bound || first.verify_signature().is_err() {
        return Err(OriginError::Signature { did });
    }
    if let Some(pin) = reigns.pin_above(entry.seq) {
        let mut last = (entry.seq, first.hash());
        for next in entries {
            let next = next?;
            let follows = next.entry().key() == entry.key()
                && next.entry().prev == last.1
                && last.0.checked_add(1) == Some(next.entry().seq);
            if !follows {
                return Err(OriginError::NotPinned);
            }
            last = (next.entry().seq, next.hash());
        }
        if last != (pin.at.saturating_sub(1), pin.prev) {
            return Err(OriginError::NotPinned);
        }
    }
    Ok(dataset.clone())
}

#[cfg(test)]
mod tests;
