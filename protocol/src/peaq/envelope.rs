//! The envelope of one chunk: `peaq.stream.chunks.v1`.
//!
//! Field order here is key order in the file. Reading keeps every text exactly as it was (hashes are compared as text, and
//! peaq's tools write them back as they came), ignores unknown keys, takes peaq's snake_case spelling too, and checks
//! nothing but the schema: that is [`super::verify`] and [`super::decrypt`]. A text with a lone surrogate is refused.

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use super::{
    CHUNK_SCHEMA, ReadError, StreamError, ascii_json,
    chain::chunk_id,
    hexes,
    parties::{Recipients, Role, SignerInfo},
};
use crate::{keytree::ChunkKey, record::ChunkRecord, seal};

/// `encryption.algorithm`.
pub const CHUNK_CIPHER: &str = "xchacha20-poly1305";
/// `algorithm` of a recipient entry.
pub const KEY_WRAPPING: &str = "x25519-sealedbox";
/// `signature.algorithm`.
pub const SIGNATURE: &str = "ed25519";
/// Longest envelope that is read, in bytes; an ordinary one has about 2,300.
pub const MAX_ENVELOPE_BYTES: usize = 256 * 1024;

const WHAT: &str = "chunk envelope";

/// One chunk's envelope, texts as they stand in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Always [`CHUNK_SCHEMA`].
    #[serde(alias = "schema_version")]
    pub schema_version: String,
    /// `0x` hash of the linkage text, see [`chunk_id`].
    #[serde(alias = "chunk_id")]
    pub chunk_id: String,
    /// `chunkId` of the chunk before; none on the first.
    #[serde(alias = "previous_chunk_id")]
    pub previous_chunk_id: Option<String>,
    /// Position in the chain, from 0.
    pub index: u64,
    /// `0x` SHA-256 of the ciphertext.
    #[serde(alias = "encrypted_data_hash")]
    pub encrypted_data_hash: String,
    /// `0x` SHA-256 of the plaintext. Unsalted: it lets anyone test guesses, so it is only in files for peaq's tools.
    #[serde(alias = "plaintext_hash")]
    pub plaintext_hash: String,
    /// Where the ciphertext lies, if it lies somewhere.
    #[serde(alias = "storage_ref")]
    pub storage_ref: Option<String>,
    /// How it is encrypted and for whom.
    pub encryption: Encryption,
    /// Signature over the text of `encrypted_data_hash`.
    pub signature: Signature,
}

/// `encryption` of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// [`CHUNK_CIPHER`].
    pub algorithm: String,
    /// 24 bytes as hex.
    pub nonce: String,
    /// `sha256:` hash of the chunk key.
    #[serde(alias = "key_commitment")]
    pub key_commitment: String,
    /// The chunk key, sealed for owner, operator and machine in this order.
    #[serde(alias = "key_recipients")]
    pub key_recipients: Vec<RecipientEntry>,
}

/// The chunk key sealed for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecipientEntry {
    /// Any text that is not blank.
    #[serde(alias = "recipient_id")]
    pub recipient_id: String,
    /// A [`Role`] as text.
    #[serde(alias = "recipient_type")]
    pub recipient_type: String,
    /// [`KEY_WRAPPING`].
    pub algorithm: String,
    /// The recipient's X25519 key in the spelling its owner gave.
    #[serde(alias = "public_key_hex")]
    pub public_key_hex: String,
    /// The sealed box as hex.
    #[serde(alias = "wrapped_key_hex")]
    pub wrapped_key_hex: String,
}

impl RecipientEntry {
    /// Whether it says that it is sealed to this key, in any spelling.
    #[must_use]
    pub fn is_for(&self, public_key: &[u8; 32]) -> bool {
        hexes::decode(&self.public_key_hex, "public_key_hex").is_ok_and(|key| key == public_key)
    }
}

/// `signature` of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// [`SIGNATURE`].
    pub algorithm: String,
    /// The machine that claims to have signed. Not covered by the signature.
    #[serde(alias = "machine_did")]
    pub machine_did: String,
    /// Name of the key in the machine's DID document. Not covered by the signature.
    #[serde(alias = "key_id")]
    pub key_id: String,
    /// Ed25519 key, 64 hex digits.
    #[serde(alias = "public_key_hex")]
    pub public_key_hex: String,
    /// Ed25519 signature, 128 hex digits.
    pub value: String,
}

/// What is known of a chunk that is sealed already, wherever it was sealed.
#[derive(Debug, Clone, Copy)]
pub struct SealedParts<'a> {
    /// Position in the chain, from 0.
    pub index: u64,
    /// `chunkId` text of the chunk before; none for index 0.
    pub previous_chunk_id: Option<&'a str>,
    /// SHA-256 of the ciphertext.
    pub encrypted_data_hash: [u8; 32],
    /// SHA-256 of the plaintext.
    pub plaintext_hash: [u8; 32],
    /// XChaCha20 nonce.
    pub nonce: [u8; 24],
    /// Ed25519 signature over the text of `encrypted_data_hash`.
    pub signature: [u8; 64],
    /// Where the ciphertext lies, if it lies somewhere.
    pub storage_ref: Option<&'a str>,
}

impl Envelope {
    /// The envelope of a sealed chunk, with its key sealed for `recipients` (32 bytes of `rng` for each, in order).
    ///
    /// # Errors
    /// None that the constructors of `recipients` and `signer` have not ruled out.
    pub fn from_parts(
        parts: SealedParts<'_>,
        key: &[u8; 32],
        recipients: &Recipients,
        signer: &SignerInfo,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, StreamError> {
        let encrypted_data_hash = hexes::hash_text(&parts.encrypted_data_hash);
        Ok(Self {
            schema_version: CHUNK_SCHEMA.to_owned(),
            chunk_id: chunk_id(parts.previous_chunk_id, &encrypted_data_hash, parts.index),
            previous_chunk_id: parts.previous_chunk_id.map(str::to_owned),
            index: parts.index,
            encrypted_data_hash,
            plaintext_hash: hexes::hash_text(&parts.plaintext_hash),
            storage_ref: parts.storage_ref.map(str::to_owned),
            encryption: Encryption {
                algorithm: CHUNK_CIPHER.to_owned(),
                nonce: hex::encode(parts.nonce),
                key_commitment: hexes::key_commitment(key),
                key_recipients: recipients.wrap(key, rng)?,
            },
            signature: Signature {
                algorithm: SIGNATURE.to_owned(),
                machine_did: signer.machine_did.clone(),
                key_id: signer.key_id.clone(),
                public_key_hex: signer.public_key.to_string(),
                value: hex::encode(parts.signature),
            },
        })
    }

    /// The envelope of a chunk of a feed, for peaq's tools. `plaintext_sha256` comes from sealing the chunk or from
    /// [`seal::verify_plaintext`]; it and the key are compared with what the record commits to.
    ///
    /// # Errors
    /// [`StreamError::Commitment`] for another chunk's key, [`StreamError::PlaintextHash`] for another plaintext.
    pub fn from_record(
        record: &ChunkRecord,
        key: &ChunkKey,
        plaintext_sha256: &[u8; 32],
        recipients: &Recipients,
        signer: &SignerInfo,
        storage_ref: Option<&str>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, StreamError> {
        if key.commitment() != record.key_commitment {
            return Err(StreamError::Commitment);
        }
        if seal::plaintext_commitment(key, plaintext_sha256) != record.plaintext_commitment {
            return Err(StreamError::PlaintextHash);
        }
        let previous = record.previous_chunk_id.as_ref().map(hexes::hash_text);
        let parts = SealedParts {
            index: record.index.into(),
            previous_chunk_id: previous.as_deref(),
            encrypted_data_hash: record.sha256,
            plaintext_hash: *plaintext_sha256,
            nonce: record.nonce,
            signature: record.v1_signature,
            storage_ref,
        };
        Self::from_parts(parts, key.as_bytes(), recipients, signer, rng)
    }

    /// Reads an envelope from JSON text.
    ///
    /// # Errors
    /// Longer than [`MAX_ENVELOPE_BYTES`], not such a JSON object, or another schema.
    pub fn parse(text: &[u8]) -> Result<Self, ReadError> {
        ReadError::check_length(WHAT, text, MAX_ENVELOPE_BYTES)?;
        let envelope: Self = serde_json::from_slice(text).map_err(|source| ReadError::Json { what: WHAT, source })?;
        ReadError::check_schema(WHAT, &envelope.schema_version, CHUNK_SCHEMA)?;
        Ok(envelope)
    }

    /// The text of `chunk-<i>.json`: two spaces of indentation, ASCII, trailing newline.
    #[must_use]
    pub fn to_file_text(&self) -> Vec<u8> {
        ascii_json::indented(self)
    }

    /// The same without white space and newline. Frames sort its keys, see [`super::frame`].
    #[must_use]
    pub fn to_compact_text(&self) -> Vec<u8> {
        ascii_json::compact(self)
    }

    /// The first recipient entry that is sealed to this key.
    #[must_use]
    pub fn recipient_with_key(&self, public_key: &[u8; 32]) -> Option<&RecipientEntry> {
        self.encryption.key_recipients.iter().find(|entry| entry.is_for(public_key))
    }

    /// The first recipient entry of this role.
    #[must_use]
    pub fn recipient(&self, role: Role) -> Option<&RecipientEntry> {
        self.encryption.key_recipients.iter().find(|entry| entry.recipient_type == role.as_str())
    }
}

/// Puts envelopes, read in any order, in the order of their indices, which must be 0, 1, 2 and so on.
///
/// # Errors
/// [`ReadError::DuplicateIndex`] or [`ReadError::MissingIndex`] for the first index that is wrong.
pub fn in_order(mut envelopes: Vec<Envelope>) -> Result<Vec<Envelope>, ReadError> {
    envelopes.sort_by_key(|envelope| envelope.index);
    for (expected, envelope) in (0u64..).zip(&envelopes) {
        match envelope.index {
            index if index < expected => return Err(ReadError::DuplicateIndex { index }),
            index if index > expected => return Err(ReadError::MissingIndex { index: expected }),
            _ => {}
        }
    }
    Ok(envelopes)
}

#[cfg(test)]
mod tests;
